//! Training: gradients and steps against PyTorch, equality of training and inference, seeds, checkpoints.

mod common;

use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss};
use clipwise::models::{cnn14, m5, rnn};
use clipwise::nn::{ConvConfig, ConvStack, Dropout, Pool1d, Pool2d, Pooling};
use clipwise::weights::{Init, Parameters};
use clipwise::{Detail, Error, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, m5_tensors, max_difference, signal, values};

const SEED: u64 = 17;

fn narrow_m5() -> m5::Config {
    let stages = [4, 8, 8].map(|channels| m5::Stage { channels, layers: 1 }).to_vec().into();
    m5::Config { channels: 4, stages, n_classes: 3, ..m5::Config::M5 }
}

fn narrow_cnn14() -> cnn14::Config {
    cnn14::Config { channels: [2, 3, 4, 4, 5, 6], embedding_dim: 7, n_classes: 3, ..cnn14::Config::AUDIOSET_8K }
}

fn narrow_rnn() -> rnn::Config {
    rnn::Config { hidden: 5, n_classes: 3, pooling: rnn::TimePooling::Attention, ..rnn::Config::BIGRU }
}

fn clips(n_clips: usize, n_samples: usize) -> Tensor {
    let samples: Vec<f32> = (1..=n_clips as u64).flat_map(|seed| signal(n_samples, 8_000, seed)).collect();
    Tensor::from_vec(samples, (n_clips, 1, n_samples), &Device::Cpu).unwrap()
}

fn names(parameters: &Parameters) -> Vec<String> {
    let weights = parameters.weights().unwrap();
    weights.names().filter(|name| !name.contains("running_")).map(str::to_string).collect()
}

#[test]
fn two_steps_of_adamw_equal_pytorch() {
    let reference = golden("m5.safetensors");
    let parameters = Parameters::new(&Device::Cpu, 0);
    let model = m5::M5::build(&narrow_m5(), &parameters.loader()).unwrap();
    let start = m5_tensors(&narrow_m5(), SEED).weights();
    assert_eq!(parameters.restore(&start).unwrap(), start.len());

    // Outside training mode, it equals the model loaded from a checkpoint.
    let (x, labels) = (clips(4, 7000), Tensor::new(&[0u32, 2, 1, 2], &Device::Cpu).unwrap());
    let alone = model.forward_samples(&x.narrow(0, 0, 1).unwrap()).unwrap();
    assert_close("logits", &values(&alone.logits), &reference.to_vec("narrow.7000.logits").unwrap(), 1e-5, 0.0);

    parameters.set_training(true);
    let params = ParamsAdamW { lr: 0.01, eps: 0.01, ..Default::default() };
    let mut optimiser = AdamW::new(parameters.vars(), params).unwrap();
    for step in 0..2 {
        let loss = loss::cross_entropy(&model.forward_samples(&x).unwrap().logits, &labels).unwrap();
        let expected = reference.to_vec(&format!("train.loss{step}")).unwrap();
        assert_close(&format!("loss {step}"), &[loss.to_scalar().unwrap()], &expected, 1e-5, 0.0);
        let gradients = loss.backward().unwrap();
        for (name, var) in names(&parameters).iter().zip(parameters.vars()).filter(|_| step == 0) {
            let key = format!("train.gradient.{name}");
            let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name} has no gradient"));
            // Sums over 4 · 433 positions in f32; the gradient of a bias before a norm is rounding only.
            let atol = if is_bias_before_norm(name) { 5e-5 } else { 2e-6 };
            assert_close(&key, &values(gradient), &reference.to_vec(&key).unwrap(), atol, 1e-4);
        }
        optimiser.step(&gradients).unwrap();
    }
    let trained = parameters.weights().unwrap();
    for name in trained.names() {
        let expected = reference.to_vec(&format!("train.{name}")).unwrap();
        assert_close(name, &trained.to_vec(name).unwrap(), &expected, 1e-4, 1e-4);
    }
}

fn is_bias_before_norm(name: &str) -> bool {
    name.starts_with("conv") && name.ends_with("bias")
}

/// The numeric slope of `f` along each coordinate of `x`, against its gradient. Both steps must lie on the same side of
/// every kink.
fn assert_gradient(what: &str, x: &Tensor, f: impl Fn(&Tensor) -> Tensor) {
    let var = Var::from_tensor(x).unwrap();
    let gradients = f(var.as_tensor()).backward().unwrap();
    let gradient = values(gradients.get(&var).unwrap());
    let at = values(x);
    let step = 1e-2f32;
    let slopes: Vec<f32> = (0..at.len())
        .map(|i| {
            let value = |by: f32| {
                let mut moved = at.clone();
                moved[i] += by;
                let moved = Var::from_tensor(&Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap()).unwrap();
                f64::from(f(moved.as_tensor()).to_scalar::<f32>().unwrap())
            };
            ((value(step) - value(-step)) / f64::from(2.0 * step)) as f32
        })
        .collect();
    assert_close(what, &gradient, &slopes, 2e-3, 1e-2);
}

