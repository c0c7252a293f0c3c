//! Small files: dangling links, pipes, devices, folders in place of files, endless files, byte-order marks.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use clipwise::ctc::{CtcModel, LanguageModel, Vocabulary};
use clipwise::{Device, Error, LabelSet, Tagger, Weights};
use common::real;

/// An empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The result of `work`, which must not block.
fn soon<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{what}: no result after 20 s"))
}

/// Opens a path as each kind of small file.
fn open_as_anything(path: &Path) -> Vec<(&'static str, clipwise::Result<()>)> {
    let open = |path: PathBuf| {
        vec![
            ("labels", LabelSet::open(&path).map(drop)),
            ("vocabulary", Vocabulary::open(&path).map(drop)),
            ("s3prl's vocabulary", Vocabulary::open_s3prl(&path).map(drop)),
            ("language model", LanguageModel::open(&path).map(drop)),
            ("weights", Weights::open(&path).map(drop)),
            ("weights in memory", Weights::read(&path).map(drop)),
        ]
    };
    let owned = path.to_path_buf();
    soon(&path.display().to_string(), move || open(owned))
}

#[cfg(unix)]
fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
#[cfg(unix)]
fn files_that_are_not_regular_are_rejected_at_once() {
    let folder = folder("irregular");
    pipe(&folder.join("pipe"));
    std::os::unix::fs::symlink("nowhere", folder.join("link")).unwrap();
    std::os::unix::fs::symlink("pipe", folder.join("link to a pipe")).unwrap();
    let devices = ["/dev/zero", "/dev/null", "/dev/tty"].map(PathBuf::from);
    let here = ["pipe", "link", "link to a pipe"].map(|name| folder.join(name));
    for path in devices.iter().chain(&here) {
        for (what, result) in open_as_anything(path) {
            let is_io = matches!(&result, Err(Error::Io { path: named, .. }) if named == path);
            assert!(is_io, "{} as {what}: {result:?}", path.display());
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn files_of_stated_length_0_are_read() {
    // One line of text in a file with a stated length of 0.
    let path = Path::new("/proc/sys/kernel/ostype");
    if !path.exists() {
        return eprintln!("skipped: no {}", path.display());
    }
    assert_eq!(std::fs::metadata(path).unwrap().len(), 0);
    assert_eq!(LabelSet::open(path).unwrap()[0].name, "Linux");
    // Gigabytes with a stated length of 0: rejected as a checkpoint without reading them.
    let endless = Path::new("/proc/self/pagemap");
    for weights in [Weights::open(endless), Weights::read(endless)] {
        assert!(weights.unwrap_err().to_string().contains("an empty file"));
    }
}

#[test]
fn long_files_are_rejected_without_being_read() {
    let path = folder("long").join("labels.txt");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    for (what, result) in open_as_anything(&path).into_iter().take(3) {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("expected at most 67108864 bytes"), "{what}: {error}");
    }
    std::fs::remove_file(path).unwrap();
}

/// A complete tagger folder.
fn tagger_folder(name: &str) -> PathBuf {
    let folder = folder(name);
    for file in ["model.safetensors", "config.json", "labels.txt"] {
        std::fs::copy(project("weights/m5-spoken-digits").join(file), folder.join(file)).unwrap();
    }
    folder
}

#[test]
fn files_in_a_tagger_folder_are_used_or_cause_an_error() {
    let whole = tagger_folder("whole");
    let labels = Tagger::open(&whole, &Device::Cpu).unwrap().labels().clone();
    assert_ne!(labels[0].name, "class 0");

    // Missing labels or configuration are guessed; unreadable ones are errors.
    let replace = |file: &'static str, with: fn(&Path)| {
        let folder = tagger_folder("broken");
        let _ = std::fs::remove_file(folder.join(file));
        with(&folder.join(file));
        soon(file, move || Tagger::open(&folder, &Device::Cpu).map(drop))
    };
    assert!(replace("labels.txt", |_| ()).is_ok());
    assert!(replace("config.json", |_| ()).is_ok());
    for file in ["config.json", "labels.txt", "labels.csv", "labels.json", "model.safetensors"] {
        let result = replace(file, |path| std::fs::create_dir(path).unwrap());
        assert!(matches!(&result, Err(Error::Io { path, .. }) if path.ends_with(file)), "{file}: {result:?}");
        #[cfg(unix)]
        for with in [
            (|path| pipe(path)) as fn(&Path),
            |path| std::os::unix::fs::symlink("nowhere", path).unwrap(),
            |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        ] {
            let result = replace(file, with);
            assert!(matches!(&result, Err(Error::Io { path, .. }) if path.ends_with(file)), "{file}: {result:?}");
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let config = whole.join("config.json");
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o000)).unwrap();
        match std::fs::read(&config) {
            Ok(_) => eprintln!("skipped: this user may read everything"),
            Err(_) => assert!(matches!(Tagger::open(&whole, &Device::Cpu), Err(Error::Io { .. }))),
        }
    }
}

