//! The two kinds of PANNs network: on log-mel and on the waveform.

use std::borrow::Cow;

use candle_core::{Device, Tensor};

use super::head::Head;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel, LogMelConfig};
use crate::models::batch::{forward_by_length, waveforms};
use crate::models::frames::repeat_to_frames;
use crate::models::{Detail, FrameGrid, ModelInfo, TaggingModel};
use crate::nn::{BatchNorm, ConvStack};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// The settings that all PANNs networks share.
#[derive(Debug)]
pub struct Common<'a> {
    pub name: &'a Cow<'static, str>,
    pub embedding_dim: usize,
    pub n_classes: usize,
}

impl Common<'_> {
    fn validate(&self) -> Result<()> {
        check::size("embedding_dim", self.embedding_dim, MAX_WIDTH)?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)
    }
}

/// The configuration of a network on log-mel.
pub trait LogMelNetConfig: Clone {
    /// Log-mel frames per step of the last feature map, a power of two: the fewest frames and the fewest mel bins.
    const MIN_FRAMES: usize;

    fn common(&self) -> Common<'_>;

    fn log_mel(&self) -> &LogMelConfig;

    /// Checks the layer sizes.
    fn validate(&self) -> Result<()>;

    /// Adds the layers between `bn0` and the mean over mel. Returns the number of channels of the last.
    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize>;
}

/// A PANNs network on log-mel: batch norm per mel bin, convolutions, mean over mel, max + mean over time, `fc1` with
/// ReLU (the embedding), `fc_audioset`, sigmoid.
///
/// On request, frames are the time steps of the last feature map: `max + mean` of a step and its two neighbours goes
/// through `fc1` and `fc_audioset`. A step's value is repeated for each of its log-mel frames, and the last step's
/// value for the remaining frames.
#[derive(Debug)]
pub struct LogMelNet<C> {
    config: C,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    bn0: BatchNorm,
    layers: ConvStack,
    head: Head,
}

impl<C: LogMelNetConfig> LogMelNet<C> {
    /// Builds the model from a checkpoint. If the checkpoint includes its front end, it is compared with the
    /// configuration's.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::FrontEnd`] if the checkpoint's front end differs,
    /// [`Error::Weights`] listing every tensor that is missing, unexpected or of the wrong shape.
    pub fn load(config: &C, weights: &Weights, device: &Device) -> Result<Self> {
        super::load(
            config.common().name,
            weights,
            device,
            |root| Self::build(config, root),
            |model| Some(&model.log_mel),
        )
    }

    /// Builds the model from the tensors of a loader: those of a checkpoint, or new ones for training. Training uses
    /// PANNs' dropouts.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &C, root: &Loader) -> Result<Self> {
        let common = config.common();
        common.validate()?;
        config.validate()?;
        let (stft, n_mels) = (config.log_mel().stft, config.log_mel().mel.n_mels);
        if n_mels < C::MIN_FRAMES {
            let halvings = C::MIN_FRAMES.ilog2();
            return Err(Error::config(
                "n_mels",
                n_mels,
                format!(
                    "expected at least {}, because the network halves the mel axis {halvings} times",
                    C::MIN_FRAMES
                ),
            ));
        }
        let log_mel = LogMel::new(config.log_mel())?;
        let min_samples = log_mel.samples_for(C::MIN_FRAMES);
        check::min_samples("hop_length", stft.hop_length, min_samples)?;
        let bn0 = BatchNorm::load(&root.at("bn0"), n_mels)?;
        let mut layers = ConvStack::on_maps(Some(n_mels));
        let channels = config.add_layers(&mut layers, root)?;
        let Common { name, embedding_dim, n_classes } = common;
        let info = ModelInfo {
            min_samples,
            frames: Some(FrameGrid { first: 0, step: stft.hop_length }),
            ..ModelInfo::new(name.clone(), config.log_mel().sample_rate, n_classes, embedding_dim)
        };
        let head = Head::load(root, channels, embedding_dim, n_classes)?;
        Ok(Self { config: config.clone(), info, device: root.device().clone(), log_mel, bn0, layers, head })
    }

    /// Runs everything after the front end on log-mel in dB `[batch, n_frames, n_mels]`. Calls `observe` after each
    /// stage with its index from 0 and a function that returns its output, for comparison with a reference.
    ///
    /// # Errors
    /// As [`TaggingModel::forward_features`], and any error of `observe`.
    pub fn forward_observed(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        self.run(log_mel, detail, observe).context("running a PANNs network on log-mel")
    }

    fn run(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        if n_frames < C::MIN_FRAMES {
            return Err(Error::TooShort { needed: C::MIN_FRAMES, got: n_frames });
        }
        let x = self.bn0.forward(&log_mel.unsqueeze(1)?)?; // [batch, 1, n_frames, n_mels]
        let steps = self.layers.forward_observed(&x, observe)?.mean(3)?; // [batch, channels, n_frames / MIN_FRAMES]
        let mut output = self.head.forward(&steps, detail)?;
        if let Some(steps) = output.framewise_output.take() {
            // [batch, n_frames, n_classes]
            output.framewise_output = Some(repeat_to_frames(&steps, C::MIN_FRAMES, n_frames)?);
        }
        Ok(output)
    }
}

