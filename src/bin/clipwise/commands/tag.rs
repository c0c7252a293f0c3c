//! `clipwise tag`.

use std::num::NonZero;
use std::sync::Arc;

use clap::ValueEnum;
use clipwise::{Tag, Tagging};

use crate::input::{ClipArgs, FileArgs};
use crate::message::Failure;
use crate::model::{ModelArgs, Opened, class, list_classes};
use crate::output::{
    Csv, JsonLines, MakeWriter, OutArgs, Parquet, Provenance, Record, RecordWriter, RunId, ShownTag, Text, Wide,
    stdout, writer,
};
use crate::run::{JobArgs, Jobs, Outcome, Status, interrupt, with_threads};

/// Say which sounds are in audio files: the classes with the highest scores.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Show at most K classes per file
    #[arg(long, value_name = "K", default_value = "10", help_heading = "Output")]
    top_k: NonZero<u16>,
    /// Show only classes with a score above T (0 to 1)
    #[arg(long, value_name = "T", value_parser = score, help_heading = "Output")]
    threshold: Option<f32>,
    /// Leave out classes that are above another tag in AudioSet's ontology; needs a threshold [default: 0.1]
    #[arg(long, help_heading = "Output")]
    most_specific: bool,
    /// Name the classes above each tag in AudioSet's ontology, nearest first
    #[arg(long, help_heading = "Output")]
    parents: bool,
    /// What to print: a table for people, JSON lines (one object per file), or CSV (one row per tag) [default: table]
    #[arg(long, value_enum, help_heading = "Output")]
    format: Option<Format>,
    /// Add every score (clipwise_output) and the embedding to JSON lines
    #[arg(long, help_heading = "Output")]
    full: bool,
    /// CSV with one row per file and a column for this class, by name or id; may be repeated
    #[arg(long, value_name = "CLASS", help_heading = "Output")]
    column: Vec<String>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    clip: ClipArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    files: FileArgs,
}

const EXAMPLES: &str = "\
If a file fails, one line on stderr says why, the other files are still tagged, and the exit status is 1.

Examples:
  clipwise tag dog.wav
  clipwise tag --weights Cnn14_mAP=0.431.pth dog.wav
  clipwise tag --jobs 8 --out tags.parquet recordings/
  clipwise tag --threshold 0.1 --format json 'calls/**/*.flac' > tags.jsonl
  clipwise tag --column Speech --column Music --out scores.csv recordings/
  clipwise tag --shard 3/20 --skip-done tags-3.jsonl --files-from list.txt
  ffmpeg -loglevel error -i film.mkv -f wav - | clipwise tag -";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

