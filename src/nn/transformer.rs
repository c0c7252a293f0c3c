//! The transformer encoder's block.

use candle_core::Tensor;

use super::{LayerNorm, Linear, SelfAttention};
use crate::Result;

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
}

impl TransformerBlock {
    /// `x` `[batch, n_tokens, width]` to the same shape. `lengths` as for [`SelfAttention::forward_add`].
    ///
    /// # Errors
    /// As [`SelfAttention::forward_add`].
    pub fn forward(&self, x: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        match self.place {
            NormPlace::Before => {
                let x = self.attention.forward_add(&self.norm1.forward(x)?, lengths, x)?;
                self.fc2.forward_add(&self.fc1.forward(&self.norm2.forward(&x)?)?, &x)
            }
            NormPlace::After => {
                let x = self.norm1.forward(&self.attention.forward_add(x, lengths, x)?)?;
                self.norm2.forward(&self.fc2.forward_add(&self.fc1.forward(&x)?, &x)?)
            }
        }
    }
}
