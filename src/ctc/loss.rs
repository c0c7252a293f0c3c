//! The CTC loss: the negative log-probability of a token sequence, summed over all its alignments.
//!
//! Graves et al. 2006, equations 5 to 16, in the log domain and f64. With the target `l` interleaved with blanks to
//! `l'`, `y` the softmax of the logits, and `s → s'` the allowed transitions of an alignment,
//!
//! ```text
//! α_t(s') = y_t(l'_s') Σ_{s → s'} α_{t−1}(s)       β_t(s) = Σ_{s → s'} β_{t+1}(s') y_{t+1}(l'_s')
//! p = Σ_s α_T(s) β_T(s)       loss = −ln p       ∂ loss / ∂ logit_t(k) = y_t(k) − Σ_{s: l'_s = k} α_t(s) β_t(s) / p
//! ```

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};
use ndarray::ArrayView2;
use rayon::prelude::*;

use super::frames::{check_frame, frames_needed};
use crate::check::check_lengths;
use crate::error::{Context, Error, Result};
use crate::tensor::{contiguous, with_values};

/// Reduction of the losses of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// One loss per clip.
    None,
    /// The mean over clips of the loss per token (the loss itself for a clip without tokens). The default.
    #[default]
    Mean,
    /// The sum over clips.
    Sum,
}

/// Settings of [`ctc_loss`]. The defaults are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LossConfig {
    /// The index of the blank. Default: 0.
    pub blank: usize,
    /// The reduction of the losses. Default: [`Reduction::Mean`].
    pub reduction: Reduction,
    /// Whether the loss of a clip with too few frames for its tokens is 0 instead of infinite. Default: false.
    pub zero_infinity: bool,
}

/// The CTC loss of `logits` `[batch, n_frames, n_tokens]` for the token sequences `targets`. The first `lengths[b]`
/// frames belong to clip `b`. Returns `[batch]` with [`Reduction::None`], otherwise a scalar; f32, on the device of the
/// logits.
///
/// Equals PyTorch's `ctc_loss` of the `log_softmax` of the logits. Log-probabilities may be passed instead of logits,
/// with the same loss and gradient. The loss is differentiable; an infinite loss has gradient 0. It is computed on the
/// host, with clips in parallel, and does not depend on the number of threads.
///
/// # Errors
/// [`Error::Config`] if the blank is not a token; [`Error::Argument`] unless there are one length (at most `n_frames`)
/// and one target per clip, if a target contains the blank or an id that is not a token, or if scores within the
/// lengths are NaN, `+∞`, or all `−∞` in a frame; [`Error::Tensor`] if the shape is invalid.
pub fn ctc_loss(
    logits: &Tensor,
    lengths: &[usize],
    targets: &[impl AsRef<[u32]>],
    config: &LossConfig,
) -> Result<Tensor> {
    loss(logits, lengths, targets, config).context("computing the CTC loss")
}

fn loss(logits: &Tensor, lengths: &[usize], targets: &[impl AsRef<[u32]>], config: &LossConfig) -> Result<Tensor> {
    let (batch, n_frames, n_tokens) = logits.dims3()?;
    check_lengths(lengths, batch, 0..=n_frames)?;
    if targets.len() != batch {
        return Err(Error::argument("targets.len()", targets.len(), format!("expected {batch}, one per clip")));
    }
    let host = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    let check = |values: &[&[f32]]| {
        let of_clip = |(clip, (target, &length)): (usize, (_, &usize))| {
            check_scores(&values[0][clip * n_frames * n_tokens..][..length * n_tokens], n_tokens)?;
            interleaved(AsRef::<[u32]>::as_ref(target), n_tokens, config.blank)
        };
        targets.iter().zip(lengths).enumerate().map(of_clip).collect::<Result<Vec<_>>>()
    };
    let labels = with_values(&[&host], check)??;
    let op = LossOp { labels, lengths: lengths.to_vec(), n_frames, n_tokens, zero_infinity: config.zero_infinity };
    let losses = host.apply_op1(op)?; // [batch]
    let loss = match config.reduction {
        Reduction::None => losses,
        Reduction::Sum => losses.sum_all()?,
        Reduction::Mean => {
            let shares = targets.iter().map(|target| 1.0 / (target.as_ref().len().max(1) * batch) as f32);
            (losses * Tensor::from_iter(shares, &Device::Cpu)?)?.sum_all()?
        }
    };
    Ok(loss.to_device(logits.device())?)
}

