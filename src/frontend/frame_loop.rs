//! The frame loop that all front ends share: prepare a frame, transform it, compute a row from its spectrum.

use rayon::prelude::*;

use super::real_fft::{Bins, Buffers, RealFft};
use crate::nn::kernels::simd::dispatch;

/// Frames per task of the thread pool. Up to this many frames run on the calling thread.
const FRAMES_PER_TASK: usize = 32;

/// Fills `out`, which has one row of `width` values per frame. `prepare(index, frame)` writes the frame, and
/// `finish(bins, prepared, work, row)` computes the row from its spectrum.
///
/// `work` is the scratch space of the task, made by `scratch` and reused from frame to frame. Both steps are compiled
/// for the best vector instructions, as far as they are inlined. Frames are independent, so the result does not depend
/// on the number of threads.
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
