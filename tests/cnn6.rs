//! Cnn6 and Cnn10 of PANNs against the reference's class: batches, short clips and frames.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::cnn6::Block;
use clipwise::models::{Cnn6, cnn6, detect};
use clipwise::{Detail, Error, ModelConfig, TaggingModel, WaveformBatch};
use common::{Hashed, Kind, assert_close, golden, signal, values};

const SEED: u64 = 23;
const LENGTHS: [usize; 3] = [15 * 320, 33 * 320 + 7, 39_584];

fn tensors(config: &cnn6::Config) -> Hashed {
    let mut hashed = Hashed::new(SEED);
    hashed.norm("bn0", 64);
    let mut inputs = 1;
    for (i, outputs) in config.channels.into_iter().enumerate() {
        let block = format!("conv_block{}", i + 1);
        let (kernel, n_convs) = if config.block == Block::One5x5 { (5, 1) } else { (3, 2) };
        for conv in 1..=n_convs {
            hashed.tensor(&format!("{block}.conv{conv}.weight"), &[outputs, inputs, kernel, kernel], Kind::Conv);
            hashed.norm(&format!("{block}.bn{conv}"), outputs);
            inputs = outputs;
        }
    }
    hashed.linear("fc1", inputs, config.embedding_dim);
    hashed.linear("fc_audioset", config.embedding_dim, config.n_classes);
    hashed
}

fn narrow(preset: cnn6::Config) -> cnn6::Config {
    cnn6::Config { channels: [4, 8, 12, 24], embedding_dim: 20, n_classes: 11, ..preset }
}

fn load(config: &cnn6::Config) -> Cnn6 {
    Cnn6::load(config, &tensors(config).weights(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 32_000, 3)).collect(), 32_000).unwrap()
}

#[test]
fn every_stage_equals_the_reference_at_both_widths() {
    let presets = [cnn6::Config::CNN6, cnn6::Config::CNN10];
    let models = presets.iter().flat_map(|preset| [("narrow", narrow(preset.clone())), ("full", preset.clone())]);
    for (name, config) in models {
        let golden = golden(if config.block == Block::One5x5 { "cnn6.safetensors" } else { "cnn10.safetensors" });
        let model = load(&config);
        for n in LENGTHS {
            let expected = |key: &str| golden.to_vec(&format!("{name}.{n}.{key}")).unwrap();
            let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            let (scores, embedding) = (expected("clipwise_output"), expected("embedding"));
            let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let what = format!("{name} {n}");
            assert_close(&format!("{what} scores"), &values(&output.clipwise_output), &scores, 1e-5, 0.0);
            assert_close(&format!("{what} embedding"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
            if (name, n) != ("narrow", LENGTHS[1]) {
                continue;
            }
            let log_mel = golden.tensor(&format!("{name}.{n}.log_mel"), &Device::Cpu).unwrap();
            let mut n_blocks = 0;
            let observe = |block: usize, x: &dyn Fn() -> clipwise::Result<Tensor>| {
                let x = x()?;
                let key = format!("block{}", block + 1);
                assert_eq!(x.dims(), golden.shape(&format!("{name}.{n}.{key}")).unwrap());
                assert_close(&key, &values(&x), &expected(&key), 2e-5, 1e-5);
                n_blocks += 1;
                Ok(())
            };
            model.forward_observed(&log_mel, Detail::Clip, observe).unwrap();
            assert_eq!(n_blocks, 4);
        }
    }
}

#[test]
fn rows_and_their_frames_equal_those_of_the_clip_alone() {
    let model = load(&narrow(cnn6::Config::CNN10));
    assert_eq!(model.info().min_samples, 15 * 320);
    let lengths = [20_000, 1, 4799, 4800, 20_000, 33_333];
    let together = model.forward(&batch(&lengths), Detail::Frames).unwrap();
    for (row, n) in lengths.into_iter().enumerate() {
        let alone = model.forward(&batch(&[n]), Detail::Frames).unwrap();
        let row_of = |x: &Tensor| values(&x.get(row).unwrap());
        assert_eq!(row_of(&together.logits), values(&alone.logits), "{n}");
        assert_eq!(row_of(&together.embedding), values(&alone.embedding), "{n}");
        let frames = values(&alone.framewise_output.unwrap());
        assert_eq!(frames.len(), model.log_mel().n_frames(n.max(4800)) * 11);
        assert_eq!(row_of(together.framewise_output.as_ref().unwrap())[..frames.len()], frames, "{n}");
    }
    // A clip of one step has that step's result in each frame.
    let shortest = model.forward(&batch(&[4800]), Detail::Frames).unwrap();
    let (clip, frames) = (values(&shortest.clipwise_output), values(&shortest.framewise_output.unwrap()));
    frames.chunks(11).for_each(|frame| assert_close("frame", frame, &clip, 1e-6, 0.0));
    let short = Tensor::zeros((1, 15, 64), candle_core::DType::F32, &Device::Cpu).unwrap();
    let error = model.forward_features(&short, Detail::Clip).unwrap_err();
    assert!(matches!(error, Error::TooShort { needed: 16, got: 15 }), "{error}");
}

#[test]
fn checkpoints_are_detected() {
    for (preset, n_parameters) in [(cnn6::Config::CNN6, 4_837_455), (cnn6::Config::CNN10, 5_219_279)] {
        let config = cnn6::Config { n_classes: 50, ..preset.clone() };
        let weights = tensors(&config).weights();
        assert_eq!(detect(&weights).unwrap().config, ModelConfig::Cnn6(config));
        let json = serde_json::to_string(&preset).unwrap();
        assert_eq!(serde_json::from_str::<cnn6::Config>(&json).unwrap(), preset);
        let parameters: usize = tensors(&preset)
            .tensors()
            .iter()
            .filter(|(name, _)| !name.contains("running_"))
            .map(|(_, tensor)| tensor.elem_count())
            .sum();
        assert_eq!(parameters, n_parameters);
    }
}