impl<C> LogMelNet<C> {
    /// The configuration of the model.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }
}

impl<C: LogMelNetConfig + Send + Sync> TaggingModel for LogMelNet<C> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.head.classify(embedding)
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Takes log-mel in dB.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.forward_observed(log_mel, detail, |_, _| Ok(()))
    }
}

/// The configuration of a network on the waveform.
pub trait WaveformNetConfig: Clone {
    fn common(&self) -> Common<'_>;

    /// The sample rate in Hz.
    fn sample_rate(&self) -> u32;

    /// The samples that give one step of the last feature map, and the position of the steps. Call after
    /// [`validate`](Self::validate).
    fn steps(&self) -> (usize, FrameGrid);

    /// Checks the layer sizes.
    fn validate(&self) -> Result<()>;

    /// Adds all layers before the pooling over time. Returns the number of channels of the last.
    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize>;
}

/// A PANNs network on the waveform: convolutions, max + mean over time, `fc1` with ReLU (the embedding), `fc_audioset`,
/// sigmoid.
///
/// On request, frames are the time steps of the last feature map: `max + mean` of a step and its two neighbours goes
/// through `fc1` and `fc_audioset`.
#[derive(Debug)]
pub struct WaveformNet<C> {
    config: C,
    info: ModelInfo,
    device: Device,
    layers: ConvStack,
    head: Head,
}

impl<C: WaveformNetConfig> WaveformNet<C> {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &C, weights: &Weights, device: &Device) -> Result<Self> {
        super::load(config.common().name, weights, device, |root| Self::build(config, root), |_| None)
    }

    /// Builds the model from the tensors of a loader: those of a checkpoint, or new ones for training. Training uses
    /// PANNs' dropouts.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &C, root: &Loader) -> Result<Self> {
        let common = config.common();
        common.validate()?;
        check::sample_rate(config.sample_rate())?;
        config.validate()?;
        let mut layers = ConvStack::on_sequences();
        let channels = config.add_layers(&mut layers, root)?;
        let Common { name, embedding_dim, n_classes } = common;
        let (min_samples, frames) = config.steps();
        let info = ModelInfo {
            min_samples,
            frames: Some(frames),
            ..ModelInfo::new(name.clone(), config.sample_rate(), n_classes, embedding_dim)
        };
        let head = Head::load(root, channels, embedding_dim, n_classes)?;
        Ok(Self { config: config.clone(), info, device: root.device().clone(), layers, head })
    }

    /// Runs the network on samples `[batch, 1, n_samples]`. Calls `observe` after each stage with its index from 0 and
    /// a function that returns its output, for comparison with a reference.
    ///
    /// # Errors
    /// [`Error::TooShort`] for fewer samples than [`min_samples`](ModelInfo::min_samples), [`Error::Tensor`] if the
    /// shape or the device does not match, and any error of `observe`.
    pub fn forward_observed(
        &self,
        samples: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        let run = || {
            let ((_, _, got), needed) = (samples.dims3()?, self.info.min_samples);
            if got < needed {
                return Err(Error::TooShort { needed, got });
            }
            self.head.forward(&self.layers.forward_observed(samples, observe)?, detail)
        };
        run().context("running a PANNs network on the waveform")
    }
}

impl<C> WaveformNet<C> {
    /// The configuration of the model.
    pub fn config(&self) -> &C {
        &self.config
    }
}

impl<C: WaveformNetConfig + Send + Sync> TaggingModel for WaveformNet<C> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| self.forward_observed(&waveforms(clips, &self.device)?, detail, |_, _| Ok(()));
        forward_by_length(batch, &self.info, |n_samples| n_samples, run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.head.classify(embedding)
    }
}
