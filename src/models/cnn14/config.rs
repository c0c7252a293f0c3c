//! Configurations of CNN14 and their detection from checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{Cnn14, MIN_FRAMES};
use crate::assumption::Assumption;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::frontend::{LogMel, LogMelConfig};
use crate::models::family::Family;
use crate::models::{FrameGrid, ModelInfo, OutputActivation, TaggingModel, panns};
use crate::nn::Pooling;
use crate::weights::Weights;

/// Where classification takes place. A segment is `max + mean` over the steps `s − 1` to `s + 1` of the last feature
/// map averaged over mel, where the mean includes zeros beyond the ends of the clip; `fc1`, ReLU and the last layer
/// follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// Once, on the steps pooled over the clip: CNN14.
    #[default]
    Clip,
    /// In each segment; the clip's probability is the maximum: `Cnn14_DecisionLevelMax`. It has the tensors of CNN14.
    Max,
    /// In each segment; the clip's probability is the mean: `Cnn14_DecisionLevelAvg`. It has the tensors of CNN14.
    Avg,
    /// In each segment; the clip's probability is a weighted mean: `Cnn14_DecisionLevelAtt`. The weights, per class,
    /// are the softmax over time of a second layer clamped to -10..=10. `att_block` replaces `fc_audioset`.
    Att,
}

/// The configuration of a CNN14. Presets are named after the published checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `cnn14`.
    #[serde(default = "cnn14")]
    pub name: Cow<'static, str>,
    /// The front end. At least 32 mel bins.
    pub log_mel: LogMelConfig,
    /// Channels of the six blocks, 1 to 65,536.
    pub channels: [usize; 6],
    /// The pooling after blocks 1 to 5.
    pub pooling: Pooling,
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
    /// The output activation, which also selects the last layer: `fc_audioset` with sigmoid, or `fc_transfer` of
    /// `Transfer_Cnn14` with softmax.
    pub head: OutputActivation,
    /// Where classification takes place. Default when read from a file: for the clip.
    #[serde(default)]
    pub decision: Decision,
}

/// The default name, also for configurations that match no preset.
fn cnn14() -> Cow<'static, str> {
    Cow::Borrowed("cnn14")
}

impl Config {
    /// `Cnn14_mAP=0.431.pth`: 32 kHz, 527 classes.
    pub const AUDIOSET_32K: Self = Self {
        name: Cow::Borrowed("cnn14"),
        log_mel: LogMelConfig::PANNS_32K,
        channels: [64, 128, 256, 512, 1024, 2048],
        pooling: Pooling::Avg,
        embedding_dim: 2048,
        n_classes: 527,
        head: OutputActivation::Sigmoid,
        decision: Decision::Clip,
    };
    /// `Cnn14_16k_mAP=0.438.pth`: 16 kHz, 527 classes.
    pub const AUDIOSET_16K: Self =
        Self { name: Cow::Borrowed("cnn14-16k"), log_mel: LogMelConfig::PANNS_16K, ..Self::AUDIOSET_32K };
    /// `Cnn14_8k_mAP=0.416.pth`: 8 kHz, 527 classes.
    pub const AUDIOSET_8K: Self =
        Self { name: Cow::Borrowed("cnn14-8k"), log_mel: LogMelConfig::PANNS_8K, ..Self::AUDIOSET_32K };
    /// 48 kHz, frames of 2048 samples every 320; no published weights.
    pub const AUDIOSET_48K: Self =
        Self { name: Cow::Borrowed("cnn14-48k"), log_mel: LogMelConfig::PANNS_48K, ..Self::AUDIOSET_32K };
    /// `Cnn14_mel32`: 32 kHz, 32 mel bins, 527 classes.
    pub const MEL32: Self =
        Self { name: Cow::Borrowed("cnn14-mel32"), log_mel: panns::with_mels(32), ..Self::AUDIOSET_32K };
    /// `Cnn14_mel128`: 32 kHz, 128 mel bins, 527 classes.
    pub const MEL128: Self =
        Self { name: Cow::Borrowed("cnn14-mel128"), log_mel: panns::with_mels(128), ..Self::AUDIOSET_32K };
    /// `Cnn14_emb512_mAP=0.420.pth`: an embedding of 512 values, 32 kHz, 527 classes.
    pub const EMB512: Self = Self { name: Cow::Borrowed("cnn14-emb512"), embedding_dim: 512, ..Self::AUDIOSET_32K };
    /// `Cnn14_emb128_mAP=0.412.pth`: an embedding of 128 values, 32 kHz, 527 classes.
    pub const EMB128: Self = Self { name: Cow::Borrowed("cnn14-emb128"), embedding_dim: 128, ..Self::AUDIOSET_32K };
    /// `Cnn14_emb32_mAP=0.364.pth`: an embedding of 32 values, 32 kHz, 527 classes.
    pub const EMB32: Self = Self { name: Cow::Borrowed("cnn14-emb32"), embedding_dim: 32, ..Self::AUDIOSET_32K };
    /// `Cnn14_DecisionLevelMax_mAP=0.385.pth`: 32 kHz, 527 classes.
    pub const DECISION_MAX: Self =
        Self { name: Cow::Borrowed("cnn14-decision-max"), decision: Decision::Max, ..Self::AUDIOSET_32K };
    /// `Cnn14_DecisionLevelAvg`: 32 kHz, 527 classes.
    pub const DECISION_AVG: Self =
        Self { name: Cow::Borrowed("cnn14-decision-avg"), decision: Decision::Avg, ..Self::AUDIOSET_32K };
    /// `Cnn14_DecisionLevelAtt_mAP=0.425.pth`: 32 kHz, 527 classes.
    pub const DECISION_ATT: Self =
        Self { name: Cow::Borrowed("cnn14-decision-att"), decision: Decision::Att, ..Self::AUDIOSET_32K };

