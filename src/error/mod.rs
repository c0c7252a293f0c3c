//! The crate's one error type, and the reports that it carries.

mod audio;
mod load;

use std::path::PathBuf;

pub use audio::{AudioReason, MAX_CHANNELS, MAX_SAMPLE_RATE};
pub use load::{LoadReport, MissingTensor, WrongShape};

/// What can go wrong, with what, and what would have been right.
///
/// The message of an I/O or tensor error ends with its cause, so that printing the error with `{}` says why. The cause is
/// the field `cause`; [`source`](std::error::Error::source) does not repeat it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not open, read or write a file.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried: `"read"`, `"write"`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        cause: std::io::Error,
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
    /// An argument that a function cannot take.
    #[error("{name} = {value}: {reason}")]
    Argument {
        /// The argument's name.
        name: &'static str,
        /// Its value as given, or what is wrong in it.
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
    #[error("{context} failed: {cause}")]
    Tensor {
        /// What was being computed.
        context: &'static str,
        /// The tensor library's reason.
        cause: candle_core::Error,
    },
    /// An error of a model that is not of this crate: see [`Error::other`].
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// Tensors of a checkpoint do not fit the model: everything that differs, at once.
    #[error("{0}")]
    Weights(Box<LoadReport>),
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was being computed, where nobody has said yet.
const UNNAMED: &str = "a tensor operation";

/// Names what was being computed when the tensor library refused. An error that has a name keeps it.
pub(crate) trait Context<T> {
    fn context(self, context: &'static str) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, context: &'static str) -> Result<T> {
        self.map_err(|error| match error.into() {
            Error::Tensor { context: UNNAMED, cause } => Error::Tensor { context, cause },
            error => error,
        })
    }
}

impl From<candle_core::Error> for Error {
    fn from(cause: candle_core::Error) -> Self {
        Self::Tensor { context: UNNAMED, cause }
    }
}

impl Error {
    /// Wraps the error of a [`TaggingModel`](crate::TaggingModel) or [`SpeechEncoder`](crate::encoders::SpeechEncoder) that
    /// is implemented outside this crate. Takes an error or a message.
    ///
    /// ```
    /// let error = clipwise::Error::other("the accelerator is in use");
    /// assert_eq!(error.to_string(), "the accelerator is in use");
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    pub(crate) fn argument(name: &'static str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Argument { name, value: value.to_string(), reason: reason.into() }
    }

    pub(crate) fn config(field: &'static str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Config { field, value: value.to_string(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_with_its_cause_which_is_not_repeated() {
        let error = crate::Waveform::open("no such folder/missing.wav").unwrap_err();
        let cause = std::fs::File::open("no such folder/missing.wav").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open no such folder/missing.wav: {cause}"));
        assert!(std::error::Error::source(&error).is_none());

        let cause = candle_core::Error::Msg("out of memory".into());
        let failed: Result<()> = Err(cause).context("the embedding");
        assert_eq!(failed.unwrap_err().to_string(), "the embedding failed: out of memory");
    }

    #[test]
    fn errors_of_other_models_keep_their_type() {
        let error = Error::other(std::fmt::Error);
        let Error::Other(inner) = &error else { panic!("{error:?}") };
        assert!(inner.is::<std::fmt::Error>());
    }
}
