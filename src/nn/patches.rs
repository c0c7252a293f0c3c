//! Patch embedding: the first layer of vision transformers over spectrograms.

use candle_core::Tensor;

use super::{Activation, Linear};
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader, Target};

/// The order of the axes of the spectrogram in the filters and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchAxes {
    /// Mel bins first: filters `[width, 1, mels, frames]`, tokens ordered by mel band, then time (AST, CED, PaSST).
    MelsFirst,
    /// Frames first: filters `[width, 1, frames, mels]`, tokens ordered by time, then mel band (BEATs, EAT).
    FramesFirst,
}

/// The configuration of a [`PatchEmbedding`]; sizes are `[mels, frames]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchConfig {
    /// Size of a patch, 1 to 65,536.
    pub size: [usize; 2],
    /// Stride of the patches, 1 to 65,536. Patches overlap if it is below their size.
    pub stride: [usize; 2],
    /// The order of the axes.
    pub axes: PatchAxes,
    /// Whether the linear layer has a bias.
    pub bias: bool,
}

impl PatchConfig {
    /// Square patches without overlap, with a bias.
    pub const fn square(size: usize, axes: PatchAxes) -> Self {
        Self { size: [size; 2], stride: [size; 2], axes, bias: true }
    }

    /// The number of patches along the mel bins and in time, `[rows, columns]`. Incomplete patches at the ends are
    /// dropped.
    pub fn grid(&self, n_mels: usize, n_frames: usize) -> [usize; 2] {
        let along = |axis: usize, length: usize| match length.checked_sub(self.size[axis]) {
            Some(rest) => rest / self.stride[axis].max(1) + 1,
            None => 0,
        };
        [along(0, n_mels), along(1, n_frames)]
    }

    /// Checks that the sizes are in range and that a patch is not higher than the spectrogram.
    ///
    /// # Errors
    /// [`Error::Config`] if they are not.
    pub fn check(&self, n_mels: usize) -> Result<()> {
        let sizes = self.size.iter().map(|&n| ("patch_size", n, MAX_WIDTH));
        check::sizes(sizes.chain(self.stride.iter().map(|&n| ("patch_stride", n, MAX_WIDTH))))?;
        if self.size[0] > n_mels {
            return Err(Error::config(
                "n_mels",
                n_mels,
                format!("expected at least {}, the height of a patch", self.size[0]),
            ));
        }
        Ok(())
    }
}

/// A linear layer on the patches of a spectrogram, equivalent to a convolution with one input channel.
#[derive(Debug)]
pub struct PatchEmbedding {
    config: PatchConfig,
    linear: Linear,
}

impl PatchEmbedding {
    /// Reads `weight` and, if configured, `bias` `[width]`.
    ///
    /// # Errors
    /// As [`Loader::get`]. Missing or misshapen tensors are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, config: PatchConfig, width: usize) -> Result<Self> {
        let [mels, frames] = config.size;
        let shape = match config.axes {
            PatchAxes::MelsFirst => [width, 1, mels, frames],
            PatchAxes::FramesFirst => [width, 1, frames, mels],
        };
        let linear = if let Target::Training(_) = weights.target() {
            let init = Init::of_fan_in(mels * frames);
            let weight = weights.parameter("weight", &shape, init)?;
            let weight = weight.flatten_from(1).context("flattening the filters of a patch embedding")?;
            let bias = match config.bias {
                true => weights.parameter("bias", width, init)?,
                false => {
                    weight.zeros_like().and_then(|x| x.sum(1)).context("creating the bias of a patch embedding")?
                }
            };
            Linear::from_parameters(weight, bias, Activation::Identity)
        } else {
            let weight = weights.get_vec("weight", &shape)?;
            let bias = if config.bias { weights.get_vec("bias", &[width])? } else { vec![0.0; width] };
            Linear::from_matrix(weight, bias, Activation::Identity, &weights.clone().in_f32())?
        };
        Ok(Self { config, linear })
    }

    /// The configuration of the layer.
    pub fn config(&self) -> &PatchConfig {
        &self.config
    }

    /// Embeds the patches of `x` `[batch, n_frames, n_mels]` as tokens `[batch, n_tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match, or if `x` is smaller than a patch.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear.forward(&self.patches(x).context("cutting a spectrogram into patches")?)
    }

    fn patches(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, n_frames, n_mels) = x.dims3()?;
        let [rows, columns] = self.config.grid(n_mels, n_frames);
        let [mels, frames] = self.config.size;
        let x = self.cut(x, 1, columns)?;
        let x = self.cut(&x, 2, rows)?.reshape((batch, columns, frames, rows, mels))?;
        let x = match self.config.axes {
            PatchAxes::MelsFirst => x.permute((0, 3, 1, 4, 2))?,
            PatchAxes::FramesFirst => x.permute((0, 1, 3, 2, 4))?,
        };
        x.reshape((batch, rows * columns, mels * frames))
    }

    /// The frames (`axis` 1) or mel bins (`axis` 2) of `n` patches, concatenated.
    fn cut(&self, x: &Tensor, axis: usize, n: usize) -> candle_core::Result<Tensor> {
        let (size, stride) = (self.config.size[2 - axis], self.config.stride[2 - axis]);
        if size == stride {
            return x.narrow(axis, 0, n * size);
        }
        let places = (0..n).flat_map(|patch| (0..size).map(move |k| (patch * stride + k) as u32));
        x.contiguous()?.index_select(&Tensor::from_iter(places, x.device())?, axis)
    }
}
