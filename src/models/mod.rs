//! Models, one family a file.
//!
//! | name | model | audio | checkpoint |
//! |---|---|---|---|
//! | `cnn14` | [`cnn14`] of PANNs | 32 kHz | `Cnn14_mAP=0.431.pth`, also the `emb512`, `emb128`, `emb32` variants |
//! | `cnn14-16k` | the same | 16 kHz | `Cnn14_16k_mAP=0.438.pth` |
//! | `cnn14-8k` | the same | 8 kHz | `Cnn14_8k_mAP=0.416.pth` |
//! | `cnn14-48k` | the same | 48 kHz | none published |
//! | `cnn14-decision-max`, `-avg`, `-att` | the same, deciding in segments | 32 kHz | `Cnn14_DecisionLevelMax_mAP=0.385.pth` and its siblings |
//! | `ced-tiny`, `ced-mini`, `ced-small`, `ced-base` | [`ced`] | 16 kHz | RicherMans/CED and its Hugging Face conversions |
//! | `crnn` | [`crnn`] of Datadriven-GPVAD | 22.05 kHz | `teacher1.pth` |
//! | `leenet11` | [`leenet`] of PANNs | 32 kHz | `LeeNet11_mAP=0.266.pth` |
//! | `leenet24` | the same | 32 kHz | `LeeNet24_mAP=0.336.pth` |
//! | `m3`, `m5-paper`, `m11`, `m18`, `m34-res` | [`m5`] of the paper | 8 kHz | one's own |
//! | `m5` | [`m5`] of PyTorch's tutorial | 8 kHz | one's own |
//! | `bigru`, `bilstm-attention`, `lstm-speech-commands` | [`rnn`] | 16 kHz | one's own; the last also felixchenfy's `kaggle.ckpt` |
//!
//! A model owns its front end and knows its sample rate. [`detect`] finds the model for a checkpoint.

pub mod ced;
pub mod cnn14;
pub mod crnn;
pub mod leenet;
pub mod m5;
pub mod probe;
pub mod rnn;

mod batch;
mod detect;
mod frames;
mod info;
mod panns;

pub(crate) use batch::MAX_SECONDS;
pub use ced::Ced;
pub use cnn14::Cnn14;
pub use crnn::Crnn;
pub use detect::{Detected, detect};
pub use frames::FrameGrid;
pub use info::{Detail, ModelInfo, OutputActivation};
pub use leenet::LeeNet;
pub use m5::M5;
pub use probe::LinearProbe;
pub use rnn::AudioRnnClassifier;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::audio::WaveformBatch;
use crate::error::{Error, Result};
use crate::frontend::FrontEnd;
use crate::output::TaggingOutput;
use crate::weights::Weights;

/// A model that says which sounds are in a clip.
pub trait TaggingModel: Send + Sync {
    /// What is constant about it.
    fn info(&self) -> &ModelInfo;

    /// The device that it runs on.
    fn device(&self) -> &Device;

    /// Tags a batch of clips of any lengths. A row's result is the result for the clip alone.
    ///
    /// # Errors
    /// [`Error::SampleRate`] if the batch is at another rate, [`Error::TooShort`] for a clip without samples,
    /// [`Error::NonFinite`] for a NaN or infinite sample, [`Error::Config`] if frames are wanted of a model without
    /// [`frames`](ModelInfo::frames), [`Error::Tensor`] if a tensor operation fails on the device.
    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput>;

    /// The last layer alone: embeddings `[batch, embedding_dim]`, on the model's device, to what the model says of such clips.
    /// For embeddings that are made of others, such as the mean over a recording.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that does not decide by its embedding, [`Error::Tensor`] if the shape or the device does
    /// not fit.
    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        let _ = embedding;
        Err(Error::config("embedding", &self.info().name, "this model does not decide by its embedding"))
    }

    /// The front end, if [`forward_features`](Self::forward_features) takes its features: windows that overlap then share its
    /// frames.
    fn front_end(&self) -> Option<&dyn FrontEnd> {
        None
    }

    /// Everything after the [`front_end`](Self::front_end): `features` `[batch, n_frames, n_features]`, f32, on the model's
    /// device, of clips with at least [`min_samples`](ModelInfo::min_samples) samples.
    ///
    /// # Errors
    /// [`Error::Config`] for a model without a front end, and as [`forward`](Self::forward) if frames are wanted,
    /// [`Error::TooShort`] (counted in frames), [`Error::Tensor`] if the shape or the device does not fit.
    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let _ = (features, detail);
        Err(Error::config("features", &self.info().name, "this model has no front end"))
    }
}