pub fn score(text: &str) -> Result<f32, String> {
    let score = text.parse().ok().filter(|score| (0.0..=1.0).contains(score));
    score.ok_or_else(|| "expected a score from 0 to 1".to_string())
}

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || self.tag_files())
    }

    fn tag_files(&self) -> Outcome {
        let is_json = self.format == Some(Format::Json) || self.format.is_none() && self.out.skip_done.is_some();
        self.check(is_json)?;
        let opened = self.model.open()?;
        let tagger = Arc::clone(&opened.tagger);
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.files.check()?;
        self.clip.check(&tagger)?;
        let columns = self.column.iter().map(|name| class(tagger.labels(), name)).collect::<Result<Vec<_>, _>>()?;
        let is_wide = !columns.is_empty();
        let provenance = self.out.out.as_ref().map(|_| opened.provenance()).transpose()?;
        let run = RunId {
            subcommand: "tag",
            field: "tags",
            model: &tagger.model().info().name,
            settings: format!(
                "{:?}, top {} above {:?}, most specific {}, full {}, {:?}, {}",
                self.clip,
                self.top_k,
                self.threshold(),
                self.most_specific,
                self.full,
                self.column,
                provenance.as_ref().map_or("", |of| &of.sha256)
            ),
        };
        let print = || -> Result<Box<dyn RecordWriter>, Failure> {
            Ok(match self.format {
                _ if is_json => Box::new(JsonLines(stdout())),
                _ if is_wide => Box::new(Wide::new(stdout(), tagger.labels(), columns.clone())?),
                Some(Format::Csv) => Box::new(Csv::new(stdout(), self.parents, self.out.error_rows)?),
                _ => Box::new(Text::new(self.threshold().is_some())),
            })
        };
        let make = |ending: &str| self.file_writer(&opened, provenance.clone()?, &columns, ending);
        let Some(output) = self.out.open(&run, print, make, ".parquet, .csv or .jsonl")? else {
            return Ok(Status::Good);
        };
        interrupt::on_interrupt()?;

        let full = self.full || is_wide || self.out.has_ending("parquet");
        let jobs = Jobs::new(&self.jobs, self.model.run.threads).counting(&self.files, self.out.continues());
        output.write_each(&jobs, &self.files, self.clip.work(&tagger, ClipArgs::tag), |file, tagged| Record {
            tags: Some(self.tags(&tagged.tagging)),
            clipwise_output: full.then(|| tagged.tagging.scores.clone()),
            embedding: (full && !is_wide).then(|| tagged.tagging.embedding().0.clone()),
            ..Record::of(&file.to_string_lossy(), &tagged, &tagger)
        })
    }

    /// Fails for options that contradict each other.
    fn check(&self, is_json: bool) -> Result<(), Failure> {
        let is_csv = self.format == Some(Format::Csv) || self.out.has_ending("csv");
        let errors = [
            (
                self.out.out.is_some() && self.format.is_some(),
                "--format is for standard output: the ending of the name after --out tells the format",
            ),
            (self.out.skip_done.is_some() && !is_json, "--skip-done writes JSON lines: expected --format json"),
            (self.full && !is_json && (self.out.out.is_none() || is_csv), "--full is for JSON lines and Parquet"),
            (
                !self.column.is_empty() && !is_csv && (self.format.is_some() || self.out.out.is_some() || is_json),
                "--column is for CSV",
            ),
            (
                !self.column.is_empty() && (self.parents || self.most_specific || self.threshold.is_some()),
                "--column gives scores of classes: --threshold, --most-specific and --parents do not apply",
            ),
            (
                self.parents && self.out.has_ending("parquet"),
                "--parents is for tables on standard output, JSON lines and CSV: a Parquet table has no column for it",
            ),
        ];
        match errors.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// The score that a tag must exceed.
    fn threshold(&self) -> Option<f32> {
        self.threshold.or(self.most_specific.then_some(0.1))
    }

    /// The tags that are shown.
    fn tags(&self, tagging: &Tagging) -> Vec<ShownTag> {
        let mut tags = match self.threshold() {
            Some(threshold) if self.most_specific => tagging.most_specific(threshold),
            Some(threshold) => tagging.above(threshold),
            None => tagging.top_k(usize::from(self.top_k.get())),
        };
        tags.truncate(usize::from(self.top_k.get()));
        let parents = |tag: &Tag| self.parents.then(|| tagging.labels[tag.index].parents.clone());
        tags.into_iter().map(|tag| ShownTag { parents: parents(&tag), tag }).collect()
    }

    fn file_writer(&self, opened: &Opened, of: Provenance, columns: &[usize], ending: &str) -> Option<MakeWriter> {
        let (opened, columns, parents) = (opened.clone(), columns.to_vec(), self.parents);
        Some(match ending {
            "parquet" => Box::new(move |path| Ok(Box::new(Parquet::create(path, of.clone(), None)?))),
            "csv" if columns.is_empty() => Box::new(move |path| Ok(Box::new(Csv::new(writer(path)?, parents, true)?))),
            "csv" => {
                Box::new(move |path| Ok(Box::new(Wide::new(writer(path)?, opened.tagger.labels(), columns.clone())?)))
            }
            "jsonl" => Box::new(|path| Ok(Box::new(JsonLines(writer(path)?)))),
            _ => return None,
        })
    }
}
