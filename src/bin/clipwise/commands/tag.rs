//! Tags audio files from the command line: `cargo run --release --example tag -- --help`.

#[path = "../collection/mod.rs"]
mod collection;
#[path = "../command_line/mod.rs"]
mod command_line;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use collection::{ClipArgs, Done, FileArgs, JobArgs, Jobs};
use command_line::{Failure, ModelArgs, about, after_help};
use report::{Format, Report, Selection};

/// Says which sounds are in audio files.
///
/// Takes audio files of any sample rate and any number of channels (mixed to mono) and prints the classes with the highest
/// scores. Without --weights the model in the box tags: CED-tiny, trained on AudioSet's 527 classes.
#[derive(Parser)]
#[command(version, after_help = after_help(EXAMPLES))]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Show at most this many classes a file
    #[arg(long, value_name = "N", default_value_t = 10)]
    top_k: usize,
    /// Show only classes with a score above this (0 to 1)
    #[arg(long, value_name = "T", value_parser = score)]
    threshold: Option<f32>,
    /// What to print: a table for people, JSON lines (one object a file) or CSV (one row a tag) for programs
    #[arg(long, value_enum, default_value_t = Format::Table, default_value_if("skip_done", clap::builder::ArgPredicate::IsPresent, "json"))]
    format: Format,
    /// Add every score (clipwise_output) and the embedding to JSON
    #[arg(long)]
    full: bool,
    /// Append JSON lines to this file, leaving out files that it has already: goes on where an earlier run was ended
    #[arg(long, value_name = "OUT.jsonl")]
    skip_done: Option<PathBuf>,
    #[command(flatten)]
    clip: ClipArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    files: FileArgs,
}

const EXAMPLES: &str = "  tag dog.wav
  tag --weights Cnn14_mAP=0.431.pth dog.wav
  tag --format json --threshold 0.1 recordings/ > tags.jsonl
  tag --jobs 8 --window 10 --aggregate max --skip-done tags.jsonl recordings/ 'more/**/*.flac'
  tag --shard 3/20 --skip-done tags-3.jsonl --files-from list.txt
  tag --weights mine.safetensors --model cnn14-16k --labels mine.txt --threads 1 dog.wav";

fn score(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|score| (0.0..=1.0).contains(score))
        .ok_or_else(|| "expected a score from 0 to 1".to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    collection::exit_code(args.model.run(|good| tag_files(&args, good)))
}

/// Tags every file; `good` becomes false for one that cannot be tagged.
fn tag_files(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    let is_json = matches!(args.format, Format::Json);
    if args.full && !is_json {
        return Err("--full needs --format json".into());
    }
    if args.skip_done.is_some() && !is_json {
        return Err("--skip-done needs --format json".into());
    }
    let (done, out) = args.skip_done.as_deref().map(Done::open).transpose()?.unzip();
    let tagger = Arc::new(args.model.open()?);
    args.clip.check(&tagger)?;
    collection::on_interrupt()?;
    let selection = Selection { top_k: args.top_k, threshold: args.threshold, full: args.full };
    let mut report = Report::new(args.format, selection, out);
    let jobs = Jobs::new(&args.jobs, args.model.threads).with_progress(&args.files);
    let (model, clip) = (Arc::clone(&tagger), args.clip.clone());
    let tag = move |file: &_| clip.tag(&model, file).map_err(|error| about(file, &error));
    let write = |file: &_, tagged| Ok(report.write(file, &tagged, &tagger)?);
    let count = jobs.run(Done::left(done, args.files.list()), tag, write)?;
    good.store(count.failed == 0, Ordering::Relaxed);
    Ok(report.finish()?)
}
