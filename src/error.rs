//! The crate's one error type.

use std::path::PathBuf;

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
        reason: crate::audio::AudioReason,
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
    /// A tensor operation failed: out of memory, or a device that is gone.
    #[error("{context} failed")]
    Tensor {
        /// What was being done.
        context: &'static str,
        /// candle's reason.
        source: candle_core::Error,
    },
    /// Tensors of a checkpoint do not fit the model: everything that differs, at once.
    #[error("{0}")]
    Weights(Box<crate::weights::LoadReport>),
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn config(field: &'static str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Config { field, value: value.to_string(), reason: reason.into() }
    }
}
