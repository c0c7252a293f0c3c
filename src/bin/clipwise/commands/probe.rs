//! `clipwise probe`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss};
use clap::ValueEnum;
use clipwise::candle_core::Tensor;
use clipwise::models::OutputActivation;
use clipwise::models::probe::ProbeHead;
use clipwise::{LabelSet, Tagger};
use serde::Serialize;

use super::evaluate::{Clip, Dataset};
use crate::input::{ClipArgs, Tagged};
use crate::message::{Failure, cannot, name, say};
use crate::model::{ModelArgs, list_classes};
use crate::output::stdout;
use crate::run::{JobArgs, Jobs, Outcome, Status, interrupt, with_threads};

/// Train a classifier of your own sounds: a linear layer on the embeddings of a tagger. The result is a tagger: --weights FOLDER.
///
/// The data is a folder with one folder of audio files per class, or a CSV. The accuracy is estimated first, by cross-validation: each
/// fold is classified by a layer that was trained on the others. If all file names start with the number of a fold, as in ESC-50
/// (1-….ogg), it is used; otherwise, and with --folds, files are assigned round-robin within each class.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder to write
    #[arg(long, value_name = "FOLDER", default_value = "probe")]
    out: PathBuf,
    /// Folds of the cross-validation; 0 leaves it out [default: those of the file names, else 5]
    #[arg(long, value_name = "N")]
    folds: Option<usize>,
    /// Steps of AdamW, each on all files
    #[arg(long, value_name = "N", default_value_t = 200)]
    steps: usize,
    /// Seed of the initial weights
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// What to print: a table for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    clip: ClipArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// A folder with one folder of audio files per class, or a CSV with the header file,label (paths relative to the CSV)
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  clipwise probe --out my-sounds recordings/
  clipwise tag --weights my-sounds recording.wav";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// A file with its class, its fold and its embedding.
struct Example {
    class: usize,
    fold: usize,
    embedding: Vec<f32>,
}

/// What was trained, as JSON.
#[derive(Serialize)]
struct Summary {
    out: String,
    model: String,
    n_files: usize,
    n_failed: usize,
    classes: Vec<ClassSize>,
    /// Of the cross-validation.
    accuracy: Option<f64>,
    folds: Vec<Fold>,
}

#[derive(Serialize)]
struct ClassSize {
    name: String,
    n_files: usize,
}

