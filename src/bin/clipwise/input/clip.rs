//! From a file to its result.

use std::path::Path;

use clap::ValueEnum;
use clipwise::audio::{AudioReader, ReadOptions};
use clipwise::windows::Aggregator;
use clipwise::{Aggregation, Result, Tagger, Tagging, Waveform, WindowConfig, Windows};

use crate::command_line::say_about;

/// How a file is taken.
#[derive(clap::Args, Clone, Debug)]
pub struct ClipArgs {
    /// Take files window by window, so many seconds each, and give one result for all: memory does not grow with their length
    #[arg(long, value_name = "SECONDS")]
    window: Option<f64>,
    /// With --window: how windows become one result
    #[arg(long, value_enum, default_value_t = How::Mean, requires = "window")]
    aggregate: How,
    /// Go on after damage within a file, with a note on stderr, instead of giving the file up
    #[arg(long)]
    skip_damage: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    /// The mean of the scores
    Mean,
    /// The largest score of each class: what was heard at some time
    Max,
    /// What the model's last layer says of the mean of the embeddings
    Embedding,
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
    /// An error that every file would have.
    pub fn check(&self, tagger: &Tagger) -> Result<()> {
        self.config().map_or(Ok(()), |config| Windows::new(tagger, std::iter::empty(), &config).map(drop))
    }

    fn config(&self) -> Option<WindowConfig> {
        self.window.map(|seconds| WindowConfig { length: seconds, hop: seconds, ..WindowConfig::default() })
    }

    /// Tags a file. Samples are resampled as they are read, so no more than the clip at the model's rate is in memory.
    pub fn tag(&self, tagger: &Tagger, file: &Path) -> Result<Tagged> {
        let options = if self.skip_damage { ReadOptions::SKIP_DAMAGE } else { ReadOptions::default() };
        let rate = tagger.model().info().sample_rate;
        let mut reader = AudioReader::open_with(file, &options)?.resampled(rate)?;
        let Some(config) = self.config() else {
            let mut samples = Vec::new();
            for block in &mut reader {
                samples.append(&mut block?);
            }
            let tagging = tagger.tag(&Waveform::new(samples, rate))?;
            return Ok(Tagged::new(tagging, &reader));
        };
        let mut windows = tagger.windows(reader, &config)?;
        let mut aggregator = Aggregator::new(match self.aggregate {
            How::Mean => Aggregation::Mean,
            How::Max => Aggregation::Max,
            How::Embedding => Aggregation::Embedding,
        });
        for window in &mut windows {
            aggregator.push(&window?);
        }
        Ok(Tagged::new(aggregator.finish(tagger)?, windows.source()))
    }
}

impl Tagged {
    fn new(tagging: Tagging, reader: &AudioReader) -> Self {
        say_about(reader);
        Self { tagging, sample_rate: reader.source_rate(), duration: reader.seconds_read() }
    }
}
