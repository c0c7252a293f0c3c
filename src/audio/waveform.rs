//! Waveforms and batches of waveforms.

use std::io::Read;
use std::path::Path;

use super::source;
use super::wav::{self, ReadOptions, SampleFormat};
use super::{AudioReader, Note};
use crate::error::{Error, Result};

/// One channel of samples at a known sample rate.
///
/// ```no_run
/// use clipwise::Waveform;
///
/// let waveform = Waveform::open("dog.wav")?;                     // any channel count, mixed to one
/// println!("{:.1} s at {} Hz", waveform.duration(), waveform.sample_rate);
/// let at_32k = waveform.resample(32_000)?;
/// at_32k.write("dog_32k.wav")?;
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Waveform {
    /// Samples; full scale is -1.0 to 1.0. Samples read from a file are finite, but those of float files may exceed
    /// full scale.
    pub samples: Vec<f32>,
    /// Sample rate in Hz.
    pub sample_rate: u32,
    notes: Vec<Note>,
}

impl PartialEq for Waveform {
    /// Compares samples and sample rate, but not the notes.
    fn eq(&self, other: &Self) -> bool {
        (&self.samples, self.sample_rate) == (&other.samples, other.sample_rate)
    }
}

impl Waveform {
    /// Creates a waveform from samples, without checks.
    pub fn new(samples: Vec<f32>, sample_rate: u32) -> Self {
        Self { samples, sample_rate, notes: Vec::new() }
    }

    pub(super) fn with_notes(mut self, notes: Vec<Note>) -> Self {
        self.notes = notes;
        self
    }

    /// Problems that were worked around when the file was read, and signs of suspicious samples. Programs should show
    /// them to users. Empty for most files, and for waveforms that were not read from a file.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Multiplies all samples by `factor`, for example if [`Note::IntegerScale`] says that a float file holds integers.
    ///
    /// ```no_run
    /// use clipwise::audio::{Note, Waveform};
    ///
    /// let mut waveform = Waveform::open("integers_as_floats.wav")?;
    /// if let Some(&Note::IntegerScale { full_scale, .. }) = waveform.notes().first() {
    ///     waveform = waveform.scaled(1.0 / full_scale);
    /// }
    /// # Ok::<(), clipwise::Error>(())
    /// ```
    pub fn scaled(mut self, factor: f32) -> Self {
        self.samples.iter_mut().for_each(|x| *x *= factor);
        self.notes.retain(|note| !matches!(note, Note::IntegerScale { .. }));
        self
    }

    /// Reads an audio file and mixes its channels to one by their mean.
    ///
    /// The format is recognised by the first bytes, not by the file name. WAV files may hold integers of 8, 16, 24 or
    /// 32 bits, floats of 32 or 64 bits, A-law or µ-law, with plain or extensible headers, 1 to 64 channels, at any
    /// sample rate. Integers of `b` bits are divided by `2^(b-1)`, so that they lie in -1.0..1.0. Memory is
    /// proportional to the actual size of the file, whatever its header says. If the header states a wrong length, the
    /// whole file is read; see [`notes`](Self::notes).
    ///
    /// The cargo feature `symphonia` adds Ogg (Vorbis, FLAC), FLAC, MP3, MP2, MPEG-4 (AAC-LC in one or two channels,
    /// ALAC), Matroska and WebM, AIFF, CAF, and WAV with ADPCM; the feature `opus` adds Opus. Encoder delay and padding
    /// are removed if the file states them, except for the padding in Matroska. Damaged and missing packets are errors:
    /// checksums, page numbers and the declared length are checked.
    ///
    /// Some damage cannot be detected: whole frames missing at the end of an MP3 file without a Xing, LAME or VBRI
    /// header, or of a FLAC or Matroska stream of unknown length; damage within MP3, AAC and Opus packets that still
    /// decode, because they have no checksum. An AAC-LC stream with an HE-AAC extension that its header does not state
    /// is decoded without the extension.
    ///
    /// A file may decode to at most 1024 samples per byte, or to 2^26 samples if that is more. Use an [`AudioReader`]
    /// for recordings that do not fit in memory.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened or read; [`Error::Audio`], with the path and the reason, if its
    /// format is not supported, if it is damaged or truncated, or if it has no samples or a sample that is NaN or
    /// infinite.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// As [`open`](Self::open), with options, for example to read a single channel or to accept a truncated file.
    ///
    /// ```no_run
    /// use clipwise::audio::{Channels, ReadOptions, Waveform};
    ///
    /// let left = ReadOptions { channels: Channels::One(0), ..ReadOptions::default() };
    /// let waveform = Waveform::open_with("stereo.wav", &left)?;
    /// # Ok::<(), clipwise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Audio`] if the file does not have the selected channel.
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        AudioReader::open_with(path, options)?.into_waveform()
    }

    /// Reads an audio file from a stream or from bytes (`&[u8]`), as [`open`](Self::open) does from a path.
    ///
    /// The stream need not be buffered. It may be read beyond the end of the samples.
    ///
    /// # Errors
    /// As [`open`](Self::open); the path in errors is `<stream>`.
    pub fn read(reader: impl Read) -> Result<Self> {
        Self::read_with(reader, &ReadOptions::default())
    }

    /// As [`read`](Self::read), with options.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with); the path in errors is `<stream>`.
    pub fn read_with(reader: impl Read, options: &ReadOptions) -> Result<Self> {
        source::read_waveform(reader, options).map_err(|failure| failure.about(Path::new(source::STREAM)))
    }

    /// Writes a mono WAV file of 32-bit floats, which [`open`](Self::open) reads back unchanged.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::Audio`], before anything is written, if there are no
    /// samples, if a sample is NaN or infinite, if the sample rate is 0 or above
    /// [`MAX_SAMPLE_RATE`](super::MAX_SAMPLE_RATE), or if the file would exceed 4 GiB.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write_with(path, SampleFormat::Float32)
    }

    /// As [`write`](Self::write), in the given sample format.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(&self, path: impl AsRef<Path>, format: SampleFormat) -> Result<()> {
        wav::write(self, path.as_ref(), format)
    }

    /// Resamples to `sample_rate` Hz. The result has `ceil(n_samples · sample_rate / self.sample_rate)` samples.
    ///
    /// See [`resample`](super::resample()) for the frequency response.
    ///
    /// # Errors
    /// As [`resample`](crate::audio::resample).
    pub fn resample(&self, sample_rate: u32) -> Result<Self> {
        let samples = super::resample(&self.samples, self.sample_rate, sample_rate)?;
        Ok(Self::new(samples, sample_rate).with_notes(self.notes.clone()))
    }

    /// The number of samples.
    pub fn n_samples(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Duration in seconds; 0 if the sample rate is 0.
    pub fn duration(&self) -> f64 {
        if self.sample_rate == 0 { 0.0 } else { self.samples.len() as f64 / f64::from(self.sample_rate) }
    }
}

