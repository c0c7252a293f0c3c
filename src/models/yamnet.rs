//! YAMNet by Google: MobileNet v1 on patches of 0.96 s.
//!
//! Paper: Hershey et al., "CNN Architectures for Large-Scale Audio Classification", 2017 (arXiv 1609.09430); Howard et
//! al., "MobileNets", 2017 (arXiv 1704.04861). Reference: tensorflow/models, `research/audioset/yamnet`, as the
//! published TensorFlow Lite file computes it.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel magnitudes `[batch, n_frames, 64]` → patches of 96 frames every 48
//! `[n_patches, 1, 96, 64]` → convolution, then 13 pairs of a depthwise 3x3 and a 1x1 convolution, each with ReLU →
//! `[n_patches, 1024, 3, 2]` → mean over the map (the embedding of a patch) → `dense`, sigmoid. Scores and embedding of
//! a clip are means over its patches; `logits` are `ln(p / (1 − p))` of the mean score.
//!
//! Padding is TensorFlow's `SAME`: a convolution with stride 2 pads only below and on the right.
//!
//! Checkpoints: the published `.tflite` file, which [`Weights`] reads, or safetensors with its layers in order:
//! `00.conv`, `01.depthwise`, `02.conv`, …, `26.conv`, `dense`, each with `weight` and `bias` and with batch norms
//! folded in. Optional `mel` tensors hold the filters `[64, 257]` and the offset added to their outputs before the
//! logarithm.
//!
//! A clip is zero-padded at the end to 15,600 samples, and to the end of its last patch; patches begin every 7,680
//! samples. On request, frames are the patches, each of which represents the 7,680 samples in its middle.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::{features, forward_by_length};
use super::family::Family;
use super::frames::mean_of_segments;
use super::{Detail, FrameGrid, ModelInfo, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES};
use crate::error::{Context, Error, Result};
use crate::frontend::{Fbank, FbankConfig};
use crate::labels::LabelSet;
use crate::nn::{Activation, ConvConfig, ConvStack, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// Length and hop of a patch, in frames.
const PATCH: usize = 96;
const PATCH_HOP: usize = 48;
/// Patches per forward pass, which bounds the memory for a long clip.
const PATCHES_AT_ONCE: usize = 32;
/// Channels of the first convolution; channels and stride of each pair that follows.
const FIRST: usize = 32;
const PAIRS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];
const WIDTH: usize = 1024;

/// The configuration of a YAMNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `yamnet`.
    #[serde(default = "yamnet")]
    pub name: Cow<'static, str>,
    /// Outputs of `dense`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn yamnet() -> Cow<'static, str> {
    Cow::Borrowed("yamnet")
}

impl Config {
    /// `yamnet.tflite`: 3,751,369 parameters, 521 classes.
    pub const YAMNET: Self = Self { name: Cow::Borrowed("yamnet"), n_classes: 521 };

    fn info(&self, fbank: &Fbank) -> ModelInfo {
        let samples = |n_frames: usize| fbank.config().win_length + (n_frames - 1) * fbank.config().hop_length;
        let step = PATCH_HOP * fbank.config().hop_length;
        ModelInfo {
            min_samples: samples(PATCH),
            labels: Some(LabelSet::yamnet()).filter(|labels| labels.len() == self.n_classes),
            frames: Some(FrameGrid { first: (samples(PATCH) - step) / 2, step }),
            ..ModelInfo::new(self.name.clone(), fbank.config().sample_rate, self.n_classes, WIDTH)
        }
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::YAMNET, "YAMNet, 16 kHz log-mel, 521 classes of AudioSet, mAP 0.306")];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["26.conv.weight", "dense.weight"], &["26.conv.weight", "03.fully_connected.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let is_first = weights.shape("00.conv.weight") == Some(&[FIRST, 1, 3, 3]);
        let is_last = weights.shape("26.conv.weight") == Some(&[WIDTH, WIDTH, 1, 1]);
        let mut config = Self::YAMNET;
        config.fit(weights);
        Ok((is_first && is_last).then_some((config, Vec::new())))
    }

    /// The number of classes.
    fn fit(&mut self, weights: &Weights) {
        let rows = |name: &&str| weights.shape(&format!("{name}.weight"))?.first().copied();
        self.n_classes = DENSE.iter().find_map(rows).unwrap_or(self.n_classes);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(YamNet::load(self, weights, device)?))
    }
}

/// Names of the last layer and of the mel filters in safetensors and in the published file.
const DENSE: [&str; 2] = ["dense", "03.fully_connected"];
const MEL: [&str; 2] = ["mel", "02.fully_connected"];
/// The Fourier transform stored in the published file, unused here.
const DFT: [&str; 2] = ["00.fully_connected.*", "01.fully_connected.*"];

/// A loaded YAMNet.
#[derive(Debug)]
pub struct YamNet {
    config: Config,
    info: ModelInfo,
    device: Device,
    fbank: Fbank,
    convs: ConvStack,
    dense: Linear,
}

impl YamNet {
    /// Builds the model from a checkpoint. If the checkpoint includes mel filters, these are used.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        check::size("n_classes", config.n_classes, MAX_CLASSES)?;
        let root = weights.loader(device);
        DFT.iter().for_each(|name| root.ignore(name));
        let fbank = load_front_end(&root)?;
        let convs = load_convs(&root, fbank.config().n_mels)?;
        let dense = root.at(root.first_of(&DENSE));
        let dense = Linear::load(&dense.in_f32(), WIDTH, config.n_classes, Activation::Identity)?;
        root.finish(&config.name)?;
        let info = config.info(&fbank);
        Ok(Self { config: config.clone(), info, device: device.clone(), fbank, convs, dense })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn fbank(&self) -> &Fbank {
        &self.fbank
    }

