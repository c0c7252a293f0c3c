//! The convolutions over the waveform.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::EPS;
use super::config::{Config, ConvLayer, ConvNorm};
use super::names::Names;
use crate::error::Result;
use crate::nn::{Activation, ConvConfig, ConvStack, LayerNorm};
use crate::tensor::with_values;
use crate::weights::{Loader, Weights};

/// Number of convolutions that run in parts: their outputs for a whole clip would dominate the memory of a forward
/// pass.
const IN_PARTS: usize = 5;
/// Outputs per part of the last of them, so that a part fits into the cache.
const PART: usize = 64;

#[derive(Debug)]
pub(super) struct Extractor {
    convs: Vec<ConvLayer>,
    /// The norm over time after the first convolution, which then is not among the stages.
    time_norm: Option<TimeNorm>,
    /// Stages that run in parts.
    in_parts: Vec<Stage>,
    rest: Vec<Stage>,
}

/// Convolutions with GELU, or one convolution with a norm over its channels before GELU.
#[derive(Debug)]
enum Stage {
    Plain(ConvStack),
    Normed(ConvStack, LayerNorm),
}

impl Stage {
    /// Maps `[batch, n, in_channels]` to `[batch, n_out, channels]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Plain(convs) => convs.forward_vectors(x, None),
            Self::Normed(conv, norm) => norm.forward_with(&conv.forward_vectors(x, None)?, Activation::Gelu),
        }
    }
}

impl Extractor {
    pub fn load(place: &Loader, names: &Names, config: &Config) -> Result<Self> {
        let root = place.at("feature_extractor.conv_layers");
        let [over_time, over_channels] = names.conv_norms;
        let mut time_norm = None;
        let (mut in_parts, mut rest) = (Vec::new(), Vec::new());
        let mut in_channels = 1;
        for (index, &ConvLayer { channels, kernel, stride }) in config.convs.iter().enumerate() {
            let weights = root.at(index);
            let shape = ConvConfig { stride, bias: config.conv_bias, ..ConvConfig::new(in_channels, channels, kernel) };
            let add = |stack: &mut ConvStack, activation| stack.conv(&weights.at(names.conv), None, shape, activation);
            let stages = if index < IN_PARTS { &mut in_parts } else { &mut rest };
            match config.conv_norm {
                ConvNorm::Layer => {
                    let mut stack = ConvStack::on_sequences();
                    add(&mut stack, Activation::Identity)?;
                    stages.push(Stage::Normed(stack, LayerNorm::load(&weights.at(over_channels), channels, EPS)?));
                }
                ConvNorm::Group if index == 0 => {
                    time_norm = Some(TimeNorm::load(&weights.at(names.conv), &weights.at(over_time), shape)?);
                }
                ConvNorm::Group => match stages.last_mut() {
                    Some(Stage::Plain(stack)) => add(stack, Activation::Gelu)?,
                    _ => {
                        let mut stack = ConvStack::on_sequences();
                        add(&mut stack, Activation::Gelu)?;
                        stages.push(Stage::Plain(stack));
                    }
                },
            }
            in_channels = channels;
        }
        Ok(Self { convs: config.convs.to_vec(), time_norm, in_parts, rest })
    }

    /// Maps samples `[batch, n_samples, 1]`, enough for one frame, to `[batch, n_frames, channels]`.
    pub fn forward(&self, samples: &Tensor) -> Result<Tensor> {
        let rows = (0..samples.dim(0)?).map(|row| self.forward_in_parts(&samples.narrow(0, row, 1)?));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let x = Tensor::cat(&rows, 0)?;
        drop(rows);
        self.rest.iter().try_fold(x, |x, stage| stage.forward(&x))
    }

    /// Runs the first convolutions for one clip, `[1, n_samples, 1]`.
    fn forward_in_parts(&self, clip: &Tensor) -> Result<Tensor> {
        let first = self.time_norm.as_ref().map(|norm| norm.stage(clip)).transpose()?;
        let convs = &self.convs[..self.convs.len().min(IN_PARTS)];
        let n = Config::frames_after(convs, clip.dim(1)?);
        let step: usize = convs.iter().map(|conv| conv.stride).product();
        let part = if clip.device().is_cpu() { PART } else { n };
        let forward = |start: usize| {
            let n = part.min(n - start);
            let n_samples = convs.iter().rev().fold(n, |n, conv| (n - 1) * conv.stride + conv.kernel);
            let x = clip.narrow(1, start * step, n_samples)?.contiguous()?;
            first.iter().chain(&self.in_parts).try_fold(x, |x, stage| stage.forward(&x))
        };
        let starts: Vec<usize> = (0..n).step_by(part.max(1)).collect();
        let parts = starts.into_par_iter().map(forward).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }
}

