//! The loop over frames that front ends share: prepare a frame, transform it, make a row of its spectrum.

use rayon::prelude::*;

use super::real_fft::{Bins, Buffers, RealFft};
use crate::nn::kernels::simd::dispatch;

/// Frames per task of the thread pool; no more frames than these stay on the calling thread.
const FRAMES_PER_TASK: usize = 32;

/// Fills `out`, which has rows of `width` values, one frame per row: `prepare(index, frame)` writes the frame, and
/// `finish(bins, prepared, work, row)` makes the row of its spectrum.
///
/// `work` is what `scratch` made for the task, as the frame before left it. Both steps are compiled for the best vector
/// instructions, as far as they are inlined. No frame sees another one, so the result does not depend on the number of
/// threads.
pub(super) fn for_each_frame<T, P, W>(
    fft: &RealFft,
    (out, width): (&mut [T], usize),
    scratch: impl Fn() -> W + Sync,
    prepare: impl Fn(usize, &mut [f64]) -> P + Sync,
    finish: impl Fn(Bins, P, &mut W, &mut [T]) + Sync,
) where
    T: Send,
    P: Copy,
{
    let start = || (fft.buffers(), scratch());
    let task = |(buffers, work): &mut (Buffers, W), first: usize, rows: &mut [T]| {
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            let prepared = dispatch(
                #[inline(always)]
                || prepare(first + index, &mut buffers.frame),
            );
            let bins = fft.transform(buffers);
            dispatch(
                #[inline(always)]
                || finish(bins, prepared, work, row),
            );
        }
    };
    if out.len() <= FRAMES_PER_TASK * width {
        return task(&mut start(), 0, out);
    }
    out.par_chunks_mut(FRAMES_PER_TASK * width)
        .enumerate()
        .for_each_init(start, |scratch, (block, rows)| task(scratch, block * FRAMES_PER_TASK, rows));
}
