//! Helpers for models that take mixed batches: check and pad the clips, run those of one length together, join the
//! rows.
//!
//! A model of your own passes [`forward_by_length`] a closure for clips of one length:
//!
//! ```
//! # use candle_core::{Device, Tensor};
//! # use clipwise::models::{Detail, ModelInfo, TaggingModel, batch};
//! # use clipwise::{Result, TaggingOutput, WaveformBatch};
//! struct Loudness(ModelInfo);
//!
//! impl TaggingModel for Loudness {
//!     fn info(&self) -> &ModelInfo {
//!         &self.0
//!     }
//!     fn device(&self) -> &Device {
//!         &Device::Cpu
//!     }
//!     fn forward(&self, waveforms: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
//!         self.0.check(detail)?;
//!         batch::forward_by_length(waveforms, &self.0, |n_samples| n_samples, |clips| {
//!             let samples = batch::waveforms(clips, &Device::Cpu)?; // [batch, 1, n_samples]
//!             let energy = samples.sqr()?.mean(2)?; // [batch, 1]
//!             TaggingOutput::multi_label(energy.log()?, energy)
//!         })
//!     }
//! }
//!
//! let model = Loudness(ModelInfo::new("loudness", 16_000, 1, 1));
//! let clips = WaveformBatch::new(vec![vec![0.5; 800], vec![0.1; 300]], 16_000)?;
//! assert_eq!(model.forward(&clips, Detail::Clip)?.clipwise_output.dims(), [2, 1]);
//! # Ok::<(), clipwise::Error>(())
//! ```

use std::borrow::Cow;

use candle_core::{Device, Tensor};

use super::ModelInfo;
use crate::audio::WaveformBatch;
use crate::batch;
use crate::error::{Context, Result};
use crate::frontend::FrontEnd;
use crate::output::TaggingOutput;

/// Upper bound on the audio per sub-batch, in seconds, which bounds memory. A longer clip forms its own sub-batch.
pub(crate) const MAX_SECONDS: usize = 40;

/// Checks the clips of a batch and zero-pads each at the end to the model's [`min_samples`](ModelInfo::min_samples).
///
/// # Errors
/// [`Error::SampleRate`](crate::Error::SampleRate) if the batch's sample rate is not the model's,
/// [`Error::TooShort`](crate::Error::TooShort) for a clip without samples,
/// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN or infinite sample.
pub fn checked_clips<'a>(waveforms: &'a WaveformBatch, info: &ModelInfo) -> Result<Vec<Cow<'a, [f32]>>> {
    batch::checked_clips(waveforms, info.sample_rate, info.min_samples)
}

/// Groups the clips by `key(n_samples)`, such as their number of frames, calls `run` for each group, and joins the
/// results in the order of the batch. A call gets at most 40 s of audio, or one clip if that clip alone is longer.
///
/// No clip is padded to the length of another, so each row equals the result for that clip alone.
///
/// # Errors
/// As [`checked_clips`]; errors of `run`; [`Error::Tensor`](crate::Error::Tensor) if a tensor operation fails on the
/// device.
pub fn forward_by_length<K: Ord>(
    waveforms: &WaveformBatch,
    info: &ModelInfo,
    key: impl Fn(usize) -> K,
    run: impl Fn(&[&[f32]]) -> Result<TaggingOutput>,
) -> Result<TaggingOutput> {
    let clips = checked_clips(waveforms, info)?;
    let at_once = |rows: &[usize]| {
        let longest = rows.iter().map(|&row| clips[row].len()).max().unwrap_or(1);
        MAX_SECONDS * info.sample_rate as usize / longest
    };
    let sub_batches = batch::sub_batches(clips.iter().map(|clip| key(clip.len())), at_once);
    let run = |rows: &Vec<usize>| run(&rows.iter().map(|&row| &*clips[row]).collect::<Vec<_>>());
    let outputs = sub_batches.iter().map(run).collect::<Result<Vec<_>>>()?;
    let join = |part: fn(&TaggingOutput) -> Option<&Tensor>| {
        let parts: Vec<&Tensor> = outputs.iter().filter_map(part).collect();
        let all = parts.len() == outputs.len() && !parts.is_empty();
        all.then(|| batch::join(&parts, &sub_batches)).transpose()
    };
    let required = |part| join(part)?.ok_or_else(|| candle_core::Error::Msg("expected at least one clip".to_string()));
    let joined = || {
        Ok::<_, candle_core::Error>(TaggingOutput {
            logits: required(|output| Some(&output.logits))?,
            clipwise_output: required(|output| Some(&output.clipwise_output))?,
            framewise_output: join(|output| output.framewise_output.as_ref())?,
            embedding: required(|output| Some(&output.embedding))?,
        })
    };
    joined().context("joining the rows of a batch")
}

/// Copies clips of equal length to the device: `[batch, 1, n_samples]`, f32.
///
/// # Errors
/// [`Error::Tensor`](crate::Error::Tensor) if a tensor operation fails on the device, or if the lengths differ.
pub fn waveforms(clips: &[&[f32]], device: &Device) -> Result<Tensor> {
    let shape = (clips.len(), 1, clips.first().map_or(0, |clip| clip.len()));
    Tensor::from_vec(clips.concat(), shape, device).context("moving the samples to the device")
}

/// Computes the features of clips: `[batch, n_frames, n_features]`, f32, and the number of frames of each clip. Clips
/// with fewer frames than the longest are followed by zeros.
///
/// # Errors
/// As [`FrontEnd::compute`], and [`Error::Tensor`](crate::Error::Tensor) if a tensor operation fails on the device.
pub fn features(front_end: &dyn FrontEnd, clips: &[&[f32]], device: &Device) -> Result<(Tensor, Vec<usize>)> {
    let features = clips.iter().map(|clip| front_end.compute(clip)).collect::<Result<Vec<_>>>()?;
    let lengths: Vec<usize> = features.iter().map(|features| features.nrows()).collect();
    let (longest, n_features) = (lengths.iter().copied().max().unwrap_or(0), front_end.n_features());
    let mut values = Vec::with_capacity(clips.len() * longest * n_features);
    for (row, features) in features.into_iter().enumerate() {
        values.extend(features);
        values.resize((row + 1) * longest * n_features, 0.0);
    }
    let tensor = Tensor::from_vec(values, (clips.len(), longest, n_features), device);
    Ok((tensor.context("moving the features to the device")?, lengths))
}