#[test]
#[cfg(unix)]
fn files_in_a_speech_model_folder_are_used_or_cause_an_error() {
    let source = project("weights/gru-ctc-phonemes");
    for file in ["vocab.json", "config.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"] {
        for with in [(|path| pipe(path)) as fn(&Path), |path| std::os::unix::fs::symlink("nowhere", path).unwrap()] {
            let folder = folder("speech");
            for entry in ["model.safetensors", "config.json", "vocab.json"] {
                std::fs::copy(source.join(entry), folder.join(entry)).unwrap();
            }
            assert!(CtcModel::open(&folder, &Device::Cpu).is_ok());
            let _ = std::fs::remove_file(folder.join(file));
            with(&folder.join(file));
            let result = soon(file, move || CtcModel::open(&folder, &Device::Cpu).map(drop));
            assert!(matches!(&result, Err(Error::Io { path, .. }) if path.ends_with(file)), "{file}: {result:?}");
        }
    }
}

const MARK: &str = "\u{feff}";

#[test]
fn byte_order_marks_are_skipped() {
    let folder = folder("marks");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), format!("{MARK}{text}")).unwrap();
        folder.join(name)
    };
    for (name, text) in [
        ("labels.txt", "Dog\r\nCat\r\n"),
        ("labels.csv", "index,name\n0,Dog\n1,Cat\n"),
        ("labels.json", r#"["Dog", "Cat"]"#),
        ("id2label.json", r#"{"id2label": {"0": "Dog", "1": "Cat"}}"#),
    ] {
        let labels = LabelSet::open(write(name, text)).unwrap();
        assert_eq!(labels.iter().map(|label| label.name.as_str()).collect::<Vec<_>>(), ["Dog", "Cat"], "{name}");
    }
    for (name, text) in [
        ("vocab.json", r#"{"<pad>": 0, "a": 1, "|": 2}"#),
        ("vocab-list.json", r#"["<pad>", "a", "|"]"#),
        ("tokens.txt", "<pad>\na\n|\n"),
        ("numbered.txt", "<pad> 0\na 1\n| 2\n"),
    ] {
        let vocabulary = Vocabulary::open(write(name, text)).unwrap();
        assert_eq!((vocabulary.tokens().join(""), vocabulary.blank()), ("<pad>a|".to_string(), 0), "{name}");
    }
    let fairseq = Vocabulary::open(write("dict.txt", "| 94802\nE 51860\n")).unwrap();
    assert_eq!(fairseq.tokens()[4..], ["|", "E"]);
    let s3prl = Vocabulary::open_s3prl(write("character.txt", "a\nb\n")).unwrap();
    assert_eq!(s3prl.tokens()[3..], ["a", "b"]);

    let arpa = "\\data\\\nngram 1=2\n\n\\1-grams:\n-0.5\t<unk>\n-1.0\ta\n\n\\end\\\n";
    let model = LanguageModel::open(write("model.arpa", arpa)).unwrap();
    assert!(model.contains("a") && LanguageModel::read(format!("{MARK}{arpa}").as_bytes()).unwrap().contains("a"));

    let utf_16: Vec<u8> = "\u{feff}Dog\nCat\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(folder.join("utf-16.txt"), utf_16).unwrap();
    let error = LabelSet::open(folder.join("utf-16.txt")).unwrap_err().to_string();
    assert!(error.contains("expected UTF-8 text, got UTF-16"), "{error}");
    std::fs::write(folder.join("latin-1.txt"), b"Caf\xe9\n").unwrap();
    assert!(LabelSet::open(folder.join("latin-1.txt")).unwrap_err().to_string().contains("expected UTF-8 text"));

    // Folders whose text files all begin with a mark.
    let mark = |source: &str, name: &str, text: &[&str], others: &[&str]| {
        let folder = self::folder(name);
        for file in text {
            let content = std::fs::read_to_string(project(source).join(file)).unwrap();
            std::fs::write(folder.join(file), format!("{MARK}{content}")).unwrap();
        }
        for file in others {
            std::fs::copy(project(source).join(file), folder.join(file)).unwrap();
        }
        folder
    };
    let marked = mark("weights/m5-spoken-digits", "marked", &["config.json", "labels.txt"], &["model.safetensors"]);
    let tagger = Tagger::open(&marked, &Device::Cpu).unwrap();
    let plain = Tagger::open(project("weights/m5-spoken-digits"), &Device::Cpu).unwrap();
    assert_eq!(tagger.labels(), plain.labels());
    let marked = mark("weights/gru-ctc-phonemes", "marked-ctc", &["config.json", "vocab.json"], &["model.safetensors"]);
    let model = CtcModel::open(&marked, &Device::Cpu).unwrap();
    assert_eq!(model.vocabulary().unwrap().len(), model.n_tokens());
    std::fs::write(
        marked.join("model.safetensors.index.json"),
        format!(r#"{MARK} {{"weight_map": {{"encoder.norm.bias": "model.safetensors"}}}}"#),
    )
    .unwrap();
    assert_eq!(Weights::open(marked.join("model.safetensors.index.json")).unwrap().len(), 1);
}

#[test]
fn reported_files_are_handled() {
    let Some(cases) = real("cases") else { return };
    let model = LanguageModel::open(cases.join("bom.arpa")).unwrap();
    assert!(model.order() == 2 && model.contains("aɪ"));
    for (name, expected) in [("ced-depth", "depth"), ("m5-layers", "stages")] {
        let error = Tagger::open(cases.join(name), &Device::Cpu).unwrap_err();
        assert!(
            matches!(error, Error::Config { field, .. } | Error::Argument { name: field, .. } if field == expected),
            "{name}: {error}"
        );
    }
    let error = CtcModel::open(cases.join("whisper-blocks"), &Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::Config { field: "n_blocks", .. }), "{error}");
    let error = Tagger::open(cases.join("cnn14-zeros"), &Device::Cpu).unwrap_err();
    assert!(matches!(&error, Error::Weights(report) if report.stopped), "{error}");
}

#[test]
fn endless_streams_are_rejected_as_language_models() {
    use std::io::{BufReader, Read};
    struct Again(&'static [u8], usize);
    impl Read for Again {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            for byte in buffer.iter_mut() {
                *byte = self.0[self.1 % self.0.len()];
                self.1 += 1;
            }
            Ok(buffer.len())
        }
    }
    let error = |begin: &'static str, again: &'static [u8]| {
        let stream = begin.as_bytes().chain(Again(again, 0));
        soon(begin, move || LanguageModel::read(BufReader::new(stream)).map(drop)).unwrap_err().to_string()
    };
    assert!(error("", b"\0").contains("longer than"));
    assert!(error("", b"words\n").contains("without an n-gram"));
    assert!(error("\\data\\\n", b"\n").contains("without an n-gram"));
    assert!(error("\\data\\\nngram 1=2\n\\1-grams:\n-1 a\n", b" \n").contains("without an n-gram"));
    let twice = "\\data\\\nngram 1=1\n\\1-grams:\n-1 a\n-1 b\n-1 c\n\\end\\\n";
    let error = LanguageModel::read(twice.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("line 5: more 1-grams than the 1"), "{error}");
}
