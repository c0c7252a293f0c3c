//! Notes about files: problems that a reader worked around, and suspicious samples.

use super::AudioReason;

/// A problem in a file that the reader worked around, or a sign that its samples are not what they seem.
///
/// Notes are not errors. [`Waveform::notes`](super::Waveform::notes) and
/// [`AudioReader::notes`](super::AudioReader::notes) list them, so that programs can show them to users.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Note {
    /// The data size in the header of a WAV file is a placeholder for an unknown length: the file was written to a
    /// pipe, or by a recorder that lost power. It was read to its end; whether it is truncated cannot be determined.
    #[error("the header states a placeholder ({declared_bytes} bytes) for the length; the file was read to its end")]
    UnknownLength {
        /// The data size in the header, in bytes.
        declared_bytes: u64,
    },
    /// The file holds more samples than its header declares. All of them were read.
    #[error("the header declares {declared} samples per channel, but more follow; the file was read to its end")]
    MoreThanDeclared {
        /// Number of samples per channel that the header declares.
        declared: u64,
    },
    /// The file is truncated, which [`ReadOptions`](super::ReadOptions) allowed. The samples before the end were read.
    #[error("{0}; the file was read to its end")]
    CutShort(AudioReason),
    /// The last page of an Ogg stream is not marked as the last. Some programs never set the mark; whether the file is
    /// truncated after a page cannot be determined.
    #[error("the last page is not marked as the last; the file may be truncated there")]
    NoEndMark,
    /// An MP3 file begins with bytes that are not a frame, a tag or padding. They were skipped.
    #[error("the first {n_bytes} bytes are not MPEG audio; they were skipped")]
    LeadingJunk {
        /// The number of these bytes.
        n_bytes: u64,
    },
    /// The samples of a float file far exceed the full scale of 1: they look like integers, for which a model gives
    /// wrong tags. [`Waveform::scaled`](super::Waveform::scaled) by `1 / full_scale` corrects them.
    #[error(
        "samples reach {peak}, but floats have a full scale of 1: they look like integers; divide them by {full_scale}"
    )]
    IntegerScale {
        /// The largest absolute value.
        peak: f32,
        /// The full scale of the smallest integer format that holds it: 2^15, 2^23 or 2^31.
        full_scale: f32,
    },
    /// The channels cancel in their mean, for example because one is the negative of the other.
    /// [`Channels::One`](super::Channels::One) reads a single channel.
    #[error("the channels cancel: their mean is {decibels:.0} dB weaker; read one channel instead")]
    ChannelsCancel {
        /// Power of the channels relative to that of their mean, in dB.
        decibels: f32,
    },
}
