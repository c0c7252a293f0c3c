//! What counts as an event.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::labels::LabelSet;

/// The longest smoothing window, in frames or windows.
const MAX_SMOOTHING: usize = 1 << 16;

/// A centred filter over the scores of each class, over an odd number of frames or windows (fewer at the ends of a recording).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Smoothing {
    /// None.
    #[default]
    None,
    /// The median of this many scores (of an even number at the ends, the mean of the middle two).
    Median(usize),
    /// The mean of this many scores.
    Mean(usize),
}

impl Smoothing {
    /// Scores on each side of the one in the middle.
    pub(super) fn half(self) -> usize {
        match self {
            Self::None => 0,
            Self::Median(n) | Self::Mean(n) => n / 2,
        }
    }
}

/// The thresholds of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassThresholds {
    /// Display name or machine id.
    pub label: String,
    /// As [`EventConfig::threshold_on`].
    pub threshold_on: f32,
    /// As [`EventConfig::threshold_off`].
    pub threshold_off: f32,
}

/// What counts as an event. Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventConfig {
    /// The score that an event must reach. Default: 0.3.
    pub threshold_on: f32,
    /// The score below which an event begins and ends; at most `threshold_on`. Default: 0.15.
    pub threshold_off: f32,
    /// Shorter events are dropped. Default: 0.
    pub min_duration: f64,
    /// Events of a class that are no farther apart become one. Default: 0.
    pub min_gap: f64,
    /// A filter before the thresholds. Default: none.
    pub smoothing: Smoothing,
    /// Classes with other thresholds. Default: none.
    pub classes: Vec<ClassThresholds>,
    /// Only these classes count, by display name or machine id; all if it is empty, the default.
    pub allow: Vec<String>,
    /// These do not count. Default: none.
    pub deny: Vec<String>,
    /// Whether events name the classes above theirs ([`Label::parents`](crate::Label::parents)). Default: no.
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

/// Thresholds of a class that counts: on, off.
pub(super) type Thresholds = (f32, f32);

impl EventConfig {
    /// The thresholds of each class of a label set; `None` for a class that does not count.
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
            let unknown = || Error::config(field, name, "no class has this name or id");
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
