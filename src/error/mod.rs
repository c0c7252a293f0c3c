//! The error type of the crate and the reports that it carries.

mod audio;
mod load;

use std::path::PathBuf;

pub use audio::{AudioReason, MAX_CHANNELS, MAX_SAMPLE_RATE};
pub use load::{LoadReport, MissingTensor, WrongShape};

/// The error type of the crate. Messages name the setting, file or argument, give its value, and say what was expected.
///
/// The message of an I/O or tensor error ends with its cause, so that `{}` prints the whole reason. The cause is also
/// in the field `cause`; [`source`](std::error::Error::source) returns `None`, so that reports of error chains do not
/// repeat it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not open, read or write a file.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was attempted, such as `"read"` or `"write"`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        cause: std::io::Error,
    },
    /// A file cannot be used as audio.
    #[error("{}: {reason}", path.display())]
    Audio {
        /// The file; `<stream>` where a reader was given.
        path: PathBuf,
        /// Why.
        reason: AudioReason,
    },
    /// A setting of a configuration is invalid.
    #[error("{field} = {value}: {reason}")]
    Config {
        /// The setting's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// An argument of a function is invalid.
    #[error("{name} = {value}: {reason}")]
    Argument {
        /// The argument's name.
        name: &'static str,
        /// Its value, or what is wrong with it.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// A file is no checkpoint of a supported format, or it is damaged.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file; `<bytes>` where bytes were given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A label file cannot be used.
    #[error("{}: {reason}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The number of labels differs from the number of classes of the model.
    #[error("expected {n_classes} labels, one per class of the model, got {n_labels}")]
    LabelCount {
        /// Classes of the model.
        n_classes: usize,
        /// Labels given.
        n_labels: usize,
    },
    /// The sample rate of the audio is not that of the model.
    #[error("expected audio at {expected} Hz, the model's sample rate, got {got} Hz: resample it first")]
    SampleRate {
        /// The model's sample rate, in Hz.
        expected: u32,
        /// The sample rate of the audio, in Hz.
        got: u32,
    },
    /// A clip is empty or shorter than the operation needs.
    #[error("expected a clip of at least {needed} samples, got {got}")]
    TooShort {
        /// The minimum number of samples.
        needed: usize,
        /// The number of samples in the clip.
        got: usize,
    },
    /// The token scores of a clip have fewer frames than the operation needs.
    #[error("expected a clip of at least {needed} frames, got {got}")]
    TooFewFrames {
        /// The minimum number of frames.
        needed: usize,
        /// The number of frames in the clip.
        got: usize,
    },
    /// A sample is NaN or infinite.
    #[error("sample {index} of the clip is {value}: expected finite samples")]
    NonFinite {
        /// Its index in the clip, from 0.
        index: usize,
        /// Its value: NaN or an infinity.
        value: f32,
    },
    /// A device is unknown or unavailable.
    #[error("device {device}: {reason}")]
    Device {
        /// The requested device.
        device: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// No model has the given name, or no model fits the checkpoint.
    #[error("{0}")]
    UnknownModel(String),
    /// The front end stored in a checkpoint differs from that of the model configuration.
    #[error("{}: `{tensor}`: {reason}{}", path.display(), fitting.map(|name| format!("; use the preset {name}")).unwrap_or_default())]
    FrontEnd {
        /// The checkpoint; `<bytes>` where bytes were given.
        path: PathBuf,
        /// The tensor that differs.
        tensor: String,
        /// How it differs.
        reason: String,
        /// The preset that has this front end, if there is one.
        fitting: Option<&'static str>,
    },
    /// A tensor operation failed, for example because the device ran out of memory.
    #[error("{context}: {cause}")]
    Tensor {
        /// The operation that failed.
        context: &'static str,
        /// The error of the tensor library.
        cause: candle_core::Error,
    },
    /// An error of a model that is implemented outside this crate: see [`Error::other`].
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// The tensors of a checkpoint do not fit the model. The report lists all differences.
    #[error("{0}")]
    Weights(Box<LoadReport>),
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The context of a tensor error until [`Context::context`] sets one.
const UNNAMED: &str = "a tensor operation";

/// Names the operation in which a tensor error occurred. The innermost name is kept.
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
    /// Wraps an error, or a message, of a [`TaggingModel`](crate::TaggingModel) or
    /// [`SpeechEncoder`](crate::encoders::SpeechEncoder) that is implemented outside this crate.
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
    fn cause_is_in_the_message_and_not_a_source() {
        let error = crate::Waveform::open("no such folder/missing.wav").unwrap_err();
        let cause = std::fs::File::open("no such folder/missing.wav").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open no such folder/missing.wav: {cause}"));
        assert!(std::error::Error::source(&error).is_none());

        let cause = candle_core::Error::Msg("out of memory".into());
        let failed: Result<()> = Err(cause).context("computing the embedding");
        assert_eq!(failed.unwrap_err().to_string(), "computing the embedding: out of memory");
    }

    #[test]
    fn other_errors_can_be_downcast() {
        let error = Error::other(std::fmt::Error);
        let Error::Other(inner) = &error else { panic!("{error:?}") };
        assert!(inner.is::<std::fmt::Error>());
    }
}
