//! Packed weights in memory, as f32 or as f16.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::nn::kernels::workspace::AlignedVec;

/// The number of weights from which on f16 gains: they are read from memory. Fewer (1 MiB as f32) stay in the cache.
const SMALLEST_F16: usize = 1 << 18;

/// How weights are stored. Products are always summed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    F32,
    /// As f16 where that gains: for many weights, none of which exceeds the range of f16.
    F16,
}

/// Weights in panels of sixteen outputs.
#[derive(Debug)]
pub enum PackedWeights {
    F32(AlignedVec),
    F16(AlignedVec<u16>),
}

/// Some panels.
#[derive(Debug, Clone, Copy)]
pub enum Panels<'a> {
    F32(&'a [f32]),
    /// The bits of f16 values, all finite.
    F16(&'a [u16]),
}

impl PackedWeights {
    /// Packs `n` panels of `len` weights. `fill` writes one, given its index, over zeros.
    pub fn pack(storage: Storage, (n, len): (usize, usize), fill: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        if storage == Storage::F16 && n * len >= SMALLEST_F16 {
            let mut weights = AlignedVec::<u16>::zeros(n * len);
            let panels = weights.par_chunks_mut(len.max(1)).enumerate();
            let panels = panels.map_init(
                || (vec![0.0; len], vec![f16::ZERO; len]),
                |(values, halves), (index, panel)| {
                    values.fill(0.0);
                    fill(index, values);
                    halves.convert_from_f32_slice(values);
                    panel.iter_mut().zip(&*halves).for_each(|(bits, half)| *bits = half.to_bits());
                    halves.iter().all(|half| half.is_finite())
                },
            );
            if panels.reduce(|| true, |a, b| a && b) {
                return Self::F16(weights);
            }
        }
        let mut weights = AlignedVec::zeros(n * len);
        weights.par_chunks_mut(len.max(1)).enumerate().for_each(|(index, panel)| fill(index, panel));
        Self::F32(weights)
    }

    /// The panels of `len` weights each from `first` on.
    pub fn panels(&self, len: usize, first: usize, n: usize) -> Panels<'_> {
        match self {
            Self::F32(weights) => Panels::F32(&weights[first * len..][..n * len]),
            Self::F16(weights) => Panels::F16(&weights[first * len..][..n * len]),
        }
    }

    pub fn all(&self) -> Panels<'_> {
        match self {
            Self::F32(weights) => Panels::F32(weights),
            Self::F16(weights) => Panels::F16(weights),
        }
    }

    /// The weights in f32.
    pub fn to_f32(&self) -> AlignedVec {
        match self {
            Self::F32(weights) => AlignedVec::copy(weights),
            Self::F16(weights) => {
                let mut copy = AlignedVec::zeros(weights.len());
                copy.iter_mut().zip(weights.iter()).for_each(|(y, &bits)| *y = f16::from_bits(bits).to_f32());
                copy
            }
        }
    }

    /// The weights, if they are in f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            Self::F32(weights) => Some(weights),
            Self::F16(_) => None,
        }
    }
}

impl<'a> From<&'a AlignedVec> for Panels<'a> {
    fn from(weights: &'a AlignedVec) -> Self {
        Self::F32(weights)
    }
}

impl<'a> From<&'a [f32]> for Panels<'a> {
    fn from(weights: &'a [f32]) -> Self {
        Self::F32(weights)
    }
}
