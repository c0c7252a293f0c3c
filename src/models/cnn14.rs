//! CNN14 of PANNs: a VGG-style tagger on log-mel spectrograms.
//!
//! Paper: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020
//! (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `Cnn14`.
//! Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → log-mel `[batch, 1, n_frames, n_mels]` → batch norm per mel bin → 6 conv blocks (64
//! to 2048 channels), of which all but the last halve both axes → mean over mel, max + mean over time → `fc1` with ReLU
//! (the embedding) → `fc_audioset`, sigmoid.
//!
//! Shortest clip: 32 frames, which is 9,920 samples at 32 kHz. Shorter clips, down to one sample, are zero-padded at
//! the end to that length.
//!
//! Fine-tuned checkpoints of `Transfer_Cnn14` (`fc_transfer`, softmax) load as well.
//!
//! `Cnn14_DecisionLevelMax`, `…Avg` and `…Att` classify each segment of 32 frames and then pool over time: see
//! [`Decision`]. Their `framewise_output` repeats a segment's value for each of its frames, and the last segment's
//! value for the remaining frames. CNN14 itself computes it on request ([`Detail::Frames`]) by applying its head to
//! each segment.

mod config;
mod head;

use candle_core::{Device, Tensor};

use super::frames::{Edge, max_plus_mean_of_neighbours, repeat_to_frames};
use super::{Detail, ModelInfo, TaggingModel, panns};
use crate::check;
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel};
use crate::nn::{Activation, BatchNorm, ConvStack, Dropout, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};
pub use config::{Config, Decision};
use head::Classifier;

/// Log-mel frames per step of the last feature map (2⁵). Such a segment is also the shortest input.
const MIN_FRAMES: usize = 32;

/// A loaded CNN14.
#[derive(Debug)]
pub struct Cnn14 {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    bn0: BatchNorm,
    blocks: ConvStack,
    pooled_dropout: Dropout,
    fc1: Linear,
    head: Classifier,
}

impl Cnn14 {
    /// Builds the model from a checkpoint.
    ///
    /// If the checkpoint includes its front end (`logmel_extractor.melW` and the DFT kernels), the front end is
    /// compared with the configuration's.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::FrontEnd`] if the checkpoint's front end differs,
    /// [`Error::Weights`] listing every tensor that is missing, unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        panns::load(&config.name, weights, device, |root| Self::build(config, root), |model| Some(&model.log_mel))
    }

    /// Builds the model from the tensors of a loader: those of a checkpoint, or new ones for training.
    ///
    /// In training, a dropout of 0.2 follows each block and one of 0.5 precedes `fc1`, as in PANNs.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let log_mel = LogMel::new(&config.log_mel)?;
        check::min_samples("hop_length", config.log_mel.stft.hop_length, log_mel.samples_for(MIN_FRAMES))?;
        let bn0 = BatchNorm::load(&root.at("bn0"), config.log_mel.mel.n_mels)?;
        let mut blocks = ConvStack::on_maps(Some(config.log_mel.mel.n_mels));
        let mut in_channels = 1;
        for (i, &channels) in config.channels.iter().enumerate() {
            let block = root.at(format_args!("conv_block{}", i + 1));
            let pooling = (i < 5).then_some(config.pooling); // the last block is not pooled
            panns::add_block(&mut blocks, &block, panns::same_padding(in_channels, channels, 3), 2, pooling)?;
            in_channels = channels;
        }
        let (pooled, embedding_dim) = (config.channels[5], config.embedding_dim);
        let fc1 = Linear::load(&root.at("fc1"), pooled, embedding_dim, Activation::Relu)?;
        let head = Classifier::load(config, root)?;
        Ok(Self {
            config: config.clone(),
            info: config.info(&log_mel),
            device: root.device().clone(),
            log_mel,
            bn0,
            blocks,
            pooled_dropout: Dropout::new(root, 0.5)?,
            fc1,
            head,
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }

    /// Applies the first layer, the batch norm per mel bin, to log-mel in dB `[batch, 1, n_frames, n_mels]`. Feature
    /// augmentation is applied to its output.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match.
    pub fn normalize(&self, log_mel: &Tensor) -> Result<Tensor> {
        self.bn0.forward(log_mel)
    }

    /// Runs the layers after [`normalize`](Self::normalize), without frames.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match.
    pub fn forward_normalized(&self, x: &Tensor) -> Result<TaggingOutput> {
        self.run_normalized(x, Detail::Clip).context("running CNN14")
    }

    fn run(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        if n_frames < MIN_FRAMES {
            return Err(Error::TooShort { needed: MIN_FRAMES, got: n_frames });
        }
        self.run_normalized(&self.normalize(&log_mel.unsqueeze(1)?)?, detail)
    }

    fn run_normalized(&self, x: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let n_frames = x.dim(2)?;
        let steps = self.blocks.forward(x)?.mean(3)?; // [batch, 2048, n_frames / 32]
        let mut output = if self.config.decision == Decision::Clip {
            let pooled = self.pooled_dropout.forward(&panns::pool_over_time(&steps)?)?; // [batch, 2048]
            let embedding = self.fc1.forward(&pooled)?; // [batch, embedding_dim]
            let mut output = self.classify(&embedding)?;
            if detail == Detail::Frames {
                let segments = self.fc1.forward(&max_plus_mean_of_neighbours(&steps, Edge::Cut)?)?; // [batch, n_frames / 32, embedding_dim]
                output.framewise_output = Some(self.head.probabilities(&segments)?);
            }
            output
        } else {
            let pooled = self.pooled_dropout.forward(&max_plus_mean_of_neighbours(&steps, Edge::Zeros)?)?; // [batch, n_frames / 32, 2048]
            let segments = self.pooled_dropout.forward(&self.fc1.forward(&pooled)?)?;
            self.head.classify_segments(&segments)?
        };
        if let Some(segments) = output.framewise_output.take() {
            // [batch, n_frames, n_classes]
            output.framewise_output = Some(repeat_to_frames(&segments, MIN_FRAMES, n_frames)?);
        }
        Ok(output)
    }

    /// The output of each stage, for comparison with a reference: `bn0`, `block1` to `block6`, `pooled`.
    ///
    /// # Errors
    /// As [`TaggingModel::forward_features`].
    pub fn stages(&self, log_mel: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut stages = vec![("bn0".to_string(), self.bn0.forward(log_mel)?)];
        let x = stages[0].1.clone();
        self.blocks.forward_observed(&x, |i, x| {
            stages.push((format!("block{}", i + 1), x()?));
            Ok(())
        })?;
        stages.push(("pooled".to_string(), panns::pool_over_time(&stages[6].1.mean(3)?)?));
        Ok(stages)
    }
}

impl TaggingModel for Cnn14 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        if self.config.decision != Decision::Clip {
            return Err(Error::argument(
                "embedding",
                &self.info.name,
                "this model classifies segments, not an embedding",
            ));
        }
        self.head.classify(embedding)
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Takes log-mel in dB, with at least 32 frames.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.run(log_mel, detail).context("running CNN14")
    }
}
