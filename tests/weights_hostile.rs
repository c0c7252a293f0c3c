//! Damaged and hostile checkpoints: errors, never a panic, in bounded time and memory.

use std::{
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use clipwise::{Error, Weights, weights::Format};

const GOLDEN: [&str; 12] = [
    "weights_checkpoint.safetensors",
    "weights_checkpoint_legacy_p2.pth",
    "weights_checkpoint_legacy_p4.pth",
    "weights_checkpoint_zip_p2.pth",
    "weights_checkpoint_zip_p4.pth",
    "weights_dtypes.safetensors",
    "weights_dtypes_legacy.pth",
    "weights_dtypes_zip.pth",
    "weights_layers.tflite",
    "weights_module.pth",
    "weights_script.pt",
    "weights_torch_types.pth",
];

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

/// Name, shape and bits of a tensor.
type Content = (String, Vec<usize>, Vec<u32>);

/// Opens and reads everything; `None` if opening failed.
fn read_all(bytes: Vec<u8>) -> Option<Vec<Content>> {
    let weights = match Weights::from_bytes(bytes) {
        Ok(weights) => weights,
        Err(Error::Checkpoint { reason, .. }) => {
            assert!(!reason.is_empty());
            return None;
        }
        Err(other) => panic!("{other:?}"),
    };
    let read = |name: &str| {
        let values = weights.to_vec(name).unwrap_or_default();
        let shape = weights.shape(name).unwrap().to_vec();
        (name.to_owned(), shape, values.into_iter().map(f32::to_bits).collect())
    };
    Some(weights.names().map(read).collect())
}

/// The reason why `bytes` are rejected.
fn refused(bytes: impl Into<Vec<u8>>) -> String {
    let start = Instant::now();
    let result = Weights::from_bytes(bytes.into());
    assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
    match result {
        Err(Error::Checkpoint { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn files_truncated_anywhere_are_errors() {
    for name in GOLDEN {
        let whole = golden(name);
        let expected = read_all(whole.clone());
        for len in 0..whole.len() {
            let cut = read_all(whole[..len].to_vec());
            assert!(cut.is_none() || cut == expected, "{name} cut to {len} bytes");
        }
    }
}

#[test]
fn random_damage_causes_no_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    for name in GOLDEN {
        let whole = golden(name);
        for round in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + round % 4 {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = [0, 0xff, 0x7f, 0x80, b'(', b'.', b'h', b'R'][random(8)],
                    2 => drop(bytes.drain(at..(at + 1 + random(8)).min(whole.len() / 2).max(at))),
                    _ => {
                        let from = random(bytes.len());
                        let to = (from + random(40)).min(bytes.len());
                        let copied = bytes[from..to].to_vec();
                        bytes.splice(at..at, copied);
                    }
                }
            }
            read_all(bytes);
        }
    }
    assert_peak_memory();
}

/// Checks the peak memory of this process, if the system reports it.
fn assert_peak_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { return };
    let kilobytes: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("peak memory {kilobytes} kB");
    assert!(kilobytes < 2_000_000, "peak memory {kilobytes} kB");
}

// Hand-made pickles.

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn int(value: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &value.to_le_bytes()].concat()
}

fn tuple(values: &[i64]) -> Vec<u8> {
    [&b"("[..], &values.iter().flat_map(|&value| int(value)).collect::<Vec<_>>(), b"t"].concat()
}

/// The call that creates a tensor of storage `0`, which claims `len` floats.
fn tensor(len: i64, skip: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let storage = [&b"("[..], &text("storage"), b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), &int(len), b"tQ"];
    let parts = [&storage.concat()[..], &int(skip), &tuple(shape), &tuple(strides)];
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", &parts.concat()[..], b"\x89}tR"].concat()
}

/// A dictionary pickle in which `name` is what `value` pushes.
fn dict(name: &str, value: &[u8]) -> Vec<u8> {
    [&b"\x80\x02}"[..], &text(name), value, b"s."].concat()
}

/// A legacy checkpoint of `object` and, if there are any, `floats` as storage `0`.
fn legacy(object: &[u8], floats: &[f32]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend_from_slice(object);
    if floats.is_empty() {
        return [&file[..], b"]."].concat();
    }
    file.extend([&b"\x80\x02]"[..], &text("0"), b"a."].concat());
    file.extend((floats.len() as u64).to_le_bytes());
    file.extend(floats.iter().flat_map(|value| value.to_le_bytes()));
    file
}

