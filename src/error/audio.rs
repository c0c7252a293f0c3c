//! Reasons why a file cannot be used as audio.

/// The highest number of channels that is accepted.
pub const MAX_CHANNELS: u16 = 64;

/// The highest sample rate that is accepted, in Hz.
///
/// A hundred times the rate of the fastest audio converters: a header that states more is damaged.
pub const MAX_SAMPLE_RATE: u32 = 100_000_000;

/// The container formats that this build reads.
const READ: &str =
    if cfg!(feature = "symphonia") { "WAV, AIFF, CAF, Ogg, FLAC, MP3, MPEG-4 or Matroska" } else { "WAV" };

/// The codecs that this build decodes.
const CODECS: &str = if cfg!(feature = "opus") {
    "Vorbis, Opus, FLAC, MP3, MP2, AAC-LC, ALAC and ADPCM"
} else {
    "Vorbis, FLAC, MP3, MP2, AAC-LC, ALAC and ADPCM"
};

/// Why a file cannot be used as audio.
///
/// Numbers of samples are per channel.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioReason {
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The format of the file is not supported by this build.
    #[error("expected a {READ} file, got {format}{}", feature.map(|name| format!(", which the cargo feature `{name}` reads")).unwrap_or_default())]
    UnsupportedFormat {
        /// The format, recognised by the first bytes.
        format: &'static str,
        /// The cargo feature that adds this format, if there is one and it is off.
        feature: Option<&'static str>,
    },
    /// The format is recognised, but the structure of the file is damaged.
    #[error("damaged file: {0}")]
    Malformed(String),
    /// A packet is missing or cannot be decoded. Not for WAV.
    #[error("damaged after sample {index}: {detail}")]
    Damaged {
        /// Number of samples before the damage.
        index: u64,
        /// What is wrong.
        detail: String,
    },
    /// The container format is supported, but not the codec in it.
    #[error("{0} is not supported: expected {CODECS}")]
    Codec(String),
    /// The sample rate or the number of channels changes within the file.
    #[error("the format changes after sample {index}, from {before} to {after}")]
    FormatChange {
        /// Number of samples before the change.
        index: u64,
        /// Sample rate and channels before the change.
        before: String,
        /// Sample rate and channels after the change.
        after: String,
    },
    /// The file ends before its stream does, and does not state its full length.
    #[error("truncated after {found} samples per channel: {detail}")]
    EndsEarly {
        /// Number of samples in the file.
        found: u64,
        /// How the file ends.
        detail: String,
    },
    /// The decoded audio is far larger than the size of the file can justify, as in a decompression bomb.
    #[error("expected at most {limit} samples from a file of {n_bytes} bytes, got more")]
    ExpandsTooMuch {
        /// Size of the file, in bytes.
        n_bytes: u64,
        /// The limit for a file of this size.
        limit: u64,
    },
    /// The sample encoding of a WAV file is not supported.
    #[error("{0} is not supported: expected 8, 16, 24 or 32-bit integers, 32 or 64-bit floats, A-law or µ-law")]
    Encoding(String),
    /// The number of channels is 0, or above [`MAX_CHANNELS`].
    #[error("expected 1 to {MAX_CHANNELS} channels, got {0}")]
    ChannelCount(u16),
    /// The sample rate is 0 Hz, or above [`MAX_SAMPLE_RATE`].
    #[error("expected a sample rate of 1 to {MAX_SAMPLE_RATE} Hz, got {0} Hz")]
    SampleRate(u32),
    /// The file does not have the requested channel.
    #[error("channel {channel} does not exist: the file has {count} channel{}, numbered from 0", if *count == 1 { "" } else { "s" })]
    NoSuchChannel {
        /// The requested channel, from 0.
        channel: usize,
        /// Number of channels in the file.
        count: u16,
    },
    /// The file holds fewer samples than its header declares.
    #[error("truncated: the header declares {declared} samples per channel, the file holds {found}")]
    Truncated {
        /// Number of samples that the header declares.
        declared: u64,
        /// Number of complete samples in the file.
        found: u64,
    },
    /// The data size in the header of a WAV stream is a placeholder for an unknown length.
    /// [`accept_placeholder_length`](crate::audio::ReadOptions::accept_placeholder_length) reads such a stream to its
    /// end.
    #[error(
        "the header states a placeholder ({declared_bytes} bytes) for the length, and {found} samples per channel \
         follow; `accept_placeholder_length` reads such a stream to its end"
    )]
    UnknownLength {
        /// The data size in the header, in bytes.
        declared_bytes: u64,
        /// Number of samples in the file.
        found: u64,
    },
    /// The file, or the waveform to write, has no samples.
    #[error("there are no samples")]
    NoSamples,
    /// A sample is NaN or infinite.
    #[error("sample {index} of channel {channel} is {value}")]
    NonFinite {
        /// Index in the channel, from 0.
        index: u64,
        /// The channel, from 0.
        channel: usize,
        /// Its value.
        value: f32,
    },
    /// The waveform is too long for a WAV file, which is limited to 4 GiB.
    #[error("{0} samples do not fit in a WAV file, which holds less than 4 GiB")]
    TooLong(usize),
}
