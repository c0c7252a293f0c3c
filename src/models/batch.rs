//! Groups a mixed batch into sub-batches of equal length.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::ModelInfo;
use crate::audio::WaveformBatch;
use crate::check::check_finite;
use crate::error::{Context, Error, Result};
use crate::frontend::LogMel;
use crate::output::TaggingOutput;

/// Upper bound on the audio per sub-batch, in seconds; a longer clip forms its own. It bounds the memory of a forward.
pub(crate) const MAX_SECONDS: usize = 40;

/// Calls `run` with clips that share `key(n_samples)`, and puts the rows of its outputs in the order of the batch.
///
/// A row thus equals the clip alone: nothing is ever padded to the length of a neighbour.
pub fn forward_by_length(
    batch: &WaveformBatch,
    info: &ModelInfo,
    key: impl Fn(usize) -> usize,
    run: impl Fn(&[Cow<[f32]>]) -> Result<TaggingOutput>,
) -> Result<TaggingOutput> {
    let clips = prepare(batch, info)?;
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, clip) in clips.iter().enumerate() {
        groups.entry(key(clip.len())).or_default().push(row);
    }
    let (mut outputs, mut order) = (Vec::new(), Vec::new());
    for rows in groups.into_values() {
        let longest = rows.iter().map(|&row| clips[row].len()).max().unwrap_or(1);
        let at_once = (MAX_SECONDS * info.sample_rate as usize / longest).max(1);
        for rows in rows.chunks(at_once) {
            let clips: Vec<Cow<[f32]>> = rows.iter().map(|&row| Cow::Borrowed(&*clips[row])).collect();
            outputs.push(run(&clips)?);
            order.extend_from_slice(rows);
        }
    }
    match <[TaggingOutput; 1]>::try_from(outputs) {
        Ok([output]) if order.is_sorted() => Ok(output),
        Ok([output]) => merge(&[output], &order),
        Err(outputs) => merge(&outputs, &order),
    }
}

/// Log-mel of clips with the same number of frames, `[batch, n_frames, n_mels]`.
pub fn features(log_mel: &LogMel, clips: &[Cow<[f32]>], device: &Device) -> Result<Tensor> {
    let (n_frames, n_mels) = (log_mel.n_frames(clips[0].len()), log_mel.config().mel.n_mels);
    let mut values = vec![0.0; clips.len() * n_frames * n_mels];
    for (clip, values) in clips.iter().zip(values.chunks_mut(n_frames * n_mels)) {
        log_mel.compute_into(clip, values)?;
    }
    Tensor::from_vec(values, (clips.len(), n_frames, n_mels), device).context("moving the log-mel to the device")
}

/// Samples of clips of one length, `[batch, 1, n_samples]`.
pub fn samples(clips: &[Cow<[f32]>], device: &Device) -> Result<Tensor> {
    let shape = (clips.len(), 1, clips[0].len());
    Tensor::from_vec(clips.concat(), shape, device).context("moving samples to the device")
}

/// Refuses a clip without samples or with NaN or infinite ones.
fn check_samples(clip: &[f32]) -> Result<()> {
    if clip.is_empty() {
        return Err(Error::TooShort { needed: 1, got: 0 });
    }
    check_finite(clip)
}

/// Checks the samples and pads short clips.
fn prepare<'a>(batch: &'a WaveformBatch, info: &ModelInfo) -> Result<Vec<Cow<'a, [f32]>>> {
    if batch.sample_rate() != info.sample_rate {
        return Err(Error::SampleRate { expected: info.sample_rate, got: batch.sample_rate() });
    }
    let prepare_clip = |clip: &'a Vec<f32>| {
        check_samples(clip)?;
        if clip.len() >= info.min_samples {
            return Ok(Cow::Borrowed(clip.as_slice()));
        }
        let mut padded = clip.clone();
        padded.resize(info.min_samples, 0.0);
        Ok(Cow::Owned(padded))
    };
    batch.rows().iter().map(prepare_clip).collect()
}

/// Joins outputs whose rows stand at `order[i]` of the batch.
fn merge(outputs: &[TaggingOutput], order: &[usize]) -> Result<TaggingOutput> {
    let mut place = vec![0u32; order.len()];
    for (i, &row) in order.iter().enumerate() {
        place[row] = i as u32;
    }
    let join = |part: fn(&TaggingOutput) -> &Tensor| {
        let parts: Vec<&Tensor> = outputs.iter().map(part).collect();
        let place = Tensor::new(place.as_slice(), parts[0].device())?;
        Tensor::cat(&parts, 0)?.index_select(&place, 0)
    };
    let context = "joining the rows of a batch";
    let frames: Option<Vec<&Tensor>> = outputs.iter().map(|output| output.framewise_output.as_ref()).collect();
    let frames = frames.filter(|frames| !frames.is_empty());
    let join_frames = |frames: Vec<&Tensor>| {
        let place = Tensor::new(place.as_slice(), frames[0].device())?;
        let longest = frames.iter().map(|frames| frames.dim(1)).collect::<candle_core::Result<Vec<_>>>()?;
        let longest = longest.into_iter().max().unwrap_or(0);
        let padded = frames.iter().map(|frames| frames.pad_with_zeros(1, 0, longest - frames.dim(1)?));
        Tensor::cat(&padded.collect::<candle_core::Result<Vec<_>>>()?, 0)?.index_select(&place, 0)
    };
    Ok(TaggingOutput {
        logits: join(|output| &output.logits).context(context)?,
        clipwise_output: join(|output| &output.clipwise_output).context(context)?,
        framewise_output: frames.map(join_frames).transpose().context(context)?,
        embedding: join(|output| &output.embedding).context(context)?,
    })
}
