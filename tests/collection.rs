//! The command lines on collections of files: which files, in which order, resuming, and the output.

#[path = "../examples/collection/mod.rs"]
mod collection;
#[path = "../examples/command_line/mod.rs"]
mod command_line;
#[path = "../examples/embed/npy.rs"]
mod npy;
#[path = "../examples/embed/parquet.rs"]
mod parquet;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, RowAccessor};
use clap::{Args, FromArgMatches};
use collection::{Done, FileArgs, JobArgs, Jobs};

/// An empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("collection").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn parse<T: Args + FromArgMatches>(args: &[&str]) -> Result<T, clap::Error> {
    let matches = T::augment_args(clap::Command::new("test").no_binary_name(true)).try_get_matches_from(args)?;
    T::from_arg_matches(&matches)
}

/// The listed names relative to `folder`, and the errors.
fn names(folder: &Path, args: &[&str]) -> Vec<String> {
    let name = |path: PathBuf| path.strip_prefix(folder).unwrap_or(&path).to_str().unwrap().to_string();
    let items = parse::<FileArgs>(args).unwrap().list();
    items.map(|item| item.map_or_else(|error| format!("error: {error}"), name)).collect()
}

#[test]
fn files_are_listed_in_order_and_shards_share_them() {
    let folder = folder("files");
    let all = ["a/1.wav", "a/10.WAV", "a/b/x.flac", "a/notes.txt", "a/.hidden.wav", ".git/y.wav", "c[1].wav", "c1.wav"];
    for file in all {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::create_dir(folder.join("empty")).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let below = ["a/1.wav", "a/10.WAV", "a/b/x.flac", "c1.wav", "c[1].wav"];
    assert_eq!(names(&folder, &[&at("")]), below);
    assert_eq!(names(&folder, &[&at("a/notes.txt"), &at("gone.wav")]), ["a/notes.txt", "gone.wav"]);
    // A literal name takes precedence over a pattern; patterns work as in a shell.
    assert_eq!(names(&folder, &[&at("c[1].wav")]), ["c[1].wav"]);
    assert_eq!(names(&folder, &[&at("c[12].wav")]), ["c1.wav"]);
    assert_eq!(names(&folder, &[&at("**/*.flac"), &at("*")]), ["a/b/x.flac", "c1.wav", "c[1].wav"]);
    for (odd, reason) in [("empty", "no audio files"), ("*.ogg", "no file is"), ("[", "[")] {
        let found = names(&folder, &[&at(odd)]);
        assert!(found.len() == 1 && found[0].contains(reason), "{found:?}");
    }
    // In a list, names are not patterns, blank lines are ignored, and invalid text is an error.
    let list = at("list");
    let text = [at("c[1].wav").as_bytes(), b"\n\n", at("a").as_bytes(), b"\r\n\xFF\n", at("last").as_bytes()].concat();
    fs::write(&list, text).unwrap();
    let found = names(&folder, &["--files-from", &list, &at("c1.wav")]);
    assert_eq!(found[..5], ["c1.wav", "c[1].wav", "a/1.wav", "a/10.WAV", "a/b/x.flac"]);
    assert!(found[5].ends_with("list, line 4: not UTF-8") && found[6] == "last", "{found:?}");
    // With a byte-order mark and a blank line.
    fs::write(&list, "\u{feff}b2.wav\n\n  \nw1.wav").unwrap();
    let case = std::env::var("CLIPWISE_REAL").map(|folder| format!("{folder}/cases/list_bom.txt")); // the same
    for list in [Ok(list.clone()), case].into_iter().flatten() {
        assert_eq!(names(&folder, &["--files-from", &list]), ["b2.wav", "w1.wav"]);
    }
    fs::write(&list, [b'x'; 200_000]).unwrap();
    let found = names(&folder, &["--files-from", &list]);
    assert!(found.len() == 1 && found[0].contains("line 1: too long"), "{found:?}");
    let found = names(&folder, &["--files-from", &at("gone")]);
    assert!(found.len() == 1 && found[0].contains("cannot open"), "{found:?}");

    // Duplicates are removed only for regular files.
    let is_repeatable = |list: &str| parse::<FileArgs>(&["--files-from", list]).unwrap().is_repeatable();
    let pipe = at("pipe");
    let has_pipe = Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success());
    assert!(is_repeatable(&list) && parse::<FileArgs>(&[&list]).unwrap().is_repeatable());
    assert!(!is_repeatable("-") && !is_repeatable("/dev/stdin") && !is_repeatable(&at("gone")));
    assert!(!has_pipe || !is_repeatable(&pipe));

    fs::write(&list, (0..1_000).map(|i| format!("{i}.wav\n")).collect::<String>()).unwrap();
    let shards: Vec<Vec<String>> =
        (1..=3).map(|i| names(&folder, &["--files-from", &list, "--shard", &format!("{i}/3")])).collect();
    assert_eq!(shards.iter().map(Vec::len).collect::<Vec<_>>(), [334, 333, 333]);
    for i in 0..1_000 {
        assert_eq!(shards[i % 3][i / 3], format!("{i}.wav"));
    }
    for odd in ["0/3", "4/3", "1/0", "1", "/", "-1/3"] {
        assert!(parse::<FileArgs>(&["x", &format!("--shard={odd}")]).is_err(), "{odd}");
    }
    assert!(parse::<FileArgs>(&[]).is_err());
}

