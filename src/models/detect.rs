//! Which model a checkpoint is for, from its keys and shapes.

use super::{MODELS, ModelConfig, ced, cnn14, crnn, leenet, m5, panns};
use crate::error::{Error, Result};
use crate::frontend::LogMelConfig;
use crate::weights::Weights;
use crate::weights::place::{left_out, only};

/// The model of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Detected {
    /// Its configuration, sizes taken from the checkpoint.
    pub config: ModelConfig,
    /// Where its tensors stand in the checkpoint, as [`Weights::at`] takes it: `net` for `net.fc1.weight`; usually empty.
    pub place: String,
    /// What the checkpoint does not say and was assumed, one line each for a person to read.
    pub assumptions: Vec<String>,
}

/// Prefixes below which a model is looked for, at most.
const MAX_PLACES: usize = 16;

/// Names of tensors that tell a family, for the places where a checkpoint may have it.
type Signatures = &'static [&'static [&'static str]];

const CNN14: Signatures = &[&["conv_block6.conv2.weight", "conv_block1.conv1.weight", "fc1.weight"]];
const LEENET: Signatures = &[&["conv_block9.conv1.weight", "conv_block1.conv1.weight", "fc1.weight"]];
const CED: Signatures =
    &[&["outputlayer.1.weight", "time_pos_embed"], &["outputlayer.1.weight", "encoder.time_pos_embed"]];
const CRNN: Signatures = &[&["gru.weight_hh_l0_reverse", "features.6.block.1.weight", "outputlayer.weight"]];
const M5: Signatures = &[
    &["fc1.weight", "conv1.weight", "bn1.weight"],
    &["fc.weight", "model.4.weight"],
    &["fc.weight", "model.5.weight"],
];
const RNN: Signatures =
    &[&["rnn.weight_hh_l0", "fc.weight"], &["gru.weight_hh_l0", "fc.weight"], &["lstm.weight_hh_l0", "fc.weight"]];

/// Finds the model for a checkpoint from the names and shapes of its tensors.
///
/// A model may stand below any prefix that its tensors share, beside other tensors: [`Detected::place`]. Tensors beside it are
/// left out, and named in [`Detected::assumptions`]. Whether all tensors fit is seen at [`ModelConfig::load`].
///
/// `Cnn14_DecisionLevelMax` and `…Avg` have exactly the tensors of CNN14 but compute something else: they are told apart by
/// these words in the published file name.
///
/// # Errors
/// [`Error::UnknownModel`] if no model of this crate has such tensors, with a guess at what it is, or if there are several.
pub fn detect(weights: &Weights) -> Result<Detected> {
    if let Some(detected) = detect_here(weights)? {
        return Ok(detected);
    }
    let mut found = Vec::new();
    for place in weights.places(&[CNN14, LEENET, CED, CRNN, M5].concat()).into_iter().take(MAX_PLACES) {
        if let Some(detected) = detect_here(&weights.at(&place))? {
            found.push(Detected { place, ..detected });
        }
    }
    let place = only(weights, &found.iter().map(|detected| detected.place.as_str()).collect::<Vec<_>>())?;
    let mut detected = found.pop().ok_or_else(|| unknown(weights))?;
    detected.assumptions.extend(left_out(weights, &place));
    Ok(detected)
}

/// The model whose tensors are all of the checkpoint.
fn detect_here(weights: &Weights) -> Result<Option<Detected>> {
    let first = weights.shape("conv_block1.conv1.weight").map(<[usize]>::len);
    let has = |name: &str| weights.contains(name);
    if first == Some(4) && has("conv_block6.conv2.weight") && has("fc1.weight") && !has("pre_conv0.weight") {
        return detect_cnn14(weights).map(Some);
    }
    if first == Some(3) && has("conv_block9.conv1.weight") && has("fc1.weight") && !has("conv0.weight") {
        return Ok(Some(detect_leenet(weights)));
    }
    for encoder in ["", "encoder."] {
        if has(&format!("{encoder}time_pos_embed")) && has("outputlayer.1.weight") {
            return detect_ced(weights, encoder).map(Some);
        }
    }
    if has("features.6.block.1.weight") && has("gru.weight_hh_l0_reverse") && has("outputlayer.weight") {
        return Ok(Some(detect_crnn(weights)));
    }
    let conv = m5::Names::of(has).conv(0);
    if weights.shape(&format!("{conv}.weight")).is_some_and(|shape| shape.len() == 3 && shape[1] == 1)
        && (has("fc1.weight") || has("fc.weight"))
    {
        return Ok(detect_m5(weights));
    }
    Ok(None)
}

impl ModelConfig {
    /// Where a checkpoint has the tensors of this model, as [`Weights::at`] takes it: empty unless they stand below a prefix, or
    /// nowhere.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if several models of the family stand below prefixes.
    pub fn place(&self, weights: &Weights) -> Result<String> {
        let signatures = match self {
            Self::Cnn14(_) => CNN14,
            Self::LeeNet(_) => LEENET,
            Self::M5(_) => M5,
            Self::Ced(_) => CED,
            Self::Crnn(_) => CRNN,
            Self::Rnn(_) => RNN,
        };
        only(weights, &weights.places(signatures))
    }
}

/// The preset with the same number of layers; the paper's where its widths are those of the checkpoint.
fn detect_m5(weights: &Weights) -> Option<Detected> {
    use m5::Config;
    let names = m5::Names::of(|name| weights.contains(name));
    let residual = weights.contains("block1.conv1.weight");
    let layer = |i: &usize| {
        let name = if residual { format!("block{i}.conv1") } else { names.conv(*i) };
        weights.contains(&format!("{name}.weight"))
    };
    let n_layers = (1..weights.len()).take_while(layer).count();
    let paper = [Config::M5_PAPER, Config::M3_PAPER, Config::M11_PAPER, Config::M18_PAPER, Config::M34_RES_PAPER];
    let fitted = |mut config: Config| {
        config.fit(weights);
        config
    };
    let same = |config: &Config| config.residual == residual && config.n_layers() == n_layers;
    let as_published = |config: &Config| {
        let fitted = fitted(config.clone());
        same(config) && fitted == Config { n_classes: fitted.n_classes, ..config.clone() }
    };
    let presets = [Config::M5].into_iter().chain(paper);
    let preset = presets.clone().find(as_published);
    let widened = preset.is_none();
    let config = fitted(preset.or_else(|| presets.clone().find(same))?);
    let of_other_width = if widened { ", as in the preset with so many layers" } else { "" };
    let assumption = format!(
        "this checkpoint of the M5 family does not tell its sample rate and steps: {} Hz and a first step of {} are \
         assumed{of_other_width}",
        config.sample_rate, config.stride
    );
    Some(Detected { config: ModelConfig::M5(config), place: String::new(), assumptions: vec![assumption] })
}

fn detect_crnn(weights: &Weights) -> Detected {
    let mut config = crnn::Config::GPVAD_TEACHER1;
    config.fit(weights);
    let mut assumptions = Vec::new();
    if config.n_classes == 527 {
        assumptions.push("this CRNN checkpoint has no labels: AudioSet's, sorted by name, are assumed".to_string());
    }
    Detected { config: ModelConfig::Crnn(config), place: String::new(), assumptions }
}

fn detect_ced(weights: &Weights, encoder: &str) -> Result<Detected> {
    let width = weights.shape("outputlayer.1.weight").and_then(|shape| shape.get(1).copied()).unwrap_or_default();
    let presets = [ced::Config::TINY, ced::Config::MINI, ced::Config::SMALL, ced::Config::BASE];
    let preset = presets.into_iter().find(|preset| preset.width == width);
    let mut config = preset.ok_or_else(|| {
        Error::UnknownModel(format!("a CED of width {width}: its number of heads is not known, give a config"))
    })?;
    if let Some(&[_, _, _, columns]) = weights.shape(&format!("{encoder}time_pos_embed"))
        && columns != config.target_length / 16
    {
        config.target_length = columns * 16;
    }
    config.fit(weights);
    Ok(Detected { config: ModelConfig::Ced(config), place: String::new(), assumptions: Vec::new() })
}

fn detect_cnn14(weights: &Weights) -> Result<Detected> {
    let mut assumptions = Vec::new();
    let mut log_mel = match panns::n_fft(weights) {
        Some(n_fft) => panns::preset(n_fft).ok_or_else(|| {
            Error::UnknownModel(format!("a CNN14 with frames of {n_fft} samples: no preset has these, give a config"))
        })?,
        None => {
            assumptions.push(
                "this CNN14 checkpoint has no front-end tensors, so nothing in it tells its sample rate: 32 kHz is assumed"
                    .to_string(),
            );
            LogMelConfig::PANNS_32K
        }
    };
    if let Some(&[n_mels]) = weights.shape("bn0.weight") {
        log_mel.mel.n_mels = n_mels;
    }
    let mut config = cnn14::Config { log_mel, ..cnn14::Config::AUDIOSET_32K };
    config.decision = detect_decision(weights, &mut assumptions);
    config.channels = channels(weights, config.channels);
    config.fit_head(weights);
    Ok(Detected { config: ModelConfig::Cnn14(config), place: String::new(), assumptions })
}

/// Where a CNN14 decides: by its tensors, else by the file's name.
fn detect_decision(weights: &Weights, assumptions: &mut Vec<String>) -> cnn14::Decision {
    if weights.contains("att_block.cla.weight") {
        return cnn14::Decision::Att;
    }
    let name = weights.path().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
    let named = [("DecisionLevelMax", cnn14::Decision::Max), ("DecisionLevelAvg", cnn14::Decision::Avg)];
    let Some((word, decision)) = named.into_iter().find(|(word, _)| name.contains(word)) else {
        return cnn14::Decision::Clip;
    };
    assumptions.push(format!(
        "by its name this file is a Cnn14_{word}; its tensors would fit a CNN14 too, which the model name `cnn14` asks for"
    ));
    decision
}

fn detect_leenet(weights: &Weights) -> Detected {
    let two = weights.contains("conv_block1.conv2.weight");
    let mut config = if two { leenet::Config::LEENET24 } else { leenet::Config::LEENET11 };
    config.channels = channels(weights, config.channels);
    config.fit_head(weights);
    Detected { config: ModelConfig::LeeNet(config), place: String::new(), assumptions: Vec::new() }
}

/// Output channels of each block's first convolution; the default where the tensor is missing.
fn channels<const N: usize>(weights: &Weights, default: [usize; N]) -> [usize; N] {
    std::array::from_fn(|i| {
        let shape = weights.shape(&format!("conv_block{}.conv1.weight", i + 1));
        shape.and_then(|shape| shape.first().copied()).unwrap_or(default[i])
    })
}

fn unknown(weights: &Weights) -> Error {
    let has = |prefix: &str| weights.names().any(|name| name.starts_with(prefix));
    let guess = [
        ("pre_conv0.", "a Wavegram model"),
        ("resnet.", "a ResNet or Res1dNet of PANNs"),
        ("features.", "a MobileNet"),
        ("conv_block_after1.", "a ResNet of PANNs"),
        ("conv0.", "DaiNet19 or Res1dNet"),
        ("patch_embed.", "a vision-transformer tagger such as AST or PaSST"),
        ("conv_block4.", "Cnn6 or Cnn10"),
        (
            "rnn.weight_hh_l0",
            "a recurrent classifier, of which nothing tells the front end: name the model or give a config",
        ),
        ("gru.weight_hh_l0", "a GRU classifier, of which nothing tells the front end: name the model or give a config"),
        (
            "lstm.weight_hh_l0",
            "an LSTM classifier, of which nothing tells the front end: name the model or give a config",
        ),
    ];
    let guess = guess.iter().find(|(prefix, _)| has(prefix)).map(|(_, name)| format!(" It looks like {name}."));
    let known: Vec<&str> = MODELS.iter().map(|preset| preset.name).collect();
    let first: Vec<&str> = weights.names().take(3).collect();
    Error::UnknownModel(format!(
        "{}: no model of this version has such tensors ({} of them, the first {first:?}).{} Known models: {}",
        weights.path().unwrap_or("<bytes>".as_ref()).display(),
        weights.len(),
        guess.unwrap_or_default(),
        known.join(", "),
    ))
}
