//! Reading audio of any length block by block.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::pcm::Pcm;
use super::source::{self, Blocks, Failure, STREAM};
use super::{AudioReason, Note, ReadOptions, Resampler, SampleFormat, Skipped, Waveform};
use crate::error::{Error, Result};

/// Reads audio of any length block by block: an iterator over `Result<Vec<f32>>`, each a block of one channel.
///
/// Memory does not grow with the length, with two exceptions: the tables of an MPEG-4 file (a few bytes per packet),
/// and an MPEG-4 or CAF file that is read from a stream, which is held in memory because its tables may be at its end.
/// The blocks together are bit-identical to [`Waveform::open`], and with [`resampled`](Self::resampled) to
/// [`Waveform::resample`]. Blocks are never empty; their lengths depend on the file.
///
/// Unlike [`Waveform::open`], the reader continues after damage in the middle of a file (see
/// [`skipped`](Self::skipped)); [`ReadOptions::skip_damage`] with [`open_with`](Self::open_with) changes that. An error
/// that ends the reading, such as a truncated file or a failing disk, is the last item, after the blocks before it.
///
/// ```no_run
/// use clipwise::audio::AudioReader;
///
/// let mut reader = AudioReader::open("night.wav")?.resampled(32_000)?;
/// let mut loudest = 0.0_f32;
/// while let Some(block) = reader.next() {
///     loudest = block?.iter().fold(loudest, |max, x| max.max(x.abs()));
///     let declared = reader.declared_length().map_or("?".into(), |n| n.to_string());
///     eprint!("\r{} of {declared} samples", reader.samples_read());
/// }
/// # Ok::<(), clipwise::Error>(())
/// ```
pub struct AudioReader {
    path: PathBuf,
    source: Box<dyn Blocks + Send>,
    resampler: Option<Resampler>,
    /// A block of the source, before resampling.
    block: Vec<f32>,
    /// Number of samples returned, at the output rate.
    n_read: u64,
    /// Number of samples read from the source, at its rate.
    n_source: u64,
    state: State,
}

enum State {
    Reading,
    /// The error to return next; all samples before it have been returned.
    Failed(Error),
    Ended,
}

/// Format of samples without a header: interleaved, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFormat {
    /// 16-bit integers or 32-bit floats.
    pub sample_format: SampleFormat,
    /// Sample rate in Hz (samples per second and channel).
    pub sample_rate: u32,
    /// Number of channels, 1 to [`MAX_CHANNELS`](super::MAX_CHANNELS).
    pub n_channels: u16,
}

