//! Text files, and folders with a model.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clipwise::ctc::{CtcConfig, CtcModel, LanguageModel, Vocabulary};
use clipwise::encoders::EncoderConfig;
use clipwise::events::EventConfig;
use clipwise::models::ModelConfig;
use clipwise::{LabelSet, Tagger, Waveform, WindowConfig, device, events::EventDetector};

/// A folder that is gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("clipwise-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder can be made");
        Self(path)
    }

    fn write(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, data).expect("a temporary file can be written");
        path
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A text file, read as each of those that the crate knows: ARPA language model, vocabulary, labels, configuration.
pub fn text(data: &[u8]) {
    if let Ok(model) = LanguageModel::read(data) {
        let (score, _) = model.score(&model.start(), "a");
        assert!(!score.is_nan());
        assert!(!model.score_sentence(["a", "b", "a"]).is_nan());
    }
    let folder = Folder::new();
    for name in ["file.txt", "file.json", "file.csv"] {
        let path = folder.write(name, data);
        let vocabularies = [Vocabulary::open(&path), Vocabulary::open_s3prl(&path)];
        for vocabulary in vocabularies.into_iter().flatten() {
            let written = folder.write("written.json", vocabulary.to_json().as_bytes());
            let read = Vocabulary::open(&written).expect("a vocabulary that was written is read");
            assert_eq!(read.tokens(), vocabulary.tokens());
            let ids: Vec<usize> = (0..vocabulary.len().min(100)).collect();
            let _ = (vocabulary.text(&ids), vocabulary.words(&ids), vocabulary.encode_lossy("a b"));
        }
        if let Ok(labels) = LabelSet::open(&path) {
            let _ = labels.iter().map(|label| labels.index_of(&label.name)).all(|index| index.is_some());
        }
    }
    configurations(data);
}

fn configurations(data: &[u8]) {
    let nothing = clipwise::Weights::from_tensors([]).expect("no tensors are a checkpoint");
    if let Ok(config) = serde_json::from_slice::<ModelConfig>(data) {
        assert!(config.load(&nothing, &device::cpu()).is_err(), "{config:?}");
    }
    if let Ok(config) = serde_json::from_slice::<CtcConfig>(data) {
        assert!(CtcModel::load(&config, &nothing, &device::cpu()).is_err(), "{config:?}");
    }
    if let Ok(config) = serde_json::from_slice::<EncoderConfig>(data) {
        assert!(config.build(&nothing.loader(&device::cpu())).is_err(), "{config:?}");
    }
    if let Ok(config) = serde_json::from_slice::<EventConfig>(data) {
        let _ = EventDetector::new(&config, &LabelSet::numbered(3));
    }
    let _ = serde_json::from_slice::<WindowConfig>(data);
}

/// The files that a folder may have, by the number that stands for each.
const NAMES: [&str; 8] = [
    "model.safetensors",
    "config.json",
    "labels.csv",
    "labels.json",
    "labels.txt",
    "vocab.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
];

/// A folder with a model. The input is a sequence of files: the number of the name (1 byte), the length (4 bytes,
/// little-endian), the content. What can be opened hears a tenth of a second.
pub fn folder(mut data: &[u8]) {
    let folder = Folder::new();
    while let [name, a, b, c, d, rest @ ..] = data {
        let length = (u32::from_le_bytes([*a, *b, *c, *d]) as usize).min(rest.len());
        folder.write(NAMES[usize::from(*name) % NAMES.len()], &rest[..length]);
        data = &rest[length..];
    }
    if let Ok(tagger) = Tagger::open(folder.path(), &device::cpu()) {
        let clip = Waveform::new(vec![0.1; 1600], 16_000);
        if let Ok(tagging) = tagger.tag(&clip) {
            assert_eq!(tagging.scores.len(), tagger.labels().len());
        }
    }
    if let Ok(model) = CtcModel::open(folder.path(), &device::cpu()) {
        let clip = vec![0.1; (model.sample_rate() as usize / 10).min(1 << 16)];
        let batch = clipwise::WaveformBatch::new(vec![clip], model.sample_rate()).expect("a clip of a valid rate");
        let _ = model.forward(&batch);
    }
}
