//! Host values of CPU tensors; softmax.

use candle_core::{CpuStorage, Layout, Storage, Tensor};

/// The values of a contiguous f32 tensor, from the storage and layout that a custom operation receives.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => Err(candle_core::Error::Msg(format!("expected contiguous f32 values, got other values or {layout:?}"))),
    }
}

/// Calls `f` with the values of f32 CPU tensors, each in row-major order.
pub(crate) fn with_values<R>(tensors: &[&Tensor], f: impl FnOnce(&[&[f32]]) -> R) -> candle_core::Result<R> {
    let tensors = tensors.iter().map(|tensor| tensor.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let storages: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let values = storages.iter().map(|(storage, layout)| match &**storage {
        Storage::Cpu(storage) => contiguous(storage, layout),
        _ => Err(candle_core::Error::Msg("expected a tensor on the CPU, got one on another device".to_string())),
    });
    Ok(f(&values.collect::<candle_core::Result<Vec<_>>>()?))
}

/// `exp x / Σ exp x`, in f64.
pub(crate) fn softmax(logits: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let largest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.map(|x| (x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