/// A scalar in which each value of a tensor has a different weight.
fn weighed(y: &Tensor) -> Tensor {
    let weights = hashed("weights", y.elem_count(), -1.0, 1.0, 3);
    let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu).unwrap();
    (y * weights).unwrap().sum_all().unwrap()
}

#[test]
fn gradients_of_layers_equal_numeric_slopes() {
    // Distinct values at least 0.1 apart, so that no step changes which one is the maximum.
    let x: Vec<f32> = (0..2 * 3 * 7).map(|i| ((i * 17) % 42) as f32 * 0.1 - 2.03).collect();
    let x = Tensor::from_vec(x, (2, 3, 7), &Device::Cpu).unwrap();
    for (size, padding) in [(2, 0), (3, 1), (4, 0), (1, 0)] {
        assert_gradient("Pool1d", &x, |x| weighed(&Pool1d { size, padding }.forward(x).unwrap()));
    }
    let maps = x.reshape((1, 2, 3, 7)).unwrap();
    for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
        let pool = Pool2d { pooling, size: (2, 2) };
        assert_gradient("Pool2d", &maps, |x| weighed(&pool.forward(x).unwrap()));
    }
    let parameters = Parameters::new(&Device::Cpu, 5);
    let mut depthwise = ConvStack::on_maps(None);
    let config = ConvConfig { stride: 2, ..ConvConfig::depthwise(2, 3) };
    depthwise.conv(&parameters.loader(), None, config, clipwise::nn::Activation::Hardswish).unwrap();
    assert_gradient("a depthwise convolution", &maps, |x| weighed(&depthwise.forward(x).unwrap()));
    for training in [false, true] {
        let parameters = Parameters::new(&Device::Cpu, 5);
        let loader = parameters.loader();
        let config = ConvConfig { stride: 2, padding: 1, bias: true, ..ConvConfig::new(3, 2, 3) };
        let activation = clipwise::nn::Activation::Identity;
        let mut conv = ConvStack::on_sequences();
        conv.conv(&loader.at("conv"), Some(&loader.at("bn")), config, activation).unwrap();
        parameters.set_training(training);
        assert_gradient("a convolution", &x, |x| weighed(&conv.forward(x).unwrap()));
        // For the filters too, by changing them in the store.
        let weight =
            parameters.vars()[names(&parameters).iter().position(|name| name == "conv.weight").unwrap()].clone();
        let start = weight.as_detached_tensor().copy().unwrap();
        let gradients = weighed(&conv.forward(&x).unwrap()).backward().unwrap();
        let gradient = gradients.get(&weight).unwrap().clone();
        let slopes: Vec<f32> = (0..start.elem_count())
            .map(|i| {
                let value = |by: f32| {
                    let mut moved = values(&start);
                    moved[i] += by;
                    weight.set(&Tensor::from_vec(moved, start.shape(), &Device::Cpu).unwrap()).unwrap();
                    f64::from(weighed(&conv.forward(&x).unwrap()).to_scalar::<f32>().unwrap())
                };
                ((value(1e-2) - value(-1e-2)) / 2e-2) as f32
            })
            .collect();
        assert_close("the filters of a convolution", &values(&gradient), &slopes, 2e-3, 1e-2);
    }
}