struct Member<'a> {
    name: &'a str,
    content: &'a [u8],
    method: u16,
    claimed_len: u32,
    header: Option<u32>,
}

fn member<'a>(name: &'a str, content: &'a [u8]) -> Member<'a> {
    Member { name, content, method: 0, claimed_len: content.len() as u32, header: None }
}

fn zip(members: &[Member]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for Member { name, content, method, claimed_len, header } in members {
        let at = header.unwrap_or(file.len() as u32);
        let mut common = [&20u16.to_le_bytes()[..], &[0, 0], &method.to_le_bytes(), &[0; 8]].concat();
        common.extend(match method {
            0 => claimed_len.to_le_bytes(),
            _ => (content.len() as u32).to_le_bytes(),
        });
        common.extend(claimed_len.to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), content].concat());
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat());
    }
    let (start, len, count) = (file.len() as u32, directory.len() as u32, (members.len() as u16).to_le_bytes());
    file.extend(directory);
    file.extend(
        [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &len.to_le_bytes(), &start.to_le_bytes(), &[0, 0]].concat(),
    );
    file
}

fn zip_checkpoint(object: &[u8], floats: &[f32]) -> Vec<u8> {
    let storage: Vec<u8> = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
    zip(&[member("a/data.pkl", object), member("a/data/0", &storage)])
}

/// A folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn files_that_shrink_while_they_are_open_are_errors() {
    let path = folder("shrinking").join("checkpoint");
    for name in GOLDEN.iter().filter(|name| !["weights_script.pt", "weights_torch_types.pth"].contains(name)) {
        let whole = golden(name);
        let expected = read_all(whole.clone()).unwrap();
        for len in [0, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole).unwrap();
            let (open, read) = (Weights::open(&path).unwrap(), Weights::read(&path).unwrap());
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
            let mut n_gone = 0;
            for (name, _, bits) in &expected {
                match open.to_vec(name) {
                    Ok(values) => assert_eq!(&values.into_iter().map(f32::to_bits).collect::<Vec<_>>(), bits),
                    Err(Error::Checkpoint { reason, .. }) => {
                        assert!(reason.contains(&format!("tensor `{name}`")) && reason.contains("shorter"), "{reason}");
                        n_gone += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
                let values = read.to_vec(name).unwrap();
                assert_eq!(&values.into_iter().map(f32::to_bits).collect::<Vec<_>>(), bits, "held in memory");
            }
            assert!(n_gone > 0 || len > 0, "{name} cut to {len}");
        }
    }
}

#[test]
fn opening_beside_a_writer_gives_the_checkpoint_or_an_error() {
    let path = folder("rewritten").join("checkpoint");
    // Large enough that reading takes longer than the writer needs to begin.
    let floats: Vec<f32> = (0..1 << 20).map(|i| i as f32).collect();
    let object = dict("w", &tensor(floats.len() as i64, 0, &[floats.len() as i64], &[1]));
    let bytes: Vec<u8> = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}}"#, floats.len(), bytes.len());
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat();
    for whole in [safetensors, legacy(&object, &floats), zip_checkpoint(&object, &floats)] {
        std::fs::write(&path, &whole).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (ended, path, whole) = (ended.clone(), path.clone(), whole.clone());
            move || {
                let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                for round in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    // Truncated, then rewritten from the beginning, as `torch.save` does.
                    file.set_len([0, 7, whole.len() as u64 / 2][round % 3]).unwrap();
                    file.rewind().unwrap();
                    file.write_all(&whole).unwrap();
                }
            }
        });
        let (mut n_whole, mut n_refused) = (0, 0);
        for _ in 0..100 {
            match Weights::open(&path).and_then(|weights| weights.to_vec("w")) {
                // Parts that were not yet written when they were read may be zeros.
                Ok(values) => {
                    assert_eq!(values.len(), floats.len());
                    n_whole += usize::from(values == floats);
                }
                Err(Error::Checkpoint { .. }) => n_refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        ended.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        eprintln!("{n_whole} read whole, {n_refused} refused");
        assert_eq!(Weights::open(&path).unwrap().to_vec("w").unwrap(), floats);
    }
}

