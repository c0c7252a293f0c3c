//! The measures, as tables and as JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clipwise::metrics::{Confusion, MultiLabelReport, PrecisionRecallF1, top_k_accuracy};
use clipwise::ndarray::Array2;
use clipwise::{Tagger, device};
use serde::Serialize;

use super::classes::{Target, Targets};
use crate::message::Failure;
use crate::output::stdout;

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// What the model said about a file; classes are indices.
pub struct Prediction {
    pub file: PathBuf,
    pub target: usize,
    pub prediction: usize,
    pub scores: Vec<f32>,
}

impl Prediction {
    pub fn new(file: PathBuf, target: usize, scores: Vec<f32>) -> Self {
        // The last of equals, as in `top_k_accuracy`.
        let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
        Self { file, target, prediction: best, scores }
    }
}

/// All of it, as JSON has it. What is undefined, such as the recall of a class without files, is null.
#[derive(Serialize)]
pub struct Evaluation {
    data: String,
    model: String,
    device: String,
    n_files: usize,
    n_failed: usize,
    accuracy: Option<f64>,
    top_k: TopK,
    mean_average_precision: Option<f64>,
    mean_roc_auc: Option<f64>,
    d_prime: Option<f64>,
    macro_average: Option<PrecisionRecallF1>,
    classes: Vec<Class>,
    /// A row for each true class, a column for each predicted one.
    confusion: Vec<Vec<u64>>,
    failed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predictions: Option<Vec<File>>,
}

#[derive(Serialize)]
struct TopK {
    k: usize,
    accuracy: Option<f64>,
}

#[derive(Serialize)]
struct Class {
    name: String,
    labels: Vec<String>,
    n_files: usize,
    precision: Option<f64>,
    recall: Option<f64>,
    f1: Option<f64>,
    average_precision: Option<f64>,
    roc_auc: Option<f64>,
}

/// A file; `scores` in the order of `classes`.
#[derive(Serialize)]
struct File {
    file: String,
    target: String,
    prediction: String,
    scores: Vec<f32>,
}

impl Evaluation {
    pub fn new(
        data: &Path,
        tagger: &Tagger,
        targets: &Targets,
        predictions: Vec<Prediction>,
        failed: Vec<String>,
        k: usize,
    ) -> Result<Self, Failure> {
        let shape = (predictions.len(), targets.classes.len());
        let scores = predictions.iter().flat_map(|prediction| prediction.scores.iter().copied()).collect();
        let scores = Array2::from_shape_vec(shape, scores)?;
        let positive = Array2::from_shape_fn(shape, |(file, class)| predictions[file].target == class);
        let truth: Vec<usize> = predictions.iter().map(|prediction| prediction.target).collect();
        let predicted: Vec<usize> = predictions.iter().map(|prediction| prediction.prediction).collect();
        let ranking = MultiLabelReport::new(scores.view(), positive.view())?;
        let confusion = Confusion::new(&truth, &predicted, targets.classes.len())?;
        let name = |class: usize| targets.classes[class].name.clone();
        let label = |&index: &usize| tagger.labels().get(index).map(|label| label.name.clone());
        let class = |(class, target): (usize, &Target)| Class {
            name: target.name.clone(),
            labels: target.labels.iter().filter_map(label).collect(),
            n_files: ranking.n_positive[class],
            precision: confusion.precision(class),
            recall: confusion.recall(class),
            f1: confusion.f1(class),
            average_precision: ranking.average_precision[class],
            roc_auc: ranking.roc_auc[class],
        };
        Ok(Self {
            data: data.display().to_string(),
            model: tagger.model().info().name.to_string(),
            device: device::name(tagger.model().device()),
            n_files: predictions.len(),
            n_failed: failed.len(),
            accuracy: confusion.accuracy(),
            top_k: TopK { k, accuracy: top_k_accuracy(scores.view(), &truth, k)? },
            mean_average_precision: ranking.mean_average_precision(),
            mean_roc_auc: ranking.mean_roc_auc(),
            d_prime: ranking.d_prime(),
            macro_average: confusion.macro_average(),
            classes: targets.classes.iter().enumerate().map(class).collect(),
            confusion: confusion.counts().rows().into_iter().map(|row| row.to_vec()).collect(),
            failed,
            predictions: Some(predictions.into_iter().map(|p| file(p, name)).collect()),
        })
    }

    pub fn print(mut self, format: Format, full: bool) -> io::Result<()> {
        let mut out = stdout();
        match format {
            Format::Json => {
                self.predictions = self.predictions.filter(|_| full);
                writeln!(out, "{}", serde_json::to_string(&self)?)?;
            }
            Format::Table => self.tables(&mut out)?,
        }
        out.flush()
    }

    fn tables(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { data, model, device, n_files, n_failed, classes, .. } = self;
        let failed = if *n_failed > 0 { format!(", {n_failed} failed") } else { String::new() };
        writeln!(out, "{data}: {n_files} files{failed}, {} classes, {model} on {device}\n", classes.len())?;
        writeln!(out, "accuracy {}   top-{} {}", number(self.accuracy), self.top_k.k, number(self.top_k.accuracy))?;
        let (map, auc, d_prime) = (self.mean_average_precision, self.mean_roc_auc, self.d_prime);
        writeln!(out, "mAP {}   ROC AUC {}   d' {}\n", number(map), number(auc), number(d_prime))?;

        let average = "macro average";
        let width = classes.iter().map(|class| class.name.chars().count()).max().unwrap_or_default().max(average.len());
        writeln!(out, "{:width$}  files  precision  recall     F1     AP  ROC AUC", "class")?;
        let mut row = |name: &str, files: usize, values: [Option<f64>; 5]| {
            let [precision, recall, f1, ap, auc] = values.map(number);
            writeln!(out, "{name:width$}  {files:5}  {precision:>9}  {recall:>6}  {f1:>5}  {ap:>5}  {auc:>7}")
        };
        for class in classes {
            let Class { precision, recall, f1, average_precision, roc_auc, .. } = *class;
            row(&class.name, class.n_files, [precision, recall, f1, average_precision, roc_auc])?;
        }
        let mean = self.macro_average;
        let (precision, recall, f1) = (mean.map(|m| m.precision), mean.map(|m| m.recall), mean.map(|m| m.f1));
        row(average, *n_files, [precision, recall, f1, map, auc])?;
        self.confusion_table(out, width)
    }

    fn confusion_table(&self, out: &mut impl Write, width: usize) -> io::Result<()> {
        let largest = self.confusion.iter().flatten().copied().max().unwrap_or_default();
        let digits = |n: u64| n.to_string().len();
        let cell = digits(largest).max(digits(self.classes.len() as u64)) + 1;
        let place = digits(self.classes.len() as u64);
        write!(out, "\n{:width$}  {:place$} ", "true \\ predicted", "", width = width.max(16))?;
        for number in 1..=self.classes.len() {
            write!(out, "{number:>cell$}")?;
        }
        writeln!(out)?;
        for (i, (class, row)) in self.classes.iter().zip(&self.confusion).enumerate() {
            write!(out, "{:width$}  {:>place$} ", class.name, i + 1, width = width.max(16))?;
            for &count in row {
                let text = if count == 0 { ".".to_string() } else { count.to_string() };
                write!(out, "{text:>cell$}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

fn file(prediction: Prediction, name: impl Fn(usize) -> String) -> File {
    File {
        file: prediction.file.display().to_string(),
        target: name(prediction.target),
        prediction: name(prediction.prediction),
        scores: prediction.scores,
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |value| format!("{value:.3}"))
}
