//! What counts as an event, from the command line.

use clipwise::events::{ClassThresholds, Smoothing};
use clipwise::{Event, EventConfig, EventDetector, LabelSet};

use crate::message::{Failure, in_options};
use crate::model::class;

#[derive(clap::Args, Clone, Debug)]
pub struct Rules {
    /// A score that an event must reach
    #[arg(long, help_heading = "Events", value_name = "T", default_value_t = 0.3)]
    pub on: f32,
    /// A score below which it ends [default: half of --on]
    #[arg(long, help_heading = "Events", value_name = "T")]
    pub off: Option<f32>,
    /// Leave out events shorter than this
    #[arg(long, help_heading = "Events", value_name = "SECONDS", default_value_t = 0.0)]
    min_duration: f64,
    /// Join events of a class that are no farther apart
    #[arg(long, help_heading = "Events", value_name = "SECONDS", default_value_t = 0.0)]
    min_gap: f64,
    /// Smooth scores by the median of N frames or windows
    #[arg(long, help_heading = "Events", value_name = "N", conflicts_with = "mean")]
    median: Option<usize>,
    /// Smooth scores by the mean of N frames or windows
    #[arg(long, help_heading = "Events", value_name = "N")]
    mean: Option<usize>,
    /// Only this class, by name or id; may be repeated
    #[arg(long, help_heading = "Events", value_name = "CLASS")]
    allow: Vec<String>,
    /// Not this class; may be repeated
    #[arg(long, help_heading = "Events", value_name = "CLASS")]
    deny: Vec<String>,
    /// Thresholds of a class of its own; may be repeated
    #[arg(long, help_heading = "Events", value_name = "CLASS=ON:OFF")]
    class: Vec<String>,
    /// Leave out an event if more specific ones of AudioSet's ontology sound for at least half of it
    #[arg(long, help_heading = "Events")]
    pub most_specific: bool,
    /// Name the classes above each event in AudioSet's ontology, nearest first
    #[arg(long, help_heading = "Events")]
    parents: bool,
}

impl Rules {
    /// The rules, for a model with these classes.
    pub fn config(&self, labels: &LabelSet) -> Result<EventConfig, Failure> {
        let thresholds = |text: &String| {
            let parts = || {
                let (label, thresholds) = text.rsplit_once('=')?;
                let (on, off) = thresholds.split_once(':')?;
                let (threshold_on, threshold_off) = (on.parse().ok()?, off.parse().ok()?);
                Some(ClassThresholds { label: label.to_string(), threshold_on, threshold_off })
            };
            let parts = parts().ok_or_else(|| format!("--class {text}: expected CLASS=ON:OFF, as in Dog=0.5:0.2"))?;
            class(labels, &parts.label)?;
            Ok::<_, Failure>(parts)
        };
        for name in self.allow.iter().chain(&self.deny) {
            class(labels, name)?;
        }
        Ok(EventConfig {
            threshold_on: self.on,
            threshold_off: self.off.unwrap_or(0.5 * self.on),
            min_duration: self.min_duration,
            min_gap: self.min_gap,
            smoothing: match (self.median, self.mean) {
                (Some(n), _) => Smoothing::Median(n),
                (None, Some(n)) => Smoothing::Mean(n),
                (None, None) => Smoothing::None,
            },
            classes: self.class.iter().map(thresholds).collect::<Result<_, _>>()?,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            parents: self.parents,
        })
    }
}

/// Fails as every file would with these rules.
pub fn check(config: &EventConfig, labels: &LabelSet) -> Result<(), Failure> {
    let smoothing = if matches!(config.smoothing, Smoothing::Mean(_)) { "--mean" } else { "--median" };
    let options = [
        ("threshold_on", "--on"),
        ("threshold_off", "--off"),
        ("min_duration", "--min-duration"),
        ("min_gap", "--min-gap"),
        ("smoothing", smoothing),
    ];
    EventDetector::new(config, labels).map(drop).map_err(|error| in_options(error, &options))
}

/// The events that no more specific ones cover for at least half of their time.
pub fn most_specific(events: Vec<Event>, labels: &LabelSet) -> Vec<Event> {
    let is_above = |above: &Event, below: &Event| labels.ancestors(below.index).contains(&above.index);
    let is_covered = |event: &Event| {
        let mut covered = 0.0;
        let mut end = event.onset;
        for other in events.iter().filter(|other| is_above(event, other)) {
            // The events are sorted by onset.
            let (onset, offset) = (other.onset.max(end), other.offset.min(event.offset));
            covered += (offset - onset).max(0.0);
            end = end.max(offset);
        }
        covered >= 0.5 * event.duration() && covered > 0.0
    };
    events.iter().filter(|event| !is_covered(event)).cloned().collect()
}
