//! CTC models: a speech encoder with a head.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::vocabulary::TokenRef;
use super::{FrameTimes, Head, HeadConfig, OpenOptions, Vocabulary, head, languages, vocabulary};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::check_lengths;
use crate::encoders::{Encoded, EncoderConfig, Layers, SpeechEncoder, WeightedSum, WeightedSumConfig, preprocessor};
use crate::error::{Context, Error, Result};
use crate::weights::folder;
use crate::weights::place::{left_out, only};
use crate::weights::{Loader, Weights};

/// Configuration of a [`CtcModel`], as in its `config.json`:
///
/// ```
/// # let json = r#"
/// {
///   "encoder": {"type": "whisper", "name": "whisper-small", "n_mels": 80, "dim": 768, "n_heads": 12, "n_blocks": 12, "ffn_dim": 3072, "n_positions": 1500},
///   "head": {"dim": 768, "n_tokens": 43, "dropout": 0.1}
/// }
/// # "#;
/// # let config: clipwise::ctc::CtcConfig = serde_json::from_str(json).unwrap();
/// # use clipwise::{ctc, encoders};
/// # assert_eq!(config.encoder, encoders::EncoderConfig::Whisper(encoders::whisper::Config::SMALL));
/// # assert_eq!(config.head, ctc::HeadConfig::WHISPER_SMALL);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtcConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// A weighted sum of all layers of the encoder. Default when read from a file: none; the head uses the last layer.
    #[serde(default)]
    pub weighted_sum: Option<WeightedSumConfig>,
    /// The head.
    pub head: HeadConfig,
    /// Special tokens that the token names do not identify. Default when read from a file: blank, unknown token and
    /// word delimiter have their usual names.
    #[serde(default)]
    pub vocabulary: vocabulary::Config,
}

impl CtcConfig {
    /// The configuration in a folder with these weights.
    fn open(folder: &Path, weights: &Weights) -> Result<Self> {
        let path = folder.join("config.json");
        let value = folder::read_json(&path)?;
        match EncoderConfig::is_hugging_face(&value) {
            true => Self::from_hugging_face(folder, &value, weights),
            false => {
                serde_json::from_value(value).map_err(|error| Error::Checkpoint { path, reason: error.to_string() })
            }
        }
    }

    /// The configuration of a folder saved by transformers.
    fn from_hugging_face(path: &Path, config: &Value, weights: &Weights) -> Result<Self> {
        let encoder = EncoderConfig::from_hugging_face(config, preprocessor(path)?.as_ref())?;
        // Defaults of transformers.
        let number = |name: &str, default: u64| config.get(name).and_then(Value::as_u64).unwrap_or(default);
        let blank = usize::try_from(number("pad_token_id", 0)).unwrap_or(usize::MAX);
        let n_tokens = match weights.shape("lm_head.weight") {
            Some(&[n_tokens, _]) => n_tokens, // depends on the language
            _ => usize::try_from(number("vocab_size", 32)).unwrap_or(usize::MAX),
        };
        Ok(Self {
            head: HeadConfig::linear(encoder.dim(), n_tokens),
            encoder,
            weighted_sum: None,
            vocabulary: vocabulary::Config { blank: Some(TokenRef::Index(blank)), ..vocabulary::Config::default() },
        })
    }
}

/// The output of a CTC model for a batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CtcOutput {
    /// Logits of the tokens, `[batch, n_frames, n_tokens]`, f32.
    pub logits: Tensor,
    /// Log-probabilities of the tokens, of the same shape.
    pub log_probs: Tensor,
    /// Number of frames of each clip. Later frames are undefined.
    pub lengths: Vec<usize>,
    /// The time from one frame to the next, in seconds.
    pub frame_seconds: f64,
    /// The times of each clip's frames, for decoders. They include the clip's end if this is the output of a
    /// [`CtcModel`].
    pub times: Vec<FrameTimes>,
}

