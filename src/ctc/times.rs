//! Conversion of frames to seconds.

use super::Token;
use crate::error::{Error, Result};

/// The times of a clip's frames, in seconds.
///
/// A number of seconds per frame converts to `FrameTimes` without an end. The last frames of a clip can reach up to one
/// frame beyond its end, because encoders round up; if the end is set, times of tokens and words are clipped to it.
///
/// ```
/// use clipwise::ctc::{FrameTimes, Vocabulary, greedy};
/// use clipwise::ndarray::array;
///
/// # fn main() -> clipwise::Result<()> {
/// let vocabulary = Vocabulary::new(["<pad>", "a"])?;
/// let log_probs = array![[0.1f32, 0.9], [0.1, 0.9]].mapv(f32::ln);
/// let offset = |times: FrameTimes| greedy(log_probs.view(), &vocabulary, times).map(|found| found.tokens[0].offset);
/// assert_eq!(offset(0.02.into())?, 0.04);
/// assert_eq!(offset(FrameTimes::new(0.02).until(0.035))?, 0.035);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct FrameTimes {
    /// The time from one frame to the next, in seconds; above 0.
    pub frame_seconds: f64,
    /// The end of the clip in seconds, 0 or more; `None` if unknown.
    pub end: Option<f64>,
}

impl From<f64> for FrameTimes {
    fn from(frame_seconds: f64) -> Self {
        Self::new(frame_seconds)
    }
}

impl FrameTimes {
    /// Frames of `frame_seconds` each, in a clip with unknown end.
    pub fn new(frame_seconds: f64) -> Self {
        Self { frame_seconds, end: None }
    }

    /// Sets the end of the clip, in seconds.
    pub fn until(self, end: f64) -> Self {
        Self { end: Some(end), ..self }
    }

    /// Start of a frame, which is the end of the frame before it.
    pub(super) fn start_of(self, frame: usize) -> f64 {
        let start = frame as f64 * self.frame_seconds;
        self.end.map_or(start, |end| start.min(end))
    }

    /// Clips times to the end.
    pub(super) fn cut(self, tokens: &mut [Token]) {
        let Some(end) = self.end else { return };
        for token in tokens {
            (token.onset, token.offset) = (token.onset.min(end), token.offset.min(end));
        }
    }

    /// Checks that the values are valid.
    pub(super) fn checked(self) -> Result<Self> {
        if !(self.frame_seconds.is_finite() && self.frame_seconds > 0.0) {
            let reason = "expected a positive number of seconds";
            return Err(Error::argument("frame_seconds", self.frame_seconds, reason));
        }
        match self.end {
            Some(end) if !(end.is_finite() && end >= 0.0) => {
                Err(Error::argument("end", end, "expected at least 0 seconds"))
            }
            _ => Ok(self),
        }
    }
}
