//! Taggers, one model family per file. Each file gives the paper, the shapes, the configurations and the presets.
//!
//! [`presets`] lists the models by name; `docs/models.md` in the repository links their checkpoints. Every model
//! includes its front end and states its sample rate. [`detect`] finds the model that fits a checkpoint. To add a model,
//! add a file and one line in the list of families below.

pub mod ast;
pub mod batch;
pub mod beats;
pub mod birdnet;
pub mod ced;
pub mod cnn14;
pub mod cnn6;
pub mod convnext;
pub mod crnn;
pub mod dainet;
pub mod eat;
pub mod efficientat;
pub mod leenet;
pub mod m5;
pub mod panns_mobilenet;
pub mod passt;
pub mod probe;
pub mod res1dnet;
pub mod resnet;
pub mod rnn;
pub mod sequence;
pub mod speech_classifier;
pub mod tcn;
pub mod wavegram;
pub mod whisper_at;
pub mod yamnet;

mod detect;
mod family;
mod frames;
mod info;
mod panns;
mod vit;

pub(crate) use batch::MAX_SECONDS;
pub use detect::{Detected, detect};
pub use frames::FrameGrid;
pub use info::{Detail, ModelInfo};
pub use panns::{LogMelNet, WaveformNet};

use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::error::{Error, Result};
use crate::frontend::FrontEnd;
#[doc(inline)]
pub use crate::output::OutputActivation;
use crate::output::TaggingOutput;
use crate::weights::Weights;
use family::{Family, families};

/// A model that tags sounds in audio clips.
pub trait TaggingModel: Send + Sync {
    /// Constant properties of the model: sample rate, number of classes, shortest clip.
    fn info(&self) -> &ModelInfo;

    /// The device the model runs on.
    fn device(&self) -> &Device;

    /// Tags a batch of clips of any lengths. Each row equals the result for that clip alone.
    ///
    /// The default implementation serves models with a [`front_end`](Self::front_end): it passes the features of clips
    /// with the same number of frames to [`forward_features`](Self::forward_features) together. Other models implement
    /// this method, usually with [`batch::forward_by_length`].
    ///
    /// # Errors
    /// [`Error::SampleRate`] if the batch is at another rate, [`Error::TooShort`] for a clip without samples,
    /// [`Error::NonFinite`] for a NaN or infinite sample, [`Error::Argument`] if frames are requested from a model
    /// without [`frames`](ModelInfo::frames), [`Error::Tensor`] if a tensor operation fails on the device.
    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let info = self.info();
        info.check(detail)?;
        let front_end = self
            .front_end()
            .ok_or_else(|| Error::argument("batch", &info.name, "the model needs a front end or its own `forward`"))?;
        let run =
            |clips: &[&[f32]]| self.forward_features(&batch::features(front_end, clips, self.device())?.0, detail);
        batch::forward_by_length(batch, info, |n_samples| front_end.n_frames(n_samples), run)
    }

    /// Applies the last layer alone to embeddings `[batch, embedding_dim]` on the model's device. Use it for derived
    /// embeddings, such as the mean over a recording.
    ///
    /// # Errors
    /// [`Error::Argument`] for a model whose output is not a function of its embedding, [`Error::Tensor`] if the shape
    /// or the device does not match.
    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        let _ = embedding;
        Err(Error::argument("embedding", &self.info().name, "this model cannot classify an embedding"))
    }

    /// The front end whose features [`forward_features`](Self::forward_features) takes. Overlapping windows share its
    /// frames. `None` by default.
    fn front_end(&self) -> Option<&dyn FrontEnd> {
        None
    }

    /// Runs everything after the [`front_end`](Self::front_end) on `features` `[batch, n_frames, n_features]`, f32, on
    /// the model's device. The clips must have at least [`min_samples`](ModelInfo::min_samples) samples.
    ///
    /// # Errors
    /// [`Error::Argument`] for a model without a front end, or if frames are requested from a model without frames;
    /// [`Error::TooShort`] (counted in frames) for too few frames; [`Error::Tensor`] if the shape or the device does
    /// not match.
    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let _ = (features, detail);
        Err(Error::argument("features", &self.info().name, "this model has no front end"))
    }
}