/// The first convolution, with the norm of each channel over the time of the clip.
///
/// Both are linear, so the norm can be folded into the filters, per clip: if `m` and `C` are the mean and the
/// covariance of the patches of samples that the filter `w` is applied to, the channel has the mean `w·m` and the
/// variance `wᵀ C w`.
#[derive(Debug)]
struct TimeNorm {
    shape: ConvConfig,
    filters: Vec<f32>, // [channels, kernel]
    bias: Vec<f32>,
    weight: Vec<f32>,
    shift: Vec<f32>,
}

impl TimeNorm {
    fn load(conv: &Loader, norm: &Loader, shape: ConvConfig) -> Result<Self> {
        let (channels, kernel) = (shape.out_channels, shape.kernel);
        Ok(Self {
            shape: ConvConfig { bias: true, ..shape },
            filters: conv.get_vec("weight", &[channels, 1, kernel])?,
            bias: if shape.bias { conv.get_vec("bias", &[channels])? } else { vec![0.0; channels] },
            weight: norm.get_vec("weight", &[channels])?,
            shift: norm.get_vec("bias", &[channels])?,
        })
    }

    /// The convolution with the norm of this clip `[1, n_samples, 1]` folded in, and GELU.
    fn stage(&self, clip: &Tensor) -> Result<Stage> {
        let ConvConfig { out_channels, kernel, stride, .. } = self.shape;
        let samples = clip.to_device(&Device::Cpu)?;
        let (mean, covariance) = with_values(&[&samples], |samples| moments(samples[0], kernel, stride))?;
        let (mut filters, mut bias) = (Vec::with_capacity(self.filters.len()), Vec::with_capacity(out_channels));
        for (channel, filter) in self.filters.chunks(kernel).enumerate() {
            let dot = |values: &[f64]| values.iter().zip(filter).map(|(a, &b)| a * f64::from(b)).sum::<f64>();
            let [weight, shift, own] = [&self.weight, &self.shift, &self.bias].map(|values| f64::from(values[channel]));
            let mean = dot(&mean) + own;
            let rows: Vec<f64> = covariance.chunks(kernel).map(dot).collect();
            let scale = weight / (dot(&rows).max(0.0) + f64::from(EPS)).sqrt();
            filters.extend(filter.iter().map(|&x| (f64::from(x) * scale) as f32));
            bias.push((shift + (own - mean) * scale) as f32);
        }
        let tensors = [
            ("weight".to_string(), Tensor::from_vec(filters, (out_channels, 1, kernel), &Device::Cpu)?),
            ("bias".to_string(), Tensor::from_vec(bias, out_channels, &Device::Cpu)?),
        ];
        let mut stack = ConvStack::on_sequences();
        let weights = Weights::from_tensors(tensors)?;
        stack.conv(&weights.loader(clip.device()), None, self.shape, Activation::Gelu)?;
        Ok(Stage::Plain(stack))
    }
}

/// Mean `[kernel]` and covariance `[kernel, kernel]` of the patches of a clip, which must have at least one.
fn moments(samples: &[f32], kernel: usize, stride: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut mean, mut products) = (vec![0.0; kernel], vec![0.0; kernel * kernel]);
    let mut n = 0.0;
    for patch in samples.windows(kernel).step_by(stride) {
        n += 1.0;
        for (i, &a) in patch.iter().enumerate() {
            mean[i] += f64::from(a);
            let row = &mut products[i * kernel..][..=i];
            row.iter_mut().zip(patch).for_each(|(sum, &b)| *sum += f64::from(a) * f64::from(b));
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= n);
    let covariance = |index: usize| {
        let (i, j) = (index / kernel, index % kernel);
        products[i.max(j) * kernel + i.min(j)] / n - mean[i] * mean[j]
    };
    let covariance = (0..kernel * kernel).map(covariance).collect();
    (mean, covariance)
}