#[test]
fn results_come_in_order_with_a_bounded_backlog() {
    let (started, reported) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for n_jobs in [1, 3, 8] {
        started.store(0, Ordering::SeqCst);
        reported.store(0, Ordering::SeqCst);
        let jobs = Jobs::new(&parse::<JobArgs>(&["--jobs", &n_jobs.to_string()]).unwrap(), Some(2));
        let files = (0..500).map(|i| if i == 7 { Err("no".to_string()) } else { Ok(PathBuf::from(i.to_string())) });
        let (begun, over) = (Arc::clone(&started), Arc::clone(&reported));
        let work = move |file: &Path| {
            let i: usize = file.to_str().unwrap().parse().unwrap();
            let ahead = begun.fetch_add(1, Ordering::SeqCst).saturating_sub(over.load(Ordering::SeqCst));
            assert!(ahead <= 4 * n_jobs + 8, "{ahead} files are ahead");
            std::thread::sleep(Duration::from_micros([2_000, 0, 500][i % 3]));
            if i % 100 == 50 { Err(format!("bad {i}")) } else { Ok(i) }
        };
        let mut results = Vec::new();
        let count = jobs.run(files, work, |file, i| {
            assert_eq!(file.to_str().unwrap(), i.to_string());
            reported.fetch_add(1, Ordering::SeqCst);
            results.push(i);
            Ok(())
        });
        let count = count.unwrap();
        assert_eq!((count.done, count.failed), (494, 6));
        assert!(results.is_sorted() && results.len() == 494);
    }
    // An error of the writer ends the run.
    let jobs = Jobs::new(&parse::<JobArgs>(&[]).unwrap(), None);
    let endless = || std::iter::repeat_with(|| Ok(PathBuf::from("x")));
    let error = jobs.run(endless(), |_| Ok(()), |_, ()| Err("full".into())).unwrap_err();
    assert_eq!(error.to_string(), "full");
    let error = jobs.run(endless(), |_| -> Result<(), _> { panic!("on purpose") }, |_, ()| Ok(())).unwrap_err();
    assert!(error.to_string().contains("fault"), "{error}");
}

