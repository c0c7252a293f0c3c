//! Measures a model on labelled files: `cargo run --release --example evaluate -- --help`.

mod classes;
#[path = "../command_line/mod.rs"]
mod command_line;
mod dataset;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use classes::{LabelMap, Targets};
use clipwise::{Tagger, Waveform};
use command_line::{Failure, ModelArgs, about, after_help, for_each_file, say, say_notes};
use dataset::{Clip, Dataset};
use report::{Evaluation, Format, Prediction};

/// Measures how well a model tells the classes of labelled audio files apart, without training.
///
/// Each class of the data stands for one or several classes of the model: for the one of the same name (case, punctuation
/// and spaces do not matter), or for those that --map names. Its score is the highest of theirs, and the prediction for a
/// file is the class with the highest score.
#[derive(Parser)]
#[command(version, after_help = after_help(EXAMPLES))]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
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
    /// A folder with one folder of audio files a class, or a CSV with the header file,label (paths relative to the CSV)
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

const EXAMPLES: &str = "  evaluate --map examples/evaluate/esc10.json esc10/
  evaluate --weights Cnn14_mAP=0.431.pth --format json --full test.csv > result.json";

fn main() -> ExitCode {
    let args = Args::parse();
    args.model.run(|good| evaluate(&args, good))
}

/// Tags every file and prints the measures; `good` becomes false for a file that cannot be tagged.
fn evaluate(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    if args.full && !matches!(args.format, Format::Json) {
        return Err("--full needs --format json".into());
    }
    if args.top_k == 0 {
        return Err("--top-k: expected at least 1".into());
    }
    let dataset = Dataset::open(&args.data)?;
    let map = args.map.as_deref().map(LabelMap::open).transpose()?;
    let tagger = args.model.open()?;
    let targets = Targets::new(&dataset.classes, tagger.labels(), map.as_ref())?;
    for name in &targets.unused {
        say(format_args!("note: {name:?} of the map is no class of the data"));
    }

    let (mut predictions, mut failed) = (Vec::new(), Vec::new());
    let predict = |clip: &Clip| predict(&tagger, &targets, clip);
    for_each_file(
        &dataset.clips,
        |clip| &clip.file,
        predict,
        |clip, predicted| {
            match predicted {
                Ok(prediction) => predictions.push(prediction),
                Err(error) => {
                    let text = about(&clip.file, &error);
                    say(format_args!("error: {text}"));
                    failed.push(text);
                }
            }
            Ok(())
        },
    )?;
    if predictions.is_empty() {
        return Err(format!("none of the {} files could be tagged", dataset.clips.len()).into());
    }
    good.store(failed.is_empty(), Ordering::Relaxed);
    let evaluation = Evaluation::new(&args.data, &tagger, &targets, predictions, failed, args.top_k)?;
    Ok(evaluation.print(args.format, args.full)?)
}

fn predict(tagger: &Tagger, targets: &Targets, clip: &Clip) -> clipwise::Result<Prediction> {
    let waveform = Waveform::open(&clip.file)?;
    say_notes(&clip.file, waveform.notes());
    let tagging = tagger.tag(&waveform)?;
    let scores = targets.scores(&tagging);
    // The last of equals, as in `top_k_accuracy`.
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
    Ok(Prediction { file: clip.file.clone(), target: clip.class, prediction: best, scores })
}
