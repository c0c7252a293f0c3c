//! Which files are listed, in which order results come, what is done already, what is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, ListAccessor, RowAccessor};
use clap::{Args, CommandFactory, FromArgMatches};
use clipwise::{Event, LabelSet, Tag};

use crate::input::{Done, Expected, FileArgs};
use crate::message::Failure;
use crate::output::{
    JsonLines, MakeWriter, Npy, OutArgs, Output, Parquet, Provenance, Record, RecordWriter, RunId, writer,
};
use crate::run::{Count, JobArgs, Jobs, Status};

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("clipwise-{}", std::process::id())).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn parse<T: Args + FromArgMatches>(args: &[&str]) -> Result<T, clap::Error> {
    let matches = T::augment_args(clap::Command::new("test").no_binary_name(true)).try_get_matches_from(args)?;
    T::from_arg_matches(&matches)
}

/// Names relative to `folder`, and errors.
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
    // A name before a pattern; a pattern like the shell's.
    assert_eq!(names(&folder, &[&at("c[1].wav")]), ["c[1].wav"]);
    assert_eq!(names(&folder, &[&at("c[12].wav")]), ["c1.wav"]);
    assert_eq!(names(&folder, &[&at("**/*.flac"), &at("*")]), ["a/b/x.flac", "c1.wav", "c[1].wav"]);
    for (odd, reason) in [("empty", "expected audio files"), ("*.ogg", "no file matches"), ("[", "[")] {
        let found = names(&folder, &[&at(odd)]);
        assert!(found.len() == 1 && found[0].contains(reason), "{found:?}");
    }
    // A list: its names are no patterns, blank lines are nothing, what is no text is an error.
    let list = at("list");
    let text = [at("c[1].wav").as_bytes(), b"\n\n", at("a").as_bytes(), b"\r\n\xFF\n", at("last").as_bytes()].concat();
    fs::write(&list, text).unwrap();
    let found = names(&folder, &["--files-from", &list, &at("c1.wav")]);
    assert_eq!(found[..5], ["c1.wav", "c[1].wav", "a/1.wav", "a/10.WAV", "a/b/x.flac"]);
    assert!(found[5].ends_with("list, line 4: not UTF-8") && found[6] == "last", "{found:?}");
    // With a byte-order mark, and a line of blanks.
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

    // Only a regular file is listed twice.
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
    assert!(parse::<FileArgs>(&[]).unwrap().check().is_err());
}

/// A name that is not UTF-8 must not end the list.
#[cfg(unix)]
#[test]
fn names_in_other_encodings_are_listed() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder("bytes");
    let odd = folder.join(std::ffi::OsStr::from_bytes(b"b\xff.wav"));
    for path in [folder.join("a.wav"), odd.clone(), folder.join("c.wav")] {
        fs::write(path, "").unwrap();
    }
    let pattern = folder.join("*.wav");
    for arg in [folder.to_str().unwrap(), pattern.to_str().unwrap()] {
        let found: Vec<_> = parse::<FileArgs>(&[arg]).unwrap().list().map(Result::unwrap).collect();
        assert_eq!(found, [folder.join("a.wav"), odd.clone(), folder.join("c.wav")]);
    }
}

#[test]
fn patterns_are_those_of_shells() {
    let folder = folder("patterns");
    for file in ["x/1.wav", "x/y/2.wav", "x/y/z/3.flac", ".h/4.wav", "x/.5.wav", "6.wav"] {
        fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        fs::write(folder.join(file), "").unwrap();
    }
    let found = |pattern: &str| names(&folder, &[folder.join(pattern).to_str().unwrap()]);
    assert_eq!(found("*/*.wav"), ["x/1.wav"]);
    assert_eq!(found("**/*.wav"), ["6.wav", "x/1.wav", "x/y/2.wav"]);
    assert_eq!(found("x/**/*.{wav,flac}"), ["x/1.wav", "x/y/2.wav", "x/y/z/3.flac"]);
    assert_eq!(found("x/.*.wav"), ["x/.5.wav"]);
    assert_eq!(found("?/y/[0-9].wav"), ["x/y/2.wav"]);
}