#[derive(Serialize)]
struct Fold {
    fold: usize,
    n_files: usize,
    n_right: usize,
    accuracy: f64,
}

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || self.probe())
    }

    fn probe(&self) -> Outcome {
        if self.folds == Some(1) {
            return Err("--folds: expected 0 or at least 2, got 1".into());
        }
        self.check_out()?;
        let tagger = self.model.open()?.tagger;
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.clip.check(&tagger)?;
        let dataset = Dataset::open(&self.data)?;
        interrupt::on_interrupt()?;
        let start = Instant::now();
        let (examples, n_failed) = self.embed(&tagger, &dataset)?;
        let sizes = |class| examples.iter().filter(|example| example.class == class).count();
        let classes: Vec<ClassSize> = dataset
            .classes
            .iter()
            .enumerate()
            .map(|(class, name)| ClassSize { name: name.clone(), n_files: sizes(class) })
            .collect();
        if let Some(empty) = classes.iter().find(|class| class.n_files == 0) {
            return Err(format!("class {:?}: expected audio files that can be read, got none", empty.name).into());
        }
        if classes.len() < 2 {
            return Err(
                format!("{}: expected at least two classes, got {:?}", name(&self.data), dataset.classes).into()
            );
        }
        let is_text = self.format == Format::Table;
        let mut out = stdout();
        if is_text {
            let (n, seconds) = (examples.len(), start.elapsed().as_secs_f64());
            writeln!(out, "{n} files of {} classes, embeddings in {seconds:.1} s", classes.len())?;
        }
        let folds = self.cross_validate(&examples, classes.len())?;
        for Fold { fold, n_files, n_right, accuracy } in folds.iter().filter(|_| is_text) {
            writeln!(out, "fold {fold}: accuracy {accuracy:.4} ({n_right} of {n_files})")?;
        }
        let n_right: usize = folds.iter().map(|fold| fold.n_right).sum();
        let accuracy = (!folds.is_empty()).then(|| n_right as f64 / examples.len() as f64);
        if let Some(accuracy) = accuracy.filter(|_| is_text) {
            writeln!(out, "cross-validation: accuracy {accuracy:.4} ({n_right} of {})", examples.len())?;
        }
        let head = self.fit(&examples.iter().collect::<Vec<_>>(), classes.len())?;
        let labels: LabelSet = dataset.classes.iter().map(String::as_str).collect();
        tagger.with_probe(&head, OutputActivation::Softmax, labels)?.save(&self.out)?;
        if is_text {
            let folder = name(&self.out);
            writeln!(out, "wrote {folder}, a tagger of these classes: clipwise tag --weights {folder} FILE")?;
        } else {
            let summary = Summary {
                out: self.out.display().to_string(),
                model: tagger.model().info().name.to_string(),
                n_files: examples.len(),
                n_failed,
                classes,
                accuracy,
                folds,
            };
            writeln!(out, "{}", serde_json::to_string(&summary)?)?;
        }
        out.flush()?;
        Ok(if n_failed > 0 { Status::SomeFailed } else { Status::Good })
    }

    /// Fails if the folder to write holds anything but an earlier result.
    fn check_out(&self) -> Result<(), Failure> {
        const WRITTEN: [&str; 3] = ["config.json", "labels.json", "model.safetensors"];
        let entries = match std::fs::read_dir(&self.out) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| cannot("write", &self.out, error))?,
        };
        let foreign = |entry: &std::fs::DirEntry| !WRITTEN.iter().any(|name| entry.file_name() == *name);
        match entries.filter_map(Result::ok).find(foreign) {
            Some(entry) => {
                let (out, found) = (name(&self.out), entry.file_name());
                Err(format!("--out {out}: expected a new or empty folder, or an earlier result; it contains {found:?}")
                    .into())
            }
            None => Ok(()),
        }
    }

    /// The embeddings of all files that can be read, and the number of the others, each of which gives a line on stderr.
    fn embed(&self, tagger: &Arc<Tagger>, dataset: &Dataset) -> Result<(Vec<Example>, usize), Failure> {
        let embed = self.clip.work(tagger, ClipArgs::embed);
        let work = move |file: &Path, emit: &mut dyn FnMut(Tagged)| {
            embed(file, emit).map_err(|error| format!("{error} (left out)"))
        };
        let folds = self.folds(dataset);
        let mut examples = Vec::new();
        let count = dataset.run(Jobs::new(&self.jobs, self.model.run.threads), work, |index, result| {
            let example = |tagged: Tagged| Example {
                class: dataset.clips[index].class,
                fold: folds[index],
                embedding: tagged.tagging.embedding.0,
            };
            examples.extend(result.ok().map(example));
        })?;
        if interrupt::interrupted() {
            return Err("interrupted: nothing was trained".into());
        }
        Ok((examples, count.failed))
    }

    /// The fold of each clip.
    fn folds(&self, dataset: &Dataset) -> Vec<usize> {
        let named = |clip: &Clip| clip.file.file_name()?.to_str()?.split_once('-')?.0.parse().ok();
        if let (None, Some(folds)) = (self.folds, dataset.clips.iter().map(named).collect::<Option<Vec<usize>>>()) {
            let mut distinct = folds.clone();
            distinct.sort_unstable();
            distinct.dedup();
            if (2..=20).contains(&distinct.len()) && distinct.last().is_some_and(|&fold| fold < 100) {
                return folds;
            }
        }
        let mut n_of_class = vec![0; dataset.classes.len()];
        let next = |clip: &Clip| {
            n_of_class[clip.class] += 1;
            (n_of_class[clip.class] - 1) % self.folds.unwrap_or(5).max(1) + 1
        };
        dataset.clips.iter().map(next).collect()
    }

    fn cross_validate(&self, examples: &[Example], n_classes: usize) -> Result<Vec<Fold>, Failure> {
        let mut folds: Vec<usize> = examples.iter().map(|example| example.fold).collect();
        folds.sort_unstable();
        folds.dedup();
        if self.folds == Some(0) || folds.len() < 2 {
            if self.folds != Some(0) {
                say(format_args!("note: too few files for a cross-validation: the accuracy is not known"));
            }
            return Ok(Vec::new());
        }
        let of_fold = |&fold: &usize| {
            let (test, train): (Vec<_>, Vec<_>) = examples.iter().partition(|example| example.fold == fold);
            let head = self.fit(&train, n_classes)?;
            let predicted = head.forward(&embeddings(&test)?)?.argmax(1)?.to_vec1::<u32>()?;
            let n_right =
                predicted.iter().zip(&test).filter(|(class, example)| **class as usize == example.class).count();
            let n_files = test.len();
            Ok(Fold { fold, n_files, n_right, accuracy: n_right as f64 / n_files as f64 })
        };
        folds.iter().map(of_fold).collect()
    }

    fn fit(&self, examples: &[&Example], n_classes: usize) -> Result<ProbeHead, Failure> {
        let x = embeddings(examples)?;
        let classes: Vec<u32> = examples.iter().map(|example| example.class as u32).collect();
        let classes = Tensor::new(classes, x.device())?;
        let head = ProbeHead::new(&x, n_classes, self.seed)?;
        let params = ParamsAdamW { lr: 5e-3, weight_decay: 0.1, ..Default::default() };
        let mut optimiser = AdamW::new(head.parameters().vars(), params)?;
        for _ in 0..self.steps {
            optimiser.backward_step(&loss::cross_entropy(&head.forward(&x)?, &classes)?)?;
        }
        Ok(head)
    }
}

/// `[n_files, embedding_dim]`
fn embeddings(examples: &[&Example]) -> Result<Tensor, Failure> {
    let rows: Vec<&[f32]> = examples.iter().map(|example| example.embedding.as_slice()).collect();
    let width = rows.first().map_or(0, |row| row.len());
    Ok(Tensor::from_vec(rows.concat(), (rows.len(), width), &clipwise::device::cpu())?)
}
