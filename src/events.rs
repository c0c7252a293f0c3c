//! Sound events with onset and offset, from scores over time.
//!
//! ```no_run
//! use clipwise::{EventConfig, EventDetector, Tagger, Waveform, WindowConfig};
//!
//! # fn main() -> clipwise::Result<()> {
//! let tagger = Tagger::open("Cnn14_DecisionLevelMax_mAP=0.385.pth", &clipwise::device::cpu())?;
//! let mut detector = EventDetector::new(&EventConfig::default(), tagger.labels())?;
//! let windows = WindowConfig { framewise: true, ..WindowConfig::default() };
//! for window in tagger.windows(Waveform::open("forest.wav")?, &windows)? {
//!     for event in detector.push(&window?)? {
//!         println!("{:6.2} {:6.2}  {}", event.onset, event.offset, event.label);
//!     }
//! }
//! let rest = detector.finish();
//! # Ok(())
//! # }
//! ```
//!
//! The scores of each class are smoothed. Then
//! 1. a **run** is a period without a score below `threshold_off` that has at least one score of `threshold_on` or more
//!    (double threshold, as in Dinkel et al. 2021, arXiv 2105.04065);
//! 2. runs at most `min_gap` apart are merged to one event;
//! 3. events shorter than `min_duration` are dropped.
//!
//! The detector processes scores as they arrive, and keeps only a smoothing window and a few numbers per class.

mod config;
mod detector;
mod smooth;
mod write;

use serde::{Deserialize, Serialize};

pub use config::{ClassThresholds, EventConfig, Smoothing};
pub use detector::EventDetector;
pub use write::{EventFormat, EventWriter};

/// A sound event. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Start of the event.
    pub onset: f64,
    /// End of the event.
    pub offset: f64,
    /// Display name of the class.
    pub label: String,
    /// Machine id of the class, such as AudioSet's `/m/09x0r`, if the label set has one.
    pub id: Option<String>,
    /// The index of the class in the label set.
    pub index: usize,
    /// The largest smoothed score.
    pub peak: f32,
    /// The mean of the smoothed scores over time, including merged gaps.
    pub mean: f32,
    /// The classes above it in an ontology, nearest first, if [`EventConfig::parents`] is set and the label set has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
}

impl Event {
    /// Duration in seconds.
    pub fn duration(&self) -> f64 {
        self.offset - self.onset
    }
}
