//! [`Dot`] as a plain array.
#![allow(unsafe_code)] // reads through the pointers of the trait

use super::{Dot, DotOp};
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;

const WIDTH: usize = 4;

#[derive(Clone, Copy)]
pub struct Portable([i32; WIDTH]);

impl Dot for Portable {
    const GROUP: usize = 2;
    const OFFSET: i32 = 0;
    const PARTS: usize = CHANNEL_BLOCK / WIDTH;
    const TILES: &'static [usize] = &[4, 4];
    type Input = i16;
    type Inputs = [i16; 2];
    type Weights = [i16; 2 * WIDTH];

    #[inline(never)]
    fn call<O: DotOp>(op: O) -> O::Output {
        op.run::<Self>()
    }

    #[inline(always)]
    fn input(bits: u32) -> i16 {
        bits as i16
    }

    #[inline(always)]
    fn load(sums: &[i32; CHANNEL_BLOCK], part: usize) -> Self {
        Self(sums.as_chunks().0[part])
    }

    #[inline(always)]
    unsafe fn inputs(inputs: *const i16) -> [i16; 2] {
        // SAFETY: the caller promises two inputs; i16 are aligned as arrays of them.
        unsafe { *inputs.cast() }
    }

    #[inline(always)]
    unsafe fn weights(weights: *const i8, part: usize) -> Self::Weights {
        // SAFETY: the caller promises the weights of sixteen outputs.
        unsafe { *weights.cast::<[i8; 2 * WIDTH]>().add(part) }.map(i16::from)
    }

    #[inline(always)]
    fn add_products(mut self, inputs: [i16; 2], weights: Self::Weights) -> Self {
        let x: [i16; 2 * WIDTH] = std::array::from_fn(|i| inputs[i % 2]);
        let products: [i32; 2 * WIDTH] = std::array::from_fn(|i| i32::from(x[i]) * i32::from(weights[i]));
        for i in 0..WIDTH {
            self.0[i] = self.0[i].wrapping_add(products[2 * i] + products[2 * i + 1]);
        }
        self
    }

    #[inline(always)]
    fn store_scaled(self, row_scale: f32, scales: &[f32; CHANNEL_BLOCK], y: &mut [f32; CHANNEL_BLOCK], part: usize) {
        let (scales, y) = (&scales.as_chunks::<WIDTH>().0[part], &mut y.as_chunks_mut::<WIDTH>().0[part]);
        for i in 0..WIDTH {
            y[i] = self.0[i] as f32 * (row_scale * scales[i]);
        }
    }
}
