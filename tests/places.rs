//! Models whose tensors have a prefix in the checkpoint, alone or beside other tensors.

mod common;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use clipwise::ctc::{CtcConfig, CtcModel, HeadConfig};
use clipwise::encoders::{EncoderConfig, recurrent};
use clipwise::models::{AudioRnnClassifier, M5, ModelConfig, cnn14, detect, leenet, m5, rnn};
use clipwise::weights::Parameters;
use clipwise::{Assumption, Detail, Error, OpenOptions, Tagger, WaveformBatch, Weights};
use common::{cnn14_tensors, leenet_tensors, m5_tensors, real, signal, values};

type Tensors = Vec<(String, Tensor)>;

fn ones(n: usize) -> Tensor {
    Tensor::ones(n, DType::F32, &Device::Cpu).unwrap()
}

/// The same tensors below a prefix.
fn below(prefix: &str, tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
}

/// One model of each family that is detected by its tensors, with these tensors.
fn families() -> Vec<(ModelConfig, Tensors)> {
    let cnn14 =
        cnn14::Config { channels: [2, 3, 4, 3, 2, 3], embedding_dim: 5, n_classes: 4, ..cnn14::Config::AUDIOSET_32K };
    let leenet = leenet::Config { channels: [2; 9], embedding_dim: 3, n_classes: 4, ..leenet::Config::LEENET11 };
    let m5 = m5::Config { channels: 4, n_classes: 3, ..m5::Config::M5 };
    let residual = m5::Config {
        channels: 2,
        stages: vec![m5::Stage { channels: 2, layers: 16 }].into(),
        ..m5::Config::M34_RES_PAPER
    };
    let ced = Weights::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/ced-tiny/model.safetensors")).unwrap();
    let ced_tensors = ced.names().map(|name| (name.to_string(), ced.tensor(name, &Device::Cpu).unwrap())).collect();
    vec![
        (ModelConfig::Cnn14(cnn14.clone()), cnn14_tensors(cnn14.channels, 5, 4, 1).tensors()),
        (ModelConfig::LeeNet(leenet.clone()), leenet_tensors(&leenet, 1).tensors()),
        (ModelConfig::M5(m5.clone()), m5_tensors(&m5, 1).tensors()),
        (ModelConfig::M5(residual.clone()), m5_tensors(&residual, 1).tensors()),
        (detect(&ced).unwrap().config, ced_tensors),
    ]
}

fn scores(config: &ModelConfig, weights: &Weights) -> Vec<f32> {
    let model = config.load(weights, &Device::Cpu).unwrap();
    let clip = signal(model.info().sample_rate as usize, model.info().sample_rate, 3);
    values(
        &model
            .forward(&WaveformBatch::new(vec![clip], model.info().sample_rate).unwrap(), Detail::Clip)
            .unwrap()
            .clipwise_output,
    )
}

#[test]
fn every_family_is_detected_below_any_prefix() {
    for (config, tensors) in families() {
        let plain = Weights::from_tensors(tensors.clone()).unwrap();
        let detected = detect(&plain).unwrap();
        assert_eq!(detected.place, "");
        let expected = scores(&detected.config, &plain);
        for place in ["net", "encoder.model", "model", "a.b.c.d"] {
            let mut tensors = below(&format!("{place}."), &tensors);
            // Alone (known wrapper prefixes are already removed), then beside other tensors.
            let alone = Weights::from_tensors(tensors.clone()).unwrap();
            let found = detect(&alone).unwrap();
            assert_eq!(
                (found.place.as_str(), &found.config),
                (if place == "model" { "" } else { place }, &detected.config)
            );
            assert_eq!(found.assumptions, detected.assumptions, "nothing is left out");
            assert_eq!(scores(&found.config, &alone), expected, "{place}");

            tensors.extend([("criterion.pos_weight".to_string(), ones(3)), (format!("{place}s.weight"), ones(2))]);
            let beside = Weights::from_tensors(tensors).unwrap();
            let found = detect(&beside).unwrap();
            assert_eq!((found.place.as_str(), &found.config), (place, &detected.config));
            let said = found.assumptions.last().unwrap().to_string();
            assert!(said.contains(&format!("below `{place}.`")) && said.contains("criterion.pos_weight"), "{said}");
            assert_eq!(found.config.place(&beside).unwrap(), place);
            assert_eq!(scores(&found.config, &beside), expected, "{place}");
        }
        assert_eq!(config.place(&plain).unwrap(), "");
    }
}

