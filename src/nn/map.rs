//! Feature maps on their way from layer to layer.

use candle_core::{Device, Result, Tensor};

use super::kernels::blocked::{BlockedMap, Shape};
use super::kernels::simd::isa::Isa;
use super::kernels::simd::lanes::CHANNEL_BLOCK;
use super::kernels::workspace::Workspace;
use super::ops::runs_on_cpu_kernels;
use crate::tensor::with_values;

/// The maps of a batch, `[batch, channels, height, width]`, in the form that suits the layer which made them: a tensor, or on
/// the CPU blocks of sixteen channels. The height of a sequence is its length, its width 1.
#[derive(Debug)]
pub struct FeatureMap {
    pub values: Values,
    /// Where memory for the maps that are made from this one comes from and returns to.
    pub workspace: Workspace,
}

#[derive(Debug)]
pub enum Values {
    /// `[batch, channels, height, width]`.
    Tensor(Tensor),
    Blocks(BlockedMap),
}

impl FeatureMap {
    /// From `[batch, channels, height, width]`.
    pub fn new(x: Tensor, workspace: &Workspace) -> Result<Self> {
        x.dims4()?;
        Ok(Self { values: Values::Tensor(x), workspace: workspace.clone() })
    }

    /// From `[batch, channels, length]`.
    pub fn from_sequence(x: &Tensor, workspace: &Workspace) -> Result<Self> {
        x.dims3()?;
        Self::new(x.unsqueeze(3)?, workspace)
    }

    /// From a sequence of vectors, `[batch, length, channels]`.
    pub fn from_vectors(x: &Tensor, workspace: &Workspace) -> Result<Self> {
        let (batch, height, channels) = x.dims3()?;
        let shape = Shape { batch, channels, height, width: 1 };
        if runs_on_cpu_kernels(x) && channels.is_multiple_of(CHANNEL_BLOCK) {
            // With whole blocks of channels this is how a map lies.
            let map = with_values(&[x], |x| {
                let mut map = BlockedMap::unwritten(shape, workspace)?;
                map.values.copy_from_slice(x[0]);
                Some(map)
            })?;
            if let Some(map) = map {
                return Ok(Self { values: Values::Blocks(map), workspace: workspace.clone() });
            }
        }
        Self::from_sequence(&x.transpose(1, 2)?, workspace)
    }

    /// Other values, from the same workspace.
    pub fn with(&self, values: Values) -> Self {
        Self { values, workspace: self.workspace.clone() }
    }

    /// `[batch, channels, height, width]`.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match &self.values {
            Values::Tensor(x) => Ok(x.clone()),
            Values::Blocks(map) => {
                let Shape { batch, channels, height, width } = map.shape;
                Tensor::from_vec(map.to_planes(), (batch, channels, height, width), &Device::Cpu)
            }
        }
    }

    /// The means of the channels over all places, `[batch, channels]`.
    pub fn means(&self) -> Result<Tensor> {
        match &self.values {
            Values::Tensor(x) => x.mean((2, 3)),
            Values::Blocks(map) => {
                let Shape { batch, channels, .. } = map.shape;
                Tensor::from_vec(map.means(Isa::best()), (batch, channels), &Device::Cpu)
            }
        }
    }

    /// `[batch, channels, length]` of a sequence.
    pub fn to_sequence(&self) -> Result<Tensor> {
        self.to_tensor()?.squeeze(3)
    }

    /// `[batch, length, channels]` of a sequence.
    pub fn to_vectors(&self) -> Result<Tensor> {
        match &self.values {
            Values::Blocks(map) if map.shape.width == 1 && map.shape.channels.is_multiple_of(CHANNEL_BLOCK) => {
                let Shape { batch, channels, height, .. } = map.shape;
                Tensor::from_slice(&map.values, (batch, height, channels), &Device::Cpu)
            }
            _ => self.to_sequence()?.transpose(1, 2)?.contiguous(),
        }
    }

    /// With zeros from row `lengths[b]` of the maps of clip `b` on.
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

    /// In the blocked layout, if the kernels run on the tensor; otherwise as it is.
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

/// Runs `f` on the values of an f32 tensor `[batch, channels, height, width]` on the CPU.
pub fn with_planes<R>(x: &Tensor, f: impl FnOnce(&[f32], Shape) -> R) -> Result<R> {
    let (batch, channels, height, width) = x.dims4()?;
    with_values(&[x], |values| f(values[0], Shape { batch, channels, height, width }))
}

/// `x` `[batch, n_frames, …]` with zeros from frame `lengths[b]` of row `b` on.
pub fn mask(x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let n_frames = x.dim(1)?;
    let rows = lengths.iter().enumerate().map(|(row, &length)| {
        let row = x.narrow(0, row, 1)?.narrow(1, 0, length.min(n_frames))?;
        row.pad_with_zeros(1, 0, n_frames - length.min(n_frames))
    });
    Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
}
