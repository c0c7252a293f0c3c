//! The net: a recurrent encoder and a linear head, trained with the CTC loss.

use std::path::Path;

use clipwise::augment::Random;
use clipwise::candle_core::Tensor;
use clipwise::ctc::{Head, HeadConfig, LossConfig, Reduction, collapse, ctc_loss};
use clipwise::encoders::{Layers, RecurrentEncoder, SpeechEncoder, recurrent};
use clipwise::metrics::EditCounts;
use clipwise::ndarray::Array2;
use clipwise::weights::Loader;
use clipwise::{Waveform, WaveformBatch};
use rayon::prelude::*;

use crate::augment::{STRIPES, augmented};
use crate::data::Phrase;
use crate::phonemes::{BLANK, PHONEMES};
use crate::training::{Failure, Measure, Step};

/// The shape of the encoder.
const CONFIG: recurrent::Config = recurrent::Config { hidden: 128, ..recurrent::Config::BIGRU };
/// Of the head. The blank is token 0.
const HEAD: HeadConfig = HeadConfig::linear(2 * CONFIG.hidden, PHONEMES.len() + 1);
const LOSS: LossConfig = LossConfig { blank: 0, reduction: Reduction::Sum, zero_infinity: true };

pub struct Net {
    encoder: RecurrentEncoder,
    head: Head,
}

impl Net {
    /// To be trained, or from a checkpoint.
    pub fn build(root: &Loader) -> Result<Self, Failure> {
        let encoder = RecurrentEncoder::build(&CONFIG, &root.at("encoder"))?;
        Ok(Self { encoder, head: Head::load(&HEAD, root)? })
    }

    /// What stands beside `model.safetensors`.
    pub fn describe(folder: &Path) -> Result<(), Failure> {
        let mut config = serde_json::json!({ "encoder": CONFIG, "head": HEAD });
        config["encoder"]["type"] = "recurrent".into();
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(&config)? + "\n")?;
        let ids: serde_json::Map<_, _> = std::iter::once(BLANK)
            .chain(PHONEMES)
            .enumerate()
            .map(|(id, token)| (token.to_string(), id.into()))
            .collect();
        Ok(std::fs::write(folder.join("vocab.json"), serde_json::to_string_pretty(&ids)? + "\n")?)
    }

    /// A step of training with the phrases of these indices, each augmented anew.
    pub fn step(&self, phrases: &[Phrase], batch: &[usize], random: &mut Random) -> Result<Step, Failure> {
        let seeds: Vec<u64> = batch.iter().map(|_| random.next_u64()).collect();
        let features = |(&i, seed): (&usize, u64)| {
            let mut random = Random::new(seed);
            let samples = augmented(&phrases[i].open()?.samples, &mut random)?;
            let mut features = self.encoder.features().compute(&samples)?;
            STRIPES.apply(&mut features, &mut random)?;
            Ok(features)
        };
        let clips = batch.par_iter().zip(seeds).map(features).collect::<Result<Vec<Array2<f32>>, Failure>>()?;
        let lengths: Vec<usize> = clips.iter().map(|clip| clip.nrows()).collect();
        let (longest, n_features) = (lengths.iter().copied().max().unwrap_or(0), clips[0].ncols());
        let mut values = vec![0.0; batch.len() * longest * n_features];
        for (values, clip) in values.chunks_mut(longest * n_features).zip(&clips) {
            values.iter_mut().zip(clip).for_each(|(value, x)| *value = *x);
        }
        let x = Tensor::from_vec(values, (batch.len(), longest, n_features), self.encoder.device())?;
        let encoded = self.encoder.forward_features(&x, &lengths, Layers::Last)?;
        let logits = self.head.forward(&encoded.last, None)?;
        let targets: Vec<&[u32]> = batch.iter().map(|&i| phrases[i].phonemes.as_slice()).collect();
        let n: usize = targets.iter().map(|target| target.len()).sum();
        let loss = (ctc_loss(&logits, &encoded.lengths, &targets, &LOSS)? / n as f64)?;
        let heard = best_paths(&logits, &encoded.lengths)?;
        let edits: EditCounts = heard.iter().zip(&targets).map(|(heard, target)| EditCounts::of(target, heard)).sum();
        Ok(Step { loss, n, right: n as f64 - edits.n_errors() as f64 })
    }

    /// The loss per phoneme and one less the phoneme error rate, over all phrases together; and what was heard.
    pub fn measure(&self, phrases: &[Phrase]) -> Result<(Measure, Vec<Vec<u32>>), Failure> {
        let (mut loss, mut edits, mut all) = (0.0, EditCounts::default(), Vec::new());
        for phrases in phrases.chunks(32) {
            let clips = phrases.iter().map(Phrase::open).collect::<Result<Vec<Waveform>, Failure>>()?;
            let (logits, lengths) = self.forward(clips)?;
            let targets: Vec<&[u32]> = phrases.iter().map(|phrase| phrase.phonemes.as_slice()).collect();
            loss += f64::from(ctc_loss(&logits, &lengths, &targets, &LOSS)?.to_scalar::<f32>()?);
            let heard = best_paths(&logits, &lengths)?;
            edits += heard.iter().zip(&targets).map(|(heard, target)| EditCounts::of(target, heard)).sum();
            all.extend(heard);
        }
        let (n, wrong) = (edits.n_reference() as f64, edits.n_errors() as f64);
        Ok((Measure { loss: loss / n, accuracy: 1.0 - wrong / n }, all))
    }

    /// Logits and their lengths.
    pub fn forward(&self, clips: Vec<Waveform>) -> Result<(Tensor, Vec<usize>), Failure> {
        let rows = clips.into_iter().map(|clip| clip.samples).collect();
        let encoded =
            self.encoder.forward(&WaveformBatch::new(rows, self.encoder.info().sample_rate)?, Layers::Last)?;
        Ok((self.head.forward(&encoded.last, None)?, encoded.lengths))
    }
}

/// The tokens of the best paths.
pub fn best_paths(logits: &Tensor, lengths: &[usize]) -> Result<Vec<Vec<u32>>, Failure> {
    let ids = logits.argmax(2)?.to_vec2::<u32>()?;
    let tokens = |(ids, &length): (&Vec<u32>, &usize)| {
        let ids: Vec<usize> = ids[..length].iter().map(|&id| id as usize).collect();
        collapse(&ids, 0).into_iter().map(|id| id as u32).collect()
    };
    Ok(ids.iter().zip(lengths).map(tokens).collect())
}
