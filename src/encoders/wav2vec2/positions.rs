//! The convolution over positions: what a frame learns of its place from the frames around it.

use candle_core::Tensor;

use super::config::Config;
use super::names::Names;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm, GroupedConv1d};
use crate::weights::Loader;

/// The names of the two parts of a weight norm.
const WEIGHT_NORMS: [[&str; 2]; 2] =
    [["weight_g", "weight_v"], ["parametrizations.weight.original0", "parametrizations.weight.original1"]];

/// A grouped convolution with GELU, whose result is added to its input.
#[derive(Debug)]
pub(super) struct Positions {
    /// Of the convolution's input.
    norm: Option<BatchNorm>,
    conv: GroupedConv1d,
}

impl Positions {
    /// Reads the convolution, with its weight norm folded: `w = g v / ‖v‖`, where the norm of a tap goes over both axes of
    /// channels.
    pub fn load(place: &Loader, names: &Names, config: &Config) -> Result<Self> {
        let (dim, kernel, groups) = (config.dim, config.position_kernel, config.position_groups);
        let norm = match config.position_batch_norm {
            true => Some(BatchNorm::load(&place.at(names.positions_norm), dim)?),
            false => None,
        };
        let conv = place.at(names.positions[usize::from(norm.is_some())]);
        let width = dim / groups;
        let shape = [dim, width, kernel];
        let weight = match WEIGHT_NORMS.iter().find(|[g, _]| conv.shape(g).is_some()) {
            Some([g, v]) => {
                let (g, mut v) = (conv.get_vec(g, &[1, 1, kernel])?, conv.get_vec(v, &shape)?);
                let mut squares = vec![0.0f64; kernel];
                for taps in v.chunks(kernel) {
                    squares.iter_mut().zip(taps).for_each(|(sum, &x)| *sum += f64::from(x).powi(2));
                }
                let scales: Vec<f64> = squares.iter().zip(g).map(|(sum, g)| f64::from(g) / sum.sqrt()).collect();
                for taps in v.chunks_mut(kernel) {
                    taps.iter_mut().zip(&scales).for_each(|(x, scale)| *x = (f64::from(*x) * scale) as f32);
                }
                v
            }
            None => conv.get_vec("weight", &shape)?,
        };
        let bias = conv.get_vec("bias", &[dim])?;
        Ok(Self { norm, conv: GroupedConv1d::new(weight, bias, groups, Activation::Gelu, &conv)? })
    }

    /// The kernel and the groups that the checkpoint's convolution has, and whether a batch norm comes before it.
    pub fn sizes(place: &Loader, names: &Names, dim: usize) -> Option<(usize, usize, bool)> {
        let has_norm = place.at(names.positions_norm).shape("running_var").is_some();
        let conv = place.at(names.positions[usize::from(has_norm)]);
        let weights = WEIGHT_NORMS.iter().map(|[_, v]| *v).chain(["weight"]);
        match weights.into_iter().find_map(|name| conv.shape(name)) {
            Some(&[_, width, kernel]) if width > 0 => Some((kernel, dim / width, has_norm)),
            _ => None,
        }
    }

    /// `x` + positions, `[batch, n_frames, dim]`.
    pub fn forward_add(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.norm {
            Some(norm) => self.conv.forward(&norm.forward(x)?)?,
            None => self.conv.forward(x)?,
        };
        Ok((x + y)?)
    }
}