#[test]
fn strided_tensors_are_read_alike_from_files_and_memory() {
    let floats: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let path = folder("strided").join("checkpoint");
    for (skip, shape, strides) in [
        (0, &[1000][..], &[1][..]),
        (999, &[], &[]),
        (0, &[25, 40], &[1, 25]), // transposed
        (3, &[4, 5, 6], &[100, 1, 7]),
        (0, &[2, 3], &[0, 1]), // repeated
        (1, &[3], &[499]),     // far apart: each element is read separately
        (0, &[2, 2, 2], &[900, 50, 49]),
        (5, &[0, 3], &[1, 1]),
        (0, &[1, 300], &[7, 3]),
    ] {
        let file = zip_checkpoint(&dict("w", &tensor(1000, skip, shape, strides)), &floats);
        std::fs::write(&path, &file).unwrap();
        let mut expected = vec![skip];
        for (&dim, &stride) in shape.iter().zip(strides) {
            expected = expected.iter().flat_map(|first| (0..dim).map(move |i| first + i * stride)).collect();
        }
        let expected: Vec<f32> = expected.into_iter().map(|place| place as f32).collect();
        for weights in [Weights::open(&path).unwrap(), Weights::from_bytes(file).unwrap()] {
            assert_eq!(weights.to_vec("w").unwrap(), expected, "{skip} {shape:?} {strides:?}");
        }
    }
}

/// Pickles longer than the look-ahead.
#[test]
fn long_pickles_of_legacy_files_are_read_whole() {
    let w = tensor(4, 0, &[4], &[1]);
    let path = folder("long").join("checkpoint");
    for n in [1 << 10, 1 << 20, 3 << 20, 9 << 20] {
        let object = [&b"\x80\x02}"[..], &text("x"), &text(&"n".repeat(n)), b"s", &text("w"), &w, b"s."].concat();
        let file = legacy(&object, &[1., 2., 3., 4.]);
        std::fs::write(&path, &file).unwrap();
        assert_eq!(Weights::open(&path).unwrap().to_vec("w").unwrap(), [1., 2., 3., 4.], "{n}");
        std::fs::write(&path, &file[..file.len() - 30]).unwrap();
        assert!(matches!(Weights::open(&path), Err(Error::Checkpoint { .. })), "{n}");
    }
}

#[test]
fn hand_made_files_are_read() {
    let object = dict("w", &tensor(4, 1, &[2], &[2]));
    let floats = [1., 2., 3., 4.];
    for (file, format) in
        [(legacy(&object, &floats), Format::PthLegacy), (zip_checkpoint(&object, &floats), Format::PthZip)]
    {
        let weights = Weights::from_bytes(file).unwrap();
        assert_eq!((weights.format(), weights.to_vec("w").unwrap()), (format, vec![2., 4.]));
    }
}

#[test]
fn files_of_old_pytorch_versions_are_read() {
    // Python 2: byte strings, an ordered dictionary of lists of two.
    let w = tensor(4, 0, &[4], &[1]);
    let object = [&b"\x80\x02ccollections\nOrderedDict\n]](U\x01w"[..], &w, b"ea\x85R."].concat();
    assert_eq!(Weights::from_bytes(legacy(&object, &[1., 2., 3., 4.])).unwrap().to_vec("w").unwrap(), [1., 2., 3., 4.]);
    // A GPU storage that is a view of another (first element 1, length 3), the original `_rebuild_tensor`, a parameter.
    let view = [&b"("[..], &text("v"), &int(1), &int(3), b"t"].concat();
    let storage = [&b"("[..], &text("storage"), b"ctorch.cuda\nFloatStorage\n", &text("0"), &text("cuda:0"), &int(4)];
    let parts = [&storage.concat()[..], &view, b"tQ", &int(1), &tuple(&[2]), &tuple(&[1])];
    let w = [b"ctorch._utils\n_rebuild_tensor\n(", &parts.concat()[..], b"tR"].concat();
    let parameter = [b"ctorch._utils\n_rebuild_parameter\n(", &w[..], b"\x88}tR"].concat();
    let weights = Weights::from_bytes(legacy(&dict("w", &parameter), &[1., 2., 3., 4.])).unwrap();
    assert_eq!(weights.to_vec("w").unwrap(), [3., 4.]);
}

