//! Convolutional position embeddings.

use candle_core::Tensor;

use super::config::Config;
use super::names::Names;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm, GroupedConv1d};
use crate::weights::Loader;

/// A grouped convolution with GELU, added to its input.
#[derive(Debug)]
pub(super) struct Positions {
    /// Norm of the convolution's input.
    norm: Option<BatchNorm>,
    conv: GroupedConv1d,
}

impl Positions {
    pub fn load(place: &Loader, names: &Names, config: &Config) -> Result<Self> {
        let (dim, kernel, groups) = (config.dim, config.position_kernel, config.position_groups);
        let norm = match config.position_batch_norm {
            true => Some(BatchNorm::load(&place.at(names.positions_norm), dim)?),
            false => None,
        };
        let conv = place.at(names.positions[usize::from(norm.is_some())]);
        let weight = conv.get_vec("weight", &[dim, dim / groups, kernel])?;
        let bias = conv.get_vec("bias", &[dim])?;
        Ok(Self { norm, conv: GroupedConv1d::new(weight, bias, groups, Activation::Gelu, &conv)? })
    }

    /// Kernel and groups of the checkpoint's convolution, and whether a batch norm precedes it.
    pub fn sizes(place: &Loader, names: &Names, dim: usize) -> Option<(usize, usize, bool)> {
        let has_norm = place.at(names.positions_norm).shape("running_var").is_some();
        let conv = place.at(names.positions[usize::from(has_norm)]);
        match conv.shape("weight") {
            Some(&[_, width, kernel]) if width > 0 => Some((kernel, dim / width, has_norm)),
            _ => None,
        }
    }

    /// `x` plus its position embeddings, `[batch, n_frames, dim]`.
    pub fn forward_add(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.norm {
            Some(norm) => self.conv.forward(&norm.forward(x)?)?,
            None => self.conv.forward(x)?,
        };
        Ok((x + y)?)
    }
}