impl AudioReader {
    /// Opens an audio file in any of the formats of [`Waveform::open`]. Channels are mixed to one by their mean;
    /// damaged packets are skipped.
    ///
    /// # Errors
    /// As [`Waveform::open`], for errors at the beginning of the file. Later ones are returned by the iterator.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::SKIP_DAMAGE)
    }

    /// As [`open`](Self::open), with options. Note that `ReadOptions::default()` does not skip damage.
    ///
    /// # Errors
    /// As [`Waveform::open_with`], for errors at the beginning of the file.
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })?;
        Self::from_source(source::open(file, options), path)
    }

    /// Reads an audio file from a stream, which need not be buffered. Where the format allows, a block is what one
    /// `read` returns, so that live input is not delayed.
    ///
    /// # Errors
    /// As [`open`](Self::open); the path in errors is `<stream>`.
    pub fn read(reader: impl Read + Send + 'static) -> Result<Self> {
        Self::read_with(reader, &ReadOptions::SKIP_DAMAGE)
    }

    /// As [`read`](Self::read), with options. Note that `ReadOptions::default()` does not skip damage.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with); the path in errors is `<stream>`.
    pub fn read_with(reader: impl Read + Send + 'static, options: &ReadOptions) -> Result<Self> {
        Self::from_source(source::read(reader, options), Path::new(STREAM))
    }

    /// Reads samples without a header, as written by `arecord -t raw` or `ffmpeg -f s16le -`, to the end of the stream.
    ///
    /// ```
    /// use clipwise::audio::{AudioReader, RawFormat, ReadOptions, SampleFormat};
    ///
    /// let format = RawFormat { sample_format: SampleFormat::Int16, sample_rate: 16_000, n_channels: 2 };
    /// let bytes: &[u8] = &[0, 0x40, 0, 0xC0, 0, 0x20, 0, 0x20]; // two samples of two channels
    /// let waveform = AudioReader::raw(bytes, &format, &ReadOptions::default())?.into_waveform()?;
    /// assert_eq!(waveform.samples, [0.0, 0.25]);
    /// # Ok::<(), clipwise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Audio`] if the sample rate or the number of channels is out of range, or if `options` select a channel
    /// that does not exist.
    pub fn raw(reader: impl Read + Send + 'static, format: &RawFormat, options: &ReadOptions) -> Result<Self> {
        let source = Pcm::raw(reader, format, options).map(|pcm| Box::new(pcm) as _);
        Self::from_source(source, Path::new(STREAM))
    }

    fn from_source(source: Result<Box<dyn Blocks + Send>, Failure>, path: &Path) -> Result<Self> {
        let source = source.map_err(|failure| failure.about(path))?;
        let (block, state) = (Vec::new(), State::Reading);
        Ok(Self { path: path.into(), source, resampler: None, block, n_read: 0, n_source: 0, state })
    }

    /// Resamples the blocks to `sample_rate` Hz. Only before the first block is read.
    ///
    /// # Errors
    /// [`Error::Argument`] if the rate is 0 or too far from the file's (see [`Resampler::new`]), or if a block has been
    /// read.
    pub fn resampled(mut self, sample_rate: u32) -> Result<Self> {
        if self.n_read > 0 {
            return Err(Error::argument(
                "sample_rate",
                sample_rate,
                "expected a change of the rate before the first block is read",
            ));
        }
        let from = self.source.sample_rate();
        let resampler = Resampler::new(from, sample_rate)?;
        self.resampler = (from != sample_rate).then_some(resampler);
        Ok(self)
    }

    /// The sample rate of the blocks, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.resampler.as_ref().map_or(self.source_rate(), Resampler::output_rate)
    }

    /// The sample rate of the file, in Hz.
    pub fn source_rate(&self) -> u32 {
        self.source.sample_rate()
    }

    /// Number of samples in the blocks so far, at [`sample_rate`](Self::sample_rate).
    pub fn samples_read(&self) -> u64 {
        self.n_read
    }

    /// Seconds of the file read so far, including samples that the resampler holds back. At the end, the length of the
    /// file.
    pub fn seconds_read(&self) -> f64 {
        self.n_source as f64 / f64::from(self.source_rate().max(1))
    }

    /// Number of samples that the file declares, at [`sample_rate`](Self::sample_rate); `None` if it declares no
    /// length. The file may hold fewer or more.
    pub fn declared_length(&self) -> Option<u64> {
        let n = self.source.declared()?;
        Some(self.resampler.as_ref().map_or(n, |resampler| u64::try_from(resampler.length(n)).unwrap_or(u64::MAX)))
    }

    /// The gaps so far where damage was skipped, in the order of the file; at most 1000.
    pub fn skipped(&self) -> &[Skipped] {
        self.source.skipped()
    }

    /// The notes about the file so far; complete after the last block. See [`Waveform::notes`].
    pub fn notes(&self) -> Vec<Note> {
        self.source.notes()
    }

    /// The path that was opened; `<stream>` for streams and waveforms.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the remaining blocks into one waveform, at [`sample_rate`](Self::sample_rate).
    ///
    /// # Errors
    /// The first error of a block.
    pub fn into_waveform(mut self) -> Result<Waveform> {
        let mut samples = Vec::new();
        if self.resampler.is_none() && matches!(self.state, State::Reading) {
            source::read_all(&mut *self.source, &mut samples).map_err(|failure| failure.about(&self.path))?;
        } else {
            for block in &mut self {
                samples.extend(block?);
            }
        }
        Ok(Waveform::new(samples, self.sample_rate()).with_notes(self.notes()))
    }

    /// Appends the next samples at the output rate; none at the end. Samples read before an error stay in `output`.
    fn fill(&mut self, output: &mut Vec<f32>) -> Result<()> {
        let failed = |failure: Failure, path: &Path, n: u64| match failure {
            Failure::Io(error) if n > 0 => {
                Failure::Io(io::Error::new(error.kind(), format!("after {n} samples: {error}"))).about(path)
            }
            failure => failure.about(path),
        };
        let Some(resampler) = &mut self.resampler else {
            let result = self.source.next(output).map(drop);
            self.n_source += output.len() as u64;
            return result.map_err(|failure| failed(failure, &self.path, self.n_read));
        };
        while output.is_empty() {
            self.block.clear();
            let result = self.source.next(&mut self.block);
            self.n_source += self.block.len() as u64;
            match result {
                Ok(true) => resampler.push(&self.block, output)?,
                Ok(false) => {
                    self.state = State::Ended;
                    return resampler.finish(output);
                }
                Err(failure) => {
                    resampler.push(&self.block, output)?;
                    resampler.finish(output)?;
                    let n = self.n_read + output.len() as u64;
                    return Err(failed(failure, &self.path, n));
                }
            }
        }
        Ok(())
    }
}

