//! `clipwise tag`.

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use clipwise::{Tag, Tagging};

use crate::input::{ClipArgs, FileArgs, Tagged};
use crate::message::{Failure, about};
use crate::model::{ModelArgs, Opened, class, list_classes};
use crate::output::{
    Csv, JsonLines, MakeWriter, OutArgs, Parquet, Record, RecordWriter, ShownTag, Text, Wide, stdout, writer,
};
use crate::run::{JobArgs, Jobs, Outcome, interrupt, with_threads};

/// Say which sounds are in audio files: the classes with the highest scores.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Show at most K classes per file
    #[arg(long, value_name = "K", default_value_t = 10, help_heading = "Output")]
    top_k: usize,
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
A file that fails gives one line on stderr and the exit status 1; the other files are still tagged.

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
        let is_json_file =
            self.out.out.as_ref().is_some_and(|out| out.extension().is_some_and(|ending| ending == "jsonl"));
        if self.full && !is_json && self.out.out.is_none() {
            return Err("--full needs --format json, or --out".into());
        }
        if self.out.skip_done.is_some() && !is_json {
            return Err("--skip-done writes JSON lines: expected --format json".into());
        }
        if self.out.out.is_some() && self.format.is_some() {
            return Err("--format is for standard output: the ending of the name after --out tells the format".into());
        }
        if !self.column.is_empty() && (is_json || is_json_file) {
            return Err("--column is for CSV".into());
        }
        let opened = self.model.open()?;
        let tagger = Arc::clone(&opened.tagger);
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.files.check()?;
        self.clip.check(&tagger)?;
        let columns = self.column.iter().map(|name| class(tagger.labels(), name)).collect::<Result<Vec<_>, _>>()?;
        let is_wide = !columns.is_empty();
        let print = || -> Result<Box<dyn RecordWriter>, Failure> {
            Ok(match self.format {
                _ if is_json => Box::new(JsonLines(stdout())),
                _ if is_wide => Box::new(Wide::new(stdout(), tagger.labels(), columns.clone())?),
                Some(Format::Csv) => Box::new(Csv::new(stdout(), self.parents)?),
                _ => Box::new(Text::new(self.threshold().is_some())),
            })
        };
        let make = |ending: &str| self.file_writer(&opened, &columns, ending);
        let mut output = self.out.open(print, make, ".parquet, .csv or .jsonl")?;
        interrupt::on_interrupt()?;

        let is_parquet =
            self.out.out.as_ref().is_some_and(|out| out.extension().is_some_and(|ending| ending == "parquet"));
        let full = self.full || is_wide || is_parquet;
        let jobs = Jobs::new(&self.jobs, self.model.run.threads).counting(&self.files);
        let (clip, model) = (self.clip.clone(), Arc::clone(&tagger));
        let work = move |file: &Path, emit: &mut dyn FnMut(Tagged)| {
            clip.tag(&model, file).map(emit).map_err(|error| about(file, &error))
        };
        let files = output.left(&self.files);
        let count = jobs.run(files, work, |file, result| match result {
            Ok(tagged) => {
                let record = Record::of(&file.to_string_lossy(), &tagged, &tagger);
                let scores = full.then(|| tagged.tagging.scores.clone());
                let embedding = (full && !is_wide).then(|| tagged.tagging.embedding().0.clone());
                let tags = Some(self.tags(&tagged.tagging));
                output.write(&Record { tags, clipwise_output: scores, embedding, ..record })
            }
            Err(error) => output.write_error(file, error),
        });
        output.finish(count)
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
            None => tagging.top_k(self.top_k),
        };
        tags.truncate(self.top_k);
        let parents = |tag: &Tag| self.parents.then(|| tagging.labels[tag.index].parents.clone());
        tags.into_iter().map(|tag| ShownTag { parents: parents(&tag), tag }).collect()
    }

    fn file_writer(&self, opened: &Opened, columns: &[usize], ending: &str) -> Option<MakeWriter> {
        let (opened, columns) = (opened.clone(), columns.to_vec());
        match ending {
            "parquet" => Some(Box::new(move |path| Ok(Box::new(Parquet::create(path, opened.provenance()?)?)))),
            "csv" if columns.is_empty() => {
                let parents = self.parents;
                Some(Box::new(move |path| Ok(Box::new(Csv::new(writer(path)?, parents)?))))
            }
            "csv" => Some(Box::new(move |path| {
                Ok(Box::new(Wide::new(writer(path)?, opened.tagger.labels(), columns.clone())?))
            })),
            _ => None,
        }
    }
}
