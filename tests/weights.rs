//! Checkpoints against the values that PyTorch wrote (`golden/weights.py`), and against published files.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use clipwise::{
    Error, Weights,
    weights::{Dtype, Format, LoadReport, Parameters},
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Opens the file in every possible way; all must give the same.
fn opened(path: &Path) -> [Weights; 3] {
    let bytes = std::fs::read(path).unwrap();
    [Weights::open(path).unwrap(), Weights::read(path).unwrap(), Weights::from_bytes(bytes).unwrap()]
}

fn bits(weights: &Weights, name: &str) -> Vec<u32> {
    weights.to_vec(name).unwrap().into_iter().map(f32::to_bits).collect()
}

fn assert_same(got: &Weights, expected: &Weights) {
    let names = |weights: &Weights| weights.names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(got), names(expected));
    for name in expected.names() {
        assert_eq!(got.shape(name), expected.shape(name), "{name}");
        assert_eq!(bits(got, name), bits(expected, name), "{name}");
        let tensor = got.tensor(name, &Device::Cpu).unwrap();
        assert_eq!((tensor.dims(), tensor.dtype()), (expected.shape(name).unwrap(), DType::F32), "{name}");
    }
}

fn reason(result: clipwise::Result<Weights>) -> String {
    match result {
        Err(Error::Checkpoint { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn training_checkpoints_of_every_container_and_protocol_are_read() {
    let expected = Weights::open(golden("weights_checkpoint.safetensors")).unwrap();
    assert_eq!(expected.len(), 8);
    for (file, format) in [
        ("weights_checkpoint_zip_p2.pth", Format::PthZip),
        ("weights_checkpoint_zip_p4.pth", Format::PthZip),
        ("weights_checkpoint_legacy_p2.pth", Format::PthLegacy),
        ("weights_checkpoint_legacy_p4.pth", Format::PthLegacy),
    ] {
        for weights in opened(&golden(file)) {
            assert_eq!(weights.format(), format);
            assert!(weights.contains("bn0.running_mean"), "`module.` is stripped");
            assert_same(&weights, &expected);
        }
    }
}

#[test]
fn every_element_type_and_layout_is_read() {
    let expected = Weights::open(golden("weights_dtypes.safetensors")).unwrap();
    assert_eq!(expected.metadata()["made_by"], "tests/golden/weights.py");
    for file in ["weights_dtypes_zip.pth", "weights_dtypes_legacy.pth"] {
        for weights in opened(&golden(file)) {
            assert_same(&weights, &expected);
            let dtypes = ["f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool"];
            let expected = "F64 F32 F16 BF16 I64 I32 I16 I8 U8 Bool";
            assert_eq!(dtypes.map(|name| weights.dtype(name).unwrap().to_string()).join(" "), expected);
            assert_eq!(weights.shape("scalar"), Some(&[][..]));
            assert_eq!(weights.shape("empty"), Some(&[0, 4][..]));
        }
    }
    let half = Weights::open(golden("weights_half.safetensors")).unwrap();
    for name in half.names() {
        assert_eq!(bits(&half, name), bits(&expected, name), "{name}");
    }
    assert_eq!(half.dtype("bf16"), Some(Dtype::BF16));
}

#[test]
fn types_without_a_storage_class_are_read() {
    let expected = Weights::open(golden("weights_torch_types.safetensors")).unwrap();
    let mut weights = Weights::open(golden("weights_torch_types.pth")).unwrap();
    assert_eq!(weights.len(), 7);
    let error = weights.to_vec("f8").unwrap_err().to_string();
    assert!(error.ends_with("tensor `f8`: elements of type float8_e4m3fn cannot be read"), "{error}");
    assert_eq!(weights.dtype("complex"), Some(Dtype::Other("complex64")));
    weights.retain(|name| !["f8", "complex"].contains(&name));
    assert_same(&weights, &expected);

    let weights = Weights::open(golden("weights_float8.safetensors")).unwrap();
    assert_eq!(weights.dtype("f8"), Some(Dtype::Other("F8_E4M3")));
    assert!(weights.to_vec("f8").is_err());
    assert_eq!(weights.to_vec("f32").unwrap().len(), 3);
}

#[test]
fn whole_pickled_modules_are_read() {
    let weights = Weights::open(golden("weights_module.pth")).unwrap();
    assert_same(&weights, &Weights::open(golden("weights_module.safetensors")).unwrap());
}

#[test]
fn layers_of_tensorflow_lite_files_are_read() {
    let expected = Weights::open(golden("weights_layers.safetensors")).unwrap();
    for weights in opened(&golden("weights_layers.tflite")) {
        assert_eq!(weights.format(), Format::TfLite);
        assert_same(&weights, &expected);
    }
}

#[test]
fn unsupported_files_are_identified() {
    let bytes = |bytes: &[u8]| reason(Weights::from_bytes(bytes.to_vec()));
    assert!(reason(Weights::open(golden("weights_script.pt"))).contains("TorchScript"));
    assert!(reason(Weights::open(golden("weights.py"))).contains("an unknown format"));
    assert!(bytes(b"").contains("empty"));
    assert!(bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").contains("Git LFS"));
    assert!(bytes(b"\n<!DOCTYPE html><html>").contains("web page"));
    assert!(bytes(b"{\"weight_map\": {}}").contains("index"));
    assert!(bytes(b"\x80\x02]q\x00.").contains("pickle"));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(bytes(&tar).contains("tar archive"));
    assert!(matches!(Weights::open(golden("no such file")), Err(Error::Io { action: "open", .. })));
    assert!(matches!(Weights::open(golden("")), Err(Error::Io { action: "open", .. })));
}

#[test]
fn sharded_checkpoints_are_read() {
    let folder = std::env::temp_dir().join(format!("clipwise-shards-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let index = folder.join("model.safetensors.index.json");
    let open = |json: &str| {
        std::fs::write(&index, json).unwrap();
        Weights::open(&index)
    };
    for shard in ["half", "dtypes"] {
        std::fs::copy(golden(&format!("weights_{shard}.safetensors")), folder.join(shard)).unwrap();
    }
    let weights = open(r#"{"metadata": {"total_size": 1}, "weight_map": {"f64": "half", "row": "dtypes"}}"#).unwrap();
    let expected = Weights::open(golden("weights_dtypes.safetensors")).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["f64", "row"]);
    assert_eq!(weights.format(), Format::SafetensorsSharded);
    assert_eq!(weights.path(), Some(index.as_path()));
    for name in ["f64", "row"] {
        assert_eq!(bits(&weights, name), bits(&expected, name));
    }

    assert!(reason(open(r#"{"weight_map": {"row": "half"}}"#)).contains("lacks tensor `row`"));
    assert!(matches!(open(r#"{"weight_map": {"row": "absent"}}"#), Err(Error::Io { .. })));
    for shard in ["../half", "/etc/passwd", "a/half", "..", ".", "", "./half", r"..\\half", "C:half", r"half\u0000"] {
        let refused = reason(open(&format!(r#"{{"weight_map": {{"f64": "{shard}"}}}}"#)));
        assert!(refused.contains("not a plain file name"), "{shard}: {refused}");
    }
    let nested = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for json in ["{}", "{", r#"{"weight_map": {"a": 1}}"#, &nested] {
        assert!(reason(open(json)).contains("not the index"), "{}", &json[..1]);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn small() -> Weights {
    let tensor = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors = [
        ("conv1.weight", tensor(&[4, 1, 3])),
        ("bn1.num_batches_tracked", tensor(&[])),
        ("fc.weigth", tensor(&[2, 4])),
        ("fc.bias", tensor(&[3])),
        ("melW", tensor(&[2, 2])),
        ("stft.real", tensor(&[1])),
        ("stft.imag", tensor(&[1])),
    ];
    Weights::from_tensors(tensors.map(|(name, tensor)| (name.to_owned(), tensor))).unwrap()
}

/// `g v / ‖v‖`, with the norm over all axes or over all but one.
#[test]
fn weight_norms_are_folded() {
    let v: Vec<f32> = (0..24).map(|i| (i * 7 % 11) as f32 - 4.5).collect();
    let tensor = |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let weights = |names: [&str; 2], shape: &[usize]| {
        let g = (0..shape.iter().product()).map(|i| 0.5 + i as f32).collect();
        let pieces = [("a.b", vec![1.0], &[1][..]), (names[0], g, shape), (names[1], v.clone(), &[2, 3, 4])];
        let pieces = pieces.map(|(name, values, shape)| (name.to_string(), tensor(values, shape)));
        Weights::from_tensors(pieces).unwrap()
    };
    let old = ["a.weight_g", "a.weight_v"];
    let new = ["a.parametrizations.weight.original0", "a.parametrizations.weight.original1"];
    for (names, shape) in [(old, &[2, 1, 1][..]), (new, &[1, 3, 1]), (old, &[1, 1, 4]), (new, &[1, 1, 1]), (old, &[])] {
        let weights = weights(names, shape);
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a.b", "a.weight"]);
        assert_eq!(weights.shape("a.weight"), Some(&[2, 3, 4][..]));
        let part = |i: usize| match shape {
            [2, ..] => i / 12,
            [_, 3, _] => i / 4 % 3,
            [_, _, 4] => i % 4,
            _ => 0,
        };
        let norm = |of: usize| {
            let squares = v.iter().enumerate().filter(|(i, _)| part(*i) == of).map(|(_, x)| f64::from(*x).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let expected = |i: usize| ((0.5 + part(i) as f64) * f64::from(v[i]) / norm(part(i))) as f32;
        let got = weights.to_vec("a.weight").unwrap();
        got.iter().enumerate().for_each(|(i, x)| assert!((x - expected(i)).abs() <= 1e-6, "{shape:?} {i} {x}"));
    }
    // Tensors that only resemble a weight norm stay as they are.
    assert_eq!(weights(old, &[2, 3, 1]).len(), 3);
    assert_eq!(weights(["a.weight_g", "a.parametrizations.weight.original1"], &[2, 1, 1]).len(), 3);
}

#[test]
fn alternative_names_are_chosen_by_the_checkpoint() {
    let (weights, trained) = (small(), Parameters::new(&Device::Cpu, 1));
    let loader = weights.loader(&Device::Cpu);
    assert_eq!(loader.first_of(&["linear", "f", "fc", "conv1"]), "fc");
    assert_eq!(loader.first_of(&["fc.weight", "fc.bias"]), "fc.bias");
    assert_eq!(loader.at("fc").first_of(&["weight", "bia"]), "weight", "neither is there");
    // In training there are no names yet, and nothing is lacking.
    assert_eq!(trained.loader().first_of(&["linear", "fc"]), "linear");
    assert!(!trained.loader().lacks("linear.weight"));
}

#[test]
fn loading_reports_all_mismatches_at_once() {
    let weights = small();
    let loader = weights.loader(&Device::Cpu);
    let fc = loader.at("fc");
    assert!(!fc.lacks("bias") && fc.lacks("weight"));
    assert_eq!(fc.shape("bias"), Some(&[3][..]));
    assert_eq!(
        loader.at("conv1").get("weight", (4, 1, 3)).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(),
        12.
    );
    assert_eq!(fc.get("weight", (2, 4)).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.);
    assert_eq!(fc.get_vec("bias", &[2]).unwrap(), [0.; 2]);
    assert_eq!(fc.get("bias", 2).unwrap().dims(), [2], "asked for twice, reported once");
    loader.ignore("melW");
    loader.ignore("stft.*");
    loader.ignore("absent");
    let Err(Error::Weights(report)) = loader.finish("Tiny") else { panic!() };
    let text = "the weights do not fit Tiny: 1 missing, 1 of the wrong shape, 1 unexpected
  missing: fc.weight [2, 4] (nearest: fc.weigth)
  wrong shape: fc.bias: expected [2], got [3]
  unexpected: fc.weigth";
    assert_eq!(report.to_string(), text);
    let LoadReport { path, missing, .. } = *report;
    assert_eq!((path, missing[0].nearest.as_deref()), (None, Some("fc.weigth")));
}

#[test]
fn loading_succeeds_if_everything_was_read() {
    let mut weights = small();
    weights.rename(|name| name.replace("weigth", "weight")).unwrap();
    assert!(weights.rename(|_| "same".to_owned()).is_err());
    weights.retain(|name| !name.starts_with("stft") && name != "melW");
    let loader = weights.loader(&Device::Cpu);
    loader.at("conv1").get("weight", (4, 1, 3)).unwrap();
    loader.at("fc").get_vec("weight", &[2, 4]).unwrap();
    loader.at("fc").get("bias", 3).unwrap();
    loader.finish("Tiny").unwrap();
}

#[test]
fn weights_and_loaders_are_send_and_sync() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Weights>();
    crosses::<clipwise::weights::Loader<'_>>();
}

/// The folder of published files; `None`, with a message, if there is none.
fn real() -> Option<PathBuf> {
    let Some(root) = std::env::var_os("CLIPWISE_REAL") else {
        eprintln!("skipped: CLIPWISE_REAL names no folder with published weights");
        return None;
    };
    let folder = Path::new(&root).join("real");
    assert!(folder.is_dir(), "CLIPWISE_REAL is set, but {} is missing", folder.display());
    Some(folder)
}

#[test]
fn published_checkpoints_equal_their_conversions() {
    let Some(real) = real() else { return };
    let yamnet = Weights::open(real.join("yamnet/yamnet.tflite")).unwrap();
    let conversion = Weights::open(real.join("yamnet/yamnet_dequantised.safetensors")).unwrap();
    for name in conversion.names() {
        let stored = name.replace("mel.", "02.fully_connected.").replace("dense.", "03.fully_connected.");
        assert_eq!(yamnet.shape(&stored), conversion.shape(name), "{name}");
        assert_eq!(bits(&yamnet, &stored), bits(&conversion, name), "{name}");
    }
    for (original, format, conversion) in [
        ("panns-leenet11/LeeNet11.pth", Format::PthLegacy, "panns-leenet11/leenet11.safetensors"),
        ("efficientat-mn04/mn04_as_mAP_432.pt", Format::PthZip, "efficientat-mn04/mn04_as.safetensors"),
        ("lstm-speech-commands/kaggle.ckpt", Format::PthLegacy, "lstm-speech-commands/lstm_speechcmd.safetensors"),
    ] {
        let mut original = Weights::open(real.join(original)).unwrap();
        assert_eq!(original.format(), format);
        let conversion = Weights::open(real.join(conversion)).unwrap();
        original.retain(|name| !name.ends_with("num_batches_tracked") || conversion.contains(name));
        assert_same(&original, &conversion);
    }
}

#[test]
fn published_checkpoints_open() {
    let Some(real) = real() else { return };
    let crnn = Weights::open(real.join("crnn-audioset/teacher1.pth")).unwrap();
    assert_eq!(crnn.shape("features.0.block.0.weight"), Some(&[1][..]));
    let mut n_files = 0;
    for folder in std::fs::read_dir(&real).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.to_string_lossy().into_owned();
            if [".safetensors", ".pth", ".pt", ".ckpt"].iter().any(|ending| name.ends_with(ending)) {
                let weights = Weights::open(&file).unwrap();
                assert!(!weights.is_empty(), "{name}");
                for name in weights.names() {
                    weights.to_vec(name).unwrap();
                }
                n_files += 1;
            }
        }
    }
    assert!(n_files >= 12, "{n_files}");
}