#[test]
fn the_state_dict_is_found() {
    let w = tensor(4, 0, &[4], &[1]);
    let entry = |name: &str, value: &[u8]| [&text(name)[..], value, b"s"].concat();
    let dict_of = |entries: &[Vec<u8>]| [&b"}"[..], &entries.concat()].concat();
    let tensors = |names: &[&str]| dict_of(&names.iter().map(|name| entry(name, &w)).collect::<Vec<_>>());
    let two = tensors(&["a", "b"]);
    let one = tensors(&["c"]);
    for (object, expected) in [
        (dict_of(&[entry("epoch", b"K\x01"), entry("x", &two), entry("y", &one)]), &["a", "b"][..]),
        (dict_of(&[entry("x", &two), entry("weights", &one)]), &["c"]),
        (dict_of(&[entry("model", &two), entry("state_dict", &one)]), &["c"]),
        (dict_of(&[entry("ema", &dict_of(&[entry("state_dict", &two)])), entry("model", &one)]), &["c"]),
        (dict_of(&[entry("optimizer", &two), entry("lr_scheduler", &two), entry("x", &one)]), &["c"]),
        (dict_of(&[entry("scale", &w), entry("model", &two)]), &["a", "b"]),
        (dict_of(&[entry("p", &dict_of(&[entry("q", &dict_of(&[entry("model", &one)]))]))]), &["c"]),
    ] {
        let weights = Weights::from_bytes(legacy(&[&object[..], b"."].concat(), &[1.; 4])).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), expected);
    }
    assert!(refused(legacy(b"}.", &[])).contains("no state dict"));
}

#[test]
fn tensors_that_exceed_their_storage_are_errors() {
    let huge = i64::MAX;
    for (len, skip, shape, strides) in [
        (5, 0, &[2][..], &[1][..]),
        (4, 4, &[1], &[1]),
        (4, 3, &[2], &[1]),
        (4, 0, &[2, 2], &[3, 1]),
        (4, -1, &[2], &[1]),
        (4, 0, &[-2], &[1]),
        (4, 0, &[2], &[-1]),
        (4, 0, &[2], &[1, 1]),
        (4, 0, &[huge, huge], &[0, 0]),
        (4, 0, &[1 << 40], &[0]),
        (4, 0, &[huge, huge, 0], &[1, 1, 1]),
        (4, 0, &[2], &[huge]),
        (4, huge, &[2], &[1]),
        (huge, huge, &[2], &[1]),
        (huge, 0, &[huge], &[1]),
        (-1, 0, &[2], &[1]),
        (4, 0, &[1; 1000], &[1; 1000]),
    ] {
        let object = dict("w", &tensor(len, skip, shape, strides));
        for file in [legacy(&object, &[0.; 4]), zip_checkpoint(&object, &[0.; 4])] {
            refused(file);
        }
    }
}

#[test]
fn pickled_code_is_never_executed() {
    let marker = std::env::temp_dir().join(format!("clipwise-ran-{}", std::process::id()));
    let command = text(&format!("touch {}", marker.display()));
    let w = tensor(4, 0, &[4], &[1]);
    for module in ["os", "posix", "subprocess", "builtins"] {
        let call = [format!("c{module}\nsystem\n(").as_bytes(), &command, b"tR"].concat();
        let stack_global = [&text(module)[..], &text("system"), b"\x93(", &command, b"t\x81"].concat();
        let inst = [&b"("[..], &command, format!("i{module}\nsystem\n").as_bytes()].concat();
        let obj = [format!("(c{module}\nsystem\n").as_bytes(), &command, b"o"].concat();
        for call in [call, stack_global, inst, obj] {
            let object = [&b"\x80\x02}"[..], &text("x"), &call, b"s", &text("w"), &w, b"s."].concat();
            let weights = Weights::from_bytes(legacy(&object, &[1.; 4])).unwrap();
            assert_eq!(weights.names().collect::<Vec<_>>(), ["w"]);
        }
    }
    assert!(!marker.exists());
}