/// A batch of waveforms at one sample rate, possibly of different lengths: the input of a model.
///
/// The result for a row is the same as for that clip alone, whatever the lengths of the other rows.
///
/// ```
/// use clipwise::{Waveform, WaveformBatch};
///
/// let clips = [Waveform::new(vec![0.0; 32_000], 32_000), Waveform::new(vec![0.0; 16_000], 32_000)];
/// let batch = WaveformBatch::try_from(&clips[..])?;
/// assert_eq!(batch.lengths(), [32_000, 16_000]);
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WaveformBatch {
    rows: Vec<Vec<f32>>,
    sample_rate: u32,
}

impl WaveformBatch {
    /// Creates a batch from one row of samples per clip, all at `sample_rate` Hz.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no rows or if the rate is 0.
    pub fn new(rows: Vec<Vec<f32>>, sample_rate: u32) -> Result<Self> {
        if rows.is_empty() {
            return Err(Error::argument("rows", 0, "expected at least one clip"));
        }
        if sample_rate == 0 {
            return Err(Error::argument("sample_rate", 0, "expected at least 1 Hz"));
        }
        Ok(Self { rows, sample_rate })
    }

    /// The samples of each clip.
    pub fn rows(&self) -> &[Vec<f32>] {
        &self.rows
    }

    /// The number of samples of each clip.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(Vec::len).collect()
    }

    /// The number of clips, at least 1.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Always false, since a batch has at least one clip.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The sample rate of all clips, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }
}

impl From<Waveform> for WaveformBatch {
    /// Creates a batch of one clip.
    fn from(waveform: Waveform) -> Self {
        Self { rows: vec![waveform.samples], sample_rate: waveform.sample_rate }
    }
}

impl From<&Waveform> for WaveformBatch {
    /// Creates a batch of one clip.
    fn from(waveform: &Waveform) -> Self {
        waveform.clone().into()
    }
}

impl TryFrom<&[Waveform]> for WaveformBatch {
    type Error = Error;

    /// Creates a batch of several clips.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no clips, if their rates differ (the first difference is named), or if the rate
    /// is 0.
    fn try_from(waveforms: &[Waveform]) -> Result<Self> {
        let sample_rate = waveforms.first().map_or(1, |first| first.sample_rate);
        if let Some((i, other)) = waveforms.iter().enumerate().find(|(_, w)| w.sample_rate != sample_rate) {
            return Err(Error::argument(
                "sample_rate",
                other.sample_rate,
                format!("expected the {sample_rate} Hz of clip 0 for clip {i}; resample the clips to one rate"),
            ));
        }
        Self::new(waveforms.iter().map(|w| w.samples.clone()).collect(), sample_rate)
    }
}
