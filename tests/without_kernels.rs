//! The code path of GPUs, run on the CPU: layers keep tensors and use the tensor library.

mod common;

use candle_core::{Device, Tensor};
use clipwise::encoders::wav2vec2::{Config, ConvLayer};
use clipwise::encoders::{Layers, SpeechEncoder, Wav2Vec2Encoder, whisper};
use clipwise::models::{Ast, AudioRnnClassifier, Beats, Cnn6, Cnn14, Eat, M5, MobileNet, Passt, WhisperAt};
use clipwise::models::{ast, beats, cnn6, cnn14, eat, efficientat, m5, passt, rnn, whisper_at};
use clipwise::nn::{Cell, Pooling};
use clipwise::weights::{Loader, Parameters};
use clipwise::{Detail, Result, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, cnn14_tensors, complete, m5_tensors, signal, transformer_tensor, values};

/// Scores, frames and embedding with and without the kernels.
fn assert_same<M: TaggingModel>(what: &str, weights: &Weights, build: impl Fn(&Loader) -> Result<M>) {
    let loader = || weights.loader(&Device::Cpu);
    let models = [build(&loader()).unwrap(), build(&loader().without_kernels()).unwrap()];
    let rate = models[0].info().sample_rate;
    let rows = vec![signal(9_000, rate, 1), signal(12_345, rate, 2), signal(300, rate, 3)];
    let batch = WaveformBatch::new(rows, rate).unwrap();
    let details = [Detail::Clip, Detail::Frames].into_iter();
    for detail in details.filter(|&detail| detail == Detail::Clip || models[0].info().frames.is_some()) {
        let [with, without] = models.each_ref().map(|model| {
            let output = model.forward(&batch, detail).unwrap();
            let frames: Option<&Tensor> = output.framewise_output.as_ref();
            [Some(&output.clipwise_output), frames, Some(&output.embedding)].map(|x| x.map(values).unwrap_or_default())
        });
        for (with, without) in with.iter().zip(&without) {
            let largest = with.iter().fold(1.0f32, |largest, x| largest.max(x.abs()));
            assert_close(what, without, with, 1e-5 * largest, 0.0);
        }
    }
}

/// The tensors of a transformer.
fn transformer<M>(load: impl Fn(&Weights) -> Result<M>) -> Weights {
    Weights::from_tensors(complete(Vec::new(), load, |name, shape| transformer_tensor(name, shape, 7))).unwrap()
}

#[test]
fn taggers_agree_with_and_without_kernels() {
    let channels = [4, 8, 8, 12, 16, 24];
    for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
        let config =
            cnn14::Config { channels, pooling, embedding_dim: 20, n_classes: 11, ..cnn14::Config::AUDIOSET_8K };
        assert_same("cnn14", &cnn14_tensors(channels, 20, 11, 20).weights(), |root| Cnn14::build(&config, root));
    }
    for config in [m5::Config::M5, m5::Config { n_classes: 4, ..m5::Config::M34_RES_PAPER }] {
        assert_same(&config.name, &m5_tensors(&config, 3).weights(), |root| M5::build(&config, root));
    }
    // Models without hashed tensors here use those of a new model for training.
    let config = cnn6::Config { channels: [4, 8, 12, 24], embedding_dim: 20, n_classes: 11, ..cnn6::Config::CNN6 };
    let parameters = Parameters::new(&Device::Cpu, 5);
    Cnn6::build(&config, &parameters.loader()).unwrap();
    assert_same("cnn6", &parameters.weights().unwrap(), |root| Cnn6::build(&config, root));
    let mobile = |name: &str, config: efficientat::Config| {
        let parameters = Parameters::new(&Device::Cpu, 7);
        MobileNet::build(&config, &parameters.loader()).unwrap();
        assert_same(name, &parameters.weights().unwrap(), |root| MobileNet::build(&config, root));
    };
    let narrow = || efficientat::Config { n_classes: 11, ..efficientat::Config::MN01 };
    mobile("mn", narrow());
    mobile("mn-fc", efficientat::Config { head: efficientat::Head::FullyConvolutional, ..narrow() });
    mobile("mn-attention", efficientat::Config { head: efficientat::Head::AttentionPooling(2), ..narrow() });
    let dynamic = |block: &efficientat::Block| efficientat::Block { squeezed: 0, context: 8, ..*block };
    mobile("dymn", efficientat::Config { blocks: narrow().blocks.iter().map(dynamic).collect(), ..narrow() });
    for cell in [Cell::Gru, Cell::Lstm] {
        let config = rnn::Config { cell, hidden: 12, ..rnn::Config::BILSTM_ATTENTION };
        let parameters = Parameters::new(&Device::Cpu, 6);
        AudioRnnClassifier::build(&config, &parameters.loader()).unwrap();
        assert_same("rnn", &parameters.weights().unwrap(), |root| AudioRnnClassifier::build(&config, root));
    }
}

