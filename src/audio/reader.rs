//! Audio of any length, block by block.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::pcm::Pcm;
use super::source::{self, Blocks, Failure, STREAM};
use super::{AudioReason, Note, ReadOptions, Resampler, SampleFormat, Skipped, Waveform};
use crate::error::{Error, Result};

/// Reads audio of any length in blocks: an iterator over pieces of one channel, each a `Vec<f32>`.
///
/// Memory does not grow with the length, except for the tables of an MPEG-4 file (a few bytes per packet), and an MPEG-4 or CAF
/// file that comes as a stream, which is read into memory because its tables may stand at its end. All blocks together
/// are what [`Waveform::open`] reads, and with [`resampled`](Self::resampled) what [`Waveform::resample`] makes of that,
/// bit for bit. Blocks are never empty; their lengths follow from the file.
///
/// Unlike [`Waveform::open`], it goes on after damage in the middle of a file: see [`skipped`](Self::skipped), and
/// [`ReadOptions::skip_damage`] with [`open_with`](Self::open_with) to change that. What cannot be read on is an error
/// after the blocks before it, and the last item: a file cut short, a pipe that ends within a sample, a disk that fails.
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
    /// What the source gave, before it is resampled.
    block: Vec<f32>,
    /// Samples given out, at the rate that is given out.
    n_read: u64,
    /// Samples that the source gave, at its own rate.
    n_source: u64,
    state: State,
}

enum State {
    Reading,
    /// The last block is given out, this error is not.
    Failed(Error),
    Ended,
}

/// How samples without a header are stored: interleaved, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFormat {
    /// 16-bit integers or 32-bit floats.
    pub sample_format: SampleFormat,
    /// Samples per second and channel, in Hz.
    pub sample_rate: u32,
    /// Channels, 1 to [`MAX_CHANNELS`](super::MAX_CHANNELS).
    pub n_channels: u16,
}

impl AudioReader {
    /// Opens an audio file, in any of the formats of [`Waveform::open`]. Channels are mixed to one by their mean;
    /// damaged packets are skipped.
    ///
    /// # Errors
    /// As [`Waveform::open`], as far as the beginning of the file shows it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::SKIP_DAMAGE)
    }

    /// As [`open`](Self::open), with options; those of `ReadOptions::default()` do not skip damage.
    ///
    /// # Errors
    /// As [`Waveform::open_with`], as far as the beginning of the file shows it.
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })?;
        Self::from_source(source::open(file, options), path)
    }

    /// Reads an audio file from a stream, which need not be buffered. A block is what one read gives where that is
    /// possible, so nothing waits for more than there is.
    ///
    /// # Errors
    /// As [`open`](Self::open); the file is called `<stream>`.
    pub fn read(reader: impl Read + Send + 'static) -> Result<Self> {
        Self::read_with(reader, &ReadOptions::SKIP_DAMAGE)
    }

    /// As [`read`](Self::read), with options; those of `ReadOptions::default()` do not skip damage.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with); the file is called `<stream>`.
    pub fn read_with(reader: impl Read + Send + 'static, options: &ReadOptions) -> Result<Self> {
        Self::from_source(source::read(reader, options), Path::new(STREAM))
    }

    /// Reads samples without a header, as from `arecord -t raw` or `ffmpeg -f s16le -`, to the end of the stream.
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
    /// [`Error::Audio`] if rate or number of channels are impossible, or the stream lacks the channel asked for.
    pub fn raw(reader: impl Read + Send + 'static, format: &RawFormat, options: &ReadOptions) -> Result<Self> {
        let source = Pcm::raw(reader, format, options).map(|pcm| Box::new(pcm) as _);
        Self::from_source(source, Path::new(STREAM))
    }

    fn from_source(source: Result<Box<dyn Blocks + Send>, Failure>, path: &Path) -> Result<Self> {
        let source = source.map_err(|failure| failure.about(path))?;
        let (block, state) = (Vec::new(), State::Reading);
        Ok(Self { path: path.into(), source, resampler: None, block, n_read: 0, n_source: 0, state })
    }

    /// Changes the rate of the blocks to come, in Hz. Before the first block only.
    ///
    /// # Errors
    /// [`Error::Argument`] if the rate is 0, if it is too far from the file's ([`Resampler::new`]), or after the first block.
    pub fn resampled(mut self, sample_rate: u32) -> Result<Self> {
        if self.n_read > 0 {
            return Err(Error::argument(
                "sample_rate",
                sample_rate,
                "the rate can be changed before the first block only",
            ));
        }
        let from = self.source.sample_rate();
        let resampler = Resampler::new(from, sample_rate)?;
        self.resampler = (from != sample_rate).then_some(resampler);
        Ok(self)
    }

    /// The rate of the blocks, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.resampler.as_ref().map_or(self.source_rate(), Resampler::output_rate)
    }

    /// The rate of the file, in Hz.
    pub fn source_rate(&self) -> u32 {
        self.source.sample_rate()
    }

    /// Samples in the blocks so far, at [`sample_rate`](Self::sample_rate).
    pub fn samples_read(&self) -> u64 {
        self.n_read
    }

    /// Seconds of the file that were read so far, with what the resampler holds back; at the end, its length.
    pub fn seconds_read(&self) -> f64 {
        self.n_source as f64 / f64::from(self.source_rate().max(1))
    }

    /// Samples in all blocks if the file keeps what it declares, at [`sample_rate`](Self::sample_rate); `None` if it
    /// declares nothing.
    pub fn declared_length(&self) -> Option<u64> {
        let n = self.source.declared()?;
        Some(self.resampler.as_ref().map_or(n, |resampler| u64::try_from(resampler.length(n)).unwrap_or(u64::MAX)))
    }

    /// Where damage was skipped so far, in the order of the file. At most 1000 places are listed.
    pub fn skipped(&self) -> &[Skipped] {
        self.source.skipped()
    }

    /// What was worked around so far, and what makes the samples so far suspect; complete after the last block.
    pub fn notes(&self) -> Vec<Note> {
        self.source.notes()
    }

    /// The file as it was named when it was opened; `<stream>` where there is none.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that is left as one clip, at [`sample_rate`](Self::sample_rate).
    ///
    /// # Errors
    /// The first that a block would give.
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

    /// The next samples at the rate wanted, empty at the end. What was read before an error is kept in `output`.
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
    /// Reads the samples of a clip, unchecked.
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

/// A clip, block by block.
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
