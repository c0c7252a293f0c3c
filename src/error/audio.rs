//! Why a file is not usable as audio.

/// The most channels that a file may have.
pub const MAX_CHANNELS: u16 = 64;

/// The highest rate that a file may state, in Hz.
///
/// A hundred times what the fastest audio converters do; a higher rate is treated as a damaged header.
pub const MAX_SAMPLE_RATE: u32 = 100_000_000;

/// The formats that are read.
const READ: &str =
    if cfg!(feature = "symphonia") { "WAV, AIFF, CAF, Ogg, FLAC, MP3, MPEG-4 or Matroska" } else { "WAV" };

/// The codecs that are read.
const CODECS: &str = if cfg!(feature = "opus") {
    "Vorbis, Opus, FLAC, MP3, MP2, AAC-LC, ALAC and ADPCM"
} else {
    "Vorbis, FLAC, MP3, MP2, AAC-LC, ALAC and ADPCM"
};

/// Why a file is not usable as audio.
///
/// Counts of samples are per channel.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioReason {
    /// The file holds no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file is in none of the formats that this build reads.
    #[error("not a {READ} file but {format}{}", feature.map(|name| format!(", which the cargo feature `{name}` reads")).unwrap_or_default())]
    UnsupportedFormat {
        /// What it is by its first bytes.
        format: &'static str,
        /// The cargo feature that reads it, if one does and this build lacks it.
        feature: Option<&'static str>,
    },
    /// The file begins as a file that is read, but its structure is damaged.
    #[error("damaged file: {0}")]
    Malformed(String),
    /// A packet cannot be decoded, or is lost. Formats other than WAV only.
    #[error("damaged after sample {index}: {detail}")]
    Damaged {
        /// Samples that could be decoded before it.
        index: u64,
        /// What is wrong.
        detail: String,
    },
    /// The format is read, the codec in it is not.
    #[error("{0} is not decoded; {CODECS} are")]
    Codec(String),
    /// Rate or number of channels change within the file.
    #[error("the format changes after sample {index}, from {before} to {after}")]
    FormatChange {
        /// Samples before the change.
        index: u64,
        /// Rate and channels before it.
        before: String,
        /// Rate and channels after it.
        after: String,
    },
    /// The file ends before its stream does, without saying how long that would have been.
    #[error("cut short after {found} samples per channel: {detail}")]
    EndsEarly {
        /// Samples that are there.
        found: u64,
        /// How it ends.
        detail: String,
    },
    /// A file decodes to very much more than its size lets expect: it is not audio, but an attack.
    #[error("{n_bytes} bytes decode to more than {limit} samples")]
    ExpandsTooMuch {
        /// Size of the file.
        n_bytes: u64,
        /// The most samples that are accepted from it.
        limit: u64,
    },
    /// The samples are stored in a way that is not read.
    #[error("{0} is not read; 8, 16, 24 and 32-bit integers, 32 and 64-bit floats, A-law and µ-law are")]
    Encoding(String),
    /// The header states no channels, or more than [`MAX_CHANNELS`].
    #[error("the header states {0} channels; 1 to {MAX_CHANNELS} can be read")]
    ChannelCount(u16),
    /// The rate is 0 Hz, or above [`MAX_SAMPLE_RATE`].
    #[error("the sample rate is {0} Hz; 1 to {MAX_SAMPLE_RATE} Hz are possible")]
    SampleRate(u32),
    /// The channel asked for is not in the file.
    #[error("channel {channel} was asked for; the file has {count}, counted from 0")]
    NoSuchChannel {
        /// The channel asked for.
        channel: usize,
        /// How many there are.
        count: u16,
    },
    /// The file holds fewer samples than its header declares.
    #[error("cut short: the header declares {declared} samples per channel, {found} are there")]
    Truncated {
        /// What the header declares.
        declared: u64,
        /// What is there in full.
        found: u64,
    },
    /// The data size in the header of a WAV stream stands for an unknown length.
    /// [`accept_placeholder_length`](crate::audio::ReadOptions::accept_placeholder_length) reads such a stream to its end.
    #[error(
        "the header gives no length (a data size of {declared_bytes} bytes, {found} samples per channel came); \
         `accept_placeholder_length` reads such a stream to its end"
    )]
    UnknownLength {
        /// The data size in the header.
        declared_bytes: u64,
        /// Samples per channel that are there.
        found: u64,
    },
    /// The file holds no samples, or a waveform to be written is.
    #[error("there are no samples")]
    NoSamples,
    /// A sample is infinite or not a number.
    #[error("sample {index} of channel {channel} is {value}")]
    NonFinite {
        /// Position in the channel, from 0.
        index: u64,
        /// The channel, from 0.
        channel: usize,
        /// The sample.
        value: f32,
    },
    /// A waveform is too long to be written: a WAV file holds less than 4 GiB.
    #[error("{0} samples do not fit in a WAV file, which holds less than 4 GiB")]
    TooLong(usize),
}
