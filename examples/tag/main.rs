//! Tags audio files from the command line: `cargo run --release --example tag -- --help`.

#[path = "../command_line/mod.rs"]
mod command_line;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use clipwise::Waveform;
use command_line::{Failure, ModelArgs, about, after_help, for_each_file};
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
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Add every score (clipwise_output) and the embedding to JSON
    #[arg(long)]
    full: bool,
    /// Audio files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

const EXAMPLES: &str = "  tag dog.wav
  tag --weights Cnn14_mAP=0.431.pth dog.wav
  tag --format json --threshold 0.1 *.wav > tags.jsonl
  tag --weights mine.safetensors --model cnn14-16k --labels mine.txt --threads 1 dog.wav";

fn score(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|score| (0.0..=1.0).contains(score))
        .ok_or_else(|| "a score from 0 to 1 is wanted".to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.model.run(|good| tag_files(&args, good))
}

/// Tags every file; `good` becomes false for one that cannot be tagged.
fn tag_files(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    if args.full && !matches!(args.format, Format::Json) {
        return Err("--full needs --format json".into());
    }
    let tagger = args.model.open()?;
    let mut report =
        Report::new(args.format, Selection { top_k: args.top_k, threshold: args.threshold, full: args.full });
    let tag = |file: &PathBuf| Waveform::open(file).and_then(|waveform| Ok((tagger.tag(&waveform)?, waveform)));
    for_each_file(
        &args.files,
        |file| file,
        tag,
        |file, tagged| match tagged {
            Ok((tagging, waveform)) => report.write(file, &waveform, &tagger, &tagging),
            Err(error) => {
                good.store(false, Ordering::Relaxed);
                eprintln!("error: {}", about(file, &error));
                Ok(())
            }
        },
    )?;
    Ok(report.finish()?)
}
