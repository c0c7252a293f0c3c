//! What a reader worked around in a file.

use super::AudioReason;

/// Something in a file that was worked around, or that makes its samples suspect.
///
/// A note is no error: the samples are those of the file. [`Waveform::notes`](super::Waveform::notes) and
/// [`AudioReader::notes`](super::AudioReader::notes) list them, for a program to show to its user.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Note {
    /// The header of a WAV file states a data size that stands for an unknown length: it was written to a pipe, or by a
    /// recorder that lost power. The samples go on to the end of the file; whether it was cut short can't be seen.
    #[error("the header gives no length (a data size of {declared_bytes} bytes); the file was read to its end")]
    UnknownLength {
        /// The data size in the header.
        declared_bytes: u64,
    },
    /// The header declares fewer samples than the file holds. All of them were read.
    #[error("the header declares {declared} samples per channel and more follow; the file was read to its end")]
    MoreThanDeclared {
        /// Samples per channel that the header declares.
        declared: u64,
    },
    /// The file ends early, and [`ReadOptions`](super::ReadOptions) accepted that. What is there was read.
    #[error("{0}; what is there was read")]
    CutShort(AudioReason),
    /// The last page of an Ogg stream is not marked as the last. Some programs never mark it; if the file was cut short
    /// between two pages, that can't be seen.
    #[error("the last page is not marked as the last; the file may have been cut short there")]
    NoEndMark,
    /// Bytes before the first frame of an MP3 file are no frame, no tag and no padding. They were left out.
    #[error("the first {n_bytes} bytes are no MPEG audio; they were left out")]
    LeadingJunk {
        /// How many they are.
        n_bytes: u64,
    },
    /// A file of floats goes far beyond their full scale of 1: its samples look like integers, and a model gives wrong
    /// tags for them. [`Waveform::scaled`](super::Waveform::scaled) by `1 / full_scale` corrects that.
    #[error(
        "samples reach {peak}, but the full scale of floats is 1: they look like integers; divide them by {full_scale}"
    )]
    IntegerScale {
        /// The largest absolute value.
        peak: f32,
        /// The full scale of the smallest usual integer format that holds it: 2^15, 2^23 or 2^31.
        full_scale: f32,
    },
    /// The channels cancel each other in their mean, as they do where one is the negative of the other.
    /// [`Channels::One`](super::Channels::One) reads one of them.
    #[error("the channels cancel: their mean is {decibels:.0} dB below them; read one channel instead")]
    ChannelsCancel {
        /// Power of the channels over that of their mean, in dB.
        decibels: f32,
    },
}