impl<M: TaggingModel + ?Sized> TaggingModel for Box<M> {
    fn info(&self) -> &ModelInfo {
        (**self).info()
    }

    fn device(&self) -> &Device {
        (**self).device()
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        (**self).forward(batch, detail)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        (**self).classify(embedding)
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        (**self).front_end()
    }

    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        (**self).forward_features(features, detail)
    }
}

/// The configuration of any model, as it stands in a `config.json`: `{"model": "cnn14", …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "lowercase")]
#[non_exhaustive]
pub enum ModelConfig {
    /// CNN14.
    Cnn14(cnn14::Config),
    /// LeeNet11 and LeeNet24.
    LeeNet(leenet::Config),
    /// M3 to M34-res.
    M5(m5::Config),
    /// CED-tiny to CED-base.
    Ced(ced::Config),
    /// Convolutions and a recurrent layer.
    Crnn(crnn::Config),
    /// A recurrent classifier.
    Rnn(rnn::Config),
}

/// A named configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// The name, as command lines take it.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
    /// The configuration.
    pub config: ModelConfig,
}

/// Every model by name.
pub const MODELS: &[Preset] = &[
    Preset {
        name: "cnn14",
        description: "PANNs CNN14, 32 kHz log-mel, AudioSet mAP 0.431",
        config: ModelConfig::Cnn14(cnn14::Config::AUDIOSET_32K),
    },
    Preset {
        name: "cnn14-16k",
        description: "PANNs CNN14, 16 kHz log-mel, AudioSet mAP 0.438",
        config: ModelConfig::Cnn14(cnn14::Config::AUDIOSET_16K),
    },
    Preset {
        name: "cnn14-8k",
        description: "PANNs CNN14, 8 kHz log-mel, AudioSet mAP 0.416",
        config: ModelConfig::Cnn14(cnn14::Config::AUDIOSET_8K),
    },
    Preset {
        name: "cnn14-48k",
        description: "CNN14, 48 kHz log-mel with 2048-point frames, no published weights",
        config: ModelConfig::Cnn14(cnn14::Config::AUDIOSET_48K),
    },
    Preset {
        name: "cnn14-decision-max",
        description: "PANNs CNN14 deciding in segments, the largest counts, 32 kHz log-mel, AudioSet mAP 0.385",
        config: ModelConfig::Cnn14(cnn14::Config::DECISION_MAX),
    },
    Preset {
        name: "cnn14-decision-avg",
        description: "PANNs CNN14 deciding in segments, their mean counts, 32 kHz log-mel",
        config: ModelConfig::Cnn14(cnn14::Config::DECISION_AVG),
    },
    Preset {
        name: "cnn14-decision-att",
        description: "PANNs CNN14 deciding in segments, with attention over time, 32 kHz log-mel, AudioSet mAP 0.425",
        config: ModelConfig::Cnn14(cnn14::Config::DECISION_ATT),
    },
    Preset {
        name: "ced-tiny",
        description: "CED-tiny, 16 kHz log-mel, AudioSet mAP 0.481",
        config: ModelConfig::Ced(ced::Config::TINY),
    },
    Preset {
        name: "ced-mini",
        description: "CED-mini, 16 kHz log-mel, AudioSet mAP 0.490",
        config: ModelConfig::Ced(ced::Config::MINI),
    },
    Preset {
        name: "ced-small",
        description: "CED-small, 16 kHz log-mel, AudioSet mAP 0.496",
        config: ModelConfig::Ced(ced::Config::SMALL),
    },
    Preset {
        name: "ced-base",
        description: "CED-base, 16 kHz log-mel, AudioSet mAP 0.500",
        config: ModelConfig::Ced(ced::Config::BASE),
    },
    Preset {
        name: "leenet11",
        description: "PANNs LeeNet11, 32 kHz waveform, AudioSet mAP 0.266",
        config: ModelConfig::LeeNet(leenet::Config::LEENET11),
    },
    Preset {
        name: "leenet24",
        description: "PANNs LeeNet24, 32 kHz waveform, AudioSet mAP 0.336",
        config: ModelConfig::LeeNet(leenet::Config::LEENET24),
    },
    Preset {
        name: "m5",
        description: "M5 of PyTorch's tutorial, 8 kHz waveform, 35 words, no published weights",
        config: ModelConfig::M5(m5::Config::M5),
    },
    Preset {
        name: "m3",
        description: "M3 of the paper, 8 kHz waveform, no published weights",
        config: ModelConfig::M5(m5::Config::M3_PAPER),
    },
    Preset {
        name: "m5-paper",
        description: "M5 of the paper, 8 kHz waveform, no published weights",
        config: ModelConfig::M5(m5::Config::M5_PAPER),
    },
    Preset {
        name: "m11",
        description: "M11 of the paper, 8 kHz waveform, no published weights",
        config: ModelConfig::M5(m5::Config::M11_PAPER),
    },
    Preset {
        name: "m18",
        description: "M18 of the paper, 8 kHz waveform, no published weights",
        config: ModelConfig::M5(m5::Config::M18_PAPER),
    },
    Preset {
        name: "m34-res",
        description: "M34-res of the paper, 8 kHz waveform, no published weights",
        config: ModelConfig::M5(m5::Config::M34_RES_PAPER),
    },
    Preset {
        name: "crnn",
        description: "CRNN of Datadriven-GPVAD, 22.05 kHz ln-mel, AudioSet classes per frame",
        config: ModelConfig::Crnn(crnn::Config::GPVAD_TEACHER1),
    },
    Preset {
        name: "bigru",
        description: "bidirectional GRU over 64 mels, 16 kHz, mean over time, no published weights",
        config: ModelConfig::Rnn(rnn::Config::BIGRU),
    },
    Preset {
        name: "bilstm-attention",
        description: "bidirectional LSTM over 64 mels, 16 kHz, attention over time, no published weights",
        config: ModelConfig::Rnn(rnn::Config::BILSTM_ATTENTION),
    },
    Preset {
        name: "lstm-speech-commands",
        description: "LSTM over 12 MFCC, 16 kHz, 35 words",
        config: ModelConfig::Rnn(rnn::Config::SPEECH_COMMANDS),
    },
];

