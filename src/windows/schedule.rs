//! Length and position of windows.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frontend::FrontEnd;
use crate::models::TaggingModel;

/// Limit on the length of a window, in samples.
const MAX_LENGTH: f64 = (1u64 << 31) as f64;
/// Limit on the length of a window with `pad_last`, in samples: 17 minutes at 32 kHz. Without it, a window holds only
/// what was read.
const MAX_PADDED: usize = 1 << 25;
/// Limit on `batch`.
const MAX_BATCH: usize = 4096;

/// Settings of the windows over a recording or a stream. Times are in seconds.
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
    /// If `hop` is at most `length`, windows leave no gap: because starts are rounded, `length` is raised to the
    /// longest distance between two starts if it is shorter.
    pub length: f64,
    /// Distance between the starts of two windows. Default: 5.
    ///
    /// Window `k` starts at the multiple of the front end's hop that is nearest to `k · hop`, for a model with a
    /// [`front_end`](TaggingModel::front_end) (32 ms at most, for those of this crate); at the nearest sample for
    /// another. With `framewise`, at the nearest multiple of a frame. Starts thus never drift from `k · hop`.
    pub hop: f64,
    /// Whether the last window is padded with zeros to `length`, which must then be at most 2^25 samples (17 minutes at
    /// 32 kHz). Otherwise (the default) it ends with the recording; if that is too short for the model, it is padded as
    /// a clip is.
    pub pad_last: bool,
    /// Windows per batch, 1 to 4096. It does not change the results: larger batches keep more cores busy and take more
    /// memory. Default: 4. A stream does not wait for a full batch.
    pub batch: usize,
    /// Whether the results include the model's output for each frame. Default: no.
    ///
    /// `hop` must then be at most `length`, and less for a model without frames near the ends of a clip, such as M5, so
    /// that the frames of successive windows leave no gap.
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
    /// Distance between starts in multiples of `align`, not rounded.
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
                return Err(Error::config(
                    field,
                    seconds,
                    format!("expected more than 0 s and less than {} s", MAX_LENGTH / rate),
                ));
            }
        }
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(Error::config("batch", batch, format!("expected 1 to {MAX_BATCH}")));
        }
        let mut align = model.front_end().map_or(1, |front_end| front_end.reach().hop_length.max(1));
        if framewise {
            let no_frames = || {
                Error::config(
                    "framewise",
                    true,
                    format!("expected false, since {} has no framewise output", model.info().name),
                )
            };
            align = model.info().frames.ok_or_else(no_frames)?.step;
            if hop > length {
                return Err(Error::config(
                    "hop",
                    hop,
                    format!("expected at most the length, {length} s, with framewise"),
                ));
            }
        }
        let mut schedule = Self { length: (length * rate).round() as usize, hop: hop * rate / align as f64, align };
        if schedule.length == 0 {
            return Err(Error::config("length", length, "expected at least one sample"));
        }
        if schedule.hop < 1.0 - 1e-9 {
            let reason = format!("expected at least {} s: windows start at multiples of that", align as f64 / rate);
            return Err(Error::config("hop", hop, reason));
        }
        if framewise {
            schedule.check_frames(config, model)?;
        }
        if hop <= length {
            schedule.length = schedule.length.max(schedule.farthest() * align);
        }
        if config.pad_last && schedule.length > MAX_PADDED {
            let reason = format!("expected at most {} s with pad_last", MAX_PADDED as f64 / rate);
            return Err(Error::config("length", length, reason));
        }
        Ok(schedule)
    }

    /// Rejects windows whose frames would leave gaps, for models without frames near the ends of a clip.
    fn check_frames(&self, config: &WindowConfig, model: &dyn TaggingModel) -> Result<()> {
        let Some(grid) = model.info().frames.filter(|grid| grid.first > 0) else { return Ok(()) };
        let rate = f64::from(model.info().sample_rate);
        // Number of samples that the first frame depends on; its distance from both ends of the window is `grid.first`.
        let seen = model.info().min_samples.max(grid.first.saturating_mul(2).saturating_add(grid.step));
        let Some(rest) = self.length.checked_sub(seen) else {
            let reason = format!("expected at least {} s with framewise for {}", seen as f64 / rate, model.info().name);
            return Err(Error::config("length", config.length, reason));
        };
        let longest = rest / grid.step + 1;
        if self.farthest() > longest {
            let seconds = (longest * grid.step) as f64 / rate;
            let reason = format!(
                "expected at most {seconds} s: {} has no frames closer to the ends of a window",
                model.info().name
            );
            return Err(Error::config("hop", config.hop, reason));
        }
        Ok(())
    }

    /// The model's front end, if overlapping windows can share its frames.
    pub fn shared_front_end<'m>(&self, model: &'m dyn TaggingModel) -> Option<&'m dyn FrontEnd> {
        let front_end = model.front_end()?;
        let long_enough = self.length >= model.info().min_samples.max(front_end.min_samples());
        (long_enough && self.align.is_multiple_of(front_end.reach().hop_length)).then_some(front_end)
    }

    /// The longest distance between two starts, in multiples of `align`.
    fn farthest(&self) -> usize {
        (self.hop - 1e-9).ceil() as usize
    }

    /// The first sample of a window; increases with the index.
    pub fn start(&self, index: u64) -> u64 {
        (index as f64 * self.hop).round() as u64 * self.align as u64
    }

    /// The samples of a window, in a recording that is long enough.
    pub fn window(&self, index: u64) -> Range<u64> {
        let start = self.start(index);
        start..start + self.length as u64
    }
}
