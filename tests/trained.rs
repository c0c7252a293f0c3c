//! The models in `weights` trained by this crate's examples: they open, have labels, and reach their accuracy.

mod common;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use clipwise::ctc::{CtcModel, FrameTimes, greedy};
use clipwise::metrics::EditCounts;
use clipwise::models::OutputActivation;
use clipwise::models::m5;
use clipwise::models::probe::{LinearProbe, ProbeHead};
use clipwise::{Detail, Error, LabelSet, Tagger, Waveform, WaveformBatch, Weights};
use common::{assert_close, m5_tensors, real, signal};

const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

fn open(name: &str) -> Tagger {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights").join(name);
    let size = std::fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert!(size <= 2_100_000, "{name}: {size} bytes");
    Tagger::open(folder, &Device::Cpu).unwrap()
}

#[test]
fn spoken_digit_models_open_and_tag() {
    for name in ["m5-spoken-digits", "gru-spoken-digits"] {
        let tagger = open(name);
        assert!(tagger.assumptions().is_empty(), "{name}: {:?}", tagger.assumptions());
        assert_eq!(tagger.labels().iter().map(|label| label.name.as_str()).collect::<Vec<_>>(), DIGITS);
        // Any rate and length.
        for (n, rate) in [(1, 8_000), (30_000, 44_100), (8_000, 8_000)] {
            let tagging = tagger.tag(&Waveform::new(signal(n, rate, 1), rate)).unwrap();
            assert!((tagging.scores.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{name}: {:?}", tagging.scores);
        }
    }
}

#[test]
fn the_environmental_model_opens_and_tags() {
    let tagger = open("cnn14-esc10");
    assert!(tagger.assumptions().is_empty(), "{:?}", tagger.assumptions());
    assert_eq!((tagger.labels().len(), tagger.model().info().sample_rate), (10, 16_000));
    let tagging = tagger.tag(&Waveform::new(signal(50_000, 22_050, 1), 22_050)).unwrap();
    assert!((tagging.scores.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{:?}", tagging.scores);
}

fn phonemes(model: &CtcModel, file: &Path) -> Vec<String> {
    let speech = Waveform::open(file).unwrap().resample(model.sample_rate()).unwrap();
    let output = model.forward(&(&speech).into()).unwrap();
    let vocabulary = model.vocabulary().unwrap();
    let transcript = greedy(output.clip(0).unwrap().view(), vocabulary, output.times[0]).unwrap();
    assert!(transcript.tokens.iter().all(|token| token.offset <= speech.duration()));
    transcript.tokens.into_iter().map(|token| token.name).collect()
}

fn errors(recognised: &[String], spoken: &str) -> EditCounts {
    EditCounts::of(&spoken.split(' ').map(str::to_string).collect::<Vec<_>>(), recognised)
}

#[test]
fn phonemes_end_within_the_clip() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/gru-ctc-phonemes");
    let model = CtcModel::open(folder, &Device::Cpu).unwrap();
    let speech = Waveform::open(common::golden_path("phonemes_flite.wav")).unwrap();
    let speech = speech.resample(model.sample_rate()).unwrap().samples;
    // Cut within words, so that the last frames have phonemes, at lengths that are not whole frames.
    let clips: Vec<Vec<f32>> = (0..60).map(|i| speech[4000..6000 + 263 * i].to_vec()).collect();
    let output = model.forward(&WaveformBatch::new(clips.clone(), 16_000).unwrap()).unwrap();
    let (mut beyond, mut at_the_end) = (0, 0);
    for (clip, samples) in clips.iter().enumerate() {
        let (log_probs, duration) = (output.clip(clip).unwrap(), samples.len() as f64 / 16_000.0);
        let decode = |times: FrameTimes| greedy(log_probs.view(), model.vocabulary().unwrap(), times).unwrap().tokens;
        let tokens = decode(output.times[clip]);
        assert!(tokens.iter().all(|token| token.onset <= token.offset && token.offset <= duration));
        beyond += usize::from(decode(output.frame_seconds.into()).iter().any(|token| token.offset > duration));
        at_the_end += usize::from(tokens.last().is_some_and(|token| token.offset == duration));
    }
    assert!(beyond >= 10 && at_the_end >= beyond, "{beyond} {at_the_end}");
}

#[test]
fn the_phoneme_model_transcribes_synthesised_speech() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/gru-ctc-phonemes");
    assert!(std::fs::metadata(folder.join("model.safetensors")).unwrap().len() <= 5_000_000);
    let model = CtcModel::open(folder, &Device::Cpu).unwrap();
    assert_eq!((model.n_tokens(), model.sample_rate()), (42, 16_000));
    assert_eq!(model.vocabulary().unwrap().blank(), 0);
    let mut counts = EditCounts::default();
    for (file, spoken) in [
        ("phonemes_espeak.wav", "m ʌ s t ɚ z p l æ n ɚ z"),
        ("phonemes_flite.wav", "k l ɔ θ s k l ɪ p t b ə l i v ə b ə l"),
    ] {
        let recognised = phonemes(&model, &common::golden_path(file));
        println!("{file}: {}", recognised.join(" "));
        counts += errors(&recognised, spoken);
    }
    assert!(counts.rate().unwrap() < 0.2, "{counts:?}");

    // Read speech of a person, unlike the training data.
    let Some(speech) = real("audio/jfk.wav") else { return };
    let recognised = phonemes(&model, &speech);
    println!("{}", recognised.join(" "));
    let counts = errors(&recognised, KENNEDY);
    println!("PER {:.3}", counts.rate().unwrap());
    assert!(counts.rate().unwrap() < 0.6, "{counts:?}");
}

/// The text of `jfk.wav` as espeak-ng's voice en-us pronounces it.
const KENNEDY: &str = "æ n d s oʊ m aɪ f ɛ l oʊ ə m ɛ ɹ ɪ k ə n z æ s k n ɑ t w ʌ t j ʊ ɹ k ʌ n t ɹ i k æ n d u f ɔ ɹ j u \
                       æ s k w ʌ t j u k æ n d u f ɔ ɹ j ʊ ɹ k ʌ n t ɹ i";

#[test]
fn the_whisper_phoneme_model_transcribes_a_real_speaker() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/whisper-tiny-en-phonemes");
    assert!(std::fs::metadata(folder.join("model.safetensors")).unwrap().len() <= 1_000_000);
    let error = CtcModel::open(&folder, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("openai/whisper-tiny.en") && error.contains("open_with_encoder"), "{error}");

    let Some(encoder) = real("real/whisper-tiny-en/encoder.safetensors") else { return };
    let model = CtcModel::open_with_encoder(&folder, encoder, &Device::Cpu).unwrap();
    assert_eq!((model.n_tokens(), model.sample_rate(), model.vocabulary().unwrap().blank()), (40, 16_000, 0));
    let recognised = phonemes(&model, &real("audio/jfk.wav").unwrap());
    println!("{}", recognised.join(" "));
    let counts = errors(&recognised, &KENNEDY.replace('ə', "ʌ")); // the model does not distinguish them
    println!("PER {:.3}", counts.rate().unwrap());
    assert!(counts.rate().unwrap() < 0.33, "{counts:?}");
}

/// Fold 5, the test fold of the model's README.
#[cfg(feature = "symphonia")]
#[test]
fn the_environmental_model_reaches_its_accuracy() {
    let Some(folder) = real("audio/esc10") else { return };
    let tagger = open("cnn14-esc10");
    let (mut right, mut all) = (0, 0);
    for label in tagger.labels().iter() {
        let files = std::fs::read_dir(folder.join(label.name.replace(' ', "-"))).unwrap();
        for file in files.map(|file| file.unwrap().path()) {
            if file.file_name().unwrap().to_string_lossy().starts_with("5-") {
                right +=
                    usize::from(tagger.tag(&Waveform::open(file).unwrap()).unwrap().top_k(1)[0].label == label.name);
                all += 1;
            }
        }
    }
    assert!(all == 80 && right >= 60, "{right} of {all}");
}

/// The recordings of the test split of the models' READMEs.
#[test]
fn spoken_digit_models_reach_their_accuracy() {
    let Some(folder) = real("audio/spoken-digits") else { return };
    for name in ["m5-spoken-digits", "gru-spoken-digits"] {
        let tagger = open(name);
        let (mut right, mut all) = (0, 0);
        for (digit, label) in DIGITS.iter().enumerate() {
            for speaker in ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"] {
                for n in [0, 3] {
                    let clip = Waveform::open(folder.join(format!("{digit}_{speaker}_{n}.wav"))).unwrap();
                    right += usize::from(tagger.tag(&clip).unwrap().top_k(1)[0].label == *label);
                    all += 1;
                }
            }
        }
        assert!(right * 100 >= all * 93, "{name}: {right} of {all}");
    }
}

