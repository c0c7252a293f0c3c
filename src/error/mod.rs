//! The crate's one error type, and the reports that it carries.

mod audio;
mod load;

use std::path::PathBuf;

pub use audio::{AudioReason, MAX_CHANNELS, MAX_SAMPLE_RATE};
pub use load::{LoadReport, MissingTensor, WrongShape};

/// What can go wrong, with what, and what would have been right.
///
/// The cause of an I/O or tensor error is in [`source`](std::error::Error::source) and not repeated in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not open, read or write a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `"read"`, `"write"`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file is not usable as audio.
    #[error("{}: {reason}", path.display())]
    Audio {
        /// The file; `<stream>` where a reader was given.
        path: PathBuf,
        /// Why.
        reason: AudioReason,
    },
    /// A setting that cannot work.
    #[error("{field} = {value}: {reason}")]
    Config {
        /// The setting's name.
        field: &'static str,
        /// Its value as given.
        value: String,
        /// What would have been right.
        reason: String,
    },
    /// A file is not a checkpoint that can be read, or is damaged.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file; `<bytes>` where bytes were given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A label file is not usable.
    #[error("{}: {reason}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A label set does not fit the head of a model.
    #[error("the model has {n_classes} classes, the label set {n_labels}")]
    LabelCount {
        /// Outputs of the model.
        n_classes: usize,
        /// Labels given.
        n_labels: usize,
    },
    /// A model got audio at another rate than its own.
    #[error("the audio is at {got} Hz, the model wants {expected} Hz: resample it first")]
    SampleRate {
        /// The model's rate in Hz.
        expected: u32,
        /// The rate of what was given.
        got: u32,
    },
    /// A clip holds too few samples, or none.
    #[error("the clip has {got} samples, at least {needed} are needed")]
    TooShort {
        /// The fewest that work.
        needed: usize,
        /// The samples given.
        got: usize,
    },
    /// Token scores of a clip have too few frames for what is asked of them.
    #[error("the clip has {got} frames, at least {needed} are needed")]
    TooFewFrames {
        /// The fewest that work.
        needed: usize,
        /// The frames given.
        got: usize,
    },
    /// A sample is NaN or infinite.
    #[error("sample {index} of the clip is {value}: only finite samples can be used")]
    NonFinite {
        /// Its place, from 0.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// A device that is not there.
    #[error("device {device}: {reason}")]
    Device {
        /// The name that was asked for.
        device: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// No model of this crate has this name, or none fits a checkpoint.
    #[error("{0}")]
    UnknownModel(String),
    /// A checkpoint carries another front end than the model that it was to be loaded into.
    #[error("{}: `{tensor}`: {reason}{}", path.display(), fitting.map(|name| format!("; the preset that fits is {name}")).unwrap_or_default())]
    FrontEnd {
        /// The checkpoint; `<bytes>` where there is no file.
        path: PathBuf,
        /// The tensor that differs.
        tensor: String,
        /// How it differs.
        reason: String,
        /// The model whose front end it is, if it has a name.
        fitting: Option<&'static str>,
    },
    /// A tensor operation failed: on a device for want of memory, or by a bug of this crate.
    #[error("{context} failed")]
    Tensor {
        /// What was being computed.
        context: &'static str,
        /// The tensor library's reason.
        source: candle_core::Error,
    },
    /// Tensors of a checkpoint do not fit the model: everything that differs, at once.
    #[error("{0}")]
    Weights(Box<LoadReport>),
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names what was being computed when the tensor library refused.
pub(crate) trait Context<T> {
    fn context(self, context: &'static str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, candle_core::Error> {
    fn context(self, context: &'static str) -> Result<T> {
        self.map_err(|source| Error::Tensor { context, source })
    }
}

impl Error {
    pub(crate) fn config(field: &'static str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Config { field, value: value.to_string(), reason: reason.into() }
    }
}
