//! Cutting a clip into overlapping frames, with padding at its ends.

use serde::{Deserialize, Serialize};

use crate::check::check_finite;
use crate::error::{Error, Result};
use crate::nn::kernels::simd::dispatch;

/// The padding at both ends of a clip with centred frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PadMode {
    /// The clip mirrored at its end samples, which are not repeated. Needs at least `n_fft / 2 + 1` samples.
    #[default]
    Reflect,
    /// Zeros (librosa's default).
    Constant,
    /// The first and the last sample repeated.
    Edge,
}

/// Placement of the frames of a clip: frame `t` covers `n_fft` samples from `t * hop_length - margin` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    pub n_fft: usize,
    pub hop_length: usize,
    /// Padding on each side in samples; 0 if frames are not centred.
    pub margin: usize,
    pub pad_mode: PadMode,
    /// If not 0, frames are cut from `x[i + 1] - preemphasis * x[i]`, which is one value shorter than the clip `x`.
    pub preemphasis: f64,
}

impl Framing {
    /// Number of samples by which pre-emphasis shortens a clip.
    pub fn lost(&self) -> usize {
        usize::from(self.preemphasis != 0.0)
    }

    /// The length of the shortest clip that has a frame.
    pub fn min_samples(&self) -> usize {
        let shortest = match self.pad_mode {
            _ if self.margin == 0 => self.n_fft,
            PadMode::Reflect => self.margin + 1,
            PadMode::Constant | PadMode::Edge => 1,
        };
        shortest + self.lost()
    }

    /// The number of whole frames; 0 for clips shorter than [`min_samples`](Self::min_samples).
    pub fn n_frames(&self, n_samples: usize) -> usize {
        if n_samples < self.min_samples() {
            return 0;
        }
        // Unlike `n_samples + 2 * margin - n_fft`, this can neither overflow nor become negative.
        let n_samples = n_samples - self.lost();
        1 + (n_samples - (self.n_fft - 2 * self.margin).min(n_samples)) / self.hop_length
    }

    /// The length of the shortest clip with at least `n_frames` frames. `n_frames` is at least 1.
    pub fn samples_for(&self, n_frames: usize) -> usize {
        let frames = (n_frames - 1).saturating_mul(self.hop_length).saturating_add(self.n_fft - 2 * self.margin);
        frames.saturating_add(self.lost()).max(self.min_samples())
    }

    /// As `n_frames`, with errors for clips without frames and for samples that are not finite.
    pub fn check(&self, samples: &[f32]) -> Result<usize> {
        if samples.len() < self.min_samples() {
            return Err(Error::TooShort { needed: self.min_samples(), got: samples.len() });
        }
        dispatch(
            #[inline(always)]
            || check_finite(samples),
        )?;
        Ok(self.n_frames(samples.len()))
    }

    /// Writes `window * samples` of one frame to `frame`. Both have `n_fft` values; `samples` must have passed
    /// [`check`](Self::check).
    #[inline(always)]
    pub fn windowed(&self, index: usize, samples: &[f32], window: &[f64], frame: &mut [f64]) {
        let start = index * self.hop_length;
        let lost = self.lost();
        if let Some(start) = start.checked_sub(self.margin)
            && let Some(inside) = samples.get(start..start + self.n_fft + lost)
        {
            for ((out, &x), &w) in frame.iter_mut().zip(&inside[lost..]).zip(window) {
                *out = f64::from(x) * w;
            }
            if lost > 0 {
                for ((out, &x), &w) in frame.iter_mut().zip(inside).zip(window) {
                    *out -= self.preemphasis * f64::from(x) * w;
                }
            }
            return;
        }
        for (k, (out, &w)) in frame.iter_mut().zip(window).enumerate() {
            let x = f64::from(self.padded(start + k, &samples[lost..]));
            let before = if lost > 0 { f64::from(self.padded(start + k, &samples[..samples.len() - 1])) } else { 0.0 };
            *out = (x - self.preemphasis * before) * w;
        }
    }

    /// The sample at `position` of the padded clip.
    fn padded(&self, position: usize, samples: &[f32]) -> f32 {
        let last = samples.len() - 1;
        let before = self.margin.saturating_sub(position); // > 0: that far before the first sample
        let inside = position.saturating_sub(self.margin);
        let after = inside.saturating_sub(last); // > 0: that far after the last sample
        match self.pad_mode {
            PadMode::Constant if before + after > 0 => 0.0,
            PadMode::Reflect if before > 0 => samples[before],
            PadMode::Reflect => samples[inside.min(last) - after],
            PadMode::Constant | PadMode::Edge => samples[inside.min(last)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(pad_mode: PadMode, n_fft: usize, samples: &[f32]) -> Vec<f32> {
        let framing = Framing { n_fft, hop_length: 1, margin: n_fft / 2, pad_mode, preemphasis: 0.0 };
        (0..samples.len() + 2 * framing.margin).map(|k| framing.padded(k, samples)).collect()
    }

    #[test]
    fn padding_modes() {
        let clip = [1.0, 2.0, 3.0];
        assert_eq!(padded(PadMode::Reflect, 4, &clip), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]);
        assert_eq!(padded(PadMode::Edge, 4, &clip), [1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(padded(PadMode::Constant, 4, &clip), [0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0]);
        assert_eq!(padded(PadMode::Edge, 5, &[7.0]), [7.0; 5]);
    }

    #[test]
    fn frame_counts() {
        let framing = |n_fft, margin, pad_mode| Framing { n_fft, hop_length: 320, margin, pad_mode, preemphasis: 0.0 };
        let centred = framing(1024, 512, PadMode::Reflect);
        assert_eq!(centred.n_frames(320_000), 1001);
        assert_eq!(centred.n_frames(319_999), 1000);
        assert_eq!((centred.min_samples(), centred.n_frames(512), centred.n_frames(513)), (513, 0, 2));
        let emphasised = Framing { preemphasis: 0.97, ..centred };
        assert_eq!((emphasised.n_frames(320_001), emphasised.n_frames(320_000)), (1001, 1000));
        assert_eq!((emphasised.min_samples(), emphasised.samples_for(1001)), (514, 320_001));
        let constant = framing(1024, 512, PadMode::Constant);
        assert_eq!((constant.n_frames(0), constant.n_frames(1), constant.n_frames(320)), (0, 1, 2));
        let odd = framing(251, 125, PadMode::Constant);
        assert_eq!((odd.n_frames(320), odd.n_frames(321)), (1, 2));
        let plain = framing(1024, 0, PadMode::Reflect);
        assert_eq!((plain.n_frames(1023), plain.n_frames(1024), plain.n_frames(1344)), (0, 1, 2));
        assert_eq!(plain.n_frames(usize::MAX), 1 + (usize::MAX - 1024) / 320);
    }
}