#[test]
fn a_trained_model_gives_the_same_when_loaded_for_inference() {
    let rows = |rate: u32| WaveformBatch::new((1..4).map(|seed| signal(9_000, rate, seed)).collect(), rate).unwrap();
    let compare = |name: &str,
                   parameters: &Parameters,
                   built: &dyn TaggingModel,
                   load: &dyn Fn(&Weights) -> Box<dyn TaggingModel>| {
        let batch = rows(built.info().sample_rate);
        // Some training, so that the running statistics differ from their initial values.
        parameters.set_training(true);
        let before = values(&built.forward(&batch, Detail::Clip).unwrap().logits);
        parameters.set_training(false);
        let logits = values(&built.forward(&batch, Detail::Clip).unwrap().logits);
        let loaded = load(&parameters.weights().unwrap());
        assert_close(name, &values(&loaded.forward(&batch, Detail::Clip).unwrap().logits), &logits, 1e-4, 1e-4);
        if name != "rnn" {
            assert!(max_difference(&before, &logits) > 1e-3, "{name}: training mode changes nothing");
        }
        let loss = built.forward(&batch, Detail::Clip).unwrap().logits.sqr().unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in names(parameters).iter().zip(parameters.vars()) {
            assert!(gradients.get(&var).is_some(), "{name} has no gradient");
        }
        // The saved file equals the copy.
        let path = std::env::temp_dir().join(format!("clipwise-training-{}-{name}.safetensors", std::process::id()));
        parameters.save(&path).unwrap();
        let loaded = load(&Weights::read(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_close(name, &values(&loaded.forward(&batch, Detail::Clip).unwrap().logits), &logits, 1e-4, 1e-4);
    };
    let cpu = Device::Cpu;
    let parameters = Parameters::new(&cpu, 1);
    for config in [
        narrow_m5(),
        m5::Config {
            stages: vec![m5::Stage { channels: 8, layers: 2 }].into(),
            channels: 4,
            residual: true,
            padded: true,
            ..narrow_m5()
        },
    ] {
        let parameters = Parameters::new(&cpu, 1);
        let model = m5::M5::build(&config, &parameters.loader()).unwrap();
        compare("m5", &parameters, &model, &|weights| Box::new(m5::M5::load(&config, weights, &cpu).unwrap()));
    }
    let model = cnn14::Cnn14::build(&narrow_cnn14(), &parameters.loader()).unwrap();
    compare("cnn14", &parameters, &model, &|weights| {
        Box::new(cnn14::Cnn14::load(&narrow_cnn14(), weights, &cpu).unwrap())
    });
    let parameters = Parameters::new(&cpu, 1);
    let model = rnn::AudioRnnClassifier::build(&narrow_rnn(), &parameters.loader()).unwrap();
    compare("rnn", &parameters, &model, &|weights| {
        Box::new(rnn::AudioRnnClassifier::load(&narrow_rnn(), weights, &cpu).unwrap())
    });
}

#[test]
fn parameters_depend_on_seed_and_name_only() {
    let tensors = |seed: u64, reverse: bool| {
        let parameters = Parameters::new(&Device::Cpu, seed);
        let mut places = ["a", "b", "c"];
        if reverse {
            places.reverse();
        }
        for place in places {
            parameters.loader().at(place).parameter("weight", (50, 40), Init::of_fan_in(40)).unwrap();
        }
        let weights = parameters.weights().unwrap();
        ["a.weight", "b.weight", "c.weight"].map(|name| weights.to_vec(name).unwrap())
    };
    let [a, b, _] = tensors(1, false);
    assert_eq!(tensors(1, false), tensors(1, true));
    assert_ne!(tensors(1, false), tensors(2, false));
    assert_ne!(a, b);
    let bound = 1.0 / 40f32.sqrt();
    assert!(a.iter().all(|x| x.abs() <= bound));
    let variance = a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32;
    assert!((variance / (bound * bound / 3.0) - 1.0).abs() < 0.1, "{variance}"); // 2000 values: 2 % off typically
}

#[test]
fn dropout_keeps_the_mean_and_is_off_outside_training() {
    let parameters = Parameters::new(&Device::Cpu, 1);
    let x = Tensor::ones((100, 100), candle_core::DType::F32, &Device::Cpu).unwrap();
    let dropout = Dropout::new(&parameters.loader(), 0.2).unwrap();
    assert_eq!(values(&dropout.forward(&x).unwrap()), values(&x));
    parameters.set_training(true);
    let dropped = values(&dropout.forward(&x).unwrap());
    assert!(dropped.iter().all(|&x| x == 0.0 || x == 1.25));
    let mean = dropped.iter().sum::<f32>() / 1e4;
    assert!((mean - 1.0).abs() < 0.03, "{mean}"); // six standard deviations of 0.005
    assert_ne!(values(&dropout.forward(&x).unwrap()), dropped);
    for p in [1.0, -0.1, f64::NAN] {
        assert!(matches!(Dropout::new(&parameters.loader(), p), Err(Error::Config { field: "p", .. })), "{p}");
    }
}

#[test]
fn mismatched_parameters_are_typed_errors() {
    let parameters = Parameters::new(&Device::Cpu, 1);
    parameters.loader().get("weight", (2, 3)).unwrap();
    assert!(matches!(parameters.loader().get("weight", (3, 2)), Err(Error::Argument { name: "shape", .. })));
    let other = Tensor::zeros((3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let other = Weights::from_tensors([("weight".to_string(), other)]).unwrap();
    assert!(matches!(parameters.restore(&other), Err(Error::Argument { name: "weights", .. })));
    assert_eq!(Parameters::new(&Device::Cpu, 1).restore(&other).unwrap(), 0);
    for size in [1 << 62, 1 << 40] {
        assert!(matches!(parameters.loader().get("large", (size, 3)), Err(Error::Argument { name: "shape", .. })));
    }
    let nowhere = std::env::temp_dir().join("clipwise-no-such-folder/model.safetensors");
    assert!(matches!(parameters.save(nowhere), Err(Error::Io { .. })));
}