impl CtcOutput {
    /// Computes the output from logits `[batch, n_frames, n_tokens]`. The first `lengths[b]` frames belong to clip `b`.
    /// The ends of the clips are unknown.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one length per clip, each at most `n_frames`; [`Error::Tensor`] if the shape
    /// is invalid.
    pub fn new(logits: Tensor, lengths: Vec<usize>, frame_seconds: f64) -> Result<Self> {
        let context = "computing log-probabilities of tokens";
        let (batch, n_frames, _) = logits.dims3().context(context)?;
        check_lengths(&lengths, batch, 0..=n_frames)?;
        let log_probs = candle_nn::ops::log_softmax(&logits, D::Minus1).context(context)?;
        let times = vec![FrameTimes::new(frame_seconds); lengths.len()];
        Ok(Self { logits, log_probs, lengths, frame_seconds, times })
    }

    /// The log-probabilities of one clip, without padding: `[n_frames, n_tokens]`, on the host.
    ///
    /// # Errors
    /// [`Error::Argument`] if `index` is not below the number of clips; [`Error::Tensor`] if the tensor cannot be
    /// copied to the host.
    pub fn clip(&self, index: usize) -> Result<Array2<f32>> {
        let Some(&length) = self.lengths.get(index) else {
            return Err(Error::argument(
                "index",
                index,
                format!("expected an index below {}, the number of clips", self.lengths.len()),
            ));
        };
        let context = "copying log-probabilities to the host";
        let clip = || self.log_probs.get(index)?.narrow(0, 0, length)?.flatten_all()?.to_vec1::<f32>();
        let n_tokens = self.log_probs.dim(D::Minus1).context(context)?;
        Array2::from_shape_vec((length, n_tokens), clip().context(context)?)
            .map_err(|error| Error::argument("n_frames", length, error.to_string()))
    }
}

/// A speech encoder with a CTC head, optionally with a weighted sum of the encoder's layers and with the names of its
/// tokens.
///
/// ```no_run
/// use clipwise::ctc::CtcModel;
/// use clipwise::{Waveform, device};
///
/// # fn main() -> clipwise::Result<()> {
/// let model = CtcModel::open("whisper-small-phonemes", &device::cpu())?;
/// let speech = Waveform::open("speech.wav")?.resample(model.sample_rate())?;
/// let output = model.forward(&(&speech).into())?;
/// println!("{:?}", output.clip(0)?.dim()); // [n_frames, n_tokens]
/// # Ok(())
/// # }
/// ```
pub struct CtcModel {
    encoder: Box<dyn SpeechEncoder>,
    sum: Option<WeightedSum>,
    head: Head,
    vocabulary: Option<Vocabulary>,
    assumptions: Vec<Assumption>,
}

/// Tensors of a published model's head, which encoders ignore.
const HEADS: [&str; 2] = ["lm_head.*", "ctc_head.*"];
/// Limit on the prefixes that are tried.
const MAX_PLACES: usize = 16;

impl CtcModel {
    /// Combines an encoder and a head. Without `sum`, the head uses the last layer.
    ///
    /// # Errors
    /// [`Error::Config`] if their dimensions do not match.
    pub fn new(encoder: Box<dyn SpeechEncoder>, sum: Option<WeightedSum>, head: Head) -> Result<Self> {
        let dim = encoder.info().dim;
        if head.config().dim != dim {
            return Err(Error::config(
                "head.dim",
                head.config().dim,
                format!("expected {dim}, the width of the encoder"),
            ));
        }
        let n_layers = encoder.info().n_layers;
        if let Some(sum) = sum.as_ref().filter(|sum| sum.n_layers() != n_layers) {
            let reason = format!("expected {n_layers}, the number of layers of the encoder");
            return Err(Error::config("weighted_sum.n_layers", sum.n_layers(), reason));
        }
        Ok(Self { encoder, sum, head, vocabulary: None, assumptions: Vec::new() })
    }

    /// Builds the model from a loader of a checkpoint, or of parameters to train.
    ///
    /// # Errors
    /// As [`EncoderConfig::build`] and [`new`](Self::new).
    pub fn build(config: &CtcConfig, root: &Loader) -> Result<Self> {
        Self::build_on(config.encoder.build(root)?, config, root)
    }

    /// Builds the sum and the head from a loader, on an existing encoder: for training them on frozen features, or to
    /// load them from a checkpoint.
    ///
    /// # Errors
    /// As [`Head::load`], [`WeightedSum::load`] and [`new`](Self::new).
    pub fn build_on(encoder: Box<dyn SpeechEncoder>, config: &CtcConfig, root: &Loader) -> Result<Self> {
        let sum = config.weighted_sum.map(|sum| WeightedSum::load(root, encoder.info().n_layers, &sum)).transpose()?;
        Self::new(encoder, sum, Head::load(&config.head, root)?)
    }

