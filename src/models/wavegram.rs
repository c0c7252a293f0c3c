//! Wavegram-CNN14 and Wavegram-Logmel-CNN14 of PANNs: CNN14 on a learnt spectrogram, alone or combined with log-mel.
//!
//! Paper: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020
//! (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `Wavegram_Cnn14`,
//! `Wavegram_Logmel_Cnn14`, `Wavegram_Logmel128_Cnn14`. Checkpoint keys: as published.
//!
//! waveform `[batch, 1, n_samples]` → convolution with kernel 11 and stride 5 → three blocks of two convolutions with
//! kernel 3, the second with dilation 2, each block followed by max pooling over 4 (`[batch, 128, n_samples / 320]`) →
//! the wavegram, 4 maps of 32 columns → two 3x3 convolutions, pooling over 2 rows → `[batch, 64, n_rows, 32]`.
//!
//! The first block of CNN14 computes a map of the same size from log-mel; the two are concatenated to 128 channels.
//! Blocks 2 to 6 of CNN14 follow, then mean over columns, max + mean over time → `fc1` with ReLU (the embedding) →
//! `fc_audioset`, sigmoid.
//!
//! If the two maps differ in length, the longer one is cut at its end. This is the log-mel map, by one row, for clips
//! whose number of frames is even, unless fewer than 5 samples are missing to the next frame; the reference fails for
//! such clips.
//!
//! Shortest clip: 16 rows, which is 10,236 samples. Shorter clips, down to one sample, are zero-padded at the end to
//! that length.
//!
//! On request, frames are the time steps of the last feature map, 10,240 samples each: `max + mean` of a step and its
//! two neighbours goes through `fc1` and `fc_audioset`.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::{features, forward_by_length, waveforms};
use super::family::{Family, matching_preset};
use super::panns::{self, Head};
use super::{Detail, FrameGrid, ModelInfo, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::{LogMel, LogMelConfig};
use crate::nn::{Activation, BatchNorm, ConvConfig, ConvStack, Dropout, Pool1d, Pool2d, Pooling};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// The first convolution.
const FIRST: ConvConfig = ConvConfig { stride: 5, padding: 5, ..ConvConfig::new(1, 1, 11) };
/// Size of the max pooling after each block on the waveform.
const POOL: usize = 4;
/// Samples per wavegram row before its pooling: 320.
const HOP: usize = FIRST.stride * POOL * POOL * POOL;
/// Rows per step of the last feature map, and the fewest columns: blocks 2 to 5 halve both axes.
const MIN_ROWS: usize = 16;

/// The configuration of a Wavegram network. Presets are the reference's classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `wavegram`.
    #[serde(default = "wavegram")]
    pub name: Cow<'static, str>,
    /// Rate of the audio in Hz, 1 to 100 MHz.
    pub sample_rate: u32,
    /// The log-mel front end combined with the wavegram, if any: same sample rate, a hop of 320 samples and twice as
    /// many mel bins as the wavegram has columns.
    pub log_mel: Option<LogMelConfig>,
    /// Channels of the four layers on the waveform, 1 to 65,536.
    pub wave_channels: [usize; 4],
    /// Maps of the wavegram, 1 to 65,536. The last of `wave_channels` divided by it is the number of columns, at least
    /// 16.
    pub maps: usize,
    /// Channels of the six blocks, 1 to 65,536. The first applies both to the block on log-mel and to that on the
    /// wavegram.
    pub channels: [usize; 6],
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn wavegram() -> Cow<'static, str> {
    Cow::Borrowed("wavegram")
}

impl Config {
    /// `Wavegram_Cnn14_mAP=0.389.pth`: 80,991,759 parameters, 32 kHz, 527 classes.
    pub const CNN14: Self = Self {
        name: Cow::Borrowed("wavegram-cnn14"),
        sample_rate: 32_000,
        log_mel: None,
        wave_channels: [64, 64, 128, 128],
        maps: 4,
        channels: [64, 128, 256, 512, 1024, 2048],
        embedding_dim: 2048,
        n_classes: 527,
    };
    /// `Wavegram_Logmel_Cnn14_mAP=0.439.pth`: 81,065,487 parameters, 32 kHz, 527 classes.
    pub const LOGMEL_CNN14: Self =
        Self { name: Cow::Borrowed("wavegram-logmel-cnn14"), log_mel: Some(LogMelConfig::PANNS_32K), ..Self::CNN14 };
    /// `Wavegram_Logmel128_Cnn14`, with 128 mel bins: 32 kHz, 527 classes.
    pub const LOGMEL128_CNN14: Self = Self {
        name: Cow::Borrowed("wavegram-logmel128-cnn14"),
        log_mel: Some(panns::with_mels(128)),
        wave_channels: [64, 64, 128, 256],
        ..Self::CNN14
    };

    /// Columns of the wavegram.
    fn columns(&self) -> usize {
        self.wave_channels[3] / self.maps.max(1)
    }