impl Iterator for AudioReader {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Reading => self.state = State::Reading,
            State::Failed(error) => return Some(Err(error)),
            State::Ended => return None,
        }
        let mut output = Vec::new();
        if let Err(error) = self.fill(&mut output) {
            self.state = State::Failed(error);
        }
        self.n_read += output.len() as u64;
        match std::mem::replace(&mut self.state, State::Ended) {
            state if !output.is_empty() => {
                self.state = state;
                Some(Ok(output))
            }
            State::Failed(error) => Some(Err(error)),
            _ => None,
        }
    }
}

impl std::iter::FusedIterator for AudioReader {}

impl From<Waveform> for AudioReader {
    /// Reads the samples of a waveform. Non-finite samples are errors of the iterator.
    fn from(waveform: Waveform) -> Self {
        let source = Box::new(Memory { waveform, at: 0 });
        let (block, state) = (Vec::new(), State::Reading);
        Self { path: STREAM.into(), source, resampler: None, block, n_read: 0, n_source: 0, state }
    }
}

impl std::fmt::Debug for AudioReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AudioReader({}, {} Hz, {} samples read)", self.path.display(), self.sample_rate(), self.n_read)
    }
}

/// A waveform as a source of blocks.
pub(super) struct Memory {
    pub(super) waveform: Waveform,
    pub(super) at: usize,
}

impl Blocks for Memory {
    fn sample_rate(&self) -> u32 {
        self.waveform.sample_rate
    }

    fn declared(&self) -> Option<u64> {
        Some(self.waveform.samples.len() as u64)
    }

    fn next(&mut self, output: &mut Vec<f32>) -> Result<bool, Failure> {
        const BLOCK: usize = 1 << 15;
        let rest = &self.waveform.samples[self.at..];
        let block = &rest[..rest.len().min(BLOCK)];
        if let Some(i) = block.iter().position(|x| !x.is_finite()) {
            let (index, value) = ((self.at + i) as u64, block[i]);
            return Err(AudioReason::NonFinite { index, channel: 0, value }.into());
        }
        output.extend_from_slice(block);
        self.at += block.len();
        Ok(!block.is_empty())
    }

    fn notes(&self) -> Vec<Note> {
        self.waveform.notes().to_vec()
    }
}
