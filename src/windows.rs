//! Tagging long recordings: one result per window, or one for the whole recording.
//!
//! ```no_run
//! use clipwise::{Tagger, Waveform, WindowConfig};
//!
//! # fn main() -> clipwise::Result<()> {
//! let tagger = Tagger::open("Cnn14_mAP=0.431.pth", &clipwise::device::cpu())?;
//! let config = WindowConfig { length: 10.0, hop: 5.0, ..WindowConfig::default() };
//! for window in tagger.windows(Waveform::open("forest.wav")?, &config)? {
//!     let window = window?;
//!     println!("{:6.1} {:6.1}  {}", window.start, window.end, window.tagging.top_k(1)[0].label);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **The result of a window is that of the cut clip**, bit for bit: [`Tagger::tag`] of the recording's samples from
//! `start` to `end`, at the model's rate. Overlapping windows share the frames of the model's [front
//! end](crate::TaggingModel::front_end): each is computed once, except the frames at the ends of a window, where a clip
//! is padded. Operations on the whole clip, such as a floor below its maximum, are done per window.
//!
//! **Windows.** The first window starts at 0. The last is the first one that reaches the end of the recording; it is
//! shorter unless [`pad_last`](WindowConfig::pad_last) is set. A recording shorter than a window is one window; an
//! empty one has none. If the hop is longer than a window, samples between windows and at the end of the recording may
//! not be in any window.
//!
//! **Frames.** With [`framewise`](WindowConfig::framewise), each frame of the recording is returned once, by the window
//! in which it is farthest from an end. A window's frames are in [`WindowTagging::frames`], and begin where those of
//! the previous window end. If windows overlap by half or more, no frame is near the end of its window, except at the
//! ends of the recording.
//!
//! Memory does not grow with the length of the recording.

mod aggregate;
mod cutter;
mod schedule;
mod tagging;

use std::collections::VecDeque;

pub use aggregate::{Aggregation, Aggregator};
pub use schedule::WindowConfig;
pub(crate) use tagging::{CHUNK, WindowTagger};

use crate::audio::AudioReader;
use crate::error::{Error, Result};
use crate::output::Tagging;
#[doc(inline)]
pub use crate::output::{Frames, WindowTagging};
use crate::tagger::Tagger;

/// Iterator over the results for the windows of a recording, in order; see [`Tagger::windows`].
///
/// If reading fails, the windows read before come first, then the error, then `None`.
pub struct Windows<'t, I> {
    windows: WindowTagger<&'t Tagger>,
    blocks: I,
    block: Block,
    /// Set once the source has ended, or failed.
    ended: bool,
    error: Option<Error>,
    ready: VecDeque<WindowTagging>,
}

/// The current block of samples.
#[derive(Default)]
struct Block {
    samples: Vec<f32>,
    n_read: usize,
}

impl Tagger {
    /// Tags a recording of any length and sample rate window by window. The recording is a
    /// [`Waveform`](crate::Waveform) or an [`AudioReader`], and is read while iterating. See [the module](self).
    ///
    /// # Errors
    /// [`Error::Config`] if the window settings are invalid, or if frames are requested from a model without framewise
    /// output; [`Error::Argument`] if the reader has already been read from, or if its sample rate is too far from the
    /// model's. Errors of reading and tagging are items of the iterator.
    pub fn windows(
        &self,
        recording: impl Into<AudioReader>,
        config: &WindowConfig,
    ) -> Result<Windows<'_, AudioReader>> {
        Windows::new(self, recording.into().resampled(self.model().info().sample_rate)?, config)
    }
}

impl<'t, I: Iterator<Item = Result<Vec<f32>>>> Windows<'t, I> {
    /// Creates the iterator from blocks of samples of any size, at the model's sample rate. Use [`Tagger::windows`] for
    /// other rates.
    ///
    /// # Errors
    /// [`Error::Config`] if the window settings are invalid, or if frames are requested from a model without framewise
    /// output.
    pub fn new(tagger: &'t Tagger, blocks: I, config: &WindowConfig) -> Result<Self> {
        let windows = WindowTagger::new(tagger, config)?;
        let (block, ready) = (Block::default(), VecDeque::new());
        Ok(Self { windows, blocks, block, ended: false, error: None, ready })
    }

    /// The source of the samples, for example to query its position.
    pub fn source(&self) -> &I {
        &self.blocks
    }

    /// Seconds of audio read so far.
    pub fn position(&self) -> f64 {
        self.windows.received() as f64 / f64::from(self.windows.tagger().model().info().sample_rate)
    }

    /// Aggregates all remaining windows to one result.
    ///
    /// # Errors
    /// The first error of a window; [`Error::TooShort`] if there are no windows; otherwise as [`Aggregator::finish`].
    pub fn aggregate(self, aggregation: Aggregation) -> Result<Tagging> {
        let tagger = *self.windows.tagger();
        let mut aggregator = Aggregator::new(aggregation);
        for window in self {
            aggregator.push(&window?);
        }
        aggregator.finish(tagger)
    }

    /// Reads until a batch of windows is complete, or to the end.
    fn fill(&mut self) {
        while !self.ended && !self.windows.is_full() {
            if let Err(error) = self.read() {
                self.error = Some(error);
                self.end();
            }
        }
    }

    /// Takes samples from the current block, or reads the next block.
    fn read(&mut self) -> Result<()> {
        let rest = &self.block.samples[self.block.n_read..];
        if !rest.is_empty() {
            self.block.n_read += self.windows.push(rest)?;
            return Ok(());
        }
        match self.blocks.next().transpose()? {
            Some(samples) => self.block = Block { samples, n_read: 0 },
            None => self.end(),
        }
        Ok(())
    }

    fn end(&mut self) {
        self.ended = true;
        self.windows.finish();
    }
}

impl<I: Iterator<Item = Result<Vec<f32>>>> Iterator for Windows<'_, I> {
    type Item = Result<WindowTagging>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.fill();
            match self.windows.tag() {
                Ok(windows) => self.ready.extend(windows),
                Err(error) => {
                    self.ended = true;
                    self.error = None;
                    self.windows.reset();
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok).or_else(|| self.error.take().map(Err))
    }
}
