//! What the trainers of classifiers share: clips with a class, the loss, measures.

use std::path::Path;

use candle_nn::ops;
use clipwise::candle_core::{self, D, Tensor};
use clipwise::{Detail, Device, LabelSet, ModelConfig, TaggingModel, Waveform, WaveformBatch};

use crate::training::{Failure, Measure, Step};

/// A clip with the index of its class.
#[derive(Clone)]
pub struct Clip {
    pub waveform: Waveform,
    pub class: usize,
}

/// The mean loss of logits and targets, both `[n, n_classes]`, and how many are right.
pub fn step(logits: &Tensor, targets: &Tensor) -> Result<Step, Failure> {
    Ok(Step { loss: cross_entropy(logits, targets)?, n: logits.dim(0)?, right: n_right(logits, targets)? as f64 })
}

/// The mean over the clips of `−Σ target · ln softmax(logits)`.
fn cross_entropy(logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    (ops::log_softmax(logits, D::Minus1)? * targets)?.sum(1)?.mean(0)?.neg()
}

/// Clips whose highest score is on their heaviest target.
fn n_right(logits: &Tensor, targets: &Tensor) -> candle_core::Result<usize> {
    let (got, wanted) = (logits.argmax(1)?.to_vec1::<u32>()?, targets.argmax(1)?.to_vec1::<u32>()?);
    Ok(got.iter().zip(&wanted).filter(|(got, wanted)| got == wanted).count())
}

/// Targets `[n, n_classes]` of classes, of which the others get `smoothing` together.
pub fn targets(classes: &[usize], n_classes: usize, smoothing: f32, device: &Device) -> candle_core::Result<Tensor> {
    let low = smoothing / n_classes as f32;
    let mut values = vec![low; classes.len() * n_classes];
    for (row, &class) in values.chunks_mut(n_classes).zip(classes) {
        row[class] += 1.0 - smoothing;
    }
    Tensor::from_vec(values, (classes.len(), n_classes), device)
}

/// What a model says about clips: the loss, the accuracy, and for each clip whether it was right.
pub fn measure(model: &dyn TaggingModel, clips: &[Clip]) -> Result<(Measure, Vec<bool>), Failure> {
    let (mut loss, mut right) = (0.0, Vec::with_capacity(clips.len()));
    for clips in clips.chunks(64) {
        let rows = clips.iter().map(|clip| clip.waveform.samples.clone()).collect();
        let logits = model.forward(&WaveformBatch::new(rows, model.info().sample_rate)?, Detail::Clip)?.logits;
        for (row, clip) in ops::log_softmax(&logits, 1)?.to_vec2::<f32>()?.iter().zip(clips) {
            loss -= f64::from(row[clip.class]);
            right.push(row.iter().all(|&score| score <= row[clip.class]));
        }
    }
    let n = clips.len() as f64;
    let accuracy = right.iter().filter(|&&right| right).count() as f64 / n;
    Ok((Measure { loss: loss / n, accuracy }, right))
}

/// The 95 % interval of a share (Wilson, 1927).
pub fn interval(right: usize, n: usize) -> (f64, f64) {
    let (n, z) = (n as f64, 1.959964);
    let p = right as f64 / n;
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}

/// Writes what stands beside `model.safetensors` in a folder that `Tagger::open` opens.
pub fn describe(folder: &Path, config: &ModelConfig, labels: &LabelSet) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(config)? + "\n")?;
    let names: String = labels.iter().map(|label| label.name.clone() + "\n").collect();
    Ok(std::fs::write(folder.join("labels.txt"), names)?)
}
