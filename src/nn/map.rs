//! Feature maps passed between layers.

use candle_core::{Device, Result, Tensor};

use super::kernels::blocked::{BlockedMap, Shape};
use super::kernels::simd::isa::Isa;
use super::kernels::workspace::Workspace;
use super::ops::runs_on_cpu_kernels;
use crate::tensor::with_values;

/// The feature maps of a batch, `[batch, channels, height, width]`: a tensor or, on the CPU, the kernels' layout in
/// blocks of sixteen channels. A sequence has its length as height and width 1.
#[derive(Debug, Clone)]
pub struct FeatureMap {
    pub values: Values,
    /// Provides the memory for maps computed from this one, and takes it back.
    pub workspace: Workspace,
}

#[derive(Debug, Clone)]
pub enum Values {
    /// `[batch, channels, height, width]`.
    Tensor(Tensor),
    Blocks(BlockedMap),
}

impl FeatureMap {
    /// Creates maps from `[batch, channels, height, width]`.
    pub fn new(x: Tensor, workspace: &Workspace) -> Result<Self> {
        x.dims4()?;
        Ok(Self { values: Values::Tensor(x), workspace: workspace.clone() })
    }

    /// Creates maps from a sequence, `[batch, channels, length]`.
    pub fn from_sequence(x: &Tensor, workspace: &Workspace) -> Result<Self> {
        x.dims3()?;
        Self::new(x.unsqueeze(3)?, workspace)
    }

    /// Creates maps from `[batch, height, width, channels]`.
    pub fn from_channels_last(x: &Tensor, workspace: &Workspace) -> Result<Self> {
        let (batch, height, width, channels) = x.dims4()?;
        let shape = Shape { batch, channels, height, width };
        if runs_on_cpu_kernels(x)
            && let Some(map) = with_values(&[x], |x| BlockedMap::from_channels_last(x[0], shape, workspace))?
        {
            return Ok(Self { values: Values::Blocks(map), workspace: workspace.clone() });
        }
        Self::new(x.permute((0, 3, 1, 2))?.contiguous()?, workspace)
    }

    /// Creates maps from a sequence of vectors, `[batch, length, channels]`.
    pub fn from_vectors(x: &Tensor, workspace: &Workspace) -> Result<Self> {
        Self::from_channels_last(&x.unsqueeze(2)?, workspace)
    }

    /// Replaces the values and keeps the workspace.
    pub fn with(&self, values: Values) -> Self {
        Self { values, workspace: self.workspace.clone() }
    }

    /// Converts to `[batch, channels, height, width]`.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match &self.values {
            Values::Tensor(x) => Ok(x.clone()),
            Values::Blocks(map) => {
                let Shape { batch, channels, height, width } = map.shape;
                Tensor::from_vec(map.to_planes(), (batch, channels, height, width), &Device::Cpu)
            }
        }
    }

    /// The mean of each channel, `[batch, channels]`.
    pub fn means(&self) -> Result<Tensor> {
        match &self.values {
            Values::Tensor(x) => x.mean((2, 3)),
            Values::Blocks(map) => {
                let Shape { batch, channels, .. } = map.shape;
                Tensor::from_vec(map.means(Isa::best()), (batch, channels), &Device::Cpu)
            }
        }
    }

    /// Converts a sequence to `[batch, channels, length]`.
    pub fn to_sequence(&self) -> Result<Tensor> {
        self.to_tensor()?.squeeze(3)
    }

    /// Converts to `[batch, height, width, channels]`.
    pub fn to_channels_last(&self) -> Result<Tensor> {
        match &self.values {
            Values::Tensor(x) => x.permute((0, 2, 3, 1))?.contiguous(),
            Values::Blocks(map) => {
                let Shape { batch, channels, height, width } = map.shape;
                Tensor::from_vec(map.to_channels_last(), (batch, height, width, channels), &Device::Cpu)
            }
        }
    }

    /// Converts a sequence to `[batch, length, channels]`.
    pub fn to_vectors(&self) -> Result<Tensor> {
        self.to_channels_last()?.squeeze(2)
    }

    /// Sets the rows of clip `b` from `lengths[b]` on to zero.
    pub fn masked(mut self, lengths: &[usize]) -> Result<Self> {
        match &mut self.values {
            Values::Tensor(x) => *x = mask(&x.transpose(1, 2)?, lengths)?.transpose(1, 2)?,
            Values::Blocks(map) => {
                let row = map.shape.row();
                for (rows, length) in map.values.chunks_mut(map.shape.height * row).zip(lengths) {
                    rows.iter_mut().skip(length * row).for_each(|x| *x = 0.0);
                }
            }
        }
        Ok(self)
    }

    /// Converts to the blocked layout, if the kernels run on the tensor; otherwise leaves it as it is.
    pub fn into_blocks(self) -> Result<Self> {
        let map = match &self.values {
            Values::Tensor(x) if runs_on_cpu_kernels(x) => {
                with_planes(x, |x, shape| BlockedMap::from_planes(x, shape, &self.workspace))?
            }
            _ => None,
        };
        Ok(match map {
            Some(map) => self.with(Values::Blocks(map)),
            None => self,
        })
    }
}

/// Calls `f` with the values of an f32 tensor `[batch, channels, height, width]` on the CPU.
pub fn with_planes<R>(x: &Tensor, f: impl FnOnce(&[f32], Shape) -> R) -> Result<R> {
    let (batch, channels, height, width) = x.dims4()?;
    with_values(&[x], |values| f(values[0], Shape { batch, channels, height, width }))
}

/// Sets the frames of row `b` of `x` `[batch, n_frames, …]` from `lengths[b]` on to zero.
pub fn mask(x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let n_frames = x.dim(1)?;
    let rows = lengths.iter().enumerate().map(|(row, &length)| {
        let row = x.narrow(0, row, 1)?.narrow(1, 0, length.min(n_frames))?;
        row.pad_with_zeros(1, 0, n_frames - length.min(n_frames))
    });
    Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
}
