//! Embeddings of audio files, and how alike they sound: `cargo run --release --example embed -- --help`.

#[path = "../collection/mod.rs"]
mod collection;
#[path = "../command_line/mod.rs"]
mod command_line;
mod npy;
mod out;
mod parquet;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use collection::{ClipArgs, Done, FileArgs, JobArgs, Jobs};
use command_line::{Failure, ModelArgs, about, after_help};
use npy::Npy;
use out::Out;

/// Computes the vectors that a model has for audio files.
///
/// Prints how alike the files sound: the cosine similarity of every pair. With --out, writes the vectors to a file instead, with
/// memory that does not grow with the number of files.
#[derive(Parser)]
#[command(version, after_help = after_help(EXAMPLES))]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Print JSON lines (one object a file) with the vectors instead
    #[arg(long)]
    json: bool,
    /// Write the vectors to this file instead: .parquet, called OUT.parquet.partial until the run is over, and for good if it
    /// is interrupted; .npy, with the names of the files, one a line, in OUT.npy.txt; or .jsonl
    #[arg(long, value_name = "OUT", conflicts_with = "json")]
    out: Option<PathBuf>,
    /// Append JSON lines to this file, leaving out files that it has already: goes on where an earlier run was ended
    #[arg(long, value_name = "OUT.jsonl", conflicts_with_all = ["json", "out"])]
    skip_done: Option<PathBuf>,
    #[command(flatten)]
    clip: ClipArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    files: FileArgs,
}

const EXAMPLES: &str = "  embed dog.wav cat.wav rain.wav
  embed --jobs 8 --out embeddings.parquet recordings/
  embed --weights Cnn14_mAP=0.431.pth --shard 3/20 --out embeddings-3.npy --files-from list.txt
  duckdb -c \"select file, embedding from 'embeddings*.parquet'\"";

fn main() -> ExitCode {
    let args = Args::parse();
    collection::exit_code(args.model.run(|good| embed_files(&args, good)))
}

/// Embeds every file; `good` becomes false for one that cannot be embedded.
fn embed_files(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    let (done, file) = args.skip_done.as_deref().map(Done::open).transpose()?.unzip();
    let kind = args.out.as_deref().map(out::Kind::of).transpose()?;
    let names_are_lines = matches!(kind, Some(out::Kind::Npy));
    let tagger = Arc::new(args.model.open()?);
    args.clip.check(&tagger)?;
    collection::on_interrupt()?;
    let mut out = match (&args.out, kind, file) {
        (Some(path), Some(kind), _) => Out::create(path, kind, tagger.model())?,
        (_, _, Some(file)) => Out::append(file),
        _ if args.json => Out::print(),
        _ => Out::similarity(),
    };
    let jobs = Jobs::new(&args.jobs, args.model.threads).with_progress(&args.files);
    let (model, clip) = (Arc::clone(&tagger), args.clip.clone());
    let embed = move |file: &Path| {
        if names_are_lines && !Npy::can_name(&file.to_string_lossy()) {
            return Err(format!("{file:?}: names with a line break do not fit in a list of names"));
        }
        clip.tag(&model, file).map_err(|error| about(file, &error))
    };
    let count = jobs.run(Done::left(done, args.files.list()), embed, |file, tagged| out.write(file, tagged));
    // What was found until something went wrong is kept.
    let failed = count.as_ref().map_or(true, |count| count.done == 0 && count.failed > 0);
    let finished = out.finish(!failed && !collection::interrupted());
    good.store(count?.failed == 0, Ordering::Relaxed);
    finished
}
