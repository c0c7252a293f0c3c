//! What is trained: a weighted sum over the encoder's layers, a recurrent layer and a linear one, with the CTC loss.

use std::path::Path;

use clipwise::Device;
use clipwise::augment::{Random, SpecAugment};
use clipwise::candle_core::{DType, Tensor, safetensors};
use clipwise::ctc::{
    CtcConfig, Head, HeadConfig, LossConfig, RecurrentConfig, Reduction, collapse, ctc_loss, vocabulary,
};
use clipwise::encoders::{WeightedSum, WeightedSumConfig, whisper};
use clipwise::metrics::EditCounts;
use clipwise::nn::{Cell, Dropout};
use clipwise::weights::Loader;

use crate::corpus::{Utterance, inventory};
use crate::phonemes::BLANK;
use crate::states::States;
use crate::training::{Failure, Measure, Step};

const LOSS: LossConfig = LossConfig { blank: 0, reduction: Reduction::Sum, zero_infinity: true };
/// Stripes of up to 140 ms of all that the encoder says.
const STRIPES: SpecAugment = SpecAugment { time_drop_width: 8, time_stripes: 2, freq_drop_width: 0, freq_stripes: 0 };
/// The least share of an utterance's frames that are kept in training: as if it were spoken faster.
const LEAST_SHARE: f64 = 0.75;
/// The share of the encoder's values that are dropped in training.
const DROPOUT: f64 = 0.2;

/// The sizes of the head.
#[derive(clap::Args, Clone)]
pub struct Shape {
    /// Bidirectional GRU layers
    #[arg(long, default_value_t = 1)]
    layers: usize,
    /// Values of the state of one direction
    #[arg(long, default_value_t = 128)]
    hidden: usize,
}

/// The model: Whisper's encoder by the name of its published weights, and what is put on it.
fn config(shape: &Shape) -> CtcConfig {
    let encoder = whisper::Config { name: "openai/whisper-tiny.en".into(), ..whisper::Config::TINY };
    let &Shape { layers: n_layers, hidden } = shape;
    let recurrent = RecurrentConfig { cell: Cell::Gru, hidden, n_layers, bidirectional: true };
    let head = HeadConfig::linear(encoder.dim, inventory().len() + 1);
    CtcConfig {
        encoder: encoder.into(),
        weighted_sum: Some(WeightedSumConfig { normalize: true }),
        head: HeadConfig { recurrent: Some(recurrent), dropout: 0.2, ..head },
        vocabulary: vocabulary::Config::default(),
    }
}

/// What stands beside `model.safetensors`.
pub fn describe(shape: &Shape, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(&config(shape))? + "\n")?;
    let tokens = std::iter::once(BLANK).chain(inventory()).enumerate();
    let ids: serde_json::Map<_, _> = tokens.map(|(id, token)| (token.to_string(), id.into())).collect();
    Ok(std::fs::write(folder.join("vocab.json"), serde_json::to_string_pretty(&ids)? + "\n")?)
}

/// Lowers the bias of the blank in a checkpoint, and brings all its tensors to half precision.
pub fn finish(file: &Path, less_blank: f32) -> Result<(), Failure> {
    let mut tensors = safetensors::load(file, &Device::Cpu)?;
    let bias = tensors.get_mut("lm_head.bias").ok_or("a head without bias")?;
    let mut values = bias.to_vec1::<f32>()?;
    values[LOSS.blank] -= less_blank;
    *bias = Tensor::new(values, &Device::Cpu)?;
    let half = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::F16)?));
    Ok(safetensors::save(&tensors.into_iter().map(half).collect::<Result<_, Failure>>()?, file)?)
}

pub struct Net {
    sum: WeightedSum,
    dropout: Dropout,
    head: Head,
}

impl Net {
    /// To be trained, or from a checkpoint.
    pub fn build(shape: &Shape, root: &Loader) -> Result<Self, Failure> {
        let config = config(shape);
        let sum = config.weighted_sum.unwrap_or_default();
        Ok(Self {
            sum: WeightedSum::load(root, whisper::Config::TINY.n_blocks + 1, &sum)?,
            dropout: Dropout::new(root, DROPOUT)?,
            head: Head::load(&config.head, root)?,
        })
    }