    fn validate(&self) -> Result<()> {
        check::sample_rate(self.sample_rate)?;
        check::sizes(self.wave_channels.map(|channels| ("wave_channels", channels, MAX_WIDTH)))?;
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        check::size("maps", self.maps, MAX_WIDTH)?;
        check::size("embedding_dim", self.embedding_dim, MAX_WIDTH)?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)?;
        let columns = self.columns();
        if columns < MIN_ROWS || columns * self.maps != self.wave_channels[3] {
            let reason =
                format!("expected a divisor of {} that gives at least {MIN_ROWS} columns", self.wave_channels[3]);
            return Err(Error::config("maps", self.maps, reason));
        }
        let Some(log_mel) = self.log_mel else { return Ok(()) };
        for (field, got, expected) in [
            ("log_mel.sample_rate", log_mel.sample_rate as usize, self.sample_rate as usize),
            ("log_mel.hop_length", log_mel.stft.hop_length, HOP),
            ("log_mel.n_mels", log_mel.mel.n_mels / 2, columns),
        ] {
            if got != expected {
                return Err(Error::config(field, got, format!("expected {expected} to match the wavegram")));
            }
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::CNN14, "PANNs Wavegram-CNN14, 32 kHz waveform, AudioSet mAP 0.389"),
        (Self::LOGMEL_CNN14, "PANNs Wavegram-Logmel-CNN14, 32 kHz waveform and log-mel, AudioSet mAP 0.439"),
        (Self::LOGMEL128_CNN14, "PANNs Wavegram-Logmel128-CNN14, 32 kHz waveform and log-mel of 128 bins"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["pre_block4.conv2.weight", "pre_conv0.weight", "conv_block6.conv2.weight", "fc1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !Self::SIGNATURES[0].iter().all(|name| weights.contains(name)) {
            return Ok(None);
        }
        let mut assumptions = Vec::new();
        let inputs = |name: &str| weights.shape(name).and_then(|shape| shape.get(1).copied());
        let has_log_mel = inputs("conv_block2.conv1.weight") != panns::outputs(weights, "pre_block4.conv2.weight");
        let wave = ["pre_conv0", "pre_block1.conv1", "pre_block2.conv1", "pre_block3.conv1"];
        let wave_channels = |i: usize| panns::outputs(weights, &format!("{}.weight", wave[i]));
        let mut channels = panns::channels(weights, Self::CNN14.channels);
        channels[0] = panns::outputs(weights, "pre_block4.conv2.weight").unwrap_or(channels[0]);
        let mut config = Self {
            log_mel: has_log_mel.then(|| panns::detect_front_end("Wavegram", weights, &mut assumptions)).transpose()?,
            wave_channels: std::array::from_fn(|i| wave_channels(i).unwrap_or(Self::CNN14.wave_channels[i])),
            maps: inputs("pre_block4.conv1.weight").unwrap_or(Self::CNN14.maps),
            channels,
            ..Self::CNN14
        };
        let preset = matching_preset(|preset: &Self| Self { name: preset.name.clone(), ..config.clone() });
        config.name = preset.map_or_else(wavegram, |preset| preset.name.clone());
        config.fit(weights);
        Ok(Some((config, assumptions)))
    }

    /// The number of classes and the embedding length.
    fn fit(&mut self, weights: &Weights) {
        panns::fit(weights, &mut self.n_classes, &mut self.embedding_dim);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Wavegram::load(self, weights, device)?))
    }
}

/// A loaded Wavegram network.
#[derive(Debug)]
pub struct Wavegram {
    config: Config,
    info: ModelInfo,
    device: Device,
    wave: ConvStack,
    wavegram: ConvStack,
    log_mel: Option<LogMelBranch>,
    blocks: ConvStack,
    head: Head,
}

#[derive(Debug)]
struct LogMelBranch {
    log_mel: LogMel,
    bn0: BatchNorm,
    block: ConvStack,
}

