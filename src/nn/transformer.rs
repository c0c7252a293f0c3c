//! The transformer encoder's block.

use candle_core::Tensor;

use super::{Dropout, LayerNorm, Linear, SelfAttention};
use crate::error::{Context, Result};

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// Before attention and before the feed-forward layers: `x + f(norm(x))` (ViT, Whisper).
    Before,
    /// After each sum: `norm(x + f(x))` (the original transformer).
    After,
}

/// Self-attention and two feed-forward layers, each with a residual connection and a layer norm.
#[derive(Debug)]
pub struct TransformerBlock {
    /// Where the norms stand.
    pub place: NormPlace,
    /// The norm of the attention.
    pub norm1: LayerNorm,
    /// The attention.
    pub attention: SelfAttention,
    /// The norm of the feed-forward layers.
    pub norm2: LayerNorm,
    /// The first feed-forward layer, which has the activation.
    pub fc1: Linear,
    /// The second, back to the width.
    pub fc2: Linear,
    /// What training drops of the attention's result and of those of both feed-forward layers.
    pub dropout: Option<Dropout>,
}

impl TransformerBlock {
    /// `x` `[batch, n_tokens, width]` to the same shape. `lengths` as for [`SelfAttention::forward_add`].
    ///
    /// # Errors
    /// As [`SelfAttention::forward_add`].
    pub fn forward(&self, x: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        self.run(x, lengths).context("a transformer block")
    }

    fn run(&self, x: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        match self.place {
            NormPlace::Before => {
                let x = self.attend(&self.norm1.forward(x)?, lengths, x)?;
                self.feed(&self.norm2.forward(&x)?, &x)
            }
            NormPlace::After => {
                let x = self.norm1.forward(&self.attend(x, lengths, x)?)?;
                self.norm2.forward(&self.feed(&x, &x)?)
            }
        }
    }

    /// `residual` + attention over `x`.
    fn attend(&self, x: &Tensor, lengths: Option<&[usize]>, residual: &Tensor) -> Result<Tensor> {
        match self.dropout.as_ref().filter(|dropout| dropout.is_on()) {
            Some(dropout) => {
                let y = self.attention.forward_add(x, lengths, &residual.zeros_like()?)?;
                Ok((dropout.forward(&y)? + residual)?)
            }
            None => self.attention.forward_add(x, lengths, residual),
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
