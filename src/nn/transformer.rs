//! Transformer encoder blocks.

use candle_core::Tensor;

use super::ops::runs_on_cpu_kernels;
use super::ops::transformer::{BlockOp, TOKENS};
use super::{Dropout, LayerNorm, Linear, RelativeScores, SelfAttention};
use crate::check::check_lengths;
use crate::error::{Context, Result};

/// The position of the layer norms in a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormPlace {
    /// Pre-norm, before attention and before the feed-forward layers: `x + f(norm(x))` (ViT, Whisper).
    Before,
    /// Post-norm, after each sum: `norm(x + f(x))` (the original transformer).
    After,
    /// Post-norm with the residual scaled by this factor: `norm(α x + f(x))` (Wang et al., "DeepNet", 2022, arXiv
    /// 2203.00555).
    AfterScaled(f32),
}

/// Computes relative position scores from the attention's input and its queries, keys and values.
type Relative<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<RelativeScores>;

/// Self-attention and two feed-forward layers, each with a residual connection and a layer norm.
#[derive(Debug)]
pub struct TransformerBlock {
    /// The position of the norms.
    pub place: NormPlace,
    /// The norm of the attention.
    pub norm1: LayerNorm,
    /// The attention.
    pub attention: SelfAttention,
    /// The norm of the feed-forward layers.
    pub norm2: LayerNorm,
    /// The first feed-forward layer, which includes the activation.
    pub fc1: Linear,
    /// The second feed-forward layer, back to the width.
    pub fc2: Linear,
    /// The dropout, in training, on the outputs of the attention and of both feed-forward layers.
    pub dropout: Option<Dropout>,
}

impl TransformerBlock {
    /// Runs the block on `x` `[batch, n_tokens, width]`. The shape stays the same. `lengths` as for
    /// [`SelfAttention::forward_add`].
    ///
    /// # Errors
    /// As [`SelfAttention::forward_add`].
    pub fn forward(&self, x: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        self.run(x, lengths, None).context("running a transformer block")
    }

    /// As [`forward`](Self::forward), with relative position scores. `relative` computes them from the attention's
    /// input, `[batch, n_tokens, width]`, or its queries, keys and values, `[batch, n_tokens, 3 · width]`.
    ///
    /// # Errors
    /// As [`SelfAttention::forward_projected`], and any error of `relative`.
    pub fn forward_relative(&self, x: &Tensor, lengths: Option<&[usize]>, relative: Relative) -> Result<Tensor> {
        self.run(x, lengths, Some(relative)).context("running a transformer block")
    }

    /// The block as one operation on the CPU, for enough tokens to split among tasks. `None` if it doesn't apply.
    fn fused<'a>(&'a self, x: &Tensor, lengths: Option<&'a [usize]>) -> Option<BlockOp<'a>> {
        let (batch, n_tokens, _) = x.dims3().ok()?;
        let applies = runs_on_cpu_kernels(x) && batch * n_tokens >= 2 * TOKENS && self.dropout.is_none();
        let norm_before = match self.place {
            NormPlace::Before => true,
            NormPlace::After => false,
            NormPlace::AfterScaled(_) => return None,
        };
        let Self { attention, norm1, norm2, fc1, fc2, .. } = self;
        applies.then_some(BlockOp {
            norm_before,
            norms: [norm1.op()?, norm2.op()?],
            qkv: attention.qkv.op()?,
            output: attention.output.op()?,
            fc1: fc1.op()?,
            fc2: fc2.op()?,
            n_heads: attention.n_heads,
            lengths,
            workspace: &attention.workspace,
        })
    }

    fn run(&self, x: &Tensor, lengths: Option<&[usize]>, relative: Option<Relative>) -> Result<Tensor> {
        if relative.is_none()
            && let Some(block) = self.fused(x, lengths)
        {
            if let Some(lengths) = lengths {
                let (batch, n_tokens, _) = x.dims3()?;
                check_lengths(lengths, batch, 1..=n_tokens)?;
            }
            return Ok(x.contiguous()?.apply_op1_no_bwd(&block)?);
        }
        match self.place {
            NormPlace::Before => {
                let x = self.attend(&self.norm1.forward(x)?, lengths, relative, x)?;
                self.feed(&self.norm2.forward(&x)?, &x)
            }
            NormPlace::After => {
                let x = self.norm1.forward(&self.attend(x, lengths, relative, x)?)?;
                self.norm2.forward(&self.feed(&x, &x)?)
            }
            NormPlace::AfterScaled(scale) => {
                let scaled = |x: &Tensor| x.affine(scale.into(), 0.0);
                let x = self.norm1.forward(&self.attend(x, lengths, relative, &scaled(x)?)?)?;
                self.norm2.forward(&self.feed(&x, &scaled(&x)?)?)
            }
        }
    }

    /// `residual` + attention over `x`.
    fn attend(
        &self,
        x: &Tensor,
        lengths: Option<&[usize]>,
        relative: Option<Relative>,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let qkv = self.attention.project(x)?;
        let relative = relative.map(|relative| relative(x, &qkv)).transpose()?;
        let attend = |residual: &Tensor| self.attention.forward_projected(&qkv, lengths, relative.as_ref(), residual);
        match self.dropout.as_ref().filter(|dropout| dropout.is_on()) {
            Some(dropout) => Ok((dropout.forward(&attend(&residual.zeros_like()?)?)? + residual)?),
            None => attend(residual),
        }
    }

    /// `residual` + the feed-forward layers over `x`.
    fn feed(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let y = self.fc1.forward(x)?;
        match self.dropout.as_ref().filter(|dropout| dropout.is_on()) {
            Some(dropout) => {
                let y = self.fc2.forward(&dropout.forward(&y)?)?;
                Ok((dropout.forward(&y)? + residual)?)
            }
            None => self.fc2.forward_add(&y, residual),
        }
    }
}