impl Wavegram {
    /// Builds the model from a checkpoint. If the checkpoint includes its front end, it is compared with the
    /// configuration's.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::FrontEnd`] if the checkpoint's front end differs,
    /// [`Error::Weights`] listing every tensor that is missing, unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let build = |root: &Loader| {
            if config.log_mel.is_none() {
                // Unused in the published class.
                root.ignore("bn0.*");
                root.ignore("conv_block1.*");
            }
            Self::build(config, root)
        };
        panns::load(&config.name, weights, device, build, |model| model.log_mel.as_ref().map(|branch| &branch.log_mel))
    }

    /// Builds the model from the tensors of a loader: those of a checkpoint, or new ones for training. Training uses
    /// PANNs' dropouts.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let [first, wave_channels @ ..] = config.wave_channels;
        let mut wave = ConvStack::on_sequences();
        let conv = ConvConfig { out_channels: first, ..FIRST };
        wave.conv(&root.at("pre_conv0"), Some(&root.at("pre_bn0")), conv, Activation::Relu)?;
        let mut in_channels = first;
        for (i, channels) in wave_channels.into_iter().enumerate() {
            let block = root.at(format_args!("pre_block{}", i + 1));
            wave.conv(
                &block.at("conv1"),
                Some(&block.at("bn1")),
                panns::same_padding(in_channels, channels, 3),
                Activation::Relu,
            )?;
            let spread = ConvConfig { dilation: 2, padding: 2, ..ConvConfig::new(channels, channels, 3) };
            wave.conv(&block.at("conv2"), Some(&block.at("bn2")), spread, Activation::Relu)?;
            wave.pool(Pool1d { size: POOL, padding: 0 });
            wave.end_stage();
            in_channels = channels;
        }
        let [first, others @ ..] = config.channels;
        let columns = config.columns();
        let mut wavegram = ConvStack::on_maps(Some(columns));
        panns::add_convs(&mut wavegram, &root.at("pre_block4"), panns::same_padding(config.maps, first, 3), 2)?;
        wavegram.pool(Pool2d { pooling: Pooling::Avg, size: (2, 1) });
        wavegram.end_stage();
        let log_mel = config.log_mel.as_ref().map(|log_mel| LogMelBranch::build(log_mel, first, root)).transpose()?;

        let mut blocks = ConvStack::on_maps(Some(columns));
        blocks.dropout(Dropout::new(root, 0.2)?);
        let mut in_channels = if log_mel.is_some() { 2 * first } else { first };
        for (i, channels) in others.into_iter().enumerate() {
            let pooling = (i < 4).then_some(Pooling::Avg); // the last block is not pooled
            let block = root.at(format_args!("conv_block{}", i + 2));
            panns::add_block(&mut blocks, &block, panns::same_padding(in_channels, channels, 3), 2, pooling)?;
            in_channels = channels;
        }
        let Config { embedding_dim, n_classes, .. } = *config;
        let of_log_mel = log_mel.as_ref().map_or(0, |branch| branch.log_mel.samples_for(2 * MIN_ROWS));
        let info = ModelInfo {
            // With the padding, the first output of a convolution needs one sample and each further output one stride.
            min_samples: (2 * MIN_ROWS * HOP - (FIRST.stride - 1)).max(of_log_mel),
            frames: Some(FrameGrid { first: 0, step: 2 * MIN_ROWS * HOP }),
            ..ModelInfo::new(config.name.clone(), config.sample_rate, n_classes, embedding_dim)
        };
        let head = Head::load(root, in_channels, embedding_dim, n_classes)?;
        let (config, device) = (config.clone(), root.device().clone());
        Ok(Self { config, info, device, wave, wavegram, log_mel, blocks, head })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tags clips of equal length, at least [`min_samples`](ModelInfo::min_samples). Calls `observe` after each block
    /// on the waveform, the block on the wavegram, the block on log-mel and the remaining blocks, with an index from 0
    /// and a function that returns the output there, for comparison with a reference.
    ///
    /// # Errors
    /// As [`TaggingModel::forward`], and any error of `observe`.
    pub fn forward_observed(
        &self,
        clips: &[&[f32]],
        detail: Detail,
        mut observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        let mut n_stages = 0;
        let observe = |_: usize, x: &dyn Fn() -> Result<Tensor>| {
            n_stages += 1;
            observe(n_stages - 1, x)
        };
        self.run(clips, detail, observe).context("running a Wavegram network")
    }

    fn run(
        &self,
        clips: &[&[f32]],
        detail: Detail,
        mut observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        let x = self.wave.forward_observed(&waveforms(clips, &self.device)?, &mut observe)?; // [batch, maps · columns, 2 n_rows]
        let (batch, channels, length) = x.dims3()?;
        let x = x.reshape((batch, self.config.maps, channels / self.config.maps, length))?.transpose(2, 3)?;
        let mut x = self.wavegram.forward_observed(&x.contiguous()?, &mut observe)?; // [batch, channels, n_rows, columns]
        if let Some(LogMelBranch { log_mel, bn0, block }) = &self.log_mel {
            let (log_mel, _) = features(log_mel, clips, &self.device)?;
            let from_log_mel = block.forward_observed(&bn0.forward(&log_mel.unsqueeze(1)?)?, &mut observe)?;
            let n_rows = x.dim(2)?.min(from_log_mel.dim(2)?);
            x = Tensor::cat(&[from_log_mel.narrow(2, 0, n_rows)?, x.narrow(2, 0, n_rows)?], 1)?;
        }
        let steps = self.blocks.forward_observed(&x, &mut observe)?.mean(3)?; // [batch, channels, n_rows / 16]
        self.head.forward(&steps, detail)
    }
}

impl LogMelBranch {
    fn build(config: &LogMelConfig, channels: usize, root: &Loader) -> Result<Self> {
        let n_mels = config.mel.n_mels;
        let mut block = ConvStack::on_maps(Some(n_mels));
        panns::add_convs(&mut block, &root.at("conv_block1"), panns::same_padding(1, channels, 3), 2)?;
        block.pool(Pool2d { pooling: Pooling::Avg, size: (2, 2) });
        block.end_stage();
        Ok(Self { log_mel: LogMel::new(config)?, bn0: BatchNorm::load(&root.at("bn0"), n_mels)?, block })
    }
}

impl TaggingModel for Wavegram {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| self.forward_observed(clips, detail, |_, _| Ok(()));
        forward_by_length(batch, &self.info, |n_samples| n_samples, run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.head.classify(embedding)
    }
}
