//! Attention as a candle operation.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};

use super::wrong_shape;
use crate::nn::RelativeScores;
use crate::nn::kernels::attention::{self, Heads, Keys, Relative};
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::workspace::Workspace;
use crate::tensor::contiguous;

/// Attention on `[batch, n_tokens, 3 · n_heads · head_dim]`.
#[derive(Debug)]
pub struct AttentionOp {
    pub n_heads: usize,
    /// Number of keys of each sequence, 1 to `n_tokens`; all tokens if `None`.
    pub lengths: Option<Vec<usize>>,
    /// Relative position scores for these queries and heads.
    pub relative: Option<RelativeScores>,
    pub workspace: Workspace,
}

impl CustomOp1 for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = contiguous(storage, layout)?;
        let &[batch, n_tokens, width] = layout.dims() else { return Err(wrong_shape(layout)) };
        let head_dim = width / 3 / self.n_heads;
        if qkv.is_empty() || 3 * self.n_heads * head_dim != width {
            return Err(wrong_shape(layout));
        }
        let mut y = vec![0.0; qkv.len() / 3];
        let heads = Heads { n_tokens, n_heads: self.n_heads, head_dim };
        let mut run = |relative: Option<Relative>| {
            let keys = Keys { lengths: self.lengths.as_deref(), relative };
            attention::attention(qkv, heads, keys, &mut y, Isa::best(), &self.workspace);
        };
        match &self.relative {
            Some(relative) => relative.on_host(|relative| run(Some(relative)))?,
            None => run(None),
        }
        Ok((CpuStorage::F32(y), (batch, n_tokens, width / 3).into()))
    }
}