#[test]
fn a_named_model_takes_its_sizes_from_below_a_prefix() {
    let config = rnn::Config { hidden: 5, n_layers: 1, n_classes: 3, ..rnn::Config::BIGRU };
    let parameters = Parameters::new(&Device::Cpu, 1);
    AudioRnnClassifier::build(&config, &parameters.loader()).unwrap();
    let saved = parameters.weights().unwrap();
    let tensors: Tensors =
        saved.names().map(|name| (name.to_string(), saved.tensor(name, &Device::Cpu).unwrap())).collect();
    let mut lightning = below("classifier.", &tensors);
    lightning.push(("loss.weight".to_string(), ones(3)));
    let lightning = Weights::from_tensors(lightning).unwrap();
    let named = ModelConfig::by_name("bigru", &lightning).unwrap();
    assert_eq!(named, ModelConfig::Rnn(config));
    assert_eq!(scores(&named, &lightning), scores(&named, &saved));
}

/// A checkpoint file with these tensors, in a folder of its own.
fn saved(name: &str, tensors: Tensors) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("places").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("model.safetensors");
    candle_core::safetensors::save(&tensors.into_iter().collect(), &path).unwrap();
    path
}

#[test]
fn taggers_report_ignored_tensors() {
    let config = m5::Config { channels: 4, n_classes: 3, ..m5::Config::M5 };
    let tensors = m5_tensors(&config, 1).tensors();
    let mut lightning = below("model.", &tensors);
    lightning.push(("criterion.pos_weight".to_string(), ones(3)));
    let path = saved("lightning", lightning);
    let left_out =
        Assumption::LeftOut { place: "model".to_string(), tensors: vec!["criterion.pos_weight".to_string()] };
    let folder = path.parent().unwrap();
    std::fs::write(folder.join("config.json"), serde_json::to_string(&ModelConfig::M5(config.clone())).unwrap())
        .unwrap();
    for tagger in [
        Tagger::open(&path, &Device::Cpu),
        Tagger::open_with(&path, &OpenOptions::new().model("m5")),
        Tagger::open(folder, &Device::Cpu),
    ] {
        let tagger = tagger.unwrap();
        assert!(tagger.assumptions().contains(&left_out), "{:?}", tagger.assumptions());
        assert_eq!(tagger.labels().len(), 3);
    }
    // The counter of averaged weights is not worth reporting.
    let mut averaged = below("module.", &tensors);
    averaged.push(("n_averaged".to_string(), ones(1)));
    let tagger = Tagger::open(saved("averaged", averaged), &Device::Cpu).unwrap();
    assert!(
        !tagger.assumptions().iter().any(|said| matches!(said, Assumption::LeftOut { .. })),
        "{:?}",
        tagger.assumptions()
    );
}

#[test]
fn a_reported_lightning_checkpoint_opens() {
    let Some(path) = real("cases/lightning_extra_key.safetensors") else { return };
    let tagger = Tagger::open(&path, &Device::Cpu).unwrap();
    assert_eq!((&*tagger.model().info().name, tagger.labels().len()), ("m5", 10));
    assert!(tagger.assumptions().iter().any(|said| said.to_string().ends_with("ignoring criterion.pos_weight")));
    assert_eq!(Tagger::open_with(&path, &OpenOptions::new().model("m5")).unwrap().labels().len(), 10);
}

