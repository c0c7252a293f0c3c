//! Audio tagging in pure Rust: waveform in, AudioSet tags and embeddings out.
//!
//! ```
//! use clipwise::{Tagger, Waveform};
//!
//! # #[cfg(feature = "bundled")]
//! # fn main() -> clipwise::Result<()> {
//! let device = clipwise::device::best()?; // CUDA if built in and present, else the CPU
//! let tagger = Tagger::bundled(&device)?; // or Tagger::open("Cnn14_mAP=0.431.pth", &device)?
//! let clip = Waveform::open("examples/audio/telephone.wav")?; // any sample rate, any channels
//! let tagging = tagger.tag(&clip)?;
//! for tag in tagging.top_k(5) {
//!     println!("{:5.3}  {}", tag.score, tag.label);
//! }
//! assert_eq!(tagging.top_k(1)[0].label, "Speech");
//! assert!(tagging.score("Telephone") > Some(0.2));
//! let embedding: &[f32] = tagging.embedding(); // for similarity and classifiers of your own
//! assert_eq!(embedding.len(), 192);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "bundled"))]
//! # fn main() {}
//! ```
//!
//! In your `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! clipwise = "0.1"
//!
//! [profile.dev.package."*"] # optimise dependencies in debug builds too
//! opt-level = 3
//! ```
//!
//! Without the profile, a debug build tags about 50 times more slowly. Cargo reads profiles only at the top of a workspace, so
//! the crate cannot set it for you.
//!
//! # Overview
//! - [`Tagger`]: a model with its labels and resampling. [`Tagging`]: its result as plain data.
//! - [`windows`]: long recordings, window by window. [`TaggerStream`]: live audio, with the same results. [`events`]: sounds
//!   with onset and offset, from scores over time.
//! - [`models`]: the models themselves, from batches of clips to tensors ([`TaggingOutput`]). [`models::detect`] recognises
//!   the model of a checkpoint.
//! - [`Weights`]: published checkpoints, as safetensors or `.pth` (including the format before PyTorch 1.6). Pickled code is
//!   never executed.
//! - [`fusion`]: several models on the same audio, combined into one result.
//! - [`frontend`]: STFT, log-mel, MFCC, Kaldi fbank and deltas on plain slices. [`audio`]: [`Waveform`], audio files,
//!   resampling.
//! - [`encoders`]: speech encoders, which give hidden states. [`ctc`]: phoneme and character recognition on top of them.
//! - [`augment`]: SpecAugment, mixup, noise and shifts, for training.
//! - [`metrics`]: average precision and mAP, ROC AUC, d′, accuracy, precision, recall, F1, top-k accuracy and confusion
//!   matrices, defined as in scikit-learn.
//! - [`LabelSet`]: AudioSet's 527 classes with their ontology, and label files. [`device`]: CPU, CUDA, threads.
//!
//! # Guarantees
//! - Results match PyTorch: on the CPU in f32, `clipwise_output` within 1e-5 and `embedding` within 1e-4 of its largest value.
//! - A row of a batch equals the result for the clip alone, whatever else is in the batch.
//! - Results do not depend on the number of threads. All CPU work runs on the current rayon pool ([`device::Threads`]).
//! - No input causes a panic. Invalid input is a typed [`Error`] that states the value and what was expected.
//!
//! # Features
//! - `bundled` (default): the trained tagger [`Tagger::bundled`]. It adds 5.6 MB to binaries that call it, and nothing to others.
//! - `bundled-small`: the smaller and faster [`Tagger::bundled_small`]. It adds 1.2 MB in the same way.
//! - `symphonia`: reads Ogg, FLAC, MP3, MPEG-4, Matroska, AIFF and CAF files in addition to WAV. Pure Rust; the decoder is
//!   licensed under the MPL 2.0.
//! - `opus`: `symphonia`, and Opus. Pure Rust.
//! - `cli`: the program `clipwise` (`cargo install clipwise --features cli`); does not change the library.
//! - `microphone`: microphone input for `clipwise live`; does not change the library.
//! - `cuda`: runs models on NVIDIA GPUs; needs the CUDA toolkit at build time.
//! - `cudnn`: `cuda`, with convolutions by cuDNN.
//!
//! Types of `candle_core`, `candle_nn`, `ndarray` and `num_complex` are part of the public API; these crates are re-exported.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Without the features, their links have no target.
#![cfg_attr(not(all(feature = "bundled", feature = "bundled-small")), allow(rustdoc::broken_intra_doc_links))]

pub mod tagger; // first, so that the page of `Tagger` begins with its constructors

pub mod assumption;
pub mod audio;
pub mod augment;
mod batch;
mod check;
pub mod ctc;
pub mod device;
pub mod encoders;
pub mod error;
pub mod events;
mod files;
pub mod frontend;
pub mod fusion;
pub mod labels;
pub mod metrics;
pub mod models;
mod names;
pub mod nn;
pub mod output;
mod random;
pub mod stream;
mod tensor;
pub mod weights;
pub mod windows;

#[doc(inline)]
pub use crate::{
    assumption::Assumption,
    audio::{Waveform, WaveformBatch},
    device::Device,
    error::{Error, Result},
    events::{Event, EventConfig, EventDetector},
    labels::{Label, LabelSet},
    models::{Detail, ModelConfig, ModelInfo, TaggingModel},
    output::{Embedding, OutputActivation, Tag, Tagging, TaggingOutput},
    stream::TaggerStream,
    tagger::{OpenOptions, Tagger},
    weights::{Precision, Weights},
    windows::{Aggregation, WindowConfig, WindowTagging, Windows},
};

pub use candle_core;
pub use candle_nn;
pub use ndarray;
pub use rustfft::num_complex;

/// Compiles the code blocks of the README.
#[cfg(all(doctest, feature = "bundled"))]
#[doc = include_str!("../README.md")]
struct Readme;
