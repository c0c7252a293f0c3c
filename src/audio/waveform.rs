//! One clip, and several clips together.

use std::io::Read;
use std::path::Path;

use super::source;
use super::wav::{self, ReadOptions, SampleFormat};
use super::{AudioReader, Note};
use crate::error::{Error, Result};

/// One channel of samples at one rate.
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
    /// Samples, full scale at -1 and 1. What is read from a file is finite; a float file may exceed full scale.
    pub samples: Vec<f32>,
    /// Samples per second, in Hz.
    pub sample_rate: u32,
    notes: Vec<Note>,
}

impl PartialEq for Waveform {
    /// Whether samples and rate are the same; notes don't count.
    fn eq(&self, other: &Self) -> bool {
        (&self.samples, self.sample_rate) == (&other.samples, other.sample_rate)
    }
}

impl Waveform {
    /// Takes samples as they are; nothing is checked.
    pub fn new(samples: Vec<f32>, sample_rate: u32) -> Self {
        Self { samples, sample_rate, notes: Vec::new() }
    }

    pub(super) fn with_notes(mut self, notes: Vec<Note>) -> Self {
        self.notes = notes;
        self
    }

    /// What was worked around when the file was read, and what makes its samples suspect; worth showing to whoever runs the
    /// program. Empty for most files, and for a waveform that does not come from a file.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Multiplies every sample by `factor`, as where [`Note::IntegerScale`] says that a file of floats holds integers.
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

    /// Opens an audio file and mixes its channels to one by their mean.
    ///
    /// The format is recognised by the first bytes. WAV may hold 8, 16, 24 and 32-bit integers, 32 and 64-bit floats,
    /// A-law and µ-law, with plain or extensible headers, 1 to 64 channels, at any rate. An integer of `b` bits is divided
    /// by `2^(b-1)`, so it lies in -1..1. Memory stays in proportion to what the file really holds, whatever its header
    /// says. Where the header is wrong about the length, the whole file is read; see [`notes`](Self::notes).
    ///
    /// With the cargo feature `symphonia`, also Ogg (Vorbis, FLAC), FLAC, MP3, MP2, MPEG-4 (AAC-LC in one or two
    /// channels, ALAC), Matroska and WebM, AIFF, CAF, and WAV with ADPCM; with the feature `opus`, also Opus. Encoder delay
    /// and padding are cut off where the file states them, except the padding in Matroska. A packet that can't be
    /// decoded is an error, as is one that is missing: checksums, page numbers and the declared length are checked.
    /// What can't be seen: whole frames that are missing at the end of an MP3 file without a Xing, LAME or VBRI header
    /// or of a FLAC or Matroska stream of unknown length, damage within MP3, AAC and Opus packets that still decode, since
    /// they have no checksum, and that an AAC-LC stream holds an extension to HE-AAC that its header does not state. A
    /// file gives at most 1024 samples per byte, or 2^26. Recordings that don't fit in memory are read by an
    /// [`AudioReader`].
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened or read; [`Error::Audio`], with the file and the reason, if it is
    /// in none of these formats, is damaged or cut short, has no samples, or holds a sample that is infinite or not a
    /// number.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// As [`open`](Self::open), with options: one chosen channel in place of the mean, or what is there of a file that is
    /// cut short.
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
    /// As [`open`](Self::open), and [`Error::Audio`] if the file lacks the channel.
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        AudioReader::open_with(path, options)?.into_waveform()
    }

    /// Reads an audio file from a stream or from bytes (`&[u8]`), as [`open`](Self::open) does from a file.
    ///
    /// The stream need not be buffered. It may be read past the end of the samples.
    ///
    /// # Errors
    /// As [`open`](Self::open); the file is called `<stream>`.
    pub fn read(reader: impl Read) -> Result<Self> {
        Self::read_with(reader, &ReadOptions::default())
    }

    /// As [`read`](Self::read), with options.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with); the file is called `<stream>`.
    pub fn read_with(reader: impl Read, options: &ReadOptions) -> Result<Self> {
        source::read_waveform(reader, options).map_err(|failure| failure.about(Path::new(source::STREAM)))
    }

    /// Writes a WAV file of one channel with 32-bit float samples, which [`open`](Self::open) reads back unchanged.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::Audio`], before anything is written, if there are no
    /// samples, one is not finite, the rate is 0 or absurd, or the file would exceed 4 GiB.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write_with(path, SampleFormat::Float32)
    }

    /// As [`write`](Self::write), in a chosen format.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(&self, path: impl AsRef<Path>, format: SampleFormat) -> Result<()> {
        wav::write(self, path.as_ref(), format)
    }

    /// The same sound at another rate, in Hz: `ceil(n_samples · sample_rate / self.sample_rate)` samples.
    ///
    /// See [`resample`](super::resample()) for the quality.
    ///
    /// # Errors
    /// As [`resample`](crate::audio::resample).
    pub fn resample(&self, sample_rate: u32) -> Result<Self> {
        let samples = super::resample(&self.samples, self.sample_rate, sample_rate)?;
        Ok(Self::new(samples, sample_rate).with_notes(self.notes.clone()))
    }

    /// How many samples there are.
    pub fn n_samples(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Length in seconds; 0 if the rate is 0.
    pub fn duration(&self) -> f64 {
        if self.sample_rate == 0 { 0.0 } else { self.samples.len() as f64 / f64::from(self.sample_rate) }
    }
}

/// Clips at one rate, possibly of different lengths: the input of a model.
///
/// A model returns for a row of a mixed batch what it returns for that clip alone: the length of a row never touches
/// another row.
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
    /// Takes one row of samples a clip, all at `sample_rate` Hz.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no rows or the rate is 0.
    pub fn new(rows: Vec<Vec<f32>>, sample_rate: u32) -> Result<Self> {
        if rows.is_empty() {
            return Err(Error::argument("rows", 0, "a batch needs at least one clip"));
        }
        if sample_rate == 0 {
            return Err(Error::argument("sample_rate", 0, "a rate is at least 1 Hz"));
        }
        Ok(Self { rows, sample_rate })
    }

    /// The clips, each with its own length.
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

    /// Whether there are no clips: never.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Samples per second of every clip, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }
}

impl From<Waveform> for WaveformBatch {
    /// A batch of one clip.
    fn from(waveform: Waveform) -> Self {
        Self { rows: vec![waveform.samples], sample_rate: waveform.sample_rate }
    }
}

impl From<&Waveform> for WaveformBatch {
    /// A batch of one clip.
    fn from(waveform: &Waveform) -> Self {
        waveform.clone().into()
    }
}

impl TryFrom<&[Waveform]> for WaveformBatch {
    type Error = Error;

    /// A batch of several clips.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no clips, if their rates differ (naming the first two), or if the rate is 0.
    fn try_from(waveforms: &[Waveform]) -> Result<Self> {
        let sample_rate = waveforms.first().map_or(1, |first| first.sample_rate);
        if let Some((i, other)) = waveforms.iter().enumerate().find(|(_, w)| w.sample_rate != sample_rate) {
            return Err(Error::argument(
                "sample_rate",
                other.sample_rate,
                format!("clip {i} differs from clip 0, which is at {sample_rate} Hz; resample them to one rate"),
            ));
        }
        Self::new(waveforms.iter().map(|w| w.samples.clone()).collect(), sample_rate)
    }
}