#[test]
fn two_models_and_none_are_errors() {
    let config = m5::Config { channels: 4, n_classes: 3, ..m5::Config::M5 };
    let tensors = m5_tensors(&config, 1).tensors();
    let two = [below("student.", &tensors), below("teacher.net.", &tensors)].concat();
    let two = Weights::from_tensors(two).unwrap();
    for error in [
        detect(&two).unwrap_err(),
        ModelConfig::M5(config.clone()).load(&two, &Device::Cpu).err().unwrap(),
        ModelConfig::by_name("m5", &two).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, Error::UnknownModel(_)) && text.contains("expected one model, got 2"), "{text}");
        assert!(text.contains("`student.` and `teacher.net.`"), "{text}");
    }
    // Each of the two separately.
    for place in ["student", "teacher.net", "teacher"] {
        let weights = two.at(place);
        assert_eq!(weights.place(), place);
        assert_eq!(detect(&weights).unwrap().place, if place == "teacher" { "net" } else { "" });
    }
    assert_eq!(two.at("teacher").at("net").place(), "teacher.net");
    assert!(two.at("stud").is_empty() && two.at("").len() == two.len());

    // A model without a prefix takes precedence over one below a prefix, whose tensors are then unexpected.
    let both = [tensors.clone(), below("ema.", &tensors)].concat();
    let both = Weights::from_tensors(both).unwrap();
    assert_eq!(detect(&both).unwrap().place, "");
    let Err(Error::Weights(report)) = ModelConfig::M5(config.clone()).load(&both, &Device::Cpu) else { panic!() };
    assert!(report.unexpected.iter().all(|name| name.starts_with("ema.")) && report.found_below.is_none());

    // Below the prefix, every tensor must belong to the model.
    let mut superfluous = below("net.", &tensors);
    superfluous.extend([("net.extra".to_string(), ones(1)), ("loss".to_string(), ones(1))]);
    let superfluous = Weights::from_tensors(superfluous).unwrap();
    let Err(Error::Weights(report)) = ModelConfig::M5(config.clone()).load(&superfluous, &Device::Cpu) else {
        panic!()
    };
    assert_eq!((report.unexpected, report.place.as_str()), (vec!["extra".to_string()], "net"));
    assert!(matches!(
        detect(&Weights::from_tensors([("loss".to_string(), ones(1))]).unwrap()),
        Err(Error::UnknownModel(_))
    ));
}

#[test]
fn the_report_names_the_prefix_that_fits() {
    let config = m5::Config { channels: 4, n_classes: 3, ..m5::Config::M5 };
    let tensors = m5_tensors(&config, 1).tensors();
    let mut wrapped = below("net.inner.", &tensors);
    wrapped.extend(below("other.", &vec![("conv1.weight".to_string(), ones(4))]));
    let wrapped = Weights::from_tensors(wrapped).unwrap();
    let Err(Error::Weights(report)) = M5::load(&config, &wrapped, &Device::Cpu) else { panic!() };
    assert_eq!(report.found_below.as_deref(), Some("net.inner"));
    assert!(report.to_string().contains("below `net.inner.`: use Weights::at(\"net.inner\")"), "{report}");
    assert!(M5::load(&config, &wrapped.at("net.inner"), &Device::Cpu).is_ok());
    let Err(Error::Weights(report)) = M5::load(&config, &wrapped.at("net"), &Device::Cpu) else { panic!() };
    assert_eq!((report.place.as_str(), report.found_below.as_deref()), ("net", Some("inner")));
    assert!(report.to_string().starts_with("the weights below `net.` do not fit"), "{report}");
}

#[test]
fn speech_models_are_detected_below_any_prefix() {
    let encoder = recurrent::Config { hidden: 4, n_layers: 1, ..recurrent::Config::BIGRU };
    let config = CtcConfig {
        encoder: EncoderConfig::Recurrent(encoder),
        weighted_sum: None,
        head: HeadConfig::linear(8, 5),
        vocabulary: Default::default(),
    };
    let parameters = Parameters::new(&Device::Cpu, 1);
    CtcModel::build(&config, &parameters.loader()).unwrap();
    let saved = parameters.weights().unwrap();
    let tensors: Tensors =
        saved.names().map(|name| (name.to_string(), saved.tensor(name, &Device::Cpu).unwrap())).collect();
    let forward = |model: &CtcModel| {
        let clip = signal(8_000, 16_000, 3);
        values(&model.forward(&WaveformBatch::new(vec![clip], 16_000).unwrap()).unwrap().logits)
    };
    let plain = CtcModel::load(&config, &saved, &Device::Cpu).unwrap();
    assert!(plain.assumptions().is_empty());
    for prefix in ["net.", "asr.model."] {
        let mut wrapped = below(prefix, &tensors);
        let alone = CtcModel::load(&config, &Weights::from_tensors(wrapped.clone()).unwrap(), &Device::Cpu).unwrap();
        assert!(alone.assumptions().is_empty() && forward(&alone) == forward(&plain));
        wrapped.push(("ctc_loss.weight".to_string(), ones(1)));
        let beside = CtcModel::load(&config, &Weights::from_tensors(wrapped).unwrap(), &Device::Cpu).unwrap();
        assert!(
            beside.assumptions()[0].to_string().ends_with("ignoring ctc_loss.weight"),
            "{:?}",
            beside.assumptions()
        );
        assert_eq!(forward(&beside), forward(&plain));
    }
    let two = [below("a.", &tensors), below("b.", &tensors)].concat();
    let error = CtcModel::load(&config, &Weights::from_tensors(two).unwrap(), &Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::UnknownModel(_)), "{error}");
}
