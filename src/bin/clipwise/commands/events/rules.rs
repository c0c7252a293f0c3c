//! What counts as an event, from the command line.

use clipwise::EventConfig;
use clipwise::events::{ClassThresholds, Smoothing};

use super::command_line::Failure;

#[derive(clap::Args)]
pub struct Rules {
    /// A score that an event must reach
    #[arg(long, value_name = "T", default_value_t = 0.3)]
    pub on: f32,
    /// A score below which it ends [default: half of --on]
    #[arg(long, value_name = "T")]
    pub off: Option<f32>,
    /// Leave out events shorter than this
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    min_duration: f64,
    /// Join events of a class that are no farther apart
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    min_gap: f64,
    /// Smooth scores by the median of N frames or windows
    #[arg(long, value_name = "N", conflicts_with = "mean")]
    median: Option<usize>,
    /// Smooth scores by the mean of N frames or windows
    #[arg(long, value_name = "N")]
    mean: Option<usize>,
    /// Only this class, by name or id; may be repeated
    #[arg(long, value_name = "CLASS")]
    allow: Vec<String>,
    /// Not this class; may be repeated
    #[arg(long, value_name = "CLASS")]
    deny: Vec<String>,
    /// Thresholds of a class of its own; may be repeated
    #[arg(long, value_name = "CLASS=ON:OFF")]
    class: Vec<String>,
    /// Name the classes above in the ontology, if the label file has them
    #[arg(long)]
    parents: bool,
}

impl Rules {
    pub fn config(&self) -> Result<EventConfig, Failure> {
        let class = |text: &String| {
            let parts = || {
                let (label, thresholds) = text.rsplit_once('=')?;
                let (on, off) = thresholds.split_once(':')?;
                let (threshold_on, threshold_off) = (on.parse().ok()?, off.parse().ok()?);
                Some(ClassThresholds { label: label.to_string(), threshold_on, threshold_off })
            };
            parts().ok_or_else(|| Failure::from(format!("--class {text}: expected NAME=ON:OFF, as in Dog=0.5:0.2")))
        };
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
            classes: self.class.iter().map(class).collect::<Result<_, _>>()?,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            parents: self.parents,
        })
    }
}