    /// Builds the model from a checkpoint. The model may be stored below a prefix, as in `net.lm_head.weight`; tensors
    /// outside it are ignored and listed in [`assumptions`](Self::assumptions).
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; [`Error::Weights`] with all tensors that do not fit;
    /// [`Error::UnknownModel`] if models are found below several prefixes, or a head without its encoder.
    pub fn load(config: &CtcConfig, weights: &Weights, device: &Device) -> Result<Self> {
        let has_encoder = |place: &String| config.encoder.is_in(&weights.at(place));
        let heads: Vec<String> = head::places(weights).into_iter().take(MAX_PLACES).collect();
        let places: Vec<&String> = heads.iter().filter(|place| has_encoder(place)).collect();
        if places.is_empty() && !heads.is_empty() {
            return Err(Error::UnknownModel(format!(
                "{}: expected tensors of the encoder {}, got a head without them: use CtcModel::open_with_encoder \
                 to read the encoder from another file",
                weights.path().unwrap_or("<bytes>".as_ref()).display(),
                config.encoder.name(),
            )));
        }
        let place = only(weights, &places)?;
        let at_place = weights.at(&place);
        let root = at_place.loader(device);
        let model = Self::build(config, &root)?;
        root.finish("a CTC model")?;
        Ok(Self { assumptions: left_out(weights, &place).into_iter().collect(), ..model })
    }