#[test]
fn transformers_agree_with_and_without_kernels() {
    let cpu = &Device::Cpu;
    let sizes =
        ast::Config { width: 32, n_heads: 2, ffn_dim: 48, depth: 2, target_length: 64, ..ast::Config::AUDIOSET };
    assert_same("ast", &transformer(|weights| Ast::load(&sizes, weights, cpu)), |root| Ast::build(&sizes, root));
    let sizes = eat::Config { width: 32, n_heads: 2, ffn_dim: 48, depth: 2, target_length: 64, ..eat::Config::BASE };
    assert_same("eat", &transformer(|weights| Eat::load(&sizes, weights, cpu)), |root| Eat::build(&sizes, root));
    let sizes = passt::Config { width: 32, n_heads: 2, depth: 2, ..passt::Config::S10 };
    assert_same("passt", &transformer(|weights| Passt::load(&sizes, weights, cpu)), |root| Passt::build(&sizes, root));
    let sizes = beats::Config { patch_dim: 24, width: 32, n_heads: 4, ffn_dim: 48, depth: 2, ..beats::Config::BASE };
    for preset in [beats::Config::BASE, beats::Config::STRONG] {
        let sizes = beats::Config { strong: preset.strong, n_classes: 5, ..sizes.clone() };
        assert_same("beats", &transformer(|weights| Beats::load(&sizes, weights, cpu)), |root| {
            Beats::build(&sizes, root)
        });
    }
    let encoder = whisper::Config { dim: 32, n_heads: 2, n_blocks: 2, ffn_dim: 128, ..whisper::Config::TINY };
    let sizes = whisper_at::Config { encoder, low_dim: Some(16), n_classes: 5, ..whisper_at::Config::LARGE };
    let weights = transformer(|weights| WhisperAt::load(&sizes, weights, cpu));
    assert_same("whisper-at", &weights, |root| WhisperAt::build(&sizes, root));
}

#[test]
fn a_speech_encoder_agrees_with_and_without_kernels() {
    let convs: Vec<ConvLayer> = Config::BASE.convs.iter().map(|conv| ConvLayer { channels: 16, ..*conv }).collect();
    let sizes = |preset: Config| Config {
        convs: convs.clone().into(),
        dim: 24,
        n_heads: 3,
        n_blocks: 2,
        ffn_dim: 40,
        position_kernel: 16,
        position_groups: 4,
        ..preset
    };
    for config in [sizes(Config::BASE), sizes(Config::LARGE), sizes(Config::WAVLM_BASE), sizes(Config::WAVLM_LARGE)] {
        let make = |name: &str, shape: &[usize]| {
            let values = common::hashed(name, shape.iter().product(), -0.3, 0.3, 9);
            (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        };
        let load = |weights: &Weights| Wav2Vec2Encoder::load(&config, weights, &Device::Cpu);
        let weights = Weights::from_tensors(complete(Vec::new(), load, make)).unwrap();
        let batch = WaveformBatch::new(vec![signal(5_000, 16_000, 1), signal(900, 16_000, 2)], 16_000).unwrap();
        let states = |root: &Loader| {
            let encoded = Wav2Vec2Encoder::build(&config, root).unwrap().forward(&batch, Layers::All).unwrap();
            assert!(encoded.layers.iter().all(|layer| !layer.track_op()), "a loaded encoder keeps no graph");
            encoded.layers.iter().chain([&encoded.last]).flat_map(values).collect::<Vec<f32>>()
        };
        let loader = || weights.loader(&Device::Cpu);
        assert_close("wav2vec2", &states(&loader().without_kernels()), &states(&loader()), 2e-5, 0.0);
    }
}
