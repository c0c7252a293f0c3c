//! A recurrent classifier (GRU or LSTM) over spectrogram frames, for sounds or words.
//!
//! waveform `[batch, n_samples]` → features `[batch, n_frames, n_features]` → GRU or LSTM → frames `[batch, n_frames,
//! outputs]` → pooling over time (the embedding) → linear layer `fc`, softmax or sigmoid.
//!
//! Checkpoint keys are those of a PyTorch module with the members `rnn` (or `gru`, `lstm`) and `fc` and, for attention,
//! `attention = Sequential(Linear(outputs, width), Tanh(), Linear(width, 1))`.
//!
//! On request, `fc` is applied to each frame of the recurrent layers, without pooling. For a unidirectional network
//! that pools the last state, a frame's result equals the result for the clip up to that frame.
//! [`FrameStream`](crate::stream::FrameStream) computes frames of a stream.
//!
//! Shortest clip: the samples that the front end needs for its frames and deltas. Shorter clips, down to one sample,
//! are zero-padded at the end to that length.

use std::borrow::Cow;

use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
pub use super::sequence::TimePooling;
use super::sequence::{Backbone, SequenceClassifier, SequenceHead, fit_head, info};
use super::{OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::error::{Error, Result};
use crate::frontend::features::{Features, FeaturesConfig};
use crate::nn::{Cell, Rnn, RnnConfig, RnnState};
use crate::weights::{Loader, Weights};

/// The configuration of an [`AudioRnnClassifier`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `rnn`.
    #[serde(default = "rnn")]
    pub name: Cow<'static, str>,
    /// The front end.
    pub features: FeaturesConfig,
    /// The recurrent cell: GRU or LSTM.
    pub cell: Cell,
    /// Hidden size of one direction, 1 to 65,536.
    pub hidden: usize,
    /// Recurrent layers, 1 to 64.
    pub n_layers: usize,
    /// Whether each layer runs in both directions.
    pub bidirectional: bool,
    /// How frames are pooled over time.
    pub pooling: TimePooling,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
    /// The function that turns the outputs into probabilities.
    pub head: OutputActivation,
}

/// The default name, also for configurations that match no preset.
fn rnn() -> Cow<'static, str> {
    Cow::Borrowed("rnn")
}

impl Config {
    /// A bidirectional GRU of two layers over 64 mel bins, mean over time, 10 classes: 448,010 parameters.
    pub const BIGRU: Self = Self {
        name: Cow::Borrowed("bigru"),
        features: FeaturesConfig::LOG_MEL_64,
        cell: Cell::Gru,
        hidden: 128,
        n_layers: 2,
        bidirectional: true,
        pooling: TimePooling::Mean,
        n_classes: 10,
        head: OutputActivation::Softmax,
    };
    /// A bidirectional LSTM of two layers over 64 mel bins, attention over time, 10 classes.
    pub const BILSTM_ATTENTION: Self = Self {
        name: Cow::Borrowed("bilstm-attention"),
        cell: Cell::Lstm,
        pooling: TimePooling::Attention,
        ..Self::BIGRU
    };
    /// Speech-Commands-Classification-by-LSTM-PyTorch: an LSTM of three layers, last state, 35 words.
    pub const SPEECH_COMMANDS: Self = Self {
        name: Cow::Borrowed("lstm-speech-commands"),
        features: FeaturesConfig::SPEECH_COMMANDS,
        cell: Cell::Lstm,
        hidden: 64,
        n_layers: 3,
        bidirectional: false,
        pooling: TimePooling::Last,
        n_classes: 35,
        head: OutputActivation::Softmax,
    };

    /// The configuration of the recurrent layers.
    pub fn rnn(&self, bias: bool) -> RnnConfig {
        let Self { cell, hidden, n_layers, bidirectional, .. } = *self;
        RnnConfig { cell, inputs: self.features.n_features(), hidden, n_layers, bidirectional, bias }
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::BIGRU, "bidirectional GRU over 64 mels, 16 kHz, mean over time, no published weights"),
        (Self::BILSTM_ATTENTION, "bidirectional LSTM over 64 mels, 16 kHz, attention over time, no published weights"),
        (Self::SPEECH_COMMANDS, "LSTM over 12 MFCC, 16 kHz, 35 words"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["rnn.weight_hh_l0", "fc.weight"], &["gru.weight_hh_l0", "fc.weight"], &["lstm.weight_hh_l0", "fc.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    /// Always `None`: the tensors of a recurrent network do not determine its front end.
    fn detect(_: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        Ok(None)
    }

    /// The cell, its sizes, the pooling and the number of classes.
    fn fit(&mut self, weights: &Weights) {
        let is_here = |name: &&str| weights.contains(&format!("{name}.weight_hh_l0"));
        let Some(name) = NAMES.into_iter().find(is_here) else { return };
        if let Some(&[rows, hidden]) = weights.shape(&format!("{name}.weight_hh_l0"))
            && hidden > 0
        {
            self.cell = if rows / hidden == Cell::Lstm.n_gates() { Cell::Lstm } else { Cell::Gru };
            self.hidden = hidden;
        }
        let layers = |layer: &usize| weights.contains(&format!("{name}.weight_hh_l{layer}"));
        self.n_layers = (0..weights.len()).take_while(layers).count();
        self.bidirectional = weights.contains(&format!("{name}.weight_hh_l0_reverse"));
        fit_head(weights, &mut self.pooling, &mut self.n_classes);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(AudioRnnClassifier::load(self, weights, device)?))
    }
}

/// Names of the recurrent layers in checkpoints.
const NAMES: [&str; 3] = ["rnn", "gru", "lstm"];

/// A loaded recurrent classifier.
pub type AudioRnnClassifier = SequenceClassifier<Config, Rnn>;

impl AudioRnnClassifier {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(model)
    }

    /// Builds the model from the tensors of a loader: those of a checkpoint, or new ones for training.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        let features = Features::new(&config.features)?;
        let rnn = root.at(root.first_of(&NAMES));
        let rnn = Rnn::load(&rnn, config.rnn(!rnn.lacks("bias_ih_l0")))?;
        let outputs = rnn.config().outputs();
        let head = SequenceHead::load(root, config.pooling, outputs, config.n_classes, config.head)?;
        let info = info(config.name.clone(), &features, config.n_classes, outputs, config.head);
        Ok(Self { config: config.clone(), info, device: root.device().clone(), features, backbone: rnn, head })
    }
}

impl Backbone for Rnn {
    type State = RnnState;

    const WHAT: &'static str = "running a recurrent classifier";

    fn forward(
        &self,
        features: &Tensor,
        lengths: Option<&[usize]>,
        state: Option<&RnnState>,
    ) -> Result<(Tensor, RnnState)> {
        self.forward(features, lengths, state)
    }

    /// The final states of the last layer, both directions concatenated.
    fn last(&self, _: &Tensor, _: Option<&[usize]>, state: &RnnState) -> candle_core::Result<Tensor> {
        let n_directions = self.config().n_directions();
        let first = state.h.dim(0)? - n_directions;
        let states = (first..first + n_directions).map(|i| state.h.get(i)).collect::<candle_core::Result<Vec<_>>>()?;
        Tensor::cat(&states, D::Minus1)
    }

    fn check_causal(&self) -> Result<()> {
        match self.config().bidirectional {
            true => Err(Error::config(
                "bidirectional",
                true,
                "a stream needs a unidirectional model, because it has no end to run backwards from",
            )),
            false => Ok(()),
        }
    }
}
