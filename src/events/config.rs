//! Settings of event detection.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::labels::LabelSet;

/// Limit on the smoothing window, in frames or windows.
const MAX_SMOOTHING: usize = 1 << 16;

/// A centred filter over the scores of each class. Its length is an odd number of frames or windows; it is shorter at
/// the ends of a recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Smoothing {
    /// No smoothing.
    #[default]
    None,
    /// The median of this many scores. At the ends, the median of an even number is the mean of the middle two.
    Median(usize),
    /// The mean of this many scores.
    Mean(usize),
}

impl Smoothing {
    /// Number of scores on each side of the centre.
    pub(super) fn half(self) -> usize {
        match self {
            Self::None => 0,
            Self::Median(n) | Self::Mean(n) => n / 2,
        }
    }
}

/// Thresholds of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassThresholds {
    /// Display name or machine id.
    pub label: String,
    /// See [`EventConfig::threshold_on`].
    pub threshold_on: f32,
    /// See [`EventConfig::threshold_off`].
    pub threshold_off: f32,
}

/// Settings of [`EventDetector`](super::EventDetector). Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventConfig {
    /// The score that an event must reach. Default: 0.3.
    pub threshold_on: f32,
    /// The score below which an event ends, and before it begins; at most `threshold_on`. Default: 0.15.
    pub threshold_off: f32,
    /// Minimum duration; shorter events are dropped. Default: 0.
    pub min_duration: f64,
    /// Events of a class that are at most this far apart are merged. Default: 0.
    pub min_gap: f64,
    /// Smoothing of the scores before the thresholds are applied. Default: none.
    pub smoothing: Smoothing,
    /// Thresholds of individual classes. Default: none.
    pub classes: Vec<ClassThresholds>,
    /// Classes to detect, by display name or machine id. Default: empty, for all classes.
    pub allow: Vec<String>,
    /// Classes to ignore, by display name or machine id. Default: none.
    pub deny: Vec<String>,
    /// Whether events list the parents of their class ([`Label::parents`](crate::Label::parents)). Default: false.
    pub parents: bool,
}

impl Default for EventConfig {
    fn default() -> Self {
        Self {
            threshold_on: 0.3,
            threshold_off: 0.15,
            min_duration: 0.0,
            min_gap: 0.0,
            smoothing: Smoothing::None,
            classes: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            parents: false,
        }
    }
}

/// The thresholds of a detected class: on, off.
pub(super) type Thresholds = (f32, f32);

impl EventConfig {
    /// The thresholds of each class of a label set; `None` for classes that are not detected.
    pub(super) fn thresholds(&self, labels: &LabelSet) -> Result<Vec<Option<Thresholds>>> {
        for (field, seconds) in [("min_duration", self.min_duration), ("min_gap", self.min_gap)] {
            if !(seconds.is_finite() && seconds >= 0.0) {
                return Err(Error::config(field, seconds, "expected 0 s or more"));
            }
        }
        if let Smoothing::Median(n) | Smoothing::Mean(n) = self.smoothing
            && (n % 2 == 0 || n > MAX_SMOOTHING)
        {
            return Err(Error::config("smoothing", n, format!("expected an odd number up to {MAX_SMOOTHING}")));
        }
        let index = |field: &'static str, name: &str| {
            let unknown = || Error::config(field, name, "expected the display name or machine id of a class");
            labels.index_of(name).ok_or_else(unknown)
        };
        let checked = |on: f32, off: f32| {
            if !on.is_finite() {
                return Err(Error::config("threshold_on", on, "expected a finite score"));
            }
            if !(off.is_finite() && off <= on) {
                return Err(Error::config("threshold_off", off, format!("expected at most threshold_on = {on}")));
            }
            Ok((on, off))
        };
        let usual = checked(self.threshold_on, self.threshold_off)?;
        let mut thresholds = vec![if self.allow.is_empty() { Some(usual) } else { None }; labels.len()];
        for name in &self.allow {
            thresholds[index("allow", name)?] = Some(usual);
        }
        for class in &self.classes {
            let own = checked(class.threshold_on, class.threshold_off)?;
            if let Some(thresholds) = &mut thresholds[index("classes", &class.label)?] {
                *thresholds = own;
            }
        }
        for name in &self.deny {
            thresholds[index("deny", name)?] = None;
        }
        Ok(thresholds)
    }
}