/// Forwards the trait through smart pointers, so that a shared or boxed model is a model.
macro_rules! shared {
    ($pointer:ident) => {
        impl<M: TaggingModel + ?Sized> TaggingModel for $pointer<M> {
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
    };
}
shared!(Box);
shared!(Arc);

families! {
    /// CNN14.
    Cnn14: cnn14::Cnn14,
    /// Cnn6 and Cnn10.
    Cnn6: cnn6::Cnn6,
    /// ResNet22 to ResNet54.
    ResNet: resnet::ResNet,
    /// Wavegram-CNN14 and Wavegram-Logmel-CNN14.
    Wavegram: wavegram::Wavegram,
    /// MobileNetV1 and MobileNetV2 of PANNs.
    PannsMobileNet: panns_mobilenet::PannsMobileNet,
    /// LeeNet11 and LeeNet24.
    LeeNet: leenet::LeeNet,
    /// DaiNet19.
    DaiNet: dainet::DaiNet,
    /// Res1dNet31 and Res1dNet51.
    Res1dNet: res1dnet::Res1dNet,
    /// CED-tiny to CED-base.
    Ced: ced::Ced,
    /// AST.
    Ast: ast::Ast,
    /// BEATs and OpenBEATs.
    Beats: beats::Beats,
    /// EAT and SSLAM.
    Eat: eat::Eat,
    /// PaSST.
    Passt: passt::Passt,
    /// EfficientAT's MobileNets and DyMNs, and the frame-wise MobileNets.
    MobileNet: efficientat::MobileNet,
    /// A CRNN: convolutions and a recurrent layer.
    Crnn: crnn::Crnn,
    /// M3 to M34-res.
    M5: m5::M5,
    /// A recurrent classifier (GRU or LSTM).
    Rnn: rnn::AudioRnnClassifier,
    /// ConvNeXt.
    ConvNext: convnext::ConvNext,
    /// BirdNET.
    BirdNet: birdnet::BirdNet,
    /// YAMNet.
    YamNet: yamnet::YamNet,
    /// A temporal convolutional network.
    Tcn: tcn::AudioTcnClassifier,
    /// A speech encoder with a classifier.
    SpeechClassifier: speech_classifier::SpeechClassifier,
    /// Whisper-AT.
    WhisperAt: whisper_at::WhisperAt,
    /// A linear classifier on another model's embeddings.
    Probe: probe::LinearProbe,
}

/// A named, published configuration.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Preset {
    /// A one-line description.
    pub description: &'static str,
    /// The configuration.
    pub config: ModelConfig,
}

impl Preset {
    /// The name, as command-line options take it.
    pub fn name(&self) -> &str {
        self.config.name()
    }
}

/// The presets of one family.
fn presets_of<C: Family + Into<ModelConfig>>() -> Vec<Preset> {
    let preset = |(config, description): &(C, &'static str)| Preset { description, config: config.clone().into() };
    C::PRESETS.iter().map(preset).collect()
}

impl ModelConfig {
    /// The preset `name`, with the number of classes, the embedding length and the head taken from the checkpoint. A
    /// CED also takes the [rule for long clips](ced::WindowMean) that belongs to the layout of its checkpoint. The
    /// tensors are read below the model's [prefix](Self::place).
    ///
    /// # Errors
    /// [`Error::UnknownModel`] listing the known names, otherwise as [`place`](Self::place).
    pub fn by_name(name: &str, weights: &Weights) -> Result<Self> {
        let mut config =
            presets().find(|preset| preset.name() == name).map(|preset| preset.config).ok_or_else(|| {
                Error::UnknownModel(format!("no model is called {name:?}; known models: {}", detect::known()))
            })?;
        config.fit(&weights.at(&config.place(weights)?));
        Ok(config)
    }

    /// Reads the `config.json` of a model saved by transformers, and its `preprocessor_config.json`. `None` if this
    /// crate detects the model from its tensors instead, or does not support it.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that this crate does not support.
    pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Option<Self>> {
        if let Some(config) = ast::Config::from_hugging_face(config, preprocessor)? {
            return Ok(Some(config.into()));
        }
        Ok(speech_classifier::Config::from_hugging_face(config, preprocessor)?.map(Self::from))
    }

    /// Builds the model from the tensors below its [prefix](Self::place) in a checkpoint. Tensors outside it are
    /// ignored.
    ///
    /// # Errors
    /// [`Error::Weights`] listing every tensor that is missing, unexpected or of the wrong shape; [`Error::FrontEnd`]
    /// if the checkpoint's own front end differs from the configuration's; [`Error::Config`] for an invalid
    /// configuration; otherwise as [`place`](Self::place).
    pub fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        self.load_here(&weights.at(&self.place(weights)?), device)
    }
}
