//! Multi-head self-attention.
//!
//! Vaswani et al., "Attention Is All You Need", 2017 (arXiv 1706.03762): `softmax(q kᵀ / √head_dim) v` per head, the
//! heads concatenated, then a linear layer.

use candle_core::{D, Tensor};

use super::kernels::workspace::Workspace;
use super::ops::attention::AttentionOp;
use super::ops::runs_on_cpu_kernels;
use super::{Linear, RelativeScores};
use crate::check::check_lengths;
use crate::error::{Context, Error, Result};

/// Multi-head self-attention over a sequence of tokens.
#[derive(Debug)]
pub struct SelfAttention {
    /// The projection to queries, keys and values of all heads: `[width]` to `[3 · width]`.
    pub(super) qkv: Linear,
    /// The output projection: `[width]` to `[width]`.
    pub(super) output: Linear,
    pub(super) n_heads: usize,
    pub(super) workspace: Workspace,
}

impl SelfAttention {
    /// Creates the layer from the projection to queries, keys and values (in this order, each with its heads side by
    /// side) and the output projection.
    ///
    /// # Errors
    /// [`Error::Config`] if the number of heads does not divide the width, or `qkv` does not have `3 · width` outputs.
    pub fn new(qkv: Linear, output: Linear, n_heads: usize) -> Result<Self> {
        let width = output.out_features();
        if n_heads == 0 || !width.is_multiple_of(n_heads) || qkv.out_features() != 3 * width {
            let (expected, got) = (3 * width, qkv.out_features());
            let reason = format!("expected a divisor of the width {width}, and {expected} outputs of qkv, got {got}");
            return Err(Error::config("n_heads", n_heads, reason));
        }
        Ok(Self { qkv, output, n_heads, workspace: Workspace::shared() })
    }

    /// Computes `residual` + attention over `x`, both `[batch, n_tokens, width]`. With `lengths`, sequence `b` attends
    /// only to its first `lengths[b]` tokens; ignore the output for the tokens beyond.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one length of 1 to `n_tokens` per sequence, [`Error::Tensor`] if the shape
    /// does not match.
    pub fn forward_add(&self, x: &Tensor, lengths: Option<&[usize]>, residual: &Tensor) -> Result<Tensor> {
        self.forward_projected(&self.project(x)?, lengths, None, residual)
    }

    /// Projects `x` `[batch, n_tokens, width]` to queries, keys and values `[batch, n_tokens, 3 · width]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not match.
    pub fn project(&self, x: &Tensor) -> Result<Tensor> {
        self.qkv.forward(x)
    }

    /// As [`forward_add`](Self::forward_add), but on the output of [`project`](Self::project) and with optional
    /// `relative` position scores.
    ///
    /// # Errors
    /// As [`forward_add`](Self::forward_add), and [`Error::Tensor`] if the shape of `relative` does not match.
    pub fn forward_projected(
        &self,
        qkv: &Tensor,
        lengths: Option<&[usize]>,
        relative: Option<&RelativeScores>,
        residual: &Tensor,
    ) -> Result<Tensor> {
        self.attend(qkv, lengths, relative, residual).context("computing self-attention")
    }

    fn attend(
        &self,
        qkv: &Tensor,
        lengths: Option<&[usize]>,
        relative: Option<&RelativeScores>,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let (batch, n_tokens, _) = qkv.dims3()?;
        if let Some(lengths) = lengths {
            check_lengths(lengths, batch, 1..=n_tokens)?;
        }
        if let Some(relative) = relative {
            relative.check(batch, n_tokens, self.n_heads)?;
        }
        let y = if runs_on_cpu_kernels(qkv) {
            let (n_heads, workspace) = (self.n_heads, self.workspace.clone());
            let (lengths, relative) = (lengths.map(<[usize]>::to_vec), relative.cloned());
            qkv.apply_op1_no_bwd(&AttentionOp { n_heads, lengths, relative, workspace })?
        } else {
            self.on_device(qkv, lengths, relative)?
        };
        self.output.forward_add(&y, residual)
    }

    fn on_device(
        &self,
        qkv: &Tensor,
        lengths: Option<&[usize]>,
        relative: Option<&RelativeScores>,
    ) -> candle_core::Result<Tensor> {
        let (batch, n_tokens, width) = qkv.dims3()?;
        let head_dim = width / 3 / self.n_heads;
        let qkv = qkv.reshape((batch, n_tokens, 3, self.n_heads, head_dim))?.permute((2, 0, 3, 1, 4))?;
        let part = |i: usize| qkv.get(i)?.contiguous(); // [batch, n_heads, n_tokens, head_dim]
        let scale = 1.0 / (head_dim as f64).sqrt();
        let mut scores = (part(0)?.matmul(&part(1)?.t()?)? * scale)?; // [batch, n_heads, n_tokens, n_tokens]
        if let Some(relative) = relative {
            scores = scores.broadcast_add(&relative.expand(n_tokens)?)?;
        }
        if let Some(lengths) = lengths {
            let beyond = lengths.iter().flat_map(|&length| (0..n_tokens).map(move |key| u8::from(key >= length)));
            let beyond = Tensor::from_iter(beyond, qkv.device())?.reshape((batch, 1, 1, n_tokens))?;
            let lowest = Tensor::new(f32::MIN, qkv.device())?.broadcast_as(scores.shape())?;
            scores = beyond.broadcast_as(scores.shape())?.where_cond(&lowest, &scores)?;
        }
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        weights.matmul(&part(2)?)?.transpose(1, 2)?.reshape((batch, n_tokens, width / 3))
    }
}