    /// A step of training with any copies of these utterances.
    pub fn step(&self, states: &States, batch: &[&Utterance], random: &mut Random) -> Result<Step, Failure> {
        let share = |random: &mut Random| LEAST_SHARE + (1.0 - LEAST_SHARE) * random.uniform();
        let copies: Vec<_> = batch.iter().map(|_| (random.below(states.n_copies()), share(random))).collect();
        let (layers, lengths) = states.batch(batch, &copies)?;
        let hidden = self.dropout.forward(&self.sum.forward(&layers)?)?;
        let hidden = STRIPES.forward(&hidden.unsqueeze(1)?, random)?.squeeze(1)?;
        let logits = self.head.forward(&hidden, Some(&lengths))?;
        let (loss, edits) = judge(&logits, &lengths, batch)?;
        let n = edits.n_reference() as usize;
        Ok(Step { loss: (loss / n as f64)?, n, right: n as f64 - edits.n_errors() as f64 })
    }

    /// The loss per phoneme and one less the phoneme error rate, over all utterances together, as they were recorded.
    pub fn measure(&self, states: &States, utterances: &[&Utterance]) -> Result<Measure, Failure> {
        let (mut loss, mut edits) = (0.0, EditCounts::default());
        for batch in utterances.chunks(32) {
            let (logits, lengths) = self.logits(states, batch)?;
            let (of_batch, more) = judge(&logits, &lengths, batch)?;
            loss += f64::from(of_batch.to_scalar::<f32>()?);
            edits += more;
        }
        Ok(Measure { loss: loss / edits.n_reference() as f64, accuracy: 1.0 - edits.rate().unwrap_or(0.0) })
    }

    /// How much less the blank should score: the most, up to 5, with which there are no more errors on these recordings than
    /// without. In training, dropout and stripes teach a net to say nothing when in doubt; recordings that differ from these leave
    /// it in doubt more often.
    pub fn calibrate(&self, states: &States, utterances: &[&Utterance]) -> Result<f32, Failure> {
        let mut edits = [EditCounts::default(); 21];
        for batch in utterances.chunks(32) {
            let (logits, lengths) = self.logits(states, batch)?;
            let n_tokens = logits.dim(2)?;
            for (step, edits) in edits.iter_mut().enumerate() {
                let less = (0..n_tokens).map(|id| if id == LOSS.blank { step as f32 / 4.0 } else { 0.0 });
                let less = Tensor::from_iter(less, &Device::Cpu)?;
                *edits += errors(&logits.broadcast_sub(&less)?, &lengths, batch)?;
            }
        }
        let errors: Vec<u64> = edits.iter().map(EditCounts::n_errors).collect();
        println!("errors with the blank lowered by 0, 0.25 …: {errors:?}");
        Ok(errors.iter().rposition(|&n| n < errors[0]).unwrap_or(0) as f32 / 4.0)
    }

    /// Logits and frames of the recordings.
    fn logits(&self, states: &States, utterances: &[&Utterance]) -> Result<(Tensor, Vec<usize>), Failure> {
        let (layers, lengths) = states.batch(utterances, &vec![(0, 1.0); utterances.len()])?;
        Ok((self.head.forward(&self.sum.forward(&layers)?, Some(&lengths))?, lengths))
    }
}

/// The sum of the losses, and the errors of the best paths.
fn judge(logits: &Tensor, lengths: &[usize], batch: &[&Utterance]) -> Result<(Tensor, EditCounts), Failure> {
    let targets: Vec<&[u32]> = batch.iter().map(|utterance| utterance.phonemes.as_slice()).collect();
    Ok((ctc_loss(logits, lengths, &targets, &LOSS)?, errors(logits, lengths, batch)?))
}

/// The errors of the best paths.
fn errors(logits: &Tensor, lengths: &[usize], batch: &[&Utterance]) -> Result<EditCounts, Failure> {
    let best = logits.argmax(2)?.to_vec2::<u32>()?;
    let edits = |((path, &length), utterance): ((&Vec<u32>, &usize), &&Utterance)| {
        let path: Vec<usize> = path[..length].iter().map(|&id| id as usize).collect();
        let heard: Vec<u32> = collapse(&path, LOSS.blank).into_iter().map(|id| id as u32).collect();
        EditCounts::of(&utterance.phonemes, &heard)
    };
    Ok(best.iter().zip(lengths).zip(batch).map(edits).sum())
}
