//! Long recordings: one result per window, or one for all.
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
//! **A window's result is that of the cut clip alone**, bit for bit: [`Tagger::tag`] of the recording's samples from `start` to
//! `end`, at the model's rate. However much windows overlap, each frame of the model's [front end](crate::TaggingModel::front_end) is
//! computed once; only the frames at the ends of a window, where a clip is padded, are the window's own. What depends on the
//! whole clip, such as a floor below its maximum, is computed for each window.
//!
//! **Windows.** The first starts at 0; the last is the first that reaches the end of the recording, shorter unless
//! [`pad_last`](WindowConfig::pad_last) is set. A recording shorter than a window is one window; one without samples has none.
//! If the hop is longer than a window, samples between windows, and at the end of the recording, may be in no window.
//!
//! **Frames.** With [`framewise`](WindowConfig::framewise) each frame of the recording is returned once, by the window in which it
//! is farthest from an end: a window's own frames are in [`WindowTagging::frames`], and begin where those of the window before
//! end. If windows overlap by half or more, no frame is near an end, except at the ends of the recording.
//!
//! Memory does not grow with the recording.

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

/// The results for the windows of a recording, in their order: see [`Tagger::windows`].
///
/// If the source fails, the windows of what was read until then come first, then the error, then nothing.
pub struct Windows<'t, I> {
    windows: WindowTagger<&'t Tagger>,
    blocks: I,
    block: Block,
    /// Set once the source has ended, or failed.
    ended: bool,
    error: Option<Error>,
    ready: VecDeque<WindowTagging>,
}

/// The block that is being read.
#[derive(Default)]
struct Block {
    samples: Vec<f32>,
    n_read: usize,
}

impl Tagger {
    /// Tags a recording of any length and rate window by window, a [`Waveform`](crate::Waveform) or an [`AudioReader`]: an iterator
    /// over the results, which reads as it goes. See [the module](self).
    ///
    /// # Errors
    /// [`Error::Config`] if the window settings are invalid, if frames are requested from a model without them, if the
    /// reader has already been read from, or if its rate is too far from the model's. Errors of reading and tagging are items of
    /// the iterator.
    pub fn windows(
        &self,
        recording: impl Into<AudioReader>,
        config: &WindowConfig,
    ) -> Result<Windows<'_, AudioReader>> {
        Windows::new(self, recording.into().resampled(self.model().info().sample_rate)?, config)
    }
}

impl<'t, I: Iterator<Item = Result<Vec<f32>>>> Windows<'t, I> {
    /// Over blocks of samples of any size, at the model's rate. Samples at another rate: [`Tagger::windows`].
    ///
    /// # Errors
    /// [`Error::Config`] if the window settings are invalid, and if frames are requested from a model without them.
    pub fn new(tagger: &'t Tagger, blocks: I, config: &WindowConfig) -> Result<Self> {
        let windows = WindowTagger::new(tagger, config)?;
        let (block, ready) = (Block::default(), VecDeque::new());
        Ok(Self { windows, blocks, block, ended: false, error: None, ready })
    }

    /// The source of samples, to ask it for its position for example.
    pub fn source(&self) -> &I {
        &self.blocks
    }

    /// Seconds of audio read so far.
    pub fn position(&self) -> f64 {
        self.windows.received() as f64 / f64::from(self.windows.tagger().model().info().sample_rate)
    }

    /// One result for all remaining windows.
    ///
    /// # Errors
    /// The first error of a window, [`Error::TooShort`] if there is none, and as [`Aggregator::finish`].
    pub fn aggregate(self, aggregation: Aggregation) -> Result<Tagging> {
        let tagger = *self.windows.tagger();
        let mut aggregator = Aggregator::new(aggregation);
        for window in self {
            aggregator.push(&window?);
        }
        aggregator.finish(tagger)
    }

    /// Reads until a batch of windows waits for the model, or to the end.
    fn fill(&mut self) {
        while !self.ended && !self.windows.is_full() {
            if let Err(error) = self.read() {
                self.error = Some(error);
                self.end();
            }
        }
    }

    /// Takes samples of the current block, or the next block.
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
