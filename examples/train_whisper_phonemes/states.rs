//! What the frozen encoder says about the recordings, kept in files: it need not run in every epoch.

use std::collections::HashMap;
use std::path::Path;

use clipwise::augment::Random;
use clipwise::candle_core::{DType, Tensor, safetensors};
use clipwise::encoders::{Layers, SpeechEncoder};
use clipwise::{WaveformBatch, Weights};

use crate::RATE;
use crate::augment::{augmented, change_tempo};
use crate::corpus::Utterance;
use crate::training::Failure;

/// Recordings that are encoded at once.
const AT_ONCE: usize = 32;

/// Writes the states of all layers, `[n_layers, n_frames, dim]` in half precision, by utterance: of the recordings in
/// `0.safetensors`, of distorted copies in `1.safetensors` and so on. Copies are spoken up to `fastest` times as fast.
pub fn write(
    encoder: &dyn SpeechEncoder,
    utterances: &[Utterance],
    (copies, fastest): (usize, f64),
    seed: u64,
    folder: &Path,
) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    for copy in 0..=copies {
        let path = folder.join(format!("{copy}.safetensors"));
        if path.exists() {
            continue;
        }
        let mut states = HashMap::new();
        for (n, some) in utterances.chunks(AT_ONCE).enumerate() {
            let clip = |(i, utterance): (usize, &Utterance)| {
                let samples = utterance.open()?.samples;
                let mut random = Random::stream(seed.wrapping_mul(256) + copy as u64, (n * AT_ONCE + i) as u64);
                if copy == 0 {
                    return Ok(samples);
                }
                let tempo = 1.0 + (fastest - 1.0) * random.uniform();
                augmented(&change_tempo(&samples, tempo), &mut random)
            };
            let clips = some.iter().enumerate().map(clip).collect::<Result<Vec<_>, Failure>>()?;
            let encoded = encoder.forward(&WaveformBatch::new(clips, RATE)?, Layers::All)?;
            let layers = Tensor::stack(&encoded.layers, 1)?; // [batch, n_layers, n_frames, dim]
            for (i, (utterance, &length)) in some.iter().zip(&encoded.lengths).enumerate() {
                let own = layers.get(i)?.narrow(1, 0, length)?.to_dtype(DType::F16)?.force_contiguous()?;
                states.insert(utterance.id.clone(), own);
            }
            eprint!("\rcopy {copy}: {} of {} utterances", states.len(), utterances.len());
        }
        eprintln!();
        let unfinished = path.with_extension("unfinished");
        safetensors::save(&states, &unfinished)?;
        std::fs::rename(unfinished, path)?;
    }
    Ok(())
}

/// States of the recordings, and of their copies.
pub struct States(Vec<Weights>);

impl States {
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let paths = (0..).map(|copy| folder.join(format!("{copy}.safetensors"))).take_while(|path| path.exists());
        let copies = paths.map(Weights::open).collect::<clipwise::Result<Vec<_>>>()?;
        if copies.is_empty() { Err(format!("{}: no states", folder.display()).into()) } else { Ok(Self(copies)) }
    }

    /// How many there are of an utterance.
    pub fn n_copies(&self) -> usize {
        self.0.len()
    }

    /// Frames of a recording.
    pub fn n_frames(&self, utterance: &Utterance) -> Result<usize, Failure> {
        Ok(self.shape(0, utterance)?[1])
    }

    fn shape(&self, copy: usize, utterance: &Utterance) -> Result<[usize; 3], Failure> {
        let shape = self.0[copy].shape(&utterance.id).and_then(|shape| shape.try_into().ok());
        Ok(shape.ok_or_else(|| format!("{}: not encoded", utterance.id))?)
    }

    /// A tensor per layer, `[batch, n_frames, dim]`, and the frames of each utterance, given the copy of each and the share of its
    /// frames that are kept, in even steps.
    pub fn batch(
        &self,
        utterances: &[&Utterance],
        copies: &[(usize, f64)],
    ) -> Result<(Vec<Tensor>, Vec<usize>), Failure> {
        let chosen = || utterances.iter().zip(copies);
        let shapes = chosen().map(|(u, &(copy, _))| self.shape(copy, u)).collect::<Result<Vec<_>, Failure>>()?;
        let kept = |(shape, &(_, share)): (&[usize; 3], &(usize, f64))| ((shape[1] as f64 * share) as usize).max(1);
        let lengths: Vec<usize> = shapes.iter().zip(copies).map(kept).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let [n_layers, _, dim] = shapes[0];
        let mut layers = vec![vec![0f32; utterances.len() * longest * dim]; n_layers];
        for (row, (utterance, &(copy, _))) in chosen().enumerate() {
            let (values, n_frames) = (self.0[copy].to_vec(&utterance.id)?, shapes[row][1]);
            for (layer, own) in layers.iter_mut().zip(values.chunks(n_frames * dim)) {
                for frame in 0..lengths[row] {
                    let from = frame * n_frames / lengths[row];
                    layer[(row * longest + frame) * dim..][..dim].copy_from_slice(&own[from * dim..][..dim]);
                }
            }
        }
        let shape = (utterances.len(), longest, dim);
        let tensor = |values| Tensor::from_vec(values, shape, &clipwise::Device::Cpu);
        Ok((layers.into_iter().map(tensor).collect::<Result<_, _>>()?, lengths))
    }
}
