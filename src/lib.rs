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
//! # From top to bottom
//! - [`Tagger`]: a model with its labels and resampling; [`Tagging`] is its plain-data result.
//! - [`windows`]: long recordings window by window; [`TaggerStream`]: live audio, with the same results; [`events`]: from
//!   scores over time to sounds with onset and offset.
//! - [`models`]: the models by themselves, on batches of clips, with tensors as their result ([`TaggingOutput`]);
//!   [`models::detect`] finds the model of a checkpoint.
//! - [`Weights`]: checkpoints as they are published, safetensors or `.pth`, old format included. Pickled code is never executed.
//! - [`fusion`]: several models about the same audio, one result.
//! - [`frontend`]: STFT, log-mel, MFCC, Kaldi fbank, deltas on plain slices. [`audio`]: [`Waveform`], audio files, resampling.
//! - [`encoders`]: hidden states of speech. [`ctc`]: models of phonemes and letters on top of them.
//! - [`augment`]: SpecAugment, mixup, noise and shifts, for training.
//! - [`metrics`]: average precision and mAP, ROC AUC, d′, accuracy, precision, recall, F1, top-k, confusion, as scikit-learn.
//! - [`LabelSet`]: AudioSet's 527 classes, label files. [`device`]: CPU, CUDA, threads.
//!
//! # Promises
//! - The numbers are PyTorch's: `clipwise_output` within 1e-5, `embedding` within 1e-4 of its largest value, f32 on the CPU.
//! - A row of a batch is what the clip alone gives, whatever else is in the batch.
//! - Results do not depend on the number of threads. All CPU work uses the current rayon pool ([`device::Threads`]).
//! - No panic on any input: what cannot work is a typed [`Error`] with the values and what would have been right.
//!
//! # Features
//! - `bundled`: a trained tagger inside the binary, 5.6 MB: [`Tagger`]`::bundled`.
//! - `bundled-small`: a smaller and faster one, 1.1 MB: [`Tagger`]`::bundled_small`.
//! - `symphonia`: read Ogg, FLAC, MP3, MPEG-4, Matroska, AIFF and CAF files beside WAV. Pure Rust; the decoder is under the
//!   MPL 2.0.
//! - `opus`: as `symphonia`, with Opus. Pure Rust.
//! - `microphone`: the microphone in the example `live`; the library itself does not change.
//! - `cuda`: run models on NVIDIA GPUs; needs the CUDA toolkit at build time.
//! - `cudnn`: as `cuda`, with convolutions by cuDNN.
//!
//! Types of `candle_core`, `candle_nn`, `ndarray` and `rustfft` are part of the public interface; they are re-exported.

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

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
