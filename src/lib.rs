//! Audio tagging in pure Rust: waveform in, AudioSet tags and embeddings out.
//!
//! ```no_run
//! use clipwise::{Tagger, Waveform};
//!
//! # fn main() -> clipwise::Result<()> {
//! let device = clipwise::device::best()?; // CUDA if built in and present, else the CPU
//! let tagger = Tagger::open("Cnn14_mAP=0.431.pth", &device)?; // the model is recognised from its tensors
//! let tagging = tagger.tag(&Waveform::open("dog.wav")?)?; // any sample rate, any number of channels
//! for tag in tagging.top_k(5) {
//!     println!("{:5.3}  {}", tag.score, tag.label);
//! }
//! let embedding: &[f32] = tagging.embedding();
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//! - [`Tagger`]: a model with its labels and resampling. [`Tagging`]: its result as plain data.
//! - [`windows`]: long recordings, window by window. [`TaggerStream`]: live audio, with the same results. [`events`]:
//!   sounds with onset and offset, from scores over time.
//! - [`models`]: the models themselves, from batches of clips to tensors ([`TaggingOutput`]). [`models::detect`]
//!   recognises the model of a checkpoint.
//! - [`Weights`]: published checkpoints, as safetensors or `.pth` (including the format before PyTorch 1.6). Pickled
//!   code is never executed.
//! - [`fusion`]: several models on the same audio, combined into one result.
//! - [`frontend`]: STFT, log-mel, MFCC, Kaldi fbank and deltas on plain slices. [`audio`]: [`Waveform`], audio files,
//!   resampling.
//! - [`encoders`]: speech encoders, which give hidden states. [`ctc`]: phoneme and character recognition on top of
//!   them.
//! - [`augment`]: SpecAugment, mixup, noise and shifts, for training.
//! - [`metrics`]: average precision and mAP, ROC AUC, d′, accuracy, precision, recall, F1, top-k accuracy and confusion
//!   matrices, defined as in scikit-learn.
//! - [`LabelSet`]: AudioSet's 527 classes, and label files. [`device`]: CPU, CUDA, threads.
//!
//! # Guarantees
//! - Results match PyTorch: on the CPU in f32, `clipwise_output` within 1e-5 and `embedding` within 1e-4 of its largest
//!   value.
//! - A row of a batch equals the result for the clip alone, whatever else is in the batch.
//! - Results do not depend on the number of threads. All CPU work runs on the current rayon pool ([`device::Threads`]).
//! - No input causes a panic. Invalid input is a typed [`Error`] that states the value and what was expected.
//!
//! # Features
//! - `bundled`: a trained tagger inside the library, 5.6 MB: [`Tagger`]`::bundled`.
//! - `bundled-small`: a smaller and faster tagger, 1.1 MB: [`Tagger`]`::bundled_small`.
//! - `symphonia`: reads Ogg, FLAC, MP3, MPEG-4, Matroska, AIFF and CAF files in addition to WAV. Pure Rust; the decoder
//!   is licensed under the MPL 2.0.
//! - `opus`: `symphonia`, and Opus. Pure Rust.
//! - `microphone`: microphone input for the example `live`; does not change the library.
//! - `cuda`: runs models on NVIDIA GPUs; needs the CUDA toolkit at build time.
//! - `cudnn`: `cuda`, with convolutions by cuDNN.
//!
//! Types of `candle_core`, `candle_nn`, `ndarray` and `rustfft` are part of the public API; these crates are
//! re-exported.

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
pub mod tagger;
mod tensor;
pub mod weights;
pub mod windows;

pub use assumption::Assumption;
pub use audio::{Waveform, WaveformBatch};
pub use device::Device;
pub use error::{Error, Result};
pub use events::{Event, EventConfig, EventDetector};
pub use labels::{Label, LabelSet};
pub use models::{Detail, ModelConfig, ModelInfo, TaggingModel};
pub use output::{Embedding, OutputActivation, Tag, Tagging, TaggingOutput};
pub use stream::TaggerStream;
pub use tagger::{OpenOptions, Tagger};
pub use weights::Weights;
pub use windows::{Aggregation, WindowConfig, WindowTagging, Windows};

pub use candle_core;
pub use candle_nn;
pub use ndarray;
pub use rustfft::num_complex;

/// Compiles the code blocks of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
