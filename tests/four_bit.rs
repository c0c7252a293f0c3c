//! 4-bit tensors against bitsandbytes (`golden/four_bit.py`), and damaged ones.

mod common;

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use clipwise::nn::{Activation, Linear};
use clipwise::weights::Dtype;
use clipwise::{Device, Error, Weights};
use common::{assert_close, golden, golden_path, values};
use safetensors::tensor::{Dtype as Stored, SafeTensors, TensorView};

#[test]
fn values_equal_bitsandbytes_bit_for_bit() {
    let weights = golden("four_bit.safetensors");
    let file = std::fs::read(golden_path("four_bit.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&file).unwrap();
    let names: Vec<&str> = weights.names().filter(|name| !name.contains('.')).collect();
    assert_eq!((names.len(), weights.len()), (9, 27), "pieces are not listed");
    for name in names {
        assert_eq!(weights.dtype(name), Some(Dtype::FourBit));
        let mut values = weights.to_vec(name).unwrap();
        assert_eq!(values.len(), weights.shape(name).unwrap().iter().product::<usize>());
        // `dequantize_4bit` rounds to the original element type.
        let state = stored.names().into_iter().find(|full| full.starts_with(&format!("{name}.quant_state"))).unwrap();
        let state = String::from_utf8(stored.tensor(state).unwrap().data().to_vec()).unwrap();
        let round: Option<fn(f32) -> f32> = match () {
            _ if state.contains("\"dtype\": \"bfloat16\"") => Some(|x| half::bf16::from_f32(x).to_f32()),
            _ if state.contains("\"dtype\": \"float16\"") => Some(|x| half::f16::from_f32(x).to_f32()),
            _ => None,
        };
        if let Some(round) = round {
            values.iter_mut().for_each(|x| *x = round(*x));
        }
        assert_eq!(values[..8], weights.to_vec(&format!("{name}.first")).unwrap(), "{name}");
        let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        let hash = values.iter().flat_map(|x| x.to_le_bytes()).fold(0xCBF2_9CE4_8422_2325, fnv);
        let expected = stored.tensor(&format!("{name}.bits")).unwrap().data().try_into().unwrap();
        assert_eq!(hash, u64::from_le_bytes(expected), "{name}");
        assert_eq!(weights.tensor(name, &Device::Cpu).unwrap().dims(), weights.shape(name).unwrap());
    }
}

/// The parts of a quantised tensor: element type, shape, bytes.
type Pieces = HashMap<String, (Stored, Vec<usize>, Vec<u8>)>;

fn pieces() -> Pieces {
    let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let state =
        br#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [10, 20], "nested_blocksize": 3,
        "nested_dtype": "float32", "nested_offset": 0.5}"#;
    let pieces = [
        ("", Stored::U8, vec![100, 1], vec![0x2f; 100]),
        (".absmax", Stored::U8, vec![4], vec![0, 255, 7, 1]),
        (".quant_map", Stored::F32, vec![16], floats(&(0..16).map(|i| i as f32).collect::<Vec<_>>())),
        (".nested_absmax", Stored::F32, vec![2], floats(&[2.0, 4.0])),
        (".nested_quant_map", Stored::F32, vec![256], floats(&(0..256).map(|i| i as f32).collect::<Vec<_>>())),
        (".quant_state.bitsandbytes__nf4", Stored::U8, vec![state.len()], state.to_vec()),
    ];
    pieces.into_iter().map(|(leaf, dtype, shape, bytes)| (format!("fc.weight{leaf}"), (dtype, shape, bytes))).collect()
}

fn open(pieces: &Pieces) -> clipwise::Result<Weights> {
    let views = pieces
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    Weights::from_bytes(safetensors::serialize(views, None).unwrap())
}

#[test]
fn blocks_and_nested_blocks_are_counted_in_values() {
    let weights = open(&pieces()).unwrap();
    assert_eq!(
        (weights.names().collect::<Vec<_>>(), weights.shape("fc.weight")),
        (vec!["fc.weight"], Some(&[10, 20][..]))
    );
    let values = weights.to_vec("fc.weight").unwrap();
    // The high half of a byte comes first.
    let magnitudes = [0.5, 510.5, 14.5, 4.5];
    let expected: Vec<f32> = (0..200).map(|i| [2.0, 15.0][i % 2] * magnitudes[i / 64]).collect();
    assert_eq!(values, expected);
    // The bytes may be stored as any other type.
    let mut wide = pieces();
    let bytes = wide["fc.weight"].2.clone();
    wide.insert("fc.weight".to_string(), (Stored::BF16, vec![50, 1], bytes));
    assert_eq!(open(&wide).unwrap().to_vec("fc.weight").unwrap(), expected);
    // Without quantisation settings these are plain bytes.
    let mut plain = pieces();
    plain.remove("fc.weight.quant_state.bitsandbytes__nf4");
    let plain = open(&plain).unwrap();
    assert_eq!((plain.len(), plain.shape("fc.weight")), (5, Some(&[100, 1][..])));
}

#[test]
fn damaged_parts_are_errors() {
    let refused = |change: &dyn Fn(&mut Pieces)| {
        let mut pieces = pieces();
        change(&mut pieces);
        match open(&pieces) {
            Err(Error::Checkpoint { reason, .. }) => {
                assert!(reason.starts_with("4-bit tensor `fc.weight`: "), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    };
    for piece in ["", ".absmax", ".quant_map", ".nested_quant_map"] {
        refused(&|pieces| drop(pieces.remove(&format!("fc.weight{piece}"))));
    }
    for (piece, n_bytes) in
        [("", 99), (".absmax", 3), (".quant_map", 15), (".nested_absmax", 1), (".nested_quant_map", 255)]
    {
        refused(&|pieces| {
            let (dtype, shape, bytes) = pieces.get_mut(&format!("fc.weight{piece}")).unwrap();
            let size = if *dtype == Stored::F32 { 4 } else { 1 };
            bytes.truncate(n_bytes * size);
            *shape = vec![n_bytes];
        });
    }
    // An `absmax` of numbers instead of bytes that index a table.
    refused(&|pieces| {
        let magnitudes = [1e9f32; 4].iter().flat_map(|x| x.to_le_bytes()).collect();
        pieces.insert("fc.weight.absmax".to_string(), (Stored::F32, vec![4], magnitudes));
    });
    for state in [
        "",
        "{",
        "[]",
        "null",
        r#"{"blocksize": 64}"#,
        r#"{"blocksize": 0, "shape": [10, 20], "nested_blocksize": 3, "nested_offset": 0.5}"#,
        r#"{"blocksize": -1, "shape": [10, 20], "nested_blocksize": 3, "nested_offset": 0.5}"#,
        r#"{"blocksize": 64, "shape": [10, 20], "nested_blocksize": 0, "nested_offset": 0.5}"#,
        r#"{"blocksize": 64, "shape": [10, 20], "nested_blocksize": 3}"#,
        r#"{"blocksize": 64, "shape": [10, 21], "nested_blocksize": 3, "nested_offset": 0.5}"#,
        r#"{"blocksize": 64, "shape": null, "nested_blocksize": 3, "nested_offset": 0.5}"#,
        r#"{"blocksize": 64, "shape": [18446744073709551615, 20], "nested_blocksize": 3, "nested_offset": 0.5}"#,
        r#"{"blocksize": 64, "shape": [4294967296, 4294967296, 0], "nested_blocksize": 3, "nested_offset": 0.5}"#,
        r#"{"blocksize": 18446744073709551615, "shape": [10, 20], "nested_blocksize": 3, "nested_offset": 0.5}"#,
    ] {
        refused(&|pieces| {
            let name = "fc.weight.quant_state.bitsandbytes__nf4".to_string();
            pieces.insert(name, (Stored::U8, vec![state.len()], state.as_bytes().to_vec()));
        });
    }
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    for (dtype, shape, bytes) in [
        (Stored::F32, vec![2], vec![0; 8]),
        (Stored::U8, vec![1 << 17], vec![b' '; 1 << 17]),
        (Stored::U8, vec![60_000], deep.into_bytes()[..60_000].to_vec()),
    ] {
        let name = "fc.weight.quant_state.bitsandbytes__nf4";
        refused(&|pieces| drop(pieces.insert(name.to_string(), (dtype, shape.clone(), bytes.clone()))));
    }
}

/// A layer with 4-bit weights gives the same as one with the decoded values, for any sizes.
#[test]
fn a_layer_with_4_bit_weights_equals_one_with_their_values() {
    for (outputs, inputs, n_rows) in
        [(10usize, 20usize, 3usize), (1, 200, 1), (200, 1, 130), (1000, 300, 5), (300, 1000, 200)]
    {
        let n = outputs * inputs;
        let state = format!(r#"{{"blocksize": 64, "shape": [{outputs}, {inputs}]}}"#);
        let floats =
            |n: usize, step: usize| (0..n).flat_map(|i| ((i * step % 97) as f32 / 50.0 - 0.9).to_le_bytes()).collect();
        let codes = (0..n.div_ceil(2)).map(|i| (i * 89 % 251) as u8).collect();
        let pieces = [
            ("weight", Stored::U8, vec![n.div_ceil(2), 1], codes),
            ("weight.absmax", Stored::F32, vec![n.div_ceil(64)], floats(n.div_ceil(64), 31)),
            ("weight.quant_map", Stored::F32, vec![16], floats(16, 13)),
            ("weight.quant_state.bitsandbytes__fp4", Stored::U8, vec![state.len()], state.into_bytes()),
            ("bias", Stored::F32, vec![outputs], floats(outputs, 7)),
        ];
        let pieces = pieces.map(|(name, dtype, shape, bytes)| (name.to_string(), (dtype, shape, bytes))).into();
        let x: Vec<f32> = (0..n_rows * inputs).map(|i| (i * 7919 % 1009) as f32 / 500.0 - 1.0).collect();
        let x = Tensor::from_vec(x, (1, n_rows, inputs), &Device::Cpu).unwrap();
        let residual = Tensor::ones((1, n_rows, outputs), DType::F32, &Device::Cpu).unwrap();
        let run = |weights: Weights, with_kernels: bool| {
            let loader = weights.loader(&Device::Cpu);
            let loader = if with_kernels { loader } else { loader.without_kernels() };
            let layer = Linear::load(&loader, inputs, outputs, Activation::Gelu).unwrap();
            loader.finish("a layer").unwrap();
            [layer.forward(&x).unwrap(), layer.forward_add(&x, &residual).unwrap()].map(|y| values(&y))
        };
        let expected = run(open(&pieces).unwrap(), true);
        assert_eq!(run(open(&pieces).unwrap().keep_four_bit(), true), expected, "{outputs} {inputs}");
        assert_eq!(run(open(&pieces).unwrap().keep_four_bit().at(""), true), expected);
        let other = run(open(&pieces).unwrap().keep_four_bit(), false);
        (0..2).for_each(|i| assert_close("without kernels", &other[i], &expected[i], 1e-3, 1e-4));
    }
    let mut infinite = pieces();
    let table = [f32::INFINITY; 16].iter().flat_map(|x| x.to_le_bytes()).collect();
    infinite.insert("fc.weight.quant_map".to_string(), (Stored::F32, vec![16], table));
    for weights in [open(&infinite).unwrap(), open(&infinite).unwrap().keep_four_bit()] {
        let error = Linear::load(&weights.loader(&Device::Cpu).at("fc"), 20, 10, Activation::Relu).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    }
    let wrong = open(&pieces()).unwrap().keep_four_bit();
    let loader = wrong.loader(&Device::Cpu);
    Linear::load(&loader.at("fc"), 10, 20, Activation::Relu).unwrap();
    let Err(Error::Weights(report)) = loader.finish("a layer") else { panic!("a wrong shape") };
    assert_eq!((report.wrong_shape.len(), report.missing.len()), (1, 1));
}
