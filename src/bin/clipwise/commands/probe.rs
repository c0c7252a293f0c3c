//! A classifier of your own sounds on the embeddings of any tagger: `cargo run --release --example linear_probe -- --help`.

#[path = "command_line/mod.rs"]
mod command_line;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss};
use clap::Parser;
use clipwise::candle_core::Tensor;
use clipwise::models::OutputActivation;
use clipwise::models::probe::ProbeHead;
use clipwise::{LabelSet, Tagger, Waveform};
use command_line::{Failure, ModelArgs, about, after_help};

/// Trains a linear layer on a tagger's embeddings of labelled files and writes a folder that is a tagger: --weights FOLDER.
///
/// The data is a folder with one folder of audio files per class. Where file names begin with a fold, as in ESC-10 and ESC-50
/// (1-….ogg), the accuracy is measured first: each fold by a head that was trained on the others.
#[derive(Parser)]
#[command(version, after_help = after_help("  linear_probe --out my-sounds recordings/"))]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The folder to write
    #[arg(long, value_name = "FOLDER", default_value = "probe")]
    out: PathBuf,
    /// Steps of AdamW, each on all files
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// Seed of the first weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

/// A file with its class, its fold if its name has one, and its embedding.
struct Example {
    file: PathBuf,
    class: usize,
    fold: Option<u8>,
    embedding: Vec<f32>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.model.run(|_| probe(&args))
}

fn probe(args: &Args) -> Result<(), Failure> {
    let tagger = args.model.open()?;
    let start = Instant::now();
    let (labels, examples) = read(&args.data, &tagger)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{} files of {} classes, embeddings in {seconds:.1} s", examples.len(), labels.len());

    let mut folds: Vec<u8> = examples.iter().filter_map(|example| example.fold).collect();
    folds.sort_unstable();
    folds.dedup();
    if folds.len() > 1 && examples.iter().all(|example| example.fold.is_some()) {
        let mut right = 0;
        for &fold in &folds {
            let (test, train): (Vec<_>, Vec<_>) = examples.iter().partition(|example| example.fold == Some(fold));
            let head = fit(args, &train, labels.len())?;
            let got = head.forward(&embeddings(&test)?)?.argmax(1)?.to_vec1::<u32>()?;
            let of_fold = got.iter().zip(&test).filter(|(got, example)| **got as usize == example.class).count();
            println!("fold {fold}: accuracy {:.4} ({of_fold} of {})", of_fold as f64 / test.len() as f64, test.len());
            right += of_fold;
        }
        println!("all folds: accuracy {:.4} ({right} of {})", right as f64 / examples.len() as f64, examples.len());
    }

    let start = Instant::now();
    let head = fit(args, &examples.iter().collect::<Vec<_>>(), labels.len())?;
    println!("a head on all files in {:.2} s", start.elapsed().as_secs_f64());
    tagger.with_probe(&head, OutputActivation::Softmax, labels)?.save(&args.out)?;

    // What was written, as a tagger.
    let tagger = Tagger::open(&args.out, tagger.model().device())?;
    let first = &examples[0].file;
    let tag = tagger.tag(&Waveform::open(first)?)?.top_k(1).remove(0);
    println!("{}: {} {:.3}", first.display(), tag.label, tag.score);
    Ok(())
}

fn embeddings(examples: &[&Example]) -> Result<Tensor, Failure> {
    let rows: Vec<&[f32]> = examples.iter().map(|example| example.embedding.as_slice()).collect();
    let width = rows.first().map_or(0, |row| row.len());
    Ok(Tensor::from_vec(rows.concat(), (rows.len(), width), &clipwise::device::cpu())?)
}

fn fit(args: &Args, examples: &[&Example], n_classes: usize) -> Result<ProbeHead, Failure> {
    let x = embeddings(examples)?;
    let classes: Vec<u32> = examples.iter().map(|example| example.class as u32).collect();
    let classes = Tensor::new(classes, x.device())?;
    let head = ProbeHead::new(&x, n_classes, args.seed)?;
    let params = ParamsAdamW { lr: 5e-3, weight_decay: 0.1, ..Default::default() };
    let mut optimiser = AdamW::new(head.parameters().vars(), params)?;
    for _ in 0..args.steps {
        optimiser.backward_step(&loss::cross_entropy(&head.forward(&x)?, &classes)?)?;
    }
    Ok(head)
}

/// The classes of a folder, and its files with their embeddings.
fn read(folder: &Path, tagger: &Tagger) -> Result<(LabelSet, Vec<Example>), Failure> {
    let entries = |folder: &Path| -> Result<Vec<PathBuf>, Failure> {
        let paths = std::fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        let mut paths: Vec<PathBuf> = paths.map(|entry| Ok(entry?.path())).collect::<Result<_, Failure>>()?;
        paths.sort();
        Ok(paths)
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let classes: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    let mut examples = Vec::new();
    for (class, folder) in classes.iter().enumerate() {
        for file in entries(folder)?.into_iter().filter(|path| path.is_file()) {
            let fold = name(&file).split_once('-').and_then(|(fold, _)| fold.parse().ok());
            let waveform = Waveform::open(&file).map_err(|error| about(&file, &error))?;
            let embedding = tagger.tag(&waveform).map_err(|error| about(&file, &error))?.embedding.0;
            examples.push(Example { file, class, fold, embedding });
        }
    }
    if examples.is_empty() {
        return Err(format!("{}: expected one folder of audio files per class, got none", folder.display()).into());
    }
    Ok((classes.iter().map(|class| name(class)).collect(), examples))
}
