//! Measures a model on labelled files: `cargo run --release --example evaluate -- --help`.

mod classes;
mod dataset;
mod report;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use classes::{LabelMap, Targets};
use clipwise::device::{self, Threads};
use clipwise::{LabelSet, Tagger, Waveform, models};
use dataset::{Clip, Dataset};
use report::{Evaluation, Format, Prediction};

/// Measures how well a model tells the classes of labelled audio files apart, without training.
///
/// Each class of the data stands for one or several classes of the model: for the one of the same name (case, punctuation
/// and spaces do not matter), or for those that --map names. Its score is the highest of theirs, and the prediction for a
/// file is the class with the highest score.
#[derive(Parser)]
#[command(version, after_help = after_help())]
struct Args {
    /// Checkpoint; the model is recognised from its tensors
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Take the checkpoint as this model instead (names below)
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Class names of the model: CSV, JSON, or text with one name a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Which classes of the model a class of the data stands for: JSON {"class": ["label", ...]}, or CSV with the header
    /// target,label
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Also count a file as right if its class is among the K highest
    #[arg(long, value_name = "K", default_value_t = 3)]
    top_k: usize,
    /// Where to run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// What to print: tables for people, one JSON object for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Add the prediction and the scores of every file to JSON
    #[arg(long)]
    full: bool,
    /// A folder with one folder of audio files a class, or a CSV with the header file,label (paths relative to the CSV)
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

fn after_help() -> String {
    let mut help = "Models:\n".to_string();
    for preset in models::MODELS {
        help += &format!("  {:<10} {}\n", preset.name, preset.description);
    }
    help += "\nA file that cannot be tagged gives one line on stderr and exit status 1; the others go on.\n\n\
             Examples:\n  evaluate --weights Cnn14_mAP=0.431.pth --map examples/evaluate/esc10.json esc10/\n  \
             evaluate --weights Cnn14_mAP=0.431.pth --format json --full test.csv > result.json";
    help
}

fn main() -> ExitCode {
    let args = Args::parse();
    let run = || match &args.threads {
        Some(n) => Threads::new(*n)?.run(|| evaluate(&args)),
        None => evaluate(&args),
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Tags every file and prints the measures; whether every file could be tagged.
fn evaluate(args: &Args) -> Result<bool, Failure> {
    if args.full && !matches!(args.format, Format::Json) {
        return Err("--full needs --format json".into());
    }
    if args.top_k == 0 {
        return Err("--top-k: at least 1 is wanted".into());
    }
    let dataset = Dataset::open(&args.data)?;
    let map = args.map.as_deref().map(LabelMap::open).transpose()?;
    let device = device::parse(&args.device)?;
    if args.device == "auto" && cfg!(feature = "cuda") {
        eprintln!("note: {}", device.reason);
    }
    let tagger = open(args, &device)?;
    let targets = Targets::new(&dataset.classes, tagger.labels(), map.as_ref())?;
    for name in &targets.unused {
        eprintln!("note: {name:?} of the map is no class of the data");
    }

    let (mut predictions, mut failed) = (Vec::new(), Vec::new());
    let progress = dataset.clips.len() > 1 && io::stderr().is_terminal();
    for (i, clip) in dataset.clips.iter().enumerate() {
        if progress {
            eprint!("\r\x1b[K[{}/{}] {}\r", i + 1, dataset.clips.len(), clip.file.display());
            io::stderr().flush()?;
        }
        let predicted = predict(&tagger, &targets, clip);
        if progress {
            eprint!("\x1b[K");
        }
        match predicted {
            Ok(prediction) => predictions.push(prediction),
            Err(error) => {
                let text = about(&clip.file, &error);
                eprintln!("error: {text}");
                failed.push(text);
            }
        }
    }
    if predictions.is_empty() {
        return Err(format!("none of the {} files could be tagged", dataset.clips.len()).into());
    }
    let good = failed.is_empty();
    let evaluation = Evaluation::new(&args.data, &tagger, &targets, predictions, failed, args.top_k)?;
    evaluation.print(args.format, args.full)?;
    Ok(good)
}

fn open(args: &Args, device: &device::Device) -> clipwise::Result<Tagger> {
    let mut tagger = match &args.model {
        Some(name) => Tagger::open_as(name, &args.weights, device)?,
        None => Tagger::open(&args.weights, device)?,
    };
    if let Some(labels) = &args.labels {
        tagger = tagger.with_labels(LabelSet::open(labels)?)?;
    }
    for assumption in tagger.assumptions() {
        eprintln!("note: {assumption}");
    }
    Ok(tagger)
}

fn predict(tagger: &Tagger, targets: &Targets, clip: &Clip) -> clipwise::Result<Prediction> {
    let tagging = tagger.tag(&Waveform::open(&clip.file)?)?;
    let scores = targets.scores(&tagging);
    // The last of equals, as in `top_k_accuracy`.
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
    Ok(Prediction { file: clip.file.clone(), target: clip.class, prediction: best, scores })
}

/// An error with the file that it belongs to, named once.
fn about(file: &Path, error: &clipwise::Error) -> String {
    let (name, text) = (file.display().to_string(), with_causes(error));
    if text.contains(&name) { text } else { format!("{name}: {text}") }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    std::iter::successors(Some(error), |error| error.source()).any(|cause| io(cause) == Some(io::ErrorKind::BrokenPipe))
}
