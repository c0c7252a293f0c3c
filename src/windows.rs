//! Long recordings: one result for each window, one for all.
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
//! Only with a hop longer than a window are there samples in no window, between windows and perhaps at the end.
//!
//! **Frames.** With [`framewise`](WindowConfig::framewise) every frame of the recording comes once, from the window in which it is
//! farthest from an end: a window has those of its own in [`WindowTagging::frames`], which begin where those of the window before
//! end. Windows that overlap by half or more leave no frame near an end, but for those of the recording.
//!
//! Memory does not grow with the recording.

mod aggregate;
mod engine;
mod run;
mod schedule;

use std::collections::VecDeque;

pub use aggregate::{Aggregation, Aggregator};
pub(crate) use run::Runner;
pub use schedule::WindowConfig;

use crate::audio::AudioReader;
use crate::error::{Error, Result};
use crate::output::Tagging;
pub use crate::output::{Frames, WindowTagging};
use crate::tagger::Tagger;

/// The results for the windows of a recording, in their order: see [`Tagger::windows`].
///
/// After an error of the source come the windows of what was read until then, then the error, then nothing.
pub struct Windows<'t, I> {
    tagger: &'t Tagger,
    runner: Runner,
    blocks: I,
    /// The block that is being read, and how much of it was.
    block: (Vec<f32>, usize),
    /// The source has ended, perhaps with an error.
    ended: bool,
    error: Option<Error>,
    ready: VecDeque<WindowTagging>,
}

impl Tagger {
    /// Tags a recording of any length window by window: an iterator over the results, which reads as it goes. Give a
    /// [`Waveform`](crate::Waveform) or an [`AudioReader`], of any rate. See [the module](self).
    ///
    /// # Errors
    /// [`Error::Config`] if the window settings are invalid, if frames are requested from a model without them, if the
    /// reader has already been read from, or if its rate is too far from the model's. Errors of reading and tagging come as
    /// items.
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
        let runner = Runner::new(tagger, config)?;
        let (block, ready) = ((Vec::new(), 0), VecDeque::new());
        Ok(Self { tagger, runner, blocks, block, ended: false, error: None, ready })
    }

    /// The source of samples: how far it is, for example.
    pub fn source(&self) -> &I {
        &self.blocks
    }

    /// Seconds of audio that were read so far.
    pub fn position(&self) -> f64 {
        self.runner.received() as f64 / f64::from(self.tagger.model().info().sample_rate)
    }

    /// One result for all windows that are left.
    ///
    /// # Errors
    /// The first error of a window, [`Error::TooShort`] if there is none, and as [`Aggregator::finish`].
    pub fn aggregate(self, aggregation: Aggregation) -> Result<Tagging> {
        let tagger = self.tagger;
        let mut aggregator = Aggregator::new(aggregation);
        for window in self {
            aggregator.push(&window?);
        }
        aggregator.finish(tagger)
    }

    /// Reads until the model has enough to do.
    fn fill(&mut self) {
        while !self.ended && !self.runner.is_full() {
            let result = if self.block.1 < self.block.0.len() {
                self.runner.push(self.tagger, &self.block.0[self.block.1..]).map(|taken| self.block.1 += taken)
            } else {
                match self.blocks.next() {
                    Some(Ok(block)) => {
                        self.block = (block, 0);
                        continue;
                    }
                    Some(Err(error)) => Err(error),
                    None => {
                        self.ended = true;
                        Ok(())
                    }
                }
            };
            if let Err(error) = result {
                (self.ended, self.error) = (true, Some(error));
            }
            if self.ended {
                self.runner.finish(self.tagger);
            }
        }
    }
}

impl<I: Iterator<Item = Result<Vec<f32>>>> Iterator for Windows<'_, I> {
    type Item = Result<WindowTagging>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.fill();
            match self.runner.tag(self.tagger) {
                Ok(windows) => self.ready.extend(windows),
                Err(error) => {
                    (self.ended, self.error) = (true, None);
                    self.runner.reset();
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok).or_else(|| self.error.take().map(Err))
    }
}
