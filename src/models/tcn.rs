//! A temporal convolutional network over a spectrogram: a general classifier of sounds and words, beside [`rnn`](super::rnn).
//!
//! Paper: Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling", 2018
//! (arXiv 1803.01271). Reference: locuslab/TCN@2f8c2b8, `TCN/tcn.py` and `TCN/mnist_pixel/model.py`.
//!
//! waveform `[batch, n_samples]` → features `[batch, n_frames, n_features]` → levels of two causal convolutions with dilation
//! 1, 2, 4, … → frames `[batch, n_frames, outputs]` → one vector by pooling over time (the embedding) → linear layer `fc`,
//! softmax or sigmoid.
//!
//! A frame sees itself and `2 (kernel − 1) (2^levels − 1)` frames before it: [`Config::receptive_field`]. Before the first frame
//! it sees zeros, so features with mean 0 fit best.
//!
//! Checkpoint keys are those of the reference, a module with the members `tcn` and `linear` (or `fc`), and, for attention,
//! `attention` as in [`rnn`](super::rnn).
//!
//! Frames, on request, are `fc` on each frame instead of their pooling: with [`TimePooling::Last`], what the model would say of
//! the clip up to there. [`FrameStream`](crate::stream::FrameStream) gives them of a stream, if the features do not depend on the
//! whole clip: normalise them by the statistics of a data set.
//!
//! Shortest clip: what the front end needs for its frames and deltas; shorter ones, down to one sample, are padded with
//! zeros at their end to that length.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::sequence::{Backbone, SequenceClassifier, SequenceHead, TimePooling, fit_head, info};
use super::{OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::check::check_lengths;
use crate::error::{Context, Result};
use crate::frontend::features::{Features, FeaturesConfig};
use crate::nn::{Tcn, TcnConfig, TcnState};
use crate::weights::{Loader, Weights};

/// The shape of an [`AudioTcnClassifier`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `tcn`.
    #[serde(default = "tcn")]
    pub name: Cow<'static, str>,
    /// The front end.
    pub features: FeaturesConfig,
    /// Outputs of each level, 1 to 65,536; 1 to 12 levels.
    pub channels: Cow<'static, [usize]>,
    /// Length of the kernels, 2 to 32.
    pub kernel: usize,
    /// Dropout after each convolution in training, at least 0 and below 1. Default when read from a file: 0.
    #[serde(default)]
    pub dropout: f64,
    /// From frames to one vector.
    pub pooling: TimePooling,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
    /// What they mean.
    pub head: OutputActivation,
}

/// The family's name.
fn tcn() -> Cow<'static, str> {
    Cow::Borrowed("tcn")
}

impl Config {
    /// Eight levels over 64 mels, the mean over time, 10 classes: 773,514 parameters. A frame sees 1,021 frames, 10.2 s.
    pub const TCN: Self = Self {
        name: Cow::Borrowed("tcn"),
        features: FeaturesConfig::LOG_MEL_64,
        channels: Cow::Borrowed(&[128; 8]),
        kernel: 3,
        dropout: 0.2,
        pooling: TimePooling::Mean,
        n_classes: 10,
        head: OutputActivation::Softmax,
    };
    /// The same over 13 MFCC with deltas.
    pub const MFCC: Self = Self { name: Cow::Borrowed("tcn-mfcc"), features: FeaturesConfig::MFCC_39, ..Self::TCN };

    /// Frames that a frame sees, its own included: `1 + 2 (kernel − 1) (2^levels − 1)`.
    pub fn receptive_field(&self) -> usize {
        self.tcn().receptive_field()
    }

    fn tcn(&self) -> TcnConfig {
        let Self { features, channels, kernel, dropout, .. } = self;
        TcnConfig { inputs: features.n_features(), channels: channels.clone(), kernel: *kernel, dropout: *dropout }
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::TCN, "temporal convolutional network over 64 mels, 16 kHz, no published weights"),
        (Self::MFCC, "temporal convolutional network over 13 MFCC with deltas, 16 kHz, no published weights"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["tcn.network.0.conv1.weight", "linear.weight"], &["tcn.network.0.conv1.weight", "fc.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    /// Nothing in the tensors tells the front end.
    fn detect(_: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        Ok(None)
    }

    /// The levels, the kernel and the number of classes.
    fn fit(&mut self, weights: &Weights) {
        let shape = |level: usize| weights.shape(&format!("tcn.network.{level}.conv1.weight"));
        let levels: Vec<&[usize]> = (0..weights.len()).map_while(shape).collect();
        if let Some(&&[_, _, kernel]) = levels.first() {
            self.kernel = kernel;
            self.channels = levels.iter().filter_map(|shape| shape.first().copied()).collect();
        }
        fit_head(weights, &mut self.pooling, &mut self.n_classes);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(AudioTcnClassifier::load(self, weights, device)?))
    }
}

/// A loaded temporal convolutional network.
pub type AudioTcnClassifier = SequenceClassifier<Config, Tcn>;

impl AudioTcnClassifier {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration cannot work, [`Error::Weights`](crate::Error::Weights) with
    /// all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(model)
    }

    /// The model with the tensors that a loader gives: of a checkpoint, or to be trained.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration cannot work, else as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        let features = Features::new(&config.features)?;
        let tcn = Tcn::load(&root.at("tcn"), config.tcn())?;
        let outputs = tcn.outputs();
        let head = SequenceHead::load(root, config.pooling, outputs, config.n_classes, config.head)?;
        let info = info(config.name.clone(), &features, config.n_classes, outputs, config.head);
        Ok(Self { config: config.clone(), info, device: root.device().clone(), features, backbone: tcn, head })
    }
}

impl Backbone for Tcn {
    type State = TcnState;

    const WHAT: &'static str = "running a temporal convolutional network";

    /// A frame never depends on later ones, so `lengths` are only checked.
    fn forward(
        &self,
        features: &Tensor,
        lengths: Option<&[usize]>,
        state: Option<&TcnState>,
    ) -> Result<(Tensor, TcnState)> {
        let (batch, n_frames, _) = features.dims3().context(Self::WHAT)?;
        if let Some(lengths) = lengths {
            check_lengths(lengths, batch, 1..=n_frames)?;
        }
        self.forward(features, state)
    }

    /// The last frame of each clip.
    fn last(&self, frames: &Tensor, lengths: Option<&[usize]>, _: &TcnState) -> candle_core::Result<Tensor> {
        let (batch, n_frames, _) = frames.dims3()?;
        let last = |clip: usize| frames.get(clip)?.get(lengths.map_or(n_frames, |lengths| lengths[clip]) - 1);
        Tensor::stack(&(0..batch).map(last).collect::<candle_core::Result<Vec<_>>>()?, 0)
    }

    fn check_causal(&self) -> Result<()> {
        Ok(())
    }
}