#[test]
fn a_file_has_its_place_below_the_folder_that_was_named() {
    let args = parse::<FileArgs>(&["a/b", "c/d.wav"]).unwrap();
    assert_eq!(args.below_folder(Path::new("a/b/x/y.wav")), Path::new("x/y.wav"));
    assert_eq!(args.below_folder(Path::new("c/d.wav")), Path::new("d.wav"));
    assert_eq!(args.below_folder(Path::new("e/f.wav")), Path::new("f.wav"));
}

#[test]
fn results_come_in_order_and_not_much_is_ahead() {
    let (started, reported) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for n_jobs in [1, 3, 8] {
        started.store(0, Ordering::SeqCst);
        reported.store(0, Ordering::SeqCst);
        let jobs = Jobs::new(&parse::<JobArgs>(&["--jobs", &n_jobs.to_string()]).unwrap(), Some(2));
        let files = (0..500).map(|i| if i == 7 { Err("no".to_string()) } else { Ok(PathBuf::from(i.to_string())) });
        let (begun, over) = (Arc::clone(&started), Arc::clone(&reported));
        let work = move |file: &Path, emit: &mut dyn FnMut(usize)| {
            let i: usize = file.to_str().unwrap().parse().unwrap();
            let ahead = begun.fetch_add(1, Ordering::SeqCst).saturating_sub(over.load(Ordering::SeqCst));
            assert!(ahead <= 4 * n_jobs + 8, "{ahead} files are ahead");
            std::thread::sleep(Duration::from_micros([2_000, 0, 500][i % 3]));
            if i % 100 == 50 {
                return Err(format!("bad {i}"));
            }
            emit(i);
            if i.is_multiple_of(7) {
                emit(i); // a file may have several results
            }
            Ok(())
        };
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        let count = jobs.run(files, work, |file, result| {
            match result {
                Ok(i) => {
                    assert_eq!(file.to_str().unwrap(), i.to_string());
                    if results.last() != Some(&i) {
                        reported.fetch_add(1, Ordering::SeqCst);
                    }
                    results.push(i);
                }
                Err(error) => errors.push(error.to_string()),
            }
            Ok(())
        });
        let count = count.unwrap();
        assert_eq!((count.done, count.failed), (494, 6));
        assert_eq!(errors, ["no", "bad 50", "bad 150", "bad 250", "bad 350", "bad 450"]);
        assert!(results.is_sorted());
        let n_twice = (0..500).filter(|i| i % 7 == 0 && *i != 7 && i % 100 != 50).count();
        assert_eq!(results.len(), 494 + n_twice);
    }
    // A writer that fails ends the run; so does a thread that panics, be it one that works or the one that lists.
    let jobs = Jobs::new(&parse::<JobArgs>(&[]).unwrap(), None);
    let endless = || std::iter::repeat_with(|| Ok(PathBuf::from("x")));
    let emit = |_: &Path, emit: &mut dyn FnMut(())| {
        emit(());
        Ok(())
    };
    let error = jobs.run(endless(), emit, |_, _| Err("full".into())).unwrap_err();
    assert_eq!(error.to_string(), "full");
    let panics = |_: &Path, _: &mut dyn FnMut(())| -> Result<(), String> { panic!("on purpose") };
    let error = jobs.run(endless(), panics, |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    let list = (0..3).map(|i| if i < 2 { Ok(PathBuf::from("x")) } else { panic!("on purpose") });
    let error = jobs.run(list, emit, |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

const EXPECTED: Expected = Expected { subcommand: "tag", field: "tags", model: "some-model" };

#[test]
fn done_files_are_skipped_and_a_torn_line_is_cut_off() {
    let path = folder("done").join("out.jsonl");
    let paths = |names: &[&str]| names.iter().map(|name| Ok(PathBuf::from(name))).collect::<Vec<_>>();
    let left = |names: &[&str]| {
        let (done, _) = Done::open(&path, &EXPECTED, None).unwrap();
        done.skip(paths(names).into_iter()).map(|item| item.unwrap().to_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(left(&["a", "b", "a"]), ["a", "b"]);
    let whole = "{\"file\":\"a\",\"tags\":[]}\n{\"file\":\"ä \\\"\",\"tags\":[]}\n";
    for torn in ["", "{", "{\"file\":\"b", "{\"file\":\"b\",\"tags\":[]}"] {
        fs::write(&path, format!("{whole}{torn}")).unwrap();
        assert_eq!(left(&["a", "b", "ä \"", "c"]), ["b", "c"], "{torn}");
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }
    // What this program did not write is not touched.
    for foreign in ["notes", "notes\n", "{\"name\":1}\n", "{\"file\":\"a\"}\nx", "\n"] {
        fs::write(&path, foreign).unwrap();
        let error = Done::open(&path, &EXPECTED, None).err().unwrap().to_string();
        assert!(error.contains("expected a line"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
    }
    fs::write(&path, whole).unwrap();
    let first = Done::open(&path, &EXPECTED, None).unwrap();
    assert!(Done::open(&path, &EXPECTED, None).err().unwrap().to_string().contains("another run"));
    drop(first);
    assert!(Done::open(&path, &EXPECTED, None).is_ok());
    assert!(Done::open(path.parent().unwrap(), &EXPECTED, None).is_err());
}

fn record(i: usize) -> Record {
    let embedding = (0..3).map(|k| (10 * i + k) as f32 + 0.1).collect();
    let duration = Some(i as f64 / 7.0);
    Record {
        file: format!("ä/{i}.wav"),
        sample_rate: Some(44_100),
        duration,
        embedding: Some(embedding),
        ..Record::default()
    }
}

#[test]
fn a_matrix_is_numpys() {
    let path = folder("npy").join("out.npy");
    for n in [0, 1, 12] {
        let mut npy = Box::new(Npy::create(&path, 3).unwrap());
        (0..n).for_each(|i| npy.write(&record(i)).unwrap());
        assert!(npy.write(&Record::failed("x.wav", "no")).is_ok(), "a failed file has no row");
        assert!(npy.write(&Record { embedding: Some(vec![1.0]), ..record(0) }).is_err());
        npy.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[..10], *b"\x93NUMPY\x01\0\x76\0");
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, 3), }}");
        assert_eq!(bytes[10..128], *format!("{header:<117}\n").as_bytes());
        let values: Vec<f32> = bytes[128..].chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        assert_eq!(values, (0..n).flat_map(|i| record(i).embedding.unwrap()).collect::<Vec<_>>());
        let names: String = (0..n).map(|i| format!("ä/{i}.wav\n")).collect();
        assert_eq!(fs::read_to_string(path.with_extension("npy.txt")).unwrap(), names);
    }
}

fn provenance() -> Provenance {
    Provenance { model: "some-model".into(), sha256: "00ff".into(), labels: LabelSet::audioset() }
}

/// The columns, by name and place, as `docs/tables.md` has them.
const COLUMNS: [&str; 13] = [
    "path",
    "file",
    "start",
    "end",
    "time",
    "sample_rate",
    "duration",
    "model",
    "model_sha256",
    "tags",
    "scores",
    "embedding",
    "error",
];

#[test]
fn a_table_has_the_fixed_schema() {
    let path = folder("parquet").join("out.parquet");
    let tag: Tag = serde_json::from_str(r#"{"index": 3, "id": null, "label": "Dog", "score": 0.5}"#).unwrap();
    let event =
        r#"{"onset": 1.5, "offset": 2.5, "label": "Bark", "id": "/m/05tny_", "index": 75, "peak": 0.75, "mean": 0.5}"#;
    let event: Event = serde_json::from_str(event).unwrap();
    for n in [0, 1, 1_500] {
        let mut table = Box::new(Parquet::create(&path, provenance(), None).unwrap());
        for i in 0..n {
            let tags = Some(vec![tag.clone().into(); i % 3]);
            table
                .write(&Record { tags, clipwise_output: (i % 2 == 0).then(|| vec![i as f32; 4]), ..record(i) })
                .unwrap();
        }
        table.write(&Record::failed("broken.wav", "cut short")).unwrap();
        table.write(&Record { events: Some(vec![event.clone(); 2]), embedding: None, ..record(7) }).unwrap();
        table.write(&Record { events: Some(Vec::new()), ..record(8) }).unwrap(); // a row without tags
        table.finish().unwrap();

        let reader = SerializedFileReader::try_from(path.as_path()).unwrap();
        let metadata = reader.metadata().file_metadata();
        let columns: Vec<&str> = metadata.schema().get_fields().iter().map(|field| field.name()).collect();
        assert_eq!(columns, COLUMNS);
        assert_eq!(metadata.num_rows(), n as i64 + 4);
        assert_eq!(reader.metadata().num_row_groups(), (n + 4).div_ceil(512));
        let pairs = metadata.key_value_metadata().unwrap();
        let value = |key: &str| pairs.iter().find(|pair| pair.key == key).unwrap().value.clone().unwrap();
        assert_eq!((value("clipwise.model"), value("clipwise.model_sha256")), ("some-model".into(), "00ff".into()));
        let labels: Vec<String> = serde_json::from_str(&value("clipwise.labels")).unwrap();
        assert_eq!((labels.len(), labels[0].as_str()), (527, "Speech"));

        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        for (i, row) in rows[..n].iter().enumerate() {
            let text = |column: usize| row.get_string(column).unwrap().as_str();
            assert_eq!((text(0), text(1)), (record(i).file.as_str(), record(i).file.as_str()));
            assert_eq!((row.get_double(2).unwrap(), row.get_double(3).unwrap()), (0.0, i as f64 / 7.0));
            assert_eq!((row.get_int(5).unwrap(), row.get_double(6).unwrap()), (44_100, i as f64 / 7.0));
            assert_eq!((text(7), text(8)), ("some-model", "00ff"));
            let tags = row.get_list(9).unwrap();
            assert_eq!(tags.len(), i % 3);
            if i % 3 > 0 {
                let first = tags.get_group(0).unwrap();
                assert_eq!((first.get_int(0).unwrap(), first.get_float(3).unwrap()), (3, 0.5));
                assert_eq!(first.get_string(2).unwrap(), "Dog");
                assert!(first.is_null_at(1));
            }
            match i % 2 {
                0 => assert_eq!(row.get_list(10).unwrap().elements(), vec![Field::Float(i as f32); 4]),
                _ => assert!(row.is_null_at(10)),
            }
            let values: Vec<Field> = record(i).embedding.unwrap().into_iter().map(Field::Float).collect();
            assert_eq!(row.get_list(11).unwrap().elements(), values);
            assert!(row.is_null_at(12) && row.is_null_at(4));
        }
        let failed = &rows[n];
        assert_eq!(
            (failed.get_string(0).unwrap().as_str(), failed.get_string(12).unwrap().as_str()),
            ("broken.wav", "cut short")
        );
        assert!([2, 3, 4, 5, 6, 9, 10, 11].iter().all(|&column| failed.is_null_at(column)));
        let of_event = &rows[n + 1];
        assert_eq!((of_event.get_double(2).unwrap(), of_event.get_double(3).unwrap()), (1.5, 2.5));
        let tag = of_event.get_list(9).unwrap().get_group(0).unwrap();
        assert_eq!(
            (tag.get_int(0).unwrap(), tag.get_string(1).unwrap().as_str(), tag.get_float(3).unwrap()),
            (75, "/m/05tny_", 0.75)
        );
        assert_eq!(rows[n + 3].get_list(9).unwrap().len(), 0);
    }
}

trait IsNull {
    fn is_null_at(&self, column: usize) -> bool;
}

impl IsNull for ::parquet::record::Row {
    fn is_null_at(&self, column: usize) -> bool {
        matches!(self.get_column_iter().nth(column).unwrap().1, Field::Null)
    }
}

/// An output file as a subcommand opens it.
fn open(out: &Path, more: &[&str]) -> Result<Output, Failure> {
    let args = [&["--out", out.to_str().unwrap()], more].concat();
    let print = || -> Result<Box<dyn RecordWriter>, Failure> { unreachable!() };
    let make = |ending: &str| -> Option<MakeWriter> {
        match ending {
            "parquet" => Some(Box::new(|path| Ok(Box::new(Parquet::create(path, provenance(), None)?)))),
            "jsonl" => Some(Box::new(|path| Ok(Box::new(JsonLines(writer(path)?))))),
            _ => None,
        }
    };
    let settings = "whole files".to_string();
    let run = RunId { subcommand: "embed", field: "embedding", model: "some-model", settings };
    parse::<OutArgs>(&args)?.open(&run, print, make, ".parquet or .jsonl").map(|output| output.expect("not complete"))
}

fn n_rows(path: &Path) -> i64 {
    SerializedFileReader::try_from(path).unwrap().metadata().file_metadata().num_rows()
}

#[test]
fn a_file_appears_when_it_is_complete_and_a_run_that_ends_early_goes_on() {
    let path = folder("out").join("out.parquet");
    let partial = path.with_extension("parquet.partial");
    let names = ["ä/0.wav", "ä/1.wav", "ä/2.wav", "ä/3.wav"];
    let files = parse::<FileArgs>(&names).unwrap();
    let count = |done, failed| Ok(Count { done, failed });

    // Complete, with a row for a file that failed.
    let mut output = open(&path, &[]).unwrap();
    assert_eq!(output.left(&files).count(), 4);
    output.write(&record(0)).unwrap();
    output.write_error(Path::new("x.wav"), "no").unwrap();
    assert!(!path.exists() && partial.exists());
    let error = open(&path, &["--resume"]).err().unwrap().to_string();
    assert!(error.contains("another run"), "{error}");
    assert_eq!(output.finish(count(1, 1)).unwrap(), Status::SomeFailed);
    assert!(path.exists() && !partial.exists());
    assert_eq!(n_rows(&path), 2);
    let whole = fs::read(&path).unwrap();

    // A run in which all files failed, and one that could not write, leave the earlier table alone.
    let mut output = open(&path, &[]).unwrap();
    output.write_error(Path::new("x.wav"), "no").unwrap();
    assert_eq!(output.finish(count(0, 1)).unwrap(), Status::SomeFailed);
    fs::remove_file(&partial).unwrap();
    let mut output = open(&path, &[]).unwrap();
    output.write(&record(0)).unwrap();
    output.write(&record(1)).unwrap();
    assert_eq!(output.finish(Err("full".into())).unwrap_err().to_string(), "full");
    assert!(fs::read(&path).unwrap() == whole);

    // An interrupted run, whose last line is incomplete, is continued, but only with --resume.
    let mut text = fs::read(&partial).unwrap();
    text.extend(br#"{"file":"\u00e4/2.wav","sample_ra"#);
    fs::write(&partial, text).unwrap();
    let error = open(&path, &[]).err().unwrap().to_string();
    assert!(error.contains("--resume"), "{error}");
    let other = |subcommand, model, settings: &str| {
        let expected = Expected { subcommand, field: "embedding", model };
        Done::open(&partial, &expected, Some(settings)).err().unwrap().to_string()
    };
    for error in [other("embed", "mn04", "clipwise embed with mn04: whole files"), other("embed", "some-model", "…")]
    {
        assert!(error.contains("expected the results of"), "another run does not continue it: {error}");
    }
    let mut output = open(&path, &["--resume"]).unwrap();
    let left: Vec<_> = output.left(&files).map(Result::unwrap).collect();
    assert_eq!(left, ["ä/2.wav", "ä/3.wav"].map(PathBuf::from));
    output.write(&record(2)).unwrap();
    output.write(&record(3)).unwrap();
    assert_eq!(output.finish(count(2, 0)).unwrap(), Status::Good);
    assert_eq!((n_rows(&path), partial.exists()), (4, false));

    // JSON lines are written in full. With --error-rows, failed files do not change the status.
    let lines = path.with_extension("jsonl");
    let mut output = open(&lines, &["--error-rows"]).unwrap();
    output.write(&record(0)).unwrap();
    output.write_error(Path::new("x.wav"), "no").unwrap();
    assert_eq!(output.finish(count(1, 1)).unwrap(), Status::Good);
    let records: Vec<Record> =
        fs::read_to_string(&lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records, [record(0), Record::failed("x.wav", "no")]);
    assert!(open(&path.with_extension("txt"), &[]).err().unwrap().to_string().contains(".parquet or .jsonl"));
}

#[test]
fn the_built_in_weights_have_the_hashes_that_tables_name() {
    use sha2::{Digest, Sha256};
    for (name, sha256) in crate::model::BUILT_IN {
        let folder = if name == "mn04" { "efficientat-mn04" } else { name };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights").join(folder).join("model.safetensors");
        let hash = Sha256::digest(fs::read(path).unwrap());
        assert_eq!(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), sha256, "{name}");
    }
}

#[test]
fn options_do_not_contradict_each_other() {
    crate::Cli::command().debug_assert();
}
