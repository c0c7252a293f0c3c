//! The transformer block as a candle operation.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};
use rayon::prelude::*;

use super::linear::LinearOp;
use super::norm::LayerNormOp;
use super::wrong_shape;
use crate::nn::kernels::attention::{Heads, Keys, PackedSequence};
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::workspace::{Buffer, Workspace};
use crate::tensor::contiguous;

/// Tokens per task. Whatever a task computes from them stays in the second-level cache.
pub const TOKENS: usize = 64;

/// A whole transformer block on `[batch, n_tokens, width]`. Only the queries, keys and values of all tokens are stored;
/// a task computes everything that follows for its tokens.
///
/// The results equal those of the layers one by one to the bit.
pub struct BlockOp<'a> {
    /// Whether the norms come before attention and feed-forward layers; otherwise they come after the sums.
    pub norm_before: bool,
    pub norms: [&'a LayerNormOp; 2],
    pub qkv: &'a LinearOp,
    pub output: &'a LinearOp,
    pub fc1: &'a LinearOp,
    pub fc2: &'a LinearOp,
    pub n_heads: usize,
    pub lengths: Option<&'a [usize]>,
    pub workspace: &'a Workspace,
}

impl CustomOp1 for BlockOp<'_> {
    fn name(&self) -> &'static str {
        "transformer-block"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let &[_, n_tokens, width] = layout.dims() else { return Err(wrong_shape(layout)) };
        if x.is_empty() || !self.fits(width) {
            return Err(wrong_shape(layout));
        }
        let mut y = vec![0.0; x.len()];
        let sequences = y.par_chunks_mut(n_tokens * width).zip(x.par_chunks(n_tokens * width)).enumerate();
        sequences.for_each(|(index, (y, x))| self.sequence(index, x, y, width));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

impl BlockOp<'_> {
    fn fits(&self, width: usize) -> bool {
        let hidden = self.fc1.sizes().1;
        let layers = [(self.qkv, width, 3 * width), (self.output, width, width), (self.fc1, width, hidden)];
        let fit = |&(layer, inputs, outputs): &(&LinearOp, usize, usize)| layer.sizes() == (inputs, outputs);
        layers.iter().chain([&(self.fc2, hidden, width)]).all(fit)
            && self.norms.iter().all(|norm| norm.weight.len() == width)
            && width.is_multiple_of(self.n_heads)
    }

    /// Runs the block on sequence `index` of the batch.
    fn sequence(&self, index: usize, x: &[f32], y: &mut [f32], width: usize) {
        let (isa, workspace) = (Isa::best(), self.workspace);
        let mut qkv = workspace.take(3 * x.len());
        let tasks = qkv.par_chunks_mut(3 * TOKENS * width).zip(x.par_chunks(TOKENS * width));
        tasks.for_each(|(qkv, x)| {
            let mut normed = None;
            let x = match self.norm_before {
                true => &**normed.insert(self.normed(0, x)),
                false => x,
            };
            self.qkv.task(x, qkv, None, isa);
        });
        let heads = Heads { n_tokens: x.len() / width, n_heads: self.n_heads, head_dim: width / self.n_heads };
        let keys = Keys { lengths: self.lengths, relative: None };
        let sequence = PackedSequence::new(&qkv, index, heads, keys, isa, workspace);
        let tasks = y.par_chunks_mut(TOKENS * width).zip(x.par_chunks(TOKENS * width)).enumerate();
        tasks.for_each(|(task, (y, x))| {
            let (mut attended, mut sum) = (workspace.take(x.len()), workspace.take(x.len()));
            sequence.attend(task * TOKENS, &mut attended);
            self.output.task(&attended, &mut sum, Some(x), isa);
            if self.norm_before {
                self.fc1.task_with_next(self.fc2, &self.normed(1, &sum), y, &sum, isa);
            } else {
                let x = self.normed(0, &sum);
                self.fc1.task_with_next(self.fc2, &x, &mut sum, &x, isa);
                self.norms[1].task(&sum, y, isa);
            }
        });
    }

    fn normed(&self, norm: usize, x: &[f32]) -> Buffer {
        let mut normed = self.workspace.take(x.len());
        self.norms[norm].task(x, &mut normed, Isa::best());
        normed
    }
}
