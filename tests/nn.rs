//! Layers against PyTorch's.

mod common;

use candle_core::{Device, Tensor};
use clipwise::nn::{Activation, LayerNorm, Linear, NormPlace, SelfAttention, TransformerBlock};
use clipwise::{Error, Weights};
use common::{assert_close, golden, hashed, values};

const WIDTH: usize = 24;
const N_TOKENS: usize = 70;

fn block(place: NormPlace) -> TransformerBlock {
    let parameter = |name: &str, shape: &[usize]| {
        let (low, high) = if name.contains("norm") && name.ends_with("weight") { (0.5, 1.5) } else { (-0.3, 0.3) };
        hashed(name, shape.iter().product(), low, high, 5)
    };
    let linear = |weight: &str, bias: &str, inputs: usize, outputs: usize, activation| {
        let (weight, bias) = (parameter(weight, &[outputs, inputs]), parameter(bias, &[outputs]));
        Linear::new(weight, bias, activation, &Device::Cpu).unwrap()
    };
    let norm = |name: &str| {
        let tensors = ["weight", "bias"].map(|leaf| {
            let values = parameter(&format!("{name}.{leaf}"), &[WIDTH]);
            (leaf.to_string(), Tensor::from_vec(values, WIDTH, &Device::Cpu).unwrap())
        });
        LayerNorm::load(&Weights::from_tensors(tensors).unwrap().loader(&Device::Cpu), WIDTH, 1e-5).unwrap()
    };
    let none = Activation::Identity;
    let qkv = linear("self_attn.in_proj_weight", "self_attn.in_proj_bias", WIDTH, 3 * WIDTH, none);
    let output = linear("self_attn.out_proj.weight", "self_attn.out_proj.bias", WIDTH, WIDTH, none);
    TransformerBlock {
        place,
        norm1: norm("norm1"),
        attention: SelfAttention::new(qkv, output, 3).unwrap(),
        norm2: norm("norm2"),
        fc1: linear("linear1.weight", "linear1.bias", WIDTH, 40, Activation::Gelu),
        fc2: linear("linear2.weight", "linear2.bias", 40, WIDTH, none),
        dropout: None,
    }
}

fn input() -> Tensor {
    let x = hashed("x", 3 * N_TOKENS * WIDTH, -2.0, 2.0, 5);
    Tensor::from_vec(x, (3, N_TOKENS, WIDTH), &Device::Cpu).unwrap()
}

#[test]
fn a_transformer_block_equals_pytorch() {
    let (wanted, x, lengths) = (golden("transformer.safetensors"), input(), [70, 1, 33]);
    for (name, place) in [("before", NormPlace::Before), ("after", NormPlace::After)] {
        let block = block(place);
        let y = values(&block.forward(&x, None).unwrap());
        assert_close(name, &y, &wanted.to_vec(name).unwrap(), 1e-5, 1e-5);
        // With lengths: only the tokens inside mean something.
        let y = values(&block.forward(&x, Some(&lengths)).unwrap());
        let wanted = wanted.to_vec(&format!("{name}.lengths")).unwrap();
        for (row, length) in lengths.into_iter().enumerate() {
            let inside = row * N_TOKENS * WIDTH..(row * N_TOKENS + length) * WIDTH;
            assert_close(&format!("{name} {length}"), &y[inside.clone()], &wanted[inside], 1e-5, 1e-5);
        }
    }
}

#[test]
fn layers_refuse_what_does_not_fit() {
    let block = block(NormPlace::Before);
    let x = input();
    for lengths in [vec![], vec![1, 1], vec![0, 1, 1], vec![1, 1, N_TOKENS + 1]] {
        let error = block.forward(&x, Some(&lengths)).unwrap_err();
        assert!(matches!(error, Error::Config { field: "lengths", .. }), "{error}");
    }
    for shape in [(3, N_TOKENS, WIDTH - 1), (3, 0, WIDTH), (0, N_TOKENS, WIDTH)] {
        let x = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(block.forward(&x, None), Err(Error::Tensor { .. })), "{shape:?}");
    }
    let linear = |weight: usize, bias: usize| {
        Linear::new(vec![0.0; weight], vec![0.0; bias], Activation::Identity, &Device::Cpu)
    };
    assert!(linear(7, 2).is_err() && linear(0, 1).is_err() && linear(1, 0).is_err());
    assert!(SelfAttention::new(linear(24, 6).unwrap(), linear(4, 2).unwrap(), 3).is_err());
}