impl ModelConfig {
    /// The preset of this name with the number of classes, the embedding's length and the head that the checkpoint has, and for
    /// a CED with the [rule for long clips](ced::WindowMean) of its layout, at its [`place`](Self::place).
    ///
    /// # Errors
    /// [`Error::UnknownModel`] with the known names, and as [`place`](Self::place).
    pub fn by_name(name: &str, weights: &Weights) -> Result<Self> {
        let preset = MODELS.iter().find(|preset| preset.name == name);
        let mut config = preset.map(|preset| preset.config.clone()).ok_or_else(|| {
            let known: Vec<&str> = MODELS.iter().map(|preset| preset.name).collect();
            Error::UnknownModel(format!("no model is called {name:?}; known are {}", known.join(", ")))
        })?;
        let weights = &weights.at(&config.place(weights)?);
        match &mut config {
            Self::Cnn14(config) => config.fit_head(weights),
            Self::LeeNet(config) => config.fit_head(weights),
            Self::M5(config) => config.fit(weights),
            Self::Ced(config) => config.fit(weights),
            Self::Crnn(config) => config.fit(weights),
            Self::Rnn(config) => config.fit(weights),
        }
        Ok(config)
    }

    /// Builds the model from a checkpoint, from the tensors at its [`place`](Self::place) there; others may stand beside it.
    ///
    /// # Errors
    /// [`Error::Weights`] with every tensor that is missing, superfluous or of another shape, [`Error::FrontEnd`] if the
    /// checkpoint's own front end differs from the configuration's, [`Error::Config`] for a configuration that cannot
    /// work, and as [`place`](Self::place).
    pub fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        let weights = &weights.at(&self.place(weights)?);
        Ok(match self {
            Self::Cnn14(config) => Box::new(cnn14::Cnn14::load(config, weights, device)?),
            Self::LeeNet(config) => Box::new(leenet::LeeNet::load(config, weights, device)?),
            Self::M5(config) => Box::new(m5::M5::load(config, weights, device)?),
            Self::Ced(config) => Box::new(ced::Ced::load(config, weights, device)?),
            Self::Crnn(config) => Box::new(crnn::Crnn::load(config, weights, device)?),
            Self::Rnn(config) => Box::new(rnn::AudioRnnClassifier::load(config, weights, device)?),
        })
    }
}