    /// Builds the model from two checkpoints: one with the encoder, which may contain other parts of a published model,
    /// and one with the weighted sum and the head.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_encoder(
        config: &CtcConfig,
        weights: &Weights,
        encoder: &Weights,
        device: &Device,
    ) -> Result<Self> {
        let root = encoder.loader(device);
        HEADS.iter().for_each(|head| root.ignore(head));
        let built = config.encoder.build(&root)?;
        root.finish(config.encoder.name())?;
        let root = weights.loader(device);
        let model = Self::build_on(built, config, &root)?;
        root.finish("the head of a CTC model")?;
        Ok(model)
    }

    /// Properties of the model that the checkpoint did not state and that were assumed. Programs should show them to
    /// users.
    pub fn assumptions(&self) -> &[Assumption] {
        &self.assumptions
    }

    /// Opens a folder with `config.json`, weights (`model.safetensors`, the index of its shards, or
    /// `pytorch_model.bin`), and optionally a vocabulary (`vocab.json`, or as in [`Vocabulary::open`]).
    ///
    /// The `config.json` is a [`CtcConfig`], or that of `Wav2Vec2ForCTC` or another `ForCTC` class of transformers for
    /// an [encoder](crate::encoders) of this crate. In that case `preprocessor_config.json` determines whether clips
    /// are normalised, and the padding token is the blank.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Checkpoint`] if a file is invalid; otherwise as
    /// [`load`](Self::load), [`Vocabulary::open`] and [`with_vocabulary`](Self::with_vocabulary).
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::new().device(device))
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Argument`] if the folder has no adapters for the language, or if the model or
    /// the device does not have the [`precision`](OpenOptions#structfield.precision).
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let folder = folder.as_ref();
        let mut weights = folder::open_weights(folder)?;
        if let Some(language) = &options.language {
            weights = weights.overlaid(&languages::open(folder, language)?);
        }
        let mut config = CtcConfig::open(folder, &weights)?;
        if options.language.is_some() {
            config.vocabulary.language = options.language.clone();
        }
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let model = match &options.encoder {
            Some(encoder) => {
                let encoder = if encoder.is_dir() { folder::open_weights(encoder)? } else { Weights::open(encoder)? };
                Self::load_with_encoder(&config, &weights, &encoder.with_precision(options.precision), device)?
            }
            None => Self::load(&config, &weights.with_precision(options.precision), device)?,
        };
        model.named(folder, &config)
    }

    /// Opens a folder with only the weighted sum and the head, and the weights of the published encoder from `encoder`:
    /// a checkpoint, or a folder with one as in [`open`](Self::open), which may contain other parts of its model.
    ///
    /// ```no_run
    /// use clipwise::ctc::CtcModel;
    ///
    /// # fn main() -> clipwise::Result<()> {
    /// // https://huggingface.co/openai/whisper-tiny.en has the second file.
    /// let (head, encoder) = ("weights/whisper-tiny-en-phonemes", "whisper-tiny.en/model.safetensors");
    /// let model = CtcModel::open_with_encoder(head, encoder, &clipwise::device::cpu())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_encoder(folder: impl AsRef<Path>, encoder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::new().device(device).encoder(encoder))
    }

    /// Sets the vocabulary of a folder, if it has one.
    fn named(self, folder: &Path, config: &CtcConfig) -> Result<Self> {
        match vocabulary::in_folder(folder)? {
            Some(_) => self.with_vocabulary(Vocabulary::open_with(folder, &config.vocabulary)?),
            None => Ok(self),
        }
    }

    /// The languages for which a folder has adapters (`adapter.<language>.safetensors`), sorted; empty for most models.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn languages(folder: impl AsRef<Path>) -> Result<Vec<String>> {
        languages::in_folder(folder.as_ref())
    }

    /// Sets the names of the tokens. Trailing special tokens that the head has no output for are dropped; see
    /// [`Vocabulary::for_outputs`].
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the number of tokens differs from the number of the head's outputs.
    pub fn with_vocabulary(self, vocabulary: Vocabulary) -> Result<Self> {
        Ok(Self { vocabulary: Some(vocabulary.for_outputs(self.n_tokens())?), ..self })
    }

    /// The names of the tokens, if known.
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    /// The encoder.
    pub fn encoder(&self) -> &dyn SpeechEncoder {
        &*self.encoder
    }

    /// The weighted sum of the encoder's layers, if the model has one.
    pub fn weighted_sum(&self) -> Option<&WeightedSum> {
        self.sum.as_ref()
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The number of tokens, including the blank.
    pub fn n_tokens(&self) -> usize {
        self.head.config().n_tokens
    }

    /// The sample rate of the input, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.encoder.info().sample_rate
    }

    /// The device of the model.
    pub fn device(&self) -> &Device {
        self.encoder.device()
    }

    /// Runs the model on a batch of clips of any lengths. The result for each row equals that for the clip alone.
    ///
    /// # Errors
    /// As [`SpeechEncoder::forward`].
    pub fn forward(&self, waveforms: &WaveformBatch) -> Result<CtcOutput> {
        let layers = if self.sum.is_some() { Layers::All } else { Layers::Last };
        let mut output = self.forward_encoded(&self.encoder.forward(waveforms, layers)?)?;
        let rate = f64::from(waveforms.sample_rate());
        for (times, samples) in output.times.iter_mut().zip(waveforms.rows()) {
            *times = times.until(samples.len() as f64 / rate);
        }
        Ok(output)
    }

    /// Runs everything after the encoder on its output. If the model has a [weighted sum](Self::weighted_sum),
    /// `encoded` must have all layers. The ends of the clips are unknown.
    ///
    /// # Errors
    /// [`Error::Argument`] if the layers are not those of the weighted sum; [`Error::Config`] if the layers differ from
    /// the output in their number of frames; [`Error::Tensor`] if a shape does not match.
    pub fn forward_encoded(&self, encoded: &Encoded) -> Result<CtcOutput> {
        let hidden = match &self.sum {
            Some(_) if encoded.layer_lengths != encoded.lengths => {
                let reason = "expected none, since the encoder's layers and output differ in their number of frames";
                return Err(Error::config("weighted_sum", "of all layers", reason));
            }
            Some(sum) => &sum.forward(&encoded.layers)?,
            None => &encoded.last,
        };
        let logits = self.head.forward(hidden, Some(&encoded.lengths))?;
        CtcOutput::new(logits, encoded.lengths.clone(), self.encoder.info().frame_seconds)
    }
}

impl std::fmt::Debug for CtcModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { encoder, sum, head, .. } = self;
        f.debug_struct("CtcModel")
            .field("encoder", &encoder.info().name)
            .field("sum", sum)
            .field("head", head)
            .finish_non_exhaustive()
    }
}
