//! `clipwise evaluate`.

mod classes;
mod dataset;
mod report;

use std::path::PathBuf;

pub use dataset::{Clip, Dataset};

use self::classes::{LabelMap, Targets};
use self::report::{Evaluation, Format, Prediction};
use crate::input::ClipArgs;
use crate::message::say;
use crate::model::{ModelArgs, list_classes};
use crate::run::{JobArgs, Jobs, Outcome, Status, interrupt, with_threads};

/// Measure how well a model tells the classes of labelled audio files apart, without training.
///
/// Each class of the data stands for one or several classes of the model: for the one of the same name (case, punctuation
/// and spaces do not matter), or for those that --map names. Its score is the highest of theirs, and the prediction for a
/// file is the class with the highest score.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which classes of the model a class of the data stands for: JSON {"class": ["label", ...]}, or CSV with the header
    /// target,label
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Also count a file as right if its class is among the K highest
    #[arg(long, value_name = "K", default_value_t = 3)]
    top_k: usize,
    /// What to print: tables for people, one JSON object for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Add the prediction and the scores of every file to JSON
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    clip: ClipArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// A folder with one folder of audio files per class, or a CSV with the header file,label (paths relative to the CSV)
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  clipwise evaluate --map esc10.json esc10/
  clipwise evaluate --weights Cnn14_mAP=0.431.pth --format json --full test.csv > result.json";

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || self.evaluate())
    }

    /// Tags every file and prints the measures.
    fn evaluate(&self) -> Outcome {
        if self.full && !matches!(self.format, Format::Json) {
            return Err("--full needs --format json".into());
        }
        if self.top_k == 0 {
            return Err("--top-k: expected at least 1".into());
        }
        let tagger = self.model.open()?.tagger;
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.clip.check(&tagger)?;
        let dataset = Dataset::open(&self.data)?;
        let map = self.map.as_deref().map(LabelMap::open).transpose()?;
        let targets = Targets::new(&dataset.classes, tagger.labels(), map.as_ref())?;
        for name in &targets.unused {
            say(format_args!("note: the map names {name:?}, which is not a class of the data"));
        }
        interrupt::on_interrupt()?;

        let (mut predictions, mut failed) = (Vec::new(), Vec::new());
        let jobs = Jobs::new(&self.jobs, self.model.run.threads);
        dataset.run(jobs, self.clip.work(&tagger, ClipArgs::tag), |index, result| match result {
            Ok(tagged) => {
                let Clip { file, class } = &dataset.clips[index];
                predictions.push(Prediction::new(file.clone(), *class, targets.scores(&tagged.tagging)));
            }
            Err(error) => failed.push(error.to_string()),
        })?;
        if interrupt::interrupted() {
            return Err("interrupted: no measures, since they would be of a part of the files".into());
        }
        if predictions.is_empty() {
            return Err(format!("none of the {} files could be tagged", dataset.clips.len()).into());
        }
        let status = if failed.is_empty() { Status::Good } else { Status::SomeFailed };
        let evaluation = Evaluation::new(&self.data, &tagger, &targets, predictions, failed, self.top_k)?;
        evaluation.print(self.format, self.full)?;
        Ok(status)
    }
}
