//! Tags audio files from the command line: `cargo run --release --example tag -- --help`.

mod report;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use clipwise::device::{self, Threads};
use clipwise::{LabelSet, Tagger, Waveform, models};
use report::{Format, Report, Selection};

/// Says which sounds are in audio files.
///
/// Takes audio files of any sample rate and any number of channels (mixed to mono) and prints the classes with the highest
/// scores. Without --weights the model in the box tags: CED-tiny, trained on AudioSet's 527 classes.
#[derive(Parser)]
#[command(version, after_help = after_help())]
struct Args {
    /// Checkpoint: safetensors, .pth / .pt as PyTorch wrote it, or a folder with config.json and model.safetensors; the
    /// model is recognised from its tensors [default: the model in the box]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Take the checkpoint as this model instead (names below)
    #[arg(long, value_name = "NAME", requires = "weights")]
    model: Option<String>,
    /// Class names: CSV, JSON, or text with one name a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Show at most this many classes a file
    #[arg(long, value_name = "N", default_value_t = 10)]
    top_k: usize,
    /// Show only classes with a score above this (0 to 1)
    #[arg(long, value_name = "T", value_parser = score)]
    threshold: Option<f32>,
    /// Where to run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
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

fn after_help() -> String {
    let mut help = "Models:\n".to_string();
    for preset in models::MODELS {
        help += &format!("  {:<10} {}\n", preset.name, preset.description);
    }
    help += "\nA file that cannot be tagged gives one line on stderr and exit status 1; the others go on.\n\n\
             Examples:\n  tag dog.wav\n  tag --weights Cnn14_mAP=0.431.pth dog.wav\n  \
             tag --weights Cnn14_mAP=0.431.pth --format json --threshold 0.1 *.wav > tags.jsonl\n  \
             tag --weights mine.safetensors --model cnn14-16k --labels mine.txt --threads 1 dog.wav";
    help
}

fn score(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|score| (0.0..=1.0).contains(score))
        .ok_or_else(|| "a score from 0 to 1 is wanted".to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let good = AtomicBool::new(true);
    let run = || match &args.threads {
        Some(n) => Threads::new(*n)?.run(|| tag_files(&args, &good)),
        None => tag_files(&args, &good),
    };
    match run() {
        Ok(()) => {}
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&*error) => {}
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            return ExitCode::FAILURE;
        }
    }
    if good.into_inner() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Tags every file; `good` becomes false for one that cannot be tagged.
fn tag_files(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    if args.full && !matches!(args.format, Format::Json) {
        return Err("--full needs --format json".into());
    }
    let device = device::parse(&args.device)?;
    if args.device == "auto" && cfg!(feature = "cuda") {
        eprintln!("note: {}", device.reason);
    }
    let tagger = open(args, &device)?;
    let mut report =
        Report::new(args.format, Selection { top_k: args.top_k, threshold: args.threshold, full: args.full });
    let progress = args.files.len() > 1 && io::stderr().is_terminal();
    for (i, file) in args.files.iter().enumerate() {
        if progress {
            eprint!("\r\x1b[K[{}/{}] {}\r", i + 1, args.files.len(), file.display());
            io::stderr().flush()?;
        }
        let tagged = Waveform::open(file).and_then(|waveform| Ok((tagger.tag(&waveform)?, waveform)));
        if progress {
            eprint!("\x1b[K");
        }
        match tagged {
            Ok((tagging, waveform)) => report.write(file, &waveform, &tagger, &tagging)?,
            Err(error) => {
                good.store(false, Ordering::Relaxed);
                eprintln!("error: {}", about(file, &error));
            }
        }
    }
    report.finish()?;
    Ok(())
}

fn open(args: &Args, device: &device::Device) -> Result<Tagger, Failure> {
    let mut tagger = match (&args.weights, &args.model) {
        (None, _) => Tagger::bundled(device)?,
        (Some(weights), None) => Tagger::open(weights, device)?,
        (Some(weights), Some(name)) => Tagger::open_as(name, weights, device)?,
    };
    if let Some(labels) = &args.labels {
        tagger = tagger.with_labels(LabelSet::open(labels)?).map_err(|error| about(labels, &error))?;
    }
    for assumption in tagger.assumptions() {
        eprintln!("note: {assumption}");
    }
    Ok(tagger)
}

/// An error with the file that it belongs to, named once.
fn about(file: &Path, error: &clipwise::Error) -> String {
    use clipwise::Error::{Audio, Io, Labels};
    match error {
        Audio { .. } | Io { .. } | Labels { .. } => with_causes(error), // these name the file themselves
        _ => format!("{}: {}", file.display(), with_causes(error)),
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    std::iter::successors(Some(error), |error| error.source()).any(|cause| io(cause) == Some(io::ErrorKind::BrokenPipe))
}