#[test]
fn finished_files_are_skipped_and_a_torn_line_is_removed() {
    let path = folder("done").join("out.jsonl");
    let paths = |names: &[&str]| names.iter().map(|name| Ok(PathBuf::from(name))).collect::<Vec<_>>();
    let left = |names: &[&str]| {
        let (done, _) = Done::open(&path).unwrap();
        done.skip(paths(names).into_iter()).map(|item| item.unwrap().to_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(left(&["a", "b", "a"]), ["a", "b"]);
    let whole = "{\"file\":\"a\",\"tags\":[]}\n{\"file\":\"ä \\\"\",\"tags\":[]}\n";
    for torn in ["", "{", "{\"file\":\"b", "{\"file\":\"b\",\"tags\":[]}"] {
        fs::write(&path, format!("{whole}{torn}")).unwrap();
        assert_eq!(left(&["a", "b", "ä \"", "c"]), ["b", "c"], "{torn}");
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }
    // Files written by other programs are not touched.
    for foreign in ["notes", "notes\n", "{\"name\":1}\n", "{\"file\":\"a\"}\nx", "\n"] {
        fs::write(&path, foreign).unwrap();
        let error = Done::open(&path).err().unwrap().to_string();
        assert!(error.contains("none of those that this program writes"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
    }
    fs::write(&path, whole).unwrap();
    let first = Done::open(&path).unwrap();
    assert!(Done::open(&path).err().unwrap().to_string().contains("another program"));
    drop(first);
    assert!(Done::open(&path).is_ok());
    assert!(Done::open(path.parent().unwrap()).is_err());
}

#[test]
fn a_matrix_and_its_names_are_complete_after_every_row() {
    let path = folder("npy").join("out.npy");
    let mut npy = npy::Npy::create(&path, 3).unwrap();
    for n in 0..12_usize {
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[..10], *b"\x93NUMPY\x01\0\x76\0");
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, 3), }}");
        assert_eq!(bytes[10..128], *format!("{header:<117}\n").as_bytes());
        let values: Vec<f32> = bytes[128..].chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        assert_eq!(values, (0..n).flat_map(|i| [i as f32, 0.5, -1.0]).collect::<Vec<_>>());
        let names: String = (0..n).map(|i| format!("{i}.wav\n")).collect();
        assert_eq!(fs::read_to_string(path.with_extension("npy.txt")).unwrap(), names);
        npy.write(&format!("{n}.wav"), &[n as f32, 0.5, -1.0]).unwrap();
    }
    assert!(npy.write("x", &[1.0]).is_err() && npy.write("x\ny", &[1.0; 3]).is_err());
}

#[test]
fn a_table_has_a_row_per_file_and_is_renamed_once_complete() {
    let path = folder("parquet").join("out.parquet");
    let row = |i: usize| -> Vec<f32> { (0..500).map(|k| (i * 1_000 + k) as f32).collect() };
    for n in [0, 1, 9_000] {
        let _ = fs::remove_file(&path);
        let mut table = parquet::Parquet::create(&path, "some-model").unwrap();
        for i in 0..n {
            table.write(&format!("ä/{i}.wav"), 44_100, i as f64 / 7.0, &row(i)).unwrap();
        }
        assert!(!path.exists());
        table.finish().unwrap();
        let reader = SerializedFileReader::try_from(path.as_path()).unwrap();
        let metadata = reader.metadata();
        assert_eq!((metadata.file_metadata().num_rows(), metadata.num_row_groups()), (n as i64, n.div_ceil(4_195)));
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        assert!(pairs.iter().any(|pair| (&*pair.key, pair.value.as_deref()) == ("clipwise.model", Some("some-model"))));
        for (i, found) in reader.get_row_iter(None).unwrap().enumerate().step_by(1_234) {
            let found = found.unwrap();
            assert_eq!(*found.get_string(0).unwrap(), format!("ä/{i}.wav"));
            assert_eq!((found.get_int(1).unwrap(), found.get_double(2).unwrap()), (44_100, i as f64 / 7.0));
            let values: Vec<Field> = row(i).into_iter().map(Field::Float).collect();
            assert_eq!(found.get_list(3).unwrap().elements(), values);
        }
    }
    // An incomplete one leaves the finished file alone and can be read.
    let whole = fs::read(&path).unwrap();
    let mut table = parquet::Parquet::create(&path, "some-model").unwrap();
    table.write("x.wav", 16_000, 1.0, &row(0)).unwrap();
    let partial = table.finish_partial().unwrap();
    assert_eq!(partial, path.with_extension("parquet.partial"));
    let reader = SerializedFileReader::try_from(partial.as_path()).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 1);
    assert!(fs::read(&path).unwrap() == whole);
}