/// The log-probability of a token sequence, summed over all its alignments with `log_probs` `[n_frames, n_tokens]`;
/// `−∞` if there are too few frames. Rows are normalised, so logits may be passed as well.
///
/// # Errors
/// [`Error::Config`] and [`Error::Argument`] as for [`ctc_loss`].
pub fn forward_score(log_probs: ArrayView2<f32>, target: &[u32], blank: usize) -> Result<f64> {
    let n_tokens = log_probs.ncols();
    let scores: Vec<f32> = log_probs.iter().copied().collect();
    let labels = interleaved(target, n_tokens, blank)?;
    check_scores(&scores, n_tokens)?;
    Ok(Lattice::new(&scores, n_tokens, &labels).score())
}

/// A target with blanks before, between and after its tokens.
fn interleaved(target: &[u32], n_tokens: usize, blank: usize) -> Result<Vec<usize>> {
    if blank >= n_tokens {
        return Err(Error::config("blank", blank, format!("expected an index below {n_tokens}, the number of tokens")));
    }
    let mut labels = Vec::with_capacity(2 * target.len() + 1);
    for &token in target {
        let index = usize::try_from(token).unwrap_or(usize::MAX);
        if index >= n_tokens || index == blank {
            return Err(Error::argument(
                "targets",
                token,
                format!("expected a token below {n_tokens} other than the blank"),
            ));
        }
        labels.extend([blank, index]);
    }
    labels.push(blank);
    Ok(labels)
}

/// Rejects rows without a softmax.
fn check_scores(scores: &[f32], n_tokens: usize) -> Result<()> {
    let mut rows = scores.chunks(n_tokens.max(1)).enumerate();
    rows.try_for_each(|(frame, row)| check_frame("logits", frame, row.iter().copied()).map(drop))
}

/// The alignments of a clip.
struct Lattice<'a> {
    n_tokens: usize,
    labels: &'a [usize],
    log_probs: Vec<f64>, // [n_frames, n_tokens]
}

impl<'a> Lattice<'a> {
    /// From the scores of the frames, `[n_frames, n_tokens]`.
    fn new(scores: &[f32], n_tokens: usize, labels: &'a [usize]) -> Self {
        let mut log_probs = Vec::with_capacity(scores.len());
        for row in scores.chunks(n_tokens) {
            let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
            let norm = largest + sum.ln();
            log_probs.extend(row.iter().map(|&x| f64::from(x) - norm));
        }
        Self { n_tokens, labels, log_probs }
    }

    /// Whether there are enough frames for the tokens.
    fn fits(&self) -> bool {
        frames_needed(self.labels.iter().skip(1).step_by(2)) <= self.log_probs.len() / self.n_tokens
    }

    /// Computes the forward variables of a frame, from its log-probabilities and the forward variables of the previous
    /// frame, if any.
    fn forward(&self, row: &[f64], before: Option<&[f64]>, now: &mut [f64]) {
        for (s, now) in now.iter_mut().enumerate() {
            let sum = match before {
                None if s < 2 => 0.0,
                None => NONE,
                Some(before) => {
                    let skipped = if skips(self.labels, s) { before[s - 2] } else { NONE };
                    log_sum(before[s], at(before, s, 1), skipped)
                }
            };
            *now = sum + row[self.labels[s]];
        }
    }

    /// The log-probability summed over all alignments.
    fn score(&self) -> f64 {
        if !self.fits() {
            return NONE;
        }
        let mut rows = self.log_probs.chunks(self.n_tokens);
        let Some(first) = rows.next() else { return 0.0 }; // without frames, only the empty target is possible
        let (mut now, mut next) = (vec![NONE; self.labels.len()], vec![NONE; self.labels.len()]);
        self.forward(first, None, &mut now);
        for row in rows {
            self.forward(row, Some(&now), &mut next);
            std::mem::swap(&mut now, &mut next);
        }
        total(&now)
    }

