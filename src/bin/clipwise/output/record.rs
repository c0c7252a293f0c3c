//! What a model says about a file, or about a span of it: one line of JSON, one row of a table.

use clipwise::{Event, Tag, Tagger, device};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::Spoken;
use crate::input::Tagged;

/// One line of JSON. Each subcommand fills in its own fields, always in this order; `file` comes first.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Record {
    pub file: String,
    /// In the first line of a partial file: the run, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The file's own rate in Hz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// The file's length in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<ShownTag>>,
    /// Every score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipwise_output: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub spoken: Option<Spoken>,
    /// The events of the file. Printed as one record each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Event>>,
    /// Clock time of the onset, with `--start-time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Why the file failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A tag, perhaps with the classes above it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ShownTag {
    #[serde(flatten)]
    pub tag: Tag,
    /// Nearest first, with `--parents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<Vec<String>>,
}

impl From<Tag> for ShownTag {
    fn from(tag: Tag) -> Self {
        Self { tag, parents: None }
    }
}

impl Record {
    /// The file, its rate and length, and the model.
    pub fn of(file: &str, tagged: &Tagged, tagger: &Tagger) -> Self {
        Self {
            file: file.to_string(),
            sample_rate: Some(tagged.sample_rate),
            duration: Some(tagged.duration),
            model: Some(tagger.model().info().name.to_string()),
            device: Some(device::name(tagger.model().device())),
            ..Self::default()
        }
    }

    /// A record per event, or the record itself if it is not one of events.
    pub fn of_events(&self, start: Option<DateTime>) -> Vec<Self> {
        let mut of_file = self.clone();
        let Some(events) = of_file.events.take() else { return vec![of_file] };
        let record = |event: Event| Self {
            time: start.and_then(|start| clock_time(start, event.onset)),
            event: Some(event),
            ..of_file.clone()
        };
        events.into_iter().map(record).collect()
    }

    pub fn failed(file: &str, error: &str) -> Self {
        Self { file: file.to_string(), error: Some(error.to_string()), ..Self::default() }
    }
}

/// The clock time `seconds` after `start`, in milliseconds precision.
pub fn clock_time(start: DateTime, seconds: f64) -> Option<String> {
    let milliseconds = (seconds * 1e3).round() as i64;
    let time = start.checked_add(SignedDuration::from_millis(milliseconds)).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string())
}