    /// Runs the convolutions on log-mel patches `[n_patches, 1, 96, 64]`. Calls `observe` after each with its index
    /// from 0 and a function that returns its output, for comparison with a reference.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match, and any error of `observe`.
    pub fn convs_observed(
        &self,
        patches: &Tensor,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<Tensor> {
        self.convs.forward_observed(patches, observe)
    }

    /// The number of patches of a clip.
    fn n_patches(&self, n_samples: usize) -> usize {
        let step = PATCH_HOP * self.fbank.config().hop_length;
        1 + n_samples.saturating_sub(self.info.min_samples).div_ceil(step)
    }

    /// Tags clips with the same number of patches.
    fn run(&self, clips: &[&[f32]], detail: Detail) -> Result<TaggingOutput> {
        let n_patches = self.n_patches(clips.iter().map(|clip| clip.len()).max().unwrap_or(0));
        let n_samples = self.info.min_samples + (n_patches - 1) * PATCH_HOP * self.fbank.config().hop_length;
        let padded: Vec<Vec<f32>> = clips.iter().map(|clip| padded(clip, n_samples)).collect();
        let clips: Vec<&[f32]> = padded.iter().map(Vec::as_slice).collect();
        let (log_mel, _) = features(&self.fbank, &clips, &self.device)?; // [batch, 48 (n_patches + 1), 64]
        let embeddings = (0..n_patches).step_by(PATCHES_AT_ONCE).map(|first| {
            let patches = first..n_patches.min(first + PATCHES_AT_ONCE);
            self.embed(&log_mel, patches).context("running YAMNet")?
        });
        let embeddings = Tensor::cat(&embeddings.collect::<Result<Vec<_>>>()?, 1)?; // [batch, n_patches, 1024]
        let scores = candle_nn::ops::sigmoid(&self.dense.forward(&embeddings)?)?;
        mean_of_segments(scores, &embeddings, detail)
    }

    /// The embeddings of a range of patches, `[batch, n, 1024]`, from log-mel `[batch, n_frames, 64]`.
    fn embed(&self, log_mel: &Tensor, patches: std::ops::Range<usize>) -> candle_core::Result<Result<Tensor>> {
        let (batch, _, n_mels) = log_mel.dims3()?;
        let n = patches.len();
        let patches = patches.map(|patch| log_mel.narrow(1, patch * PATCH_HOP, PATCH));
        let patches = Tensor::stack(&patches.collect::<candle_core::Result<Vec<_>>>()?, 1)?;
        let maps = self.convs.forward(&patches.reshape((batch * n, 1, PATCH, n_mels))?);
        Ok(maps.and_then(|maps| Ok(maps.mean((2, 3))?.reshape((batch, n, WIDTH))?)))
    }
}

/// The clip, zero-padded at the end.
fn padded(clip: &[f32], n_samples: usize) -> Vec<f32> {
    let mut clip = clip.to_vec();
    clip.resize(n_samples, 0.0);
    clip
}

fn load_front_end(root: &Loader) -> Result<Fbank> {
    let mel = root.at(root.first_of(&MEL));
    let fbank = Fbank::new(&FbankConfig::YAMNET_16K)?;
    if mel.lacks("weight") {
        return Ok(fbank);
    }
    let n_mels = fbank.mel().n_mels();
    let filters = mel.get_array("weight", [n_mels, fbank.mel().n_bins()])?;
    let offsets = mel.get_vec("bias", &[n_mels])?;
    let log_offset = offsets[0];
    if offsets.iter().any(|&offset| offset != log_offset) {
        return Err(Error::argument("mel.bias", format!("{offsets:?}"), "expected the same value for all filters"));
    }
    Fbank::new(&FbankConfig { log_offset, ..FbankConfig::YAMNET_16K })?.with_filters(filters.view())
}

fn load_convs(root: &Loader, n_mels: usize) -> Result<ConvStack> {
    let mut convs = ConvStack::on_maps(Some(n_mels));
    let same = |stride: usize, config: ConvConfig| match stride {
        // All maps with stride 2 have even sizes, so `SAME` pads at the end only.
        2 => ConvConfig { stride, padding: 0, padding_after: Some(1), bias: true, ..config },
        _ => ConvConfig { bias: true, ..config },
    };
    convs.conv(&root.at("00.conv"), None, same(2, ConvConfig::new(1, FIRST, 3)), Activation::Relu)?;
    convs.end_stage();
    let mut channels = FIRST;
    for (i, (out_channels, stride)) in PAIRS.into_iter().enumerate() {
        let depthwise = root.at(format_args!("{:02}.depthwise", 2 * i + 1));
        convs.conv(&depthwise, None, same(stride, ConvConfig::depthwise(channels, 3)), Activation::Relu)?;
        convs.end_stage();
        let pointwise = root.at(format_args!("{:02}.conv", 2 * i + 2));
        convs.conv(&pointwise, None, same(1, ConvConfig::new(channels, out_channels, 1)), Activation::Relu)?;
        convs.end_stage();
        channels = out_channels;
    }
    Ok(convs)
}

impl TaggingModel for YamNet {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        forward_by_length(batch, &self.info, |n_samples| self.n_patches(n_samples), |clips| self.run(clips, detail))
    }
}
