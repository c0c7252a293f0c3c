//! Feature maps on their way from layer to layer.

use candle_core::Tensor;

use super::kernels::blocked::{BlockedMap, Shape};
use super::kernels::simd::lanes::CHANNEL_BLOCK;
use super::kernels::workspace::Workspace;
use super::ops::runs_on_cpu_kernels;
use crate::error::{Context, Result};
use crate::tensor::with_values;

/// The maps of a batch, `[batch, channels, height, width]` or as a sequence `[batch, channels, length]`, in the form that
/// suits the layer which made them: a tensor, or on the CPU blocks of sixteen channels.
///
/// A model makes one from its input, hands it from layer to layer, and takes a tensor from the last.
#[derive(Debug)]
pub struct FeatureMap {
    pub(super) values: Values,
    pub(super) workspace: Workspace,
}

#[derive(Debug)]
pub(super) enum Values {
    /// `[batch, channels, height, width]`; the height of a sequence is its length, its width 1.
    Tensor(Tensor),
    Blocks(BlockedMap),
}

impl FeatureMap {
    /// From `[batch, channels, height, width]` or `[batch, channels, length]`. Memory of the maps that are made from it
    /// comes from `workspace` and returns there.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) for another number of dimensions.
    pub fn new(x: &Tensor, workspace: &Workspace) -> Result<Self> {
        let context = "a feature map";
        let x = if x.rank() == 3 { x.unsqueeze(3).context(context)? } else { x.clone() };
        x.dims4().context(context)?;
        Ok(Self { values: Values::Tensor(x), workspace: workspace.clone() })
    }

    /// From a sequence of vectors, `[batch, length, channels]`: a map of so many channels, as [`new`](Self::new) makes one from
    /// `[batch, channels, length]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) for another number of dimensions.
    pub fn from_vectors(x: &Tensor, workspace: &Workspace) -> Result<Self> {
        let context = "a feature map";
        let (batch, height, channels) = x.dims3().context(context)?;
        let shape = Shape { batch, channels, height, width: 1 };
        if !runs_on_cpu_kernels(x) || !channels.is_multiple_of(CHANNEL_BLOCK) || x.elem_count() == 0 {
            return Self::new(&x.transpose(1, 2).context(context)?, workspace);
        }
        // With whole blocks of channels this is how a map lies.
        let map = with_values(&[x], |x| {
            let mut map = BlockedMap::unwritten(shape, workspace)?;
            map.values.copy_from_slice(x[0]);
            Some(map)
        });
        match map.context(context)? {
            Some(map) => Ok(Self::with(workspace.clone(), map)),
            None => Self::new(&x.transpose(1, 2).context(context)?, workspace),
        }
    }

    /// `[batch, length, channels]` of a sequence.
    ///
    /// # Errors
    /// As [`FeatureMap::to_tensor`], and if the width is not 1.
    pub fn to_vectors(&self) -> Result<Tensor> {
        let context = "a feature map";
        match &self.values {
            Values::Blocks(map) if map.shape.width == 1 && map.shape.channels.is_multiple_of(CHANNEL_BLOCK) => {
                let Shape { batch, channels, height, .. } = map.shape;
                Tensor::from_slice(&map.values, (batch, height, channels), &candle_core::Device::Cpu).context(context)
            }
            _ => self.to_sequence()?.transpose(1, 2).and_then(|x| x.contiguous()).context(context),
        }
    }

    /// `[batch, channels, height, width]`; a sequence has a width of 1.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if memory does not suffice.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match &self.values {
            Values::Tensor(x) => Ok(x.clone()),
            Values::Blocks(map) => {
                let Shape { batch, channels, height, width } = map.shape;
                let device = candle_core::Device::Cpu;
                Tensor::from_vec(map.to_planes(), (batch, channels, height, width), &device).context("a feature map")
            }
        }
    }

    /// `[batch, channels, length]` of a sequence.
    ///
    /// # Errors
    /// As [`FeatureMap::to_tensor`], and if the width is not 1.
    pub fn to_sequence(&self) -> Result<Tensor> {
        let context = "a sequence";
        self.check_is_sequence().context(context)?;
        self.to_tensor()?.squeeze(3).context(context)
    }

    /// Refuses maps of another width than 1.
    pub(super) fn check_is_sequence(&self) -> candle_core::Result<()> {
        let width = match &self.values {
            Values::Tensor(x) => x.dim(3)?,
            Values::Blocks(map) => map.shape.width,
        };
        match width {
            1 => Ok(()),
            _ => Err(candle_core::Error::Msg(format!("expected maps of width 1, got width {width}"))),
        }
    }

    /// The same values in the form of the CPU kernels, where they serve it, which else the first layer makes.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if memory does not suffice.
    pub fn into_blocks(self) -> Result<Self> {
        let Values::Tensor(x) = &self.values else { return Ok(self) };
        if !runs_on_cpu_kernels(x) {
            return Ok(self);
        }
        let map =
            with_planes(x, |x, shape| BlockedMap::from_planes(x, shape, &self.workspace)).context("a feature map")?;
        Ok(match map {
            Some(map) => Self::with(self.workspace, map),
            None => self, // nothing to lay out
        })
    }

    pub(super) fn with(workspace: Workspace, map: BlockedMap) -> Self {
        Self { values: Values::Blocks(map), workspace }
    }
}

/// Runs `f` on the values of a contiguous f32 tensor `[batch, channels, height, width]` on the CPU.
pub(super) fn with_planes<R>(x: &Tensor, f: impl FnOnce(&[f32], Shape) -> R) -> candle_core::Result<R> {
    let (batch, channels, height, width) = x.dims4()?;
    with_values(&[x], |values| f(values[0], Shape { batch, channels, height, width }))
}