#[test]
fn deep_nesting_and_cycles_are_handled() {
    let n = 1_000_000;
    let w = tensor(4, 0, &[4], &[1]);
    let with = |value: Vec<u8>| [&b"\x80\x02}q\x00"[..], &text("x"), &value, b"s", &text("w"), &w, b"s."].concat();
    let read = |object: Vec<u8>| {
        for file in [legacy(&object, &[1.; 4]), zip_checkpoint(&object, &[1.; 4])] {
            assert_eq!(Weights::from_bytes(file).unwrap().len(), 1);
        }
    };
    read(with([b"]".repeat(n), b"a".repeat(n - 1)].concat()));
    read(with([b"(".repeat(n), b"t".repeat(n)].concat()));
    read(with([b")".to_vec(), b"\x85".repeat(n)].concat()));
    let dicts = [[&b"}"[..], &text("model")].concat().repeat(n), b"N".to_vec(), b"s".repeat(n)].concat();
    read(with(dicts));
    read(with(b"h\x00".to_vec())); // the dictionary itself
    read(with(b"]q\x01h\x01a".to_vec())); // a list that contains itself
    // A million mark opcodes and nothing else.
    assert!(refused(legacy(&b"(".repeat(n), &[])).contains("damaged pickle"));

    // A module that contains itself.
    let parts =
        [&b"cx\nNet\n)\x81q\x01}"[..], &text("_parameters"), b"}s", &text("_modules"), b"}", &text("a"), b"h\x01"];
    let module = [&parts.concat()[..], &b"ssb."[..]].concat();
    assert!(refused(legacy(&module, &[])).contains("too deep"));
}

#[test]
fn expanding_references_take_bounded_memory() {
    // Each tuple holds the one before twice: 2³⁰ leaves.
    let mut laughs = b"}q\x00".to_vec();
    for i in 1..=30u8 {
        laughs.extend([b'0', b'h', i - 1, b'h', i - 1, 0x86, b'q', i]);
    }
    let w = tensor(4, 0, &[4], &[1]);
    let object = [&b"\x80\x02}"[..], &text("x"), &laughs, b"s", &text("w"), &w, b"s."].concat();
    assert_eq!(Weights::from_bytes(legacy(&object, &[1.; 4])).unwrap().len(), 1);

    // A module of 30 levels, each of which holds the next one twice.
    let mut module = b"N".to_vec();
    for _ in 0..30 {
        let inner = [&text("a")[..], b"h\x01s", &text("b"), b"h\x01s"].concat();
        let parts =
            [&b"q\x010cx\nNet\n)\x81}"[..], &text("_parameters"), b"}s", &text("_modules"), b"}", &inner, b"sb"];
        module.extend(parts.concat());
    }
    module.push(b'.');
    assert!(refused(legacy(&module, &[])).contains("too large"));

    // A module of 100 000 attributes that contains itself under 100 000 names; a dictionary with a long key many times.
    let n = 100_000;
    let attributes: Vec<u8> = (0..n).flat_map(|i| [text(&i.to_string()), b"Ns".to_vec()].concat()).collect();
    let inner: Vec<u8> = (0..n).flat_map(|i| [text(&i.to_string()), b"h\x01s".to_vec()].concat()).collect();
    let parts =
        [&b"cx\nNet\n)\x81q\x01}"[..], &attributes, &text("_parameters"), b"}s", &text("_modules"), b"}", &inner];
    refused(legacy(&[&parts.concat()[..], b"sb."].concat(), &[]));
    let long = text(&"k".repeat(1_000_000));
    let many = [&b"}}q\x01N"[..], &long, b"q\x000", &b"h\x00h\x01s".repeat(500_000), b"."].concat();
    refused(legacy(&many, &[]));

    // More values than any checkpoint has: on the stack, in lists, in the memo, as shapes.
    let n = 9_000_000;
    let shape = [&b"ctorch._utils\n_rebuild_tensor_v2\nq\x02"[..], &w[33..w.len() - 1], b"q\x03"].concat();
    for object in [
        b"N".repeat(n),
        b"]".repeat(n),
        b"]2a".repeat(n / 2),
        [b"N".to_vec(), b"\x94".repeat(n)].concat(),
        [&shape[..], &b"h\x02h\x03R0".repeat(n / 2)].concat(),
    ] {
        refused(legacy(&object, &[]));
    }
    assert_peak_memory();
}

#[test]
fn huge_claims() {
    for claim in [
        &b"X\xff\xff\xff\xffabc"[..],
        b"T\xff\xff\xff\x7fabc",
        b"B\xff\xff\xff\xffabc",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x96\x00\x00\x00\x00\x00\x00\x00\x80",
        b"\x8b\xff\xff\xff\x7f\x01",
        b"\x8a\xff\x01",
        b"Nr\xff\xff\xff\xff\x94",
        b"I99999999999999999999999",
        b"cmodule_without_end",
        b"p-1\n",
        b"Np99999999999999999999999\n",
        b"g-5\n",
        b"\xf0",
        b"\x97",
        b"Na",
        b"t",
        b"(N(.",
        b"",
    ] {
        assert!(!refused(legacy(claim, &[])).is_empty());
        assert!(!refused(zip_checkpoint(claim, &[])).is_empty());
    }
    // Counts of legacy storages.
    let object = dict("w", &tensor(4, 0, &[4], &[1]));
    for count in [5, 3, u64::MAX, 1 << 62, 1 << 63] {
        let mut file = legacy(&object, &[1.; 4]);
        let at = file.len() - 24;
        file[at..at + 8].copy_from_slice(&u64::to_le_bytes(count));
        refused(file);
    }
    // A legacy file of a big-endian machine.
    let mut big = legacy(&object, &[1.; 4]);
    let at = big.windows(2).position(|pair| pair == b"}.").unwrap() + 1;
    big.splice(at..at, [&text("little_endian")[..], b"\x89s"].concat());
    assert!(refused(big).contains("big-endian"));
}

