//! `clipwise embed`.

use std::sync::Arc;

use crate::input::{ClipArgs, FileArgs};
use crate::message::Failure;
use crate::model::{ModelArgs, Opened, list_classes};
use crate::output::{
    JsonLines, MakeWriter, Npy, OutArgs, Parquet, Provenance, Record, RecordWriter, RunId, Similarity, stdout, writer,
};
use crate::run::{JobArgs, Jobs, Outcome, Status, interrupt, with_threads};

/// Compute embeddings: the vectors that a model has for audio files below its last layer.
///
/// Prints how alike the files sound: the cosine similarity of every pair. With --out, writes the vectors to a file, with memory that
/// does not grow with the number of files.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print JSON lines (one object per file) with the vectors
    #[arg(long, conflicts_with = "out", help_heading = "Output")]
    json: bool,
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
Examples:
  clipwise embed dog.wav cat.wav rain.wav
  clipwise embed --jobs 8 --out embeddings.parquet recordings/
  clipwise embed --weights Cnn14_mAP=0.431.pth --shard 3/20 --out embeddings-3.npy --files-from list.txt
  duckdb -c \"select path, embedding from 'embeddings*.parquet'\"";

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || self.embed_files())
    }

    fn embed_files(&self) -> Outcome {
        let opened = self.model.open()?;
        let tagger = Arc::clone(&opened.tagger);
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.files.check()?;
        self.clip.check(&tagger)?;
        if self.out.error_rows && !self.json && self.out.out.is_none() && self.out.skip_done.is_none() {
            return Err("--error-rows needs --json, --out or --skip-done".into());
        }
        let provenance = self.out.out.as_ref().map(|_| opened.provenance()).transpose()?;
        let sha256 = provenance.as_ref().map_or("", |of| &of.sha256);
        let run = RunId {
            subcommand: "embed",
            field: "embedding",
            model: &tagger.model().info().name,
            settings: format!("{:?}, {sha256}", self.clip),
        };
        let print = || -> Result<Box<dyn RecordWriter>, Failure> {
            Ok(match self.json {
                true => Box::new(JsonLines(stdout())),
                false => Box::new(Similarity::default()),
            })
        };
        let make = |ending: &str| file_writer(&opened, provenance.clone()?, ending);
        let Some(output) = self.out.open(&run, print, make, ".parquet, .npy or .jsonl")? else {
            return Ok(Status::Good);
        };
        interrupt::on_interrupt()?;

        let jobs = Jobs::new(&self.jobs, self.model.run.threads).counting(&self.files, self.out.continues());
        output.write_each(&jobs, &self.files, self.clip.work(&tagger, ClipArgs::embed), |file, tagged| Record {
            embedding: Some(tagged.tagging.embedding().0.clone()),
            ..Record::of(&file.to_string_lossy(), &tagged, &tagger)
        })
    }
}

fn file_writer(opened: &Opened, of: Provenance, ending: &str) -> Option<MakeWriter> {
    let dim = opened.tagger.model().info().embedding_dim;
    Some(match ending {
        "parquet" => Box::new(move |path| Ok(Box::new(Parquet::create(path, of.clone(), None)?))),
        "npy" => Box::new(move |path| Ok(Box::new(Npy::create(path, dim)?))),
        "jsonl" => Box::new(|path| Ok(Box::new(JsonLines(writer(path)?)))),
        _ => return None,
    })
}