    pub(super) fn info(&self, log_mel: &LogMel) -> ModelInfo {
        ModelInfo {
            min_samples: log_mel.samples_for(MIN_FRAMES),
            activation: self.head,
            frames: Some(FrameGrid { first: 0, step: self.log_mel.stft.hop_length }),
            ..ModelInfo::new(self.name.clone(), self.log_mel.sample_rate, self.n_classes, self.embedding_dim)
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let n_mels = self.log_mel.mel.n_mels;
        if n_mels < MIN_FRAMES {
            return Err(Error::config(
                "n_mels",
                n_mels,
                "expected at least 32, because five poolings halve the mel axis",
            ));
        }
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        check::size("embedding_dim", self.embedding_dim, MAX_WIDTH)?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)?;
        if self.decision != Decision::Clip && self.head != OutputActivation::Sigmoid {
            let reason = "expected `sigmoid` unless `decision` is `clip`";
            return Err(Error::config("head", format!("{:?}", self.head), reason));
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::AUDIOSET_32K, "PANNs CNN14, 32 kHz log-mel, AudioSet mAP 0.431"),
        (Self::AUDIOSET_16K, "PANNs CNN14, 16 kHz log-mel, AudioSet mAP 0.438"),
        (Self::AUDIOSET_8K, "PANNs CNN14, 8 kHz log-mel, AudioSet mAP 0.416"),
        (Self::AUDIOSET_48K, "CNN14, 48 kHz log-mel with 2048-point frames, no published weights"),
        (Self::MEL32, "PANNs CNN14, 32 kHz log-mel of 32 bins"),
        (Self::MEL128, "PANNs CNN14, 32 kHz log-mel of 128 bins"),
        (Self::EMB512, "PANNs CNN14, embedding of 512, 32 kHz log-mel, AudioSet mAP 0.420"),
        (Self::EMB128, "PANNs CNN14, embedding of 128, 32 kHz log-mel, AudioSet mAP 0.412"),
        (Self::EMB32, "PANNs CNN14, embedding of 32, 32 kHz log-mel, AudioSet mAP 0.364"),
        (Self::DECISION_MAX, "PANNs CNN14, maximum over segments, 32 kHz log-mel, AudioSet mAP 0.385"),
        (Self::DECISION_AVG, "PANNs CNN14, mean over segments, 32 kHz log-mel"),
        (Self::DECISION_ATT, "PANNs CNN14, attention over segments, 32 kHz log-mel, AudioSet mAP 0.425"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["conv_block6.conv2.weight", "conv_block1.conv1.weight", "fc1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let is_2d = weights.shape("conv_block1.conv1.weight").is_some_and(|shape| shape.len() == 4);
        let other = weights.contains("pre_conv0.weight"); // a Wavegram network
        if !is_2d || other || !weights.contains("conv_block6.conv2.weight") || !weights.contains("fc1.weight") {
            return Ok(None);
        }
        let mut assumptions = Vec::new();
        let log_mel = panns::detect_front_end("CNN14", weights, &mut assumptions)?;
        let base = match detect_decision(weights, &mut assumptions) {
            Decision::Clip => Self::AUDIOSET_32K,
            Decision::Max => Self::DECISION_MAX,
            Decision::Avg => Self::DECISION_AVG,
            Decision::Att => Self::DECISION_ATT,
        };
        let channels = panns::channels(weights, base.channels);
        let sizes = Self { log_mel, channels, ..base };
        let mut config = sizes.clone();
        config.fit(weights);
        // Some presets fix the embedding length; the others match any length.
        let published = |embedding_dim: usize| {
            let equal = |(preset, _): &&(Self, &str)| {
                *preset == Self { name: preset.name.clone(), embedding_dim, ..sizes.clone() }
            };
            Some(Self::PRESETS.iter().find(equal)?.0.name.clone())
        };
        config.name = published(config.embedding_dim).or_else(|| published(sizes.embedding_dim)).unwrap_or_else(cnn14);
        Ok(Some((config, assumptions)))
    }

    /// The head, its classes and the length of the embedding.
    fn fit(&mut self, weights: &Weights) {
        if weights.contains("fc_transfer.weight") {
            self.head = OutputActivation::Softmax;
        }
        let weight = match (self.decision, self.head) {
            (Decision::Att, _) => "att_block.cla.weight",
            (_, OutputActivation::Sigmoid) => "fc_audioset.weight",
            (_, OutputActivation::Softmax) => "fc_transfer.weight",
        };
        if let Some(&[n_classes, embedding_dim, ..]) = weights.shape(weight) {
            (self.n_classes, self.embedding_dim) = (n_classes, embedding_dim);
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Cnn14::load(self, weights, device)?))
    }
}

/// Detected from the tensors or, failing that, from the file name.
fn detect_decision(weights: &Weights, assumptions: &mut Vec<Assumption>) -> Decision {
    if weights.contains("att_block.cla.weight") {
        return Decision::Att;
    }
    let name = weights.path().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
    let named = [("DecisionLevelMax", Decision::Max), ("DecisionLevelAvg", Decision::Avg)];
    let Some((word, decision)) = named.into_iter().find(|(word, _)| name.contains(word)) else {
        return Decision::Clip;
    };
    assumptions.push(Assumption::FileName { word, otherwise: "cnn14" });
    decision
}
