//! From frames to seconds.

use super::Token;
use crate::error::{Error, Result};

/// When the frames of a clip are, in seconds.
///
/// A number of seconds per frame is one too, without an end. The last frames of a clip reach up to one frame beyond its end,
/// since encoders round up; with the end, no time of a token or word is later.
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
    /// The time from a frame to the next, above 0.
    pub frame_seconds: f64,
    /// The clip's end, 0 or more; `None` where it is not known.
    pub end: Option<f64>,
}

impl From<f64> for FrameTimes {
    fn from(frame_seconds: f64) -> Self {
        Self::new(frame_seconds)
    }
}

impl FrameTimes {
    /// Frames of `frame_seconds` each, without an end.
    pub fn new(frame_seconds: f64) -> Self {
        Self { frame_seconds, end: None }
    }

    /// The same in a clip that ends there, in seconds.
    pub fn until(self, end: f64) -> Self {
        Self { end: Some(end), ..self }
    }

    /// Where a frame begins, and the one before it ends.
    pub(super) fn start_of(self, frame: usize) -> f64 {
        let start = frame as f64 * self.frame_seconds;
        self.end.map_or(start, |end| start.min(end))
    }

    /// Moves times that are later than the end to it.
    pub(super) fn cut(self, tokens: &mut [Token]) {
        let Some(end) = self.end else { return };
        for token in tokens {
            (token.onset, token.offset) = (token.onset.min(end), token.offset.min(end));
        }
    }

    /// Itself, unless it gives no times.
    pub(super) fn checked(self) -> Result<Self> {
        if !(self.frame_seconds.is_finite() && self.frame_seconds > 0.0) {
            let reason = "the duration of a frame must be a positive number of seconds";
            return Err(Error::argument("frame_seconds", self.frame_seconds, reason));
        }
        match self.end {
            Some(end) if !(end.is_finite() && end >= 0.0) => {
                Err(Error::argument("end", end, "the end of a clip must be 0 seconds or more"))
            }
            _ => Ok(self),
        }
    }
}