#[test]
fn hostile_zip_archives_are_rejected() {
    let object = dict("w", &tensor(4, 0, &[4], &[1]));
    let storage = [0; 16];
    let pickle = || member("a/data.pkl", &object);
    let data = || member("a/data/0", &storage);
    assert!(Weights::from_bytes(zip(&[pickle(), data()])).is_ok());

    let bomb = Member { method: 8, claimed_len: u32::MAX - 1, ..data() };
    assert!(refused(zip(&[pickle(), bomb])).contains("compressed"));
    assert!(refused(zip(&[Member { method: 8, ..pickle() }, data()])).contains("compressed"));
    for header in [1, 7, 1 << 30, u32::MAX - 1, u32::MAX] {
        refused(zip(&[pickle(), Member { header: Some(header), ..data() }]));
    }
    for claimed_len in [0, 15, 1 << 30, u32::MAX] {
        refused(zip(&[pickle(), Member { claimed_len, ..data() }]));
    }
    assert!(refused(zip(&[pickle(), data(), data()])).contains("two members"));
    assert!(refused(zip(&[pickle()])).contains("no storage"));
    assert!(refused(zip(&[data()])).contains("without data.pkl"));
    assert!(refused(zip(&[pickle(), data(), member("a/byteorder", b"big")])).contains("big-endian"));
    assert!(refused(zip(&[pickle(), data(), member("a/code/x.py", b"")])).contains("TorchScript"));
    // Overlapping storages are harmless.
    assert!(Weights::from_bytes(zip(&[pickle(), Member { name: "b", ..pickle() }, data()])).is_ok());

    // End records that point anywhere.
    let whole = zip(&[pickle(), data()]);
    for field in [12, 16] {
        for value in [0, 1, whole.len() as u32, u32::MAX, 1 << 31] {
            let mut file = whole.clone();
            let at = file.len() - 22 + field;
            let unchanged = file[at..at + 4] == value.to_le_bytes();
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(unchanged || !refused(file).is_empty());
        }
    }
    let mut many = b"PK\x03\x04".to_vec();
    many.extend(b"PK\x05\x06".repeat(1_000_000));
    refused(many);
}

#[test]
fn hostile_safetensors_files_are_rejected() {
    let file = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let one =
        |shape: &str, offsets: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
    assert!(Weights::from_bytes(file(&one("[2]", "[0,8]"), 8)).is_ok());
    assert!(Weights::from_bytes(file("{}", 0)).unwrap().is_empty());
    for (shape, offsets, data) in [
        ("[2]", "[0,8]", 7),
        ("[2]", "[0,8]", 9),
        ("[2]", "[1,9]", 9),
        ("[2]", "[8,0]", 8),
        ("[3]", "[0,8]", 8),
        ("[-2]", "[0,8]", 8),
        ("[2]", "[0,18446744073709551615]", 8),
        ("[2]", "[18446744073709551608,18446744073709551615]", 8),
        ("[4611686018427387904,4]", "[0,0]", 0),
        ("[4611686018427387904,4,0]", "[0,0]", 0),
        ("[18446744073709551615]", "[0,0]", 0),
    ] {
        refused(file(&one(shape, offsets), data));
    }
    let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    refused(file(overlap, 12));
    for len in [u64::MAX, 1 << 63, 1 << 40, 1 << 26, 100, 3] {
        let mut bytes = file(&one("[2]", "[0,8]"), 8);
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        refused(bytes);
    }
    refused(file(&"{\"a\":".repeat(1_000_000), 0));
    refused(file(&format!("{{{}", " ".repeat(40_000_000)), 0));
    refused(file(r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8));
}
