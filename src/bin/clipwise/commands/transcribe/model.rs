//! Which model transcribes.

use std::path::Path;

use clipwise::ctc::{CtcConfig, CtcModel, OpenOptions, Vocabulary};
use clipwise::{Device, Weights};
use serde_json::{Map, Value};

use super::encoder;
use crate::message::{self, Failure, say};

/// A model that is built in.
struct BuiltIn {
    name: &'static str,
    config: &'static str,
    vocabulary: &'static str,
    weights: &'static [u8],
}

macro_rules! built_in {
    ($name:literal) => {
        BuiltIn {
            name: $name,
            config: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/", $name, "/config.json")),
            vocabulary: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/", $name, "/vocab.json")),
            weights: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/", $name, "/model.safetensors")),
        }
    };
}

/// The head of a phoneme recogniser, for the published encoder of Whisper tiny.en.
const ON_WHISPER: BuiltIn = built_in!("whisper-tiny-en-phonemes");
/// A recogniser that needs no other file, and was trained on synthesised speech.
const ALONE: BuiltIn = built_in!("gru-ctc-phonemes");

impl BuiltIn {
    /// The model, with its encoder from another checkpoint if it is a head.
    fn open(&self, encoder: Option<&Path>, options: &OpenOptions) -> Result<CtcModel, Failure> {
        let config: CtcConfig = serde_json::from_str(self.config)?;
        let vocabulary: Map<String, Value> = serde_json::from_str(self.vocabulary)?;
        let mut tokens: Vec<(u64, String)> =
            vocabulary.into_iter().map(|(token, id)| (id.as_u64().unwrap_or(u64::MAX), token)).collect();
        tokens.sort();
        let vocabulary = Vocabulary::with_config(tokens.into_iter().map(|(_, token)| token), &config.vocabulary)?;
        let weights = Weights::from_bytes(self.weights)?;
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let model = match encoder {
            Some(encoder) => {
                let encoder = if encoder.is_dir() { Weights::open_folder(encoder)? } else { Weights::open(encoder)? };
                CtcModel::load_with_encoder(&config, &weights, &encoder.with_precision(options.precision), device)?
            }
            None => CtcModel::load(&config, &weights.with_precision(options.precision), device)?,
        };
        Ok(model.with_vocabulary(vocabulary)?)
    }
}

/// A model with the name that results carry.
pub struct Named {
    pub model: CtcModel,
    pub name: String,
}

/// Opens a folder, or a model that is built in; `encoder` is the checkpoint for a head that is published alone.
pub fn open(weights: Option<&Path>, encoder: Option<&Path>, options: &OpenOptions) -> Result<Named, Failure> {
    let found = encoder::find();
    if let Some(found) = found.as_ref().filter(|found| encoder.is_none() && !found.exists()) {
        let found = message::name(found);
        return Err(format!("{}: expected a checkpoint, but {found} does not exist", encoder::VARIABLE).into());
    }
    let encoder_or_found = encoder.or(found.as_deref());
    let Some(weights) = weights else {
        let built_in = if encoder_or_found.is_some() { ON_WHISPER } else { ALONE };
        if encoder_or_found.is_none() {
            say(format_args!(
                "note: {} was not found; using a model trained on synthetic speech. For natural speech, run `hf download {} \
                 model.safetensors`, or name the checkpoint by --encoder or {}",
                encoder::REPOSITORY,
                encoder::REPOSITORY,
                encoder::VARIABLE
            ));
        }
        return Ok(Named { model: built_in.open(encoder_or_found, options)?, name: built_in.name.to_string() });
    };
    let name = message::escaped(&weights.file_name().unwrap_or(weights.as_os_str()).to_string_lossy()).into_owned();
    let on = |encoder: &Path| CtcModel::open_with(weights, &options.clone().encoder(encoder));
    let model = match encoder {
        Some(encoder) => on(encoder)?,
        None => match (CtcModel::open_with(weights, options), &found) {
            (Err(clipwise::Error::UnknownModel(_)), Some(found)) => on(found)?, // the folder holds the head alone
            (opened, _) => opened?,
        },
    };
    Ok(Named { model, name })
}
