//! A classifier of your own sounds on the embeddings of the built-in tagger:
//! `cargo run --release --example own_classes -- FOLDER FILE…`, where FOLDER has one folder of audio files per class.
//!
//! The program `clipwise probe` does more: cross-validation, any tagger, several files at once.

use std::path::{Path, PathBuf};

use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss};
use clipwise::candle_core::Tensor;
use clipwise::models::OutputActivation;
use clipwise::models::probe::ProbeHead;
use clipwise::{LabelSet, Tagger, Waveform};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, files @ ..] = args.as_slice() else { return Err("usage: own_classes FOLDER FILE…".into()) };
    let device = clipwise::device::cpu();
    let tagger = Tagger::bundled(&device)?;

    let (mut embeddings, mut classes, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for class in entries(Path::new(folder))?.iter().filter(|path| path.is_dir()) {
        for file in entries(class)? {
            embeddings.push(tagger.tag(&Waveform::open(file)?)?.embedding.0);
            classes.push(names.len() as u32);
        }
        names.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    let embeddings = Tensor::new(embeddings, &device)?; // [n_files, embedding_dim]
    let classes = Tensor::new(classes, &device)?;

    let head = ProbeHead::new(&embeddings, names.len(), 1)?;
    let params = ParamsAdamW { lr: 5e-3, weight_decay: 0.1, ..Default::default() };
    let mut optimiser = AdamW::new(head.parameters().vars(), params)?;
    for _ in 0..200 {
        optimiser.backward_step(&loss::cross_entropy(&head.forward(&embeddings)?, &classes)?)?;
    }

    // The layer and the tagger below it, as one tagger, which `save` would write to a folder.
    let labels: LabelSet = names.iter().map(String::as_str).collect();
    let tagger = tagger.with_probe(&head, OutputActivation::Softmax, labels)?;
    for file in files {
        let tag = tagger.tag(&Waveform::open(file)?)?.top_k(1).remove(0);
        println!("{:.3}  {:<20}  {file}", tag.score, tag.label);
    }
    Ok(())
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