#[test]
fn a_linear_probe_learns_and_is_loaded_on_its_base() {
    let config = m5::Config { n_classes: 4, ..m5::Config::M5 };
    let base = || m5::M5::load(&config, &m5_tensors(&config, 3).weights(), &Device::Cpu).unwrap();
    // Three kinds of clips: soft, loud, and with a click at different positions.
    let clip = |i: usize| {
        let mut clip = signal(7_000 + 100 * (i % 4), 8_000, i as u64);
        clip.iter_mut().for_each(|x| *x *= [0.1, 1.0, 0.4][i % 3]);
        clip
    };
    let batch = WaveformBatch::new((0..12).map(clip).collect(), 8_000).unwrap();
    let embeddings = clipwise::TaggingModel::forward(&base(), &batch, Detail::Clip).unwrap().embedding;
    let classes = Tensor::from_iter((0..12u32).map(|i| i % 3), &Device::Cpu).unwrap();
    let head = ProbeHead::new(&embeddings, 3, 1).unwrap();
    let params = candle_nn::ParamsAdamW { lr: 0.05, ..Default::default() };
    let mut optimiser = <candle_nn::AdamW as candle_nn::Optimizer>::new(head.parameters().vars(), params).unwrap();
    for _ in 0..50 {
        let loss = candle_nn::loss::cross_entropy(&head.forward(&embeddings).unwrap(), &classes).unwrap();
        candle_nn::Optimizer::backward_step(&mut optimiser, &loss).unwrap();
    }
    let path = std::env::temp_dir().join(format!("clipwise-probe-{}.safetensors", std::process::id()));
    head.save(&path).unwrap();
    let weights = Weights::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let tagger = Tagger::new(
        LinearProbe::load(base(), &weights, OutputActivation::Softmax).unwrap(),
        LabelSet::from_iter(["soft", "loud", "middle"]),
    )
    .unwrap();
    let logits = head.forward(&embeddings).unwrap().to_vec2::<f32>().unwrap();
    for (i, expected) in logits.iter().enumerate() {
        let tagging = tagger.tag(&Waveform::new(clip(i), 8_000)).unwrap();
        // The normalisation is folded into the weights; the difference is the rounding of 64 products.
        assert_close("logits", &tagging.logits, expected, 1e-3, 1e-3);
        assert_eq!(tagging.top_k(1)[0].label, ["soft", "loud", "middle"][i % 3]);
    }
    // A head of the wrong width, and embeddings of no clips.
    let stages = vec![m5::Stage { channels: 8, layers: 1 }].into();
    let narrow = m5::Config { stages, channels: 8, ..config.clone() };
    let other = m5::M5::load(&narrow, &m5_tensors(&narrow, 3).weights(), &Device::Cpu).unwrap();
    assert!(matches!(LinearProbe::load(other, &weights, OutputActivation::Softmax), Err(Error::Weights(_))));
    let none = Tensor::zeros((0, 64), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(matches!(ProbeHead::new(&none, 3, 1), Err(Error::Argument { name: "n_clips", .. })));
}