    /// Computes the gradient of the loss with respect to the scores, times `factor`.
    fn gradient(&self, factor: f64, gradient: &mut [f32]) {
        let n = self.labels.len();
        if !self.fits() || self.log_probs.is_empty() {
            return;
        }
        let mut alphas = vec![NONE; self.log_probs.len() / self.n_tokens * n];
        for (frame, row) in self.log_probs.chunks(self.n_tokens).enumerate() {
            let (before, now) = alphas.split_at_mut(frame * n);
            self.forward(row, before.len().checked_sub(n).map(|start| &before[start..]), &mut now[..n]);
        }
        let score = total(&alphas[alphas.len() - n..]);
        if score == NONE {
            return;
        }
        let mut betas = vec![NONE; n];
        betas[n.saturating_sub(2)..].fill(0.0);
        let mut next = betas.clone();
        let mut occupied = vec![0.0; self.n_tokens];
        for frame in (0..self.log_probs.len() / self.n_tokens).rev() {
            occupied.fill(0.0);
            for s in 0..n {
                occupied[self.labels[s]] += (alphas[frame * n + s] + betas[s] - score).exp();
            }
            let row = &self.log_probs[frame * self.n_tokens..][..self.n_tokens];
            let places = &mut gradient[frame * self.n_tokens..][..self.n_tokens];
            for k in 0..self.n_tokens {
                places[k] = (factor * (row[k].exp() - occupied[k])) as f32;
            }
            let of = |s: usize| betas.get(s).map_or(NONE, |beta| beta + row[self.labels[s]]);
            for s in 0..n {
                let skipped = if s + 2 < n && skips(self.labels, s + 2) { of(s + 2) } else { NONE };
                next[s] = log_sum(of(s), of(s + 1), skipped);
            }
            std::mem::swap(&mut betas, &mut next);
        }
    }
}

/// The logarithm of 0.
const NONE: f64 = f64::NEG_INFINITY;

/// The log-probability summed over all alignments, from the forward variables of the last frame.
fn total(last: &[f64]) -> f64 {
    let n = last.len();
    log_sum(last[n - 1], at(last, n - 1, 1), NONE)
}

/// The value `back` positions before `s`, or log 0.
fn at(values: &[f64], s: usize, back: usize) -> f64 {
    s.checked_sub(back).map_or(NONE, |place| values[place])
}

/// Whether an alignment may skip from position `s - 2` to `s`, over a blank between different tokens.
fn skips(labels: &[usize], s: usize) -> bool {
    s >= 2 && labels[s] != labels[0] && labels[s] != labels[s - 2]
}

/// `ln(e^a + e^b + e^c)`.
fn log_sum(a: f64, b: f64, c: f64) -> f64 {
    let largest = a.max(b).max(c);
    if largest == NONE {
        NONE
    } else {
        largest + ((a - largest).exp() + (b - largest).exp() + (c - largest).exp()).ln()
    }
}

/// The losses `[batch]` of logits `[batch, n_frames, n_tokens]`.
struct LossOp {
    /// The targets with blanks.
    labels: Vec<Vec<usize>>,
    lengths: Vec<usize>,
    n_frames: usize,
    n_tokens: usize,
    zero_infinity: bool,
}

impl LossOp {
    fn lattice<'a>(&'a self, logits: &[f32], clip: usize) -> Lattice<'a> {
        let scores = &logits[clip * self.n_frames * self.n_tokens..][..self.lengths[clip] * self.n_tokens];
        Lattice::new(scores, self.n_tokens, &self.labels[clip])
    }
}

impl CustomOp1 for LossOp {
    fn name(&self) -> &'static str {
        "ctc-loss"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let logits = contiguous(logits, layout)?;
        let loss = |clip: usize| match -self.lattice(logits, clip).score() {
            loss if loss == f64::INFINITY && self.zero_infinity => 0.0,
            loss => loss as f32,
        };
        let losses: Vec<f32> = (0..self.labels.len()).into_par_iter().map(loss).collect();
        Ok((CpuStorage::F32(losses), self.labels.len().into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, of_losses: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let factors = of_losses.to_vec1::<f32>()?;
        let mut gradient = vec![0.0; logits.elem_count()];
        let of_clip = self.n_frames * self.n_tokens;
        if of_clip > 0 {
            with_values(&[logits], |logits| {
                let clips = gradient.par_chunks_mut(of_clip).zip(factors).enumerate();
                clips.for_each(|(clip, (gradient, factor))| {
                    self.lattice(logits[0], clip).gradient(f64::from(factor), gradient);
                });
            })?;
        }
        Tensor::from_vec(gradient, logits.shape(), &Device::Cpu).map(Some)
    }
}
