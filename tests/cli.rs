//! The program `clipwise`, from outside: what it prints, what it writes, how it fails.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clipwise::Waveform;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_clipwise");

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn telephone() -> String {
    project("examples/audio/telephone.wav").to_str().unwrap().to_string()
}

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_remove("HF_HOME").env("HOME", "/nonexistent").env_remove("CLIPWISE_WHISPER_TINY_EN");
    command
}

fn run(args: &[&str]) -> Output {
    command(args).stdin(Stdio::null()).output().unwrap()
}

/// Standard output of a run that must succeed.
fn good(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a run that must fail.
fn bad(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    stderr
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `n` copies of the first second of the telephone call.
fn clips(folder: &Path, n: usize) -> Vec<String> {
    let mut clip = Waveform::open(telephone()).unwrap();
    clip.samples.truncate(16_000);
    (0..n)
        .map(|i| {
            let path = folder.join(format!("{i:03}.wav"));
            clip.write(&path).unwrap();
            path.to_str().unwrap().to_string()
        })
        .collect()
}

#[test]
fn tags_are_printed_as_table_json_and_csv() {
    let table = good(&["tag", &telephone()]);
    assert!(table.lines().next().unwrap().ends_with("(6.00 s, 16000 Hz, ced-tiny on cpu)"), "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("  0.8271") && table.lines().nth(1).unwrap().ends_with("Speech"));
    let json = lines(&good(&["tag", "--format", "json", "--top-k", "2", "--full", &telephone()]));
    let fields: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    for field in ["file", "sample_rate", "duration", "model", "device", "tags", "clipwise_output", "embedding"] {
        assert!(fields.iter().any(|name| *name == field), "{fields:?}");
    }
    assert_eq!(json[0]["tags"][0]["label"], "Speech");
    assert_eq!(
        (json[0]["tags"].as_array().unwrap().len(), json[0]["clipwise_output"].as_array().unwrap().len()),
        (2, 527)
    );
    let csv = good(&["tag", "--format", "csv", "--top-k", "1", &telephone()]);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "file,index,id,label,score");
    assert!(rows.len() == 2 && rows[1].contains(",0,/m/09x0r,Speech,0.827"), "{csv}");
    let wide = good(&["tag", "--column", "Speech", "--column", "/m/04rlf", &telephone()]);
    assert!(wide.starts_with("file,Speech,Music,error\n"), "{wide}");
    assert_eq!(wide.lines().nth(1).unwrap().split(',').count(), 4);
    // Standard input, and the smaller model.
    let mut child = command(&["tag", "--model", "mn04", "--format", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(telephone()).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let json = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((json[0]["model"].as_str(), json[0]["file"].as_str()), (Some("mn04"), Some("-")));
}

#[test]
fn classes_and_models_are_listed_and_unknown_ones_have_neighbours() {
    let classes = good(&["tag", "--list-classes"]);
    assert_eq!(classes.lines().count(), 527);
    assert_eq!(classes.lines().next(), Some("0\t/m/09x0r\tSpeech"));
    let error = bad(&["events", "--allow", "doggy", &telephone()]);
    assert!(error.contains("\"doggy\"") && error.contains("Dog"), "{error}");
    let error = bad(&["tag", "--column", "Speach", &telephone()]);
    assert!(error.contains("Speech"), "{error}");
    let error = bad(&["tag", "--model", "cnn41", &telephone()]);
    assert!(error.contains("cnn14"), "{error}");
    let error = bad(&["tag", "--model", "cnn14", &telephone()]);
    assert!(error.contains("--weights"), "{error}");
    let weights = project("weights/ced-tiny/model.safetensors");
    let error = bad(&["tag", "--model", "cnn14", "--weights", weights.to_str().unwrap(), &telephone()]);
    assert!(error.contains("looks like ced-tiny") && error.lines().count() == 1, "{error}");
    let error = bad(&["events", "--frames", &telephone()]);
    assert!(error.contains("--frames"), "{error}");
}

#[test]
fn models_are_listed_with_all_that_is_known_of_them() {
    let list = good(&["models"]);
    let line = list.lines().find(|line| line.starts_with("cnn14-16k ")).unwrap();
    for wanted in ["16 kHz", "80.8 M", "mAP 0.438", "CC BY 4.0", "PANNs CNN14"] {
        assert!(line.contains(wanted), "{line}");
    }
    let json = lines(&good(&["models", "--format", "json"]));
    assert_eq!((json.len(), json.len() > 50), (list.lines().count(), true));
    let of = |name: &str| json.iter().find(|model| model["name"] == name).unwrap();
    assert_eq!((&of("ced-tiny")["built_in"], &of("m5")["built_in"]), (&true.into(), &false.into()));
    assert_eq!((of("m5")["licence"].is_null(), of("mn04")["bytes"].as_u64()), (true, Some(4_066_513)));

    let some = good(&["models", "mn04", "leenet11"]);
    assert!(some.starts_with("mn04: ") && !some.contains("cnn14"), "{some}");
    for wanted in [
        "\nleenet11: ",
        "LeeNet11_mAP=0.266.pth",
        "61ba7a7a85542fe4e97240db974eb158",
        "--weights",
        "not found",
        "built in",
    ] {
        assert!(some.contains(wanted), "{wanted}: {some}");
    }
    assert_eq!(
        lines(&good(&["models", "--format", "json", "cnn6"]))[0]["description"],
        "PANNs Cnn6, 32 kHz log-mel, AudioSet mAP 0.343"
    );
    assert!(bad(&["models", "cnn41"]).contains("cnn14"));
}

#[test]
fn a_long_recording_is_tagged_in_windows() {
    let folder = folder("long");
    let mut clip = Waveform::open(telephone()).unwrap();
    clip.samples = clip.samples.repeat(6);
    let file = folder.join("long.wav");
    clip.write(&file).unwrap();
    let output = run(&["tag", "--format", "json", file.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("windows of 10 s") && stderr.contains("--window whole"), "{stderr}");
    let auto = lines(&String::from_utf8(output.stdout).unwrap());
    let max = good(&["tag", "--format", "json", "--window", "10", "--aggregate", "max", file.to_str().unwrap()]);
    assert_eq!(auto, lines(&max));
    let whole = run(&["tag", "--format", "json", "--window", "whole", file.to_str().unwrap()]);
    assert!(whole.stderr.is_empty() && lines(std::str::from_utf8(&whole.stdout).unwrap()) != auto);
}

#[test]
fn files_that_fail_are_named_and_the_others_go_on() {
    let folder = folder("failing");
    let broken = folder.join("bro\nken.wav");
    fs::write(&broken, b"RIFF").unwrap();
    fs::write(folder.join("notes.txt"), "x").unwrap();
    fs::copy(telephone(), folder.join("good.wav")).unwrap();
    let output = run(&["tag", "--format", "json", "--error-rows", folder.to_str().unwrap()]);
    assert!(output.status.success(), "--error-rows fails softly");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("skipped 1 file") && stderr.contains("notes.txt"), "{stderr}");
    assert!(stderr.contains("bro\\nken.wav"), "a line break in a name is escaped: {stderr:?}");
    let rows = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(rows.len(), 2);
    assert!(rows[0]["error"].is_string() && rows[1]["tags"].is_array());
    let csv = good(&["tag", "--format", "csv", "--error-rows", folder.to_str().unwrap()]);
    assert!(csv.starts_with("file,index,id,label,score,error\n"), "{csv}");
    assert!(csv.contains("ken.wav\",,,,,") && csv.contains("damaged file") && csv.contains(",Speech,0.827"), "{csv}");
    assert_eq!(run(&["tag", folder.to_str().unwrap()]).status.code(), Some(1));
    // A full disk is an error that names what is written.
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        for args in [&["tag", &telephone()][..], &["events", &telephone()], &["models"], &["tag", "--list-classes"]] {
            let output = command(args).stdout(full.try_clone().unwrap()).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && stderr.contains("cannot write standard output"), "{args:?}: {stderr}");
        }
    }
    // A reader that has seen enough is no error.
    let mut child = command(&["tag", "--list-classes"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait_with_output().unwrap().stderr.is_empty());
}

#[test]
fn events_are_sorted_and_written_for_other_programs() {
    let folder = folder("events");
    let audio = folder.join("audio");
    fs::create_dir_all(audio.join("deeper")).unwrap();
    for place in ["a.wav", "deeper/a.wav"] {
        fs::copy(telephone(), audio.join(place)).unwrap();
    }
    let audio = audio.to_str().unwrap();
    let events = lines(&good(&["events", "--format", "json", &telephone()]));
    let onsets: Vec<f64> = events.iter().map(|event| event["onset"].as_f64().unwrap()).collect();
    assert!(onsets.is_sorted() && !onsets.is_empty());
    assert!(events.iter().any(|event| event["label"] == "Speech"));
    // A folder, several files at once, the same rows.
    let both = lines(&good(&["events", "--format", "json", "--jobs", "2", audio]));
    assert_eq!(both.len(), 2 * events.len());
    let timed = good(&["events", "--format", "csv", "--start-time", "2026-05-01T23:59:59", &telephone()]);
    assert!(timed.starts_with("file,onset,offset,label,id,peak,mean,parents,time\n"), "{timed}");
    assert!(timed.contains("2026-05-01T23:59:5") || timed.contains("2026-05-02T00:00:0"), "{timed}");

    let labels = folder.join("labels");
    for (format, ending) in [("audacity", "txt"), ("webvtt", "vtt"), ("raven", "txt"), ("textgrid", "TextGrid")] {
        good(&["events", "--format", format, "--out-dir", labels.to_str().unwrap(), audio]);
        let [first, second] =
            ["a", "deeper/a"].map(|name| fs::read_to_string(labels.join(format!("{name}.{ending}"))).unwrap());
        assert_eq!(first, second, "{format}");
        match format {
            "raven" => assert!(first.starts_with("Selection\tView\tChannel\tBegin Time (s)\t"), "{first}"),
            "textgrid" => assert!(first.contains("Object class = \"TextGrid\"") && first.contains("name = \"Speech\"")),
            _ => assert!(first.contains("Speech")),
        }
    }
    assert!(bad(&["events", "--format", "audacity", audio]).contains("--out-dir"));
    // Labels never replace the recording.
    let odd = folder.join("odd.txt");
    fs::copy(telephone(), &odd).unwrap();
    let error = bad(&["events", "--format", "audacity", "--out-dir", folder.to_str().unwrap(), odd.to_str().unwrap()]);
    assert!(error.contains("overwrite"), "{error}");
    assert!(fs::read(&odd).unwrap() == fs::read(telephone()).unwrap());
    // Two recordings with one name never share a file, and what is there is skipped only if an earlier run wrote it.
    let list = folder.join("list.txt");
    let [first, second] = ["a.wav", "deeper/a.wav"].map(|place| format!("{audio}/{place}"));
    fs::write(&list, format!("{first}\n{second}\n")).unwrap();
    let flat = folder.join("flat");
    let args =
        ["events", "--format", "raven", "--out-dir", flat.to_str().unwrap(), "--files-from", list.to_str().unwrap()];
    assert!(bad(&args).contains("would overwrite"));
    assert!(bad(&[&args[..], &["--skip-existing"]].concat()).contains("would overwrite"));
    let pattern = format!("{audio}/**/*.wav");
    good(&["events", "--format", "raven", "--out-dir", flat.to_str().unwrap(), &pattern]);
    assert!(flat.join("deeper/a.txt").is_file());
    let table = folder.join("events.parquet");
    good(&["events", "--out", table.to_str().unwrap(), audio]);
    assert!(fs::read(&table).unwrap().starts_with(b"PAR1"));
}

#[test]
fn a_run_that_is_killed_goes_on() {
    let folder = folder("killed");
    let audio = folder.join("audio");
    fs::create_dir_all(&audio).unwrap();
    let files = clips(&audio, 40);
    let out = folder.join("out.jsonl");
    let (audio, name) = (audio.to_str().unwrap(), out.to_str().unwrap());
    let args = ["embed", "--threads", "1", "--out", name, audio];
    let partial = folder.join("out.jsonl.partial");
    let mut child = command(&args).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while fs::read_to_string(&partial).map_or(0, |text| text.lines().count()) < 5 {
        assert!(start.elapsed() < Duration::from_secs(120), "no rows");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Meanwhile another run refuses the file.
    if child.try_wait().unwrap().is_none() {
        let error = bad(&args);
        assert!(error.contains("another run") || error.contains("--resume"), "{error}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if !out.exists() {
        assert!(bad(&args).contains("--resume"));
        let error = bad(&["embed", "--model", "mn04", "--resume", "--out", name, audio]);
        assert!(error.contains("expected the results of"), "{error}");
        good(&["embed", "--resume", "--out", name, audio]);
    }
    let rows = lines(&fs::read_to_string(&out).unwrap());
    let names: Vec<&str> = rows.iter().map(|row| row["file"].as_str().unwrap()).collect();
    assert_eq!(names, files);
    assert!(!partial.exists());
    let again = run(&["embed", "--resume", "--out", name, audio]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is complete"));
    // Neither lines of another subcommand nor the output itself are taken for input.
    assert!(bad(&["tag", "--skip-done", name, audio]).contains("clipwise tag"));
    let wave = format!("{audio}/000.csv");
    fs::copy(&files[0], &wave).unwrap();
    assert!(bad(&["tag", "--out", &wave, &wave]).contains("overwrite"));
    assert!(fs::read(&wave).unwrap() == fs::read(&files[0]).unwrap());
}

#[test]
fn a_classifier_of_ones_own_opens_everywhere() {
    let folder = folder("probe");
    let telephone = Waveform::open(telephone()).unwrap();
    let noise = |i: usize, scale: f32| -> Vec<f32> {
        let mut state = i as u32 + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            scale * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        (0..16_000).map(|_| next()).collect()
    };
    let data = folder.join("data");
    for class in ["speech", "noise", ".hidden", "empty"] {
        fs::create_dir_all(data.join(class)).unwrap();
    }
    for i in 0..6 {
        let second = telephone.samples[i * 12_000..][..16_000].to_vec();
        Waveform::new(second, 16_000).write(data.join(format!("speech/{i}.wav"))).unwrap();
        Waveform::new(noise(i, 0.1), 16_000).write(data.join(format!("noise/{i}.wav"))).unwrap();
    }
    fs::write(data.join("noise/broken.wav"), b"RIFF").unwrap();
    fs::write(data.join(".hidden/x.wav"), b"RIFF").unwrap();
    let out = folder.join("mine");
    let [data, out] = [&data, &out].map(|path| path.to_str().unwrap());
    let output = run(&["probe", "--format", "json", "--folds", "3", "--out", out, data]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("broken.wav"), "{stderr}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((summary["n_files"].as_u64(), summary["n_failed"].as_u64()), (Some(12), Some(1)));
    assert_eq!(summary["classes"].as_array().unwrap().len(), 2);
    assert!(summary["accuracy"].as_f64().unwrap() > 0.9, "{summary}");
    let file = format!("{data}/noise/0.wav");
    assert!(good(&["tag", "--weights", out, "--top-k", "1", &file]).contains("noise"));
    assert!(good(&["events", "--weights", out, &file]).contains("noise"));
    fs::remove_file(format!("{data}/noise/broken.wav")).unwrap();
    let evaluation: Value =
        serde_json::from_str(&good(&["evaluate", "--weights", out, "--format", "json", data])).unwrap();
    assert_eq!((evaluation["n_files"].as_u64(), evaluation["accuracy"].as_f64()), (Some(12), Some(1.0)));
    good(&["embed", "--weights", out, &file]);
    let png = folder.join("plot.png");
    good(&["plot", "--weights", out, "--out", png.to_str().unwrap(), &file]);
    assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    // A folder of something else is left alone.
    let error = bad(&["probe", "--out", data, data]);
    assert!(error.contains("--out") && error.contains("new or empty folder"), "{error}");
    // One class is none.
    let one = folder.join("one");
    fs::create_dir_all(one.join("a")).unwrap();
    fs::copy(&file, one.join("a/0.wav")).unwrap();
    assert!(bad(&["probe", "--folds", "1", data]).contains("at least 2"));
    assert!(bad(&["probe", "--out", out, one.to_str().unwrap()]).contains("at least two classes"));
}

#[test]
fn phonemes_and_words_are_told_apart() {
    let speech = telephone();
    let output = run(&["transcribe", "--format", "json", &speech]);
    assert!(output.status.success());
    let line = &lines(&String::from_utf8(output.stdout).unwrap())[0];
    assert!(line["confidence"].is_number() && line["tokens"].is_array(), "{line}");
    let error = bad(&["transcribe", "--align", "k æ n g oʊ", &speech]);
    assert!(error.contains("\"g\"") && error.contains("ɡ") && error.contains("--align-as words"), "{error}");
    let output = run(&["transcribe", "--align", "f ɔɪ b ʊ dʒ", &speech]);
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("low confidence"), "an alignment of what is not spoken is doubted: {stderr}");
}

#[test]
fn hidden_states_are_written_for_each_file() {
    let folder = folder("encode");
    let weights = project("weights/gru-ctc-phonemes");
    let out = folder.join("states");
    let files = clips(&folder, 2);
    good(&["encode", "--weights", weights.to_str().unwrap(), "--out", out.to_str().unwrap(), &files[0], &files[1]]);
    let [a, b] = ["000", "001"].map(|name| fs::read(out.join(format!("{name}.safetensors"))).unwrap());
    assert!(a == b && !a.is_empty());
    assert!(good(&["encode", "--weights", weights.to_str().unwrap(), &files[0]]).contains("last_hidden"));
}

#[test]
fn speed_prints_what_is_needed_to_repeat_it_and_compares_with_it() {
    let folder = folder("speed");
    let before = folder.join("before.jsonl");
    let args = ["speed", "--model", "m5,gru", "--seconds", "0.5", "--batch", "1,2", "--runs", "2", "--format", "json"];
    let with = |more: &[&str]| good(&[&args[..], more].concat());
    let text = with(&["--threads", "1"]);
    let rows = lines(&text);
    assert_eq!(rows.len(), 4);
    for (row, (model, batch)) in rows.iter().zip([("m5", 1), ("m5", 2), ("gru", 1), ("gru", 2)]) {
        assert_eq!((&row["model"], &row["batch"], &row["threads"]), (&model.into(), &batch.into(), &1.into()));
        assert!(row["ms"]["median"].as_f64().unwrap() >= row["ms"]["min"].as_f64().unwrap());
        assert!(row["version"].is_string() && row["instruction_set"].is_string() && row["earlier"].is_null());
    }
    fs::write(&before, text).unwrap();
    let before = before.to_str().unwrap();
    for (row, earlier) in lines(&with(&["--threads", "2", "--compare", before])).iter().zip(&rows) {
        assert_eq!(row["earlier"]["median"], earlier["ms"]["median"]);
        assert_eq!(row["earlier"]["differs"], serde_json::json!(["threads 1"]));
    }
    let table =
        good(&["speed", "--model", "m5", "--seconds", "0.5", "--runs", "2", "--threads", "1", "--compare", before]);
    assert!(table.lines().nth(2).unwrap().starts_with("m5"), "{table}");
}

#[test]
fn speed_times_loading_in_processes_of_their_own() {
    let weights = project("weights/m5-spoken-digits");
    let text = good(&["speed", "--load", "--weights", weights.to_str().unwrap(), "--runs", "1", "--format", "json"]);
    let row = &lines(&text)[0];
    assert_eq!(row["model"], "m5-spoken-digits");
    assert!(row["load"]["open_ms"].as_f64().unwrap() < row["ms"]["median"].as_f64().unwrap());
    assert!(row["load"]["checkpoint_mb"].as_f64().unwrap() > 0.0);
    assert!(bad(&["speed", "--load", "--model", "m5"]).contains("expected --weights"));
}
