//! From a file to one result.

use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Once};

use clap::ValueEnum;
use clipwise::audio::AudioReader;
use clipwise::windows::Aggregator;
use clipwise::{Aggregation, Result, Tagger, Tagging, Waveform, WindowConfig, Windows};

use super::ReadArgs;
use crate::message::{Failure, about, in_options, name, say, say_about};

/// A longer recording is tagged in windows unless `--window` says otherwise, in seconds.
const LONG: f64 = 30.0;
/// The windows of a long recording, in seconds.
const WINDOW: f64 = 10.0;

/// How a file becomes one result.
#[derive(clap::Args, Clone, Debug)]
pub struct ClipArgs {
    /// Length of windows in seconds, whose results become one: memory does not grow with the length of a file. `whole` takes
    /// files as a whole, `auto` takes windows of 10 s above 30 s
    #[arg(long, value_name = "SECONDS", default_value = "auto", help_heading = "Long recordings")]
    window: Window,
    /// How windows become one result [default: mean; with --window auto, the scores of long recordings: max]
    #[arg(long, value_enum, help_heading = "Long recordings")]
    aggregate: Option<How>,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Window {
    Auto,
    Whole,
    Seconds(f64),
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "whole" => Ok(Self::Whole),
            _ => text.parse().map(Self::Seconds).map_err(|_| "expected a number of seconds, auto or whole".to_string()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum How {
    /// The mean of the scores, and of the embeddings
    Mean,
    /// The largest score of each class: what sounds at some time
    Max,
    /// The scores that the model's last layer gives for the mean of the embeddings
    Embedding,
}

impl From<How> for Aggregation {
    fn from(how: How) -> Self {
        match how {
            How::Mean => Self::Mean,
            How::Max => Self::Max,
            How::Embedding => Self::Embedding,
        }
    }
}

/// The result for a file.
pub struct Tagged {
    pub tagging: Tagging,
    /// The file's rate in Hz.
    pub sample_rate: u32,
    /// Its length in seconds.
    pub duration: f64,
}

impl ClipArgs {
    /// Fails as every file would with these settings.
    pub fn check(&self, tagger: &Tagger) -> std::result::Result<(), Failure> {
        let Some(config) = self.windows(0.0) else { return Ok(()) };
        let windows = Windows::new(tagger, std::iter::empty(), &config).map(drop);
        windows.map_err(|error| in_options(error, &[("length", "--window"), ("hop", "--window")]))
    }

    /// The windows of a recording, if it is not taken as a whole.
    fn windows(&self, seconds: f64) -> Option<WindowConfig> {
        let length = match self.window {
            Window::Seconds(seconds) => seconds,
            Window::Auto if seconds > LONG => WINDOW,
            Window::Auto | Window::Whole => return None,
        };
        Some(WindowConfig { length, hop: length, ..WindowConfig::default() })
    }

    /// Tags a file. Samples are resampled as they are read, so only the clip at the model's rate is in memory.
    pub fn tag(&self, tagger: &Tagger, file: &Path) -> Result<Tagged> {
        self.result(tagger, file, Aggregation::Max, "the largest score per class")
    }

    /// As [`tag`](Self::tag), with the mean of a long recording's embeddings.
    pub fn embed(&self, tagger: &Tagger, file: &Path) -> Result<Tagged> {
        self.result(tagger, file, Aggregation::Mean, "the mean of their embeddings")
    }

    /// Work for [`Jobs::run`](crate::run::Jobs::run): emits what `how`, [`tag`](Self::tag) or [`embed`](Self::embed), gives for a file.
    pub fn work(
        &self,
        tagger: &Arc<Tagger>,
        how: fn(&Self, &Tagger, &Path) -> Result<Tagged>,
    ) -> impl Fn(&Path, &mut dyn FnMut(Tagged)) -> std::result::Result<(), String> + Send + Sync + 'static {
        let (clip, tagger) = (self.clone(), Arc::clone(tagger));
        move |file, emit| how(&clip, &tagger, file).map(emit).map_err(|error| about(file, &error))
    }

    fn result(&self, tagger: &Tagger, file: &Path, of_long: Aggregation, what: &str) -> Result<Tagged> {
        let rate = tagger.model().info().sample_rate;
        let mut reader = self.read.open(file)?.resampled(rate)?;
        // What has been read before it is known whether there are windows.
        let mut samples = Vec::new();
        let mut seconds = 0.0;
        while self.windows(seconds).is_none() {
            let Some(block) = reader.next() else { break };
            samples.append(&mut block?);
            seconds = samples.len() as f64 / f64::from(rate);
        }
        let Some(config) = self.windows(seconds) else {
            let tagging = tagger.tag(&Waveform::new(samples, rate))?;
            return Ok(Tagged::new(tagging, &reader));
        };
        let aggregation = match (self.aggregate, self.window) {
            (Some(how), _) => how.into(),
            (None, Window::Auto) => of_long,
            (None, _) => Aggregation::Mean,
        };
        let mut aggregator = Aggregator::new(aggregation);
        let head = if samples.is_empty() { None } else { Some(Ok(samples)) };
        for window in Windows::new(tagger, head.into_iter().chain(&mut reader), &config)? {
            aggregator.push(&window?);
        }
        let tagged = Tagged::new(aggregator.finish(tagger)?, &reader);
        if self.window == Window::Auto && self.aggregate.is_none() {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                let file = name(file);
                say(format_args!(
                    "note: {file}: recordings above {LONG} s are taken in windows of {WINDOW} s, with {what}; `--window whole` takes \
                     them as a whole"
                ));
            });
        }
        Ok(tagged)
    }
}

impl Tagged {
    fn new(tagging: Tagging, reader: &AudioReader) -> Self {
        say_about(reader);
        Self { tagging, sample_rate: reader.source_rate(), duration: reader.seconds_read() }
    }
}
