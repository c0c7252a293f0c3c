//! Where windows lie.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frontend::FrontEnd;
use crate::models::TaggingModel;

/// The longest window in samples.
const MAX_LENGTH: f64 = (1u64 << 31) as f64;
/// The longest window in samples that zeros are to fill: 17 minutes at 32 kHz. Of others there is no more than was read.
const MAX_PADDED: usize = 1 << 25;
/// The most windows that a model sees at once.
const MAX_BATCH: usize = 4096;

/// Windows over a recording or a stream. Times in seconds.
///
/// ```
/// use clipwise::WindowConfig;
///
/// let config = WindowConfig { length: 2.0, hop: 1.0, ..WindowConfig::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowConfig {
    /// Length of a window. Default: 10.
    ///
    /// Where `hop` is at most `length`, windows leave no hole: they are as long as the longest way from start to start, if `length`
    /// is less than that, as starts are rounded.
    pub length: f64,
    /// From the start of a window to that of the next. Default: 5.
    ///
    /// Window `k` starts at the multiple of the front end's hop that is nearest to `k · hop`, for a model with a
    /// [`front_end`](TaggingModel::front_end) (32 ms at most, for those of this crate); at the nearest sample for another. With `framewise`, at the nearest multiple
    /// of a frame. Starts thus never drift from what was asked for.
    pub hop: f64,
    /// Whether zeros fill the last window up to `length`, which is then at most 2^25 samples (17 minutes at 32 kHz). Otherwise (the
    /// default) it is as long as what is left of the recording, and what is too short for the model is padded as in a clip.
    pub pad_last: bool,
    /// Windows that the model sees at once, which does not change what it says. More keep more cores busy and take more memory.
    /// Default: 4. A stream does not wait for so many.
    pub batch: usize,
    /// Whether the model's output for frames is wanted too. Default: no.
    ///
    /// `hop` is then at most `length`, and less for a model without frames near the ends of a clip, such as M5: frames of
    /// windows that follow each other must touch.
    pub framewise: bool,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self { length: 10.0, hop: 5.0, pad_last: false, batch: 4, framewise: false }
    }
}

/// Windows in samples of the model's rate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    /// Length of a window.
    pub length: usize,
    /// From start to start, in multiples of `align`, not rounded.
    hop: f64,
    /// Starts are multiples of it.
    align: usize,
}

impl Schedule {
    pub fn new(config: &WindowConfig, model: &dyn TaggingModel) -> Result<Self> {
        let WindowConfig { length, hop, batch, framewise, .. } = *config;
        let rate = f64::from(model.info().sample_rate);
        for (field, seconds) in [("length", length), ("hop", hop)] {
            if !(seconds > 0.0 && seconds * rate < MAX_LENGTH) {
                return Err(Error::config(field, seconds, format!("above 0 s and below {} s", MAX_LENGTH / rate)));
            }
        }
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(Error::config("batch", batch, format!("1 to {MAX_BATCH}")));
        }
        let mut align = model.front_end().map_or(1, |front_end| front_end.reach().hop_length.max(1));
        if framewise {
            let no_frames =
                || Error::config("framewise", true, format!("{} has no output for frames", model.info().name));
            align = model.info().frames.ok_or_else(no_frames)?.step;
            if hop > length {
                return Err(Error::config("hop", hop, format!("at most the length, {length} s, if frames are wanted")));
            }
        }
        let mut schedule = Self { length: (length * rate).round() as usize, hop: hop * rate / align as f64, align };
        if schedule.length == 0 {
            return Err(Error::config("length", length, "at least one sample"));
        }
        if schedule.hop < 1.0 - 1e-9 {
            let reason = format!("windows start at multiples of {} s: at least that", align as f64 / rate);
            return Err(Error::config("hop", hop, reason));
        }
        if framewise {
            schedule.check_frames(config, model)?;
        }
        if hop <= length {
            schedule.length = schedule.length.max(schedule.farthest() * align);
        }
        if config.pad_last && schedule.length > MAX_PADDED {
            let reason = format!("expected at most {} s where the last window is padded", MAX_PADDED as f64 / rate);
            return Err(Error::config("length", length, reason));
        }
        Ok(schedule)
    }

    /// Whether the frames of a window reach to those of the next, for a model that has none near the ends of a clip.
    fn check_frames(&self, config: &WindowConfig, model: &dyn TaggingModel) -> Result<()> {
        let Some(grid) = model.info().frames.filter(|grid| grid.first > 0) else { return Ok(()) };
        let rate = f64::from(model.info().sample_rate);
        // What the first frame sees, and as much as it lies from both ends.
        let seen = model.info().min_samples.max(grid.first.saturating_mul(2).saturating_add(grid.step));
        let Some(rest) = self.length.checked_sub(seen) else {
            let reason = format!("at least {} s if frames of {} are wanted", seen as f64 / rate, model.info().name);
            return Err(Error::config("length", config.length, reason));
        };
        let longest = rest / grid.step + 1;
        if self.farthest() > longest {
            let seconds = (longest * grid.step) as f64 / rate;
            let reason =
                format!("at most {seconds} s: the frames of {} are no nearer to a window's ends", model.info().name);
            return Err(Error::config("hop", config.hop, reason));
        }
        Ok(())
    }

    /// The model's front end, if windows that overlap can share its frames.
    pub fn shared_front_end<'m>(&self, model: &'m dyn TaggingModel) -> Option<&'m dyn FrontEnd> {
        let front_end = model.front_end()?;
        let long_enough = self.length >= model.info().min_samples.max(front_end.min_samples());
        (long_enough && self.align.is_multiple_of(front_end.reach().hop_length)).then_some(front_end)
    }

    /// The longest way from start to start, in multiples of `align`.
    fn farthest(&self) -> usize {
        (self.hop - 1e-9).ceil() as usize
    }

    /// First sample of a window. Later windows start later.
    pub fn start(&self, index: u64) -> u64 {
        (index as f64 * self.hop).round() as u64 * self.align as u64
    }

    /// The samples of a window of a recording that is long enough.
    pub fn window(&self, index: u64) -> Range<u64> {
        let start = self.start(index);
        start..start + self.length as u64
    }
}
