//! SpecAugment: sets stripes of time and of frequency to 0.
//!
//! Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition" (2019), without time
//! warping. Stripes are distributed as in torchlibrosa's `SpecAugmentation`.

use std::ops::Range;

use candle_core::Tensor;
use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};

use super::Random;
use crate::error::{Context, Error, Result};

/// The largest number of stripes of each kind.
const MAX_STRIPES: usize = 1024;

/// Settings of SpecAugment: number and width of the stripes.
///
/// The width of a stripe is uniform in `0..drop_width`, so at most `drop_width - 1`. Its start is uniform in
/// `0..length - width`, so a stripe never covers the last frame or band. Stripes may overlap. In clips that are too
/// short for a width, the stripe is cut to `length - 1` (torchlibrosa fails there).
///
/// ```
/// use clipwise::augment::{Random, SpecAugment};
/// use clipwise::candle_core::{DType, Device, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let x = Tensor::ones((4, 1, 1001, 64), DType::F32, &Device::Cpu)?; // [batch, channels, n_frames, n_mels]
/// let masked = SpecAugment::PANNS.forward(&x, &mut Random::new(1))?;
/// assert_eq!(masked.dims(), x.dims());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecAugment {
    /// Exclusive upper bound on the width of a time stripe, in frames; 0 and 1 disable them.
    pub time_drop_width: usize,
    /// Number of time stripes, at most 1024.
    pub time_stripes: usize,
    /// Exclusive upper bound on the width of a frequency stripe, in bands; 0 and 1 disable them.
    pub freq_drop_width: usize,
    /// Number of frequency stripes, at most 1024.
    pub freq_stripes: usize,
}

/// The stripes of one clip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stripes {
    /// Ranges of frames that are set to 0.
    pub time: Vec<Range<usize>>,
    /// Ranges of bands that are set to 0.
    pub freq: Vec<Range<usize>>,
}

impl SpecAugment {
    /// PANNs' training, on the output of the first batch norm: two stripes of up to 63 frames, two of up to 7 bands.
    pub const PANNS: Self = Self { time_drop_width: 64, time_stripes: 2, freq_drop_width: 8, freq_stripes: 2 };

    /// Draws the stripes of one clip.
    ///
    /// # Errors
    /// [`Error::Config`] if a number of stripes exceeds 1024.
    pub fn stripes(&self, n_frames: usize, n_mels: usize, random: &mut Random) -> Result<Stripes> {
        for (field, count) in [("time_stripes", self.time_stripes), ("freq_stripes", self.freq_stripes)] {
            if count > MAX_STRIPES {
                return Err(Error::config(field, count, format!("expected at most {MAX_STRIPES}")));
            }
        }
        Ok(Stripes {
            time: draw(self.time_stripes, self.time_drop_width, n_frames, random),
            freq: draw(self.freq_stripes, self.freq_drop_width, n_mels, random),
        })
    }

    /// Sets stripes of features `[batch, channels, n_frames, n_mels]`, of any float type, to 0. The stripes differ
    /// between clips and are the same for all channels of a clip. Differentiable: masked values have gradient 0.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` does not have four axes; [`Error::Config`] as for [`stripes`](Self::stripes);
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn forward(&self, x: &Tensor, random: &mut Random) -> Result<Tensor> {
        let Ok((batch, _, n_frames, n_mels)) = x.dims4() else {
            return Err(Error::argument(
                "x.dims()",
                format!("{:?}", x.dims()),
                "expected [batch, channels, n_frames, n_mels]",
            ));
        };
        let mut keep = Array2::from_elem((batch * n_frames, n_mels), 1u8);
        for clip in 0..batch {
            let stripes = self.stripes(n_frames, n_mels, random)?;
            stripes.clear(keep.slice_mut(s![clip * n_frames..(clip + 1) * n_frames, ..]), 0);
        }
        let masked = || {
            let keep = Tensor::from_vec(keep.into_raw_vec_and_offset().0, (batch, 1, n_frames, n_mels), x.device())?;
            keep.broadcast_as(x.dims())?.where_cond(x, &x.zeros_like()?)
        };
        masked().context("masking by SpecAugment")
    }

    /// As [`forward`](Self::forward), in place, for the features `[n_frames, n_mels]` of one clip on the host.
    ///
    /// # Errors
    /// As [`stripes`](Self::stripes).
    pub fn apply(&self, features: &mut Array2<f32>, random: &mut Random) -> Result<()> {
        let (n_frames, n_mels) = features.dim();
        self.stripes(n_frames, n_mels, random)?.clear(features.view_mut(), 0.0);
        Ok(())
    }
}

impl Stripes {
    fn clear<T: Copy>(&self, mut features: ndarray::ArrayViewMut2<T>, zero: T) {
        for time in &self.time {
            features.slice_mut(s![time.clone(), ..]).fill(zero);
        }
        for freq in &self.freq {
            features.slice_mut(s![.., freq.clone()]).fill(zero);
        }
    }
}

fn draw(count: usize, drop_width: usize, length: usize, random: &mut Random) -> Vec<Range<usize>> {
    let stripe = |_| {
        let width = random.below(drop_width).min(length.saturating_sub(1));
        let start = random.below(length - width);
        start..start + width
    };
    (0..count).map(stripe).collect()
}
