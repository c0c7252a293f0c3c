//! Events against a naive implementation that sees all scores at once, and their text formats.

mod common;

use clipwise::events::{ClassThresholds, EventFormat, EventWriter, Smoothing};
use clipwise::ndarray;
use clipwise::windows::Frames;
use clipwise::{Embedding, Error, Event, EventConfig, EventDetector, LabelSet, Tagging, WindowTagging};
use common::hashed;

fn labels() -> LabelSet {
    ["Dog", "Cat", "Rain"].into_iter().collect()
}

/// Three classes with scores that wander between 0 and 1.
fn scores(n: usize, seed: u64) -> Vec<[f32; 3]> {
    let mut levels = [0.2f32; 3];
    let steps = hashed("steps", 3 * n, -0.25, 0.25, seed);
    let step = |step: &[f32]| {
        for (level, step) in levels.iter_mut().zip(step) {
            *level = (*level + step).clamp(0.0, 1.0);
        }
        levels
    };
    steps.chunks(3).map(step).collect()
}

/// The detection rules, applied one after the other to the whole recording. `pieces` are runs of segments without gaps.
fn naive(pieces: &[Vec<(f64, f64, f32)>], config: &EventConfig, (on, off): (f32, f32)) -> Vec<(f64, f64, f32, f32)> {
    let mut smooth = Vec::new();
    for piece in pieces {
        for i in 0..piece.len() {
            let around = |half: usize| -> Vec<f32> {
                piece[i.saturating_sub(half)..(i + half + 1).min(piece.len())].iter().map(|s| s.2).collect()
            };
            let score = match config.smoothing {
                Smoothing::None => piece[i].2,
                Smoothing::Median(n) => {
                    let mut values = around(n / 2);
                    values.sort_by(f32::total_cmp);
                    let m = values.len();
                    if m % 2 == 1 { values[m / 2] } else { 0.5 * (values[m / 2 - 1] + values[m / 2]) }
                }
                Smoothing::Mean(n) => {
                    let values = around(n / 2);
                    (values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64) as f32
                }
                other => panic!("{other:?}"),
            };
            smooth.push((piece[i].0, piece[i].1, score));
        }
    }
    // Runs of scores of at least `off`, broken at gaps in time.
    let mut runs: Vec<(f64, f64, f32)> = Vec::new();
    let mut open = false;
    let mut before = f64::NAN;
    for &(start, end, score) in &smooth {
        if score >= off {
            if open && (start - before).abs() < 1e-9 {
                let run = runs.last_mut().unwrap();
                (run.1, run.2) = (end, run.2.max(score));
            } else {
                runs.push((start, end, score));
            }
        }
        open = score >= off;
        before = end;
    }
    runs.retain(|run| run.2 >= on);
    let mut merged: Vec<(f64, f64, f32)> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) if run.0 - last.1 <= config.min_gap + 1e-6 => (last.1, last.2) = (run.1, last.2.max(run.2)),
            _ => merged.push(run),
        }
    }
    merged.retain(|run| run.1 - run.0 >= config.min_duration - 1e-6);
    let mean = |run: &(f64, f64, f32)| {
        let inside = smooth.iter().filter(|s| s.0 >= run.0 - 1e-9 && s.1 <= run.1 + 1e-9);
        let (area, time) =
            inside.fold((0.0, 0.0), |(area, time), s| (area + f64::from(s.2) * (s.1 - s.0), time + s.1 - s.0));
        (area / time) as f32
    };
    merged.iter().map(|run| (run.0, run.1, run.2, mean(run))).collect()
}

fn assert_events(what: &str, got: &[&Event], expected: &[(f64, f64, f32, f32)]) {
    assert_eq!(got.len(), expected.len(), "{what}: {got:#?}\n{expected:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (got.onset - expected.0).abs() < 1e-9 && (got.offset - expected.1).abs() < 1e-9,
            "{what}: {got:?} {expected:?}"
        );
        assert!(got.peak == expected.2 && (got.mean - expected.3).abs() < 1e-5, "{what}: {got:?} {expected:?}");
    }
}

#[test]
fn streamed_events_equal_the_rules_over_the_whole_recording() {
    let mut n_events = 0;
    for seed in 0..120u64 {
        let pick = |name: &str, high: f64| hashed(name, 1, 0.0, high, seed)[0];
        let on = 0.3 + pick("on", 0.6);
        let smoothing = match seed % 4 {
            0 => Smoothing::None,
            1 => Smoothing::Median(1 + 2 * pick("n", 6.0) as usize),
            2 => Smoothing::Mean(1 + 2 * pick("n", 6.0) as usize),
            _ => Smoothing::Median(99),
        };
        let config = EventConfig {
            threshold_on: on,
            threshold_off: on * pick("off", 1.0),
            min_duration: f64::from(pick("duration", 0.2)) * f64::from(u8::from(seed % 3 > 0)),
            min_gap: f64::from(pick("gap", 0.3)) * f64::from(u8::from(seed % 5 > 1)),
            smoothing,
            classes: vec![ClassThresholds { label: "rain".into(), threshold_on: 0.9, threshold_off: 0.1 }],
            ..EventConfig::default()
        };
        // Segments of 32 ms, with a gap after every 50th.
        let holes = seed % 2 == 1;
        let mut pieces: Vec<Vec<(f64, f64, [f32; 3])>> = vec![Vec::new()];
        for (i, scores) in scores(200, seed).into_iter().enumerate() {
            if holes && i % 50 == 49 {
                pieces.push(Vec::new());
                continue;
            }
            pieces.last_mut().unwrap().push((i as f64 * 0.032, (i + 1) as f64 * 0.032, scores));
        }
        let mut detector = EventDetector::new(&config, &labels()).unwrap();
        for round in 0..2 {
            let mut events = Vec::new();
            for (start, end, scores) in pieces.iter().flatten() {
                let over = detector.push_segment(*start, *end, scores).unwrap();
                assert!(over.is_sorted_by(|a, b| a.onset <= b.onset));
                assert!(over.iter().all(|event| event.offset <= *end), "an event is reported only after its end");
                events.extend(over);
            }
            events.extend(detector.finish());
            for class in 0..3 {
                let of_class = |piece: &Vec<(f64, f64, [f32; 3])>| {
                    piece.iter().map(|(start, end, scores)| (*start, *end, scores[class])).collect()
                };
                let pieces: Vec<_> = pieces.iter().map(of_class).collect();
                let thresholds = if class == 2 { (0.9, 0.1) } else { (config.threshold_on, config.threshold_off) };
                let expected = naive(&pieces, &config, thresholds);
                let got: Vec<&Event> = events.iter().filter(|event| event.index == class).collect();
                assert_events(&format!("seed {seed} round {round} class {class} {config:?}"), &got, &expected);
                n_events += expected.len();
            }
        }
    }
    assert!(n_events > 500, "the cases have events: {n_events}");
}

fn window(start: f64, end: f64, scores: [f32; 3]) -> WindowTagging {
    let tagging =
        Tagging { scores: scores.to_vec(), logits: vec![0.0; 3], embedding: Embedding(Vec::new()), labels: labels() };
    WindowTagging { start, end, tagging, frames: None }
}

#[test]
fn each_window_covers_the_time_nearest_to_it() {
    let config = EventConfig { threshold_on: 0.5, threshold_off: 0.5, ..EventConfig::default() };
    let mut detector = EventDetector::new(&config, &labels()).unwrap();
    let dog = |on: bool| [if on { 0.9 } else { 0.1 }, 0.0, 0.0];
    let mut spans = |windows: &[(f64, f64, bool)]| {
        let mut events = Vec::new();
        for &(start, end, on) in windows {
            events.extend(detector.push(&window(start, end, dog(on))).unwrap());
        }
        events.extend(detector.finish());
        events.iter().map(|event| (event.onset, event.offset)).collect::<Vec<_>>()
    };
    // Overlap of a half, of nine tenths, none; with gaps; with a short last window.
    assert_eq!(spans(&[(0.0, 10.0, true), (5.0, 15.0, false), (10.0, 20.0, true)]), [(0.0, 7.5), (12.5, 20.0)]);
    let dense: Vec<_> = (0..10).map(|i| (f64::from(i), f64::from(i) + 10.0, i == 4 || i == 5)).collect();
    assert_eq!(spans(&dense), [(8.5, 10.5)]);
    assert_eq!(spans(&[(0.0, 1.0, false), (1.0, 2.0, true), (2.0, 3.0, false)]), [(1.0, 2.0)]);
    assert_eq!(spans(&[(0.0, 1.0, true), (5.0, 6.0, true)]), [(0.0, 1.0), (5.0, 6.0)]);
    assert_eq!(spans(&[(0.0, 10.0, false), (5.0, 10.5, true)]), [(7.5, 10.5)]);
    assert_eq!(spans(&[(0.0, 3.0, true)]), [(0.0, 3.0)]);
    assert_eq!(spans(&[]), []);
}

#[test]
fn allow_deny_and_parents_apply_to_frames() {
    let json = r#"[{"name": "Dog", "id": "/m/1", "parents": ["Animal"]}, "Cat", "Rain"]"#;
    let path = std::env::temp_dir().join(format!("clipwise-events-{}.json", std::process::id()));
    std::fs::write(&path, json).unwrap();
    let labels = LabelSet::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let frames = |start: f64| Frames {
        start,
        step: 0.5,
        end: start + 1.25,
        scores: ndarray::array![[0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.9, 0.0, 0.9]],
    };
    let run = |config: EventConfig| {
        let mut detector = EventDetector::new(&config, &labels).unwrap();
        let mut events = detector.push_frames(&frames(0.0)).unwrap();
        events.extend(detector.push_frames(&frames(1.25)).unwrap());
        events.extend(detector.finish());
        events
    };
    let spans = |events: &[Event]| events.iter().map(|e| (e.index, e.onset, e.offset)).collect::<Vec<_>>();
    let config = EventConfig { deny: vec!["rain".into()], parents: true, ..EventConfig::default() };
    let events = run(config);
    assert_eq!(spans(&events), [(1, 0.0, 1.0), (1, 1.25, 2.25), (0, 0.0, 2.5)]);
    assert_eq!((events[2].id.as_deref(), &events[2].parents[..]), (Some("/m/1"), &["Animal".to_string()][..]));
    let config =
        EventConfig { allow: vec!["/m/1".into(), "Rain".into()], deny: vec!["Rain".into()], ..Default::default() };
    let events = run(config);
    assert_eq!(spans(&events), [(0, 0.0, 2.5)]);
    assert!(events[0].parents.is_empty(), "not asked for");
}

#[test]
fn invalid_settings_and_pushes_are_rejected() {
    let default = EventConfig::default;
    for (field, config) in [
        ("threshold_on", EventConfig { threshold_on: f32::NAN, ..default() }),
        ("threshold_off", EventConfig { threshold_off: 0.4, ..default() }),
        ("threshold_off", EventConfig { threshold_off: f32::NAN, ..default() }),
        ("min_duration", EventConfig { min_duration: -1.0, ..default() }),
        ("min_gap", EventConfig { min_gap: f64::INFINITY, ..default() }),
        ("smoothing", EventConfig { smoothing: Smoothing::Median(4), ..default() }),
        ("smoothing", EventConfig { smoothing: Smoothing::Mean(usize::MAX), ..default() }),
        ("allow", EventConfig { allow: vec!["Horse".into()], ..default() }),
        ("deny", EventConfig { deny: vec!["".into()], ..default() }),
    ] {
        match EventDetector::new(&config, &labels()).unwrap_err() {
            Error::Config { field: got, .. } | Error::Argument { name: got, .. } => assert_eq!(got, field),
            other => panic!("{field}: {other}"),
        }
    }
    let mut detector = EventDetector::new(&default(), &labels()).unwrap();
    detector.push_segment(1.0, 2.0, &[0.9; 3]).unwrap();
    for (start, end, scores) in [
        (0.5, 3.0, vec![0.1; 3]),
        (2.0, 2.0, vec![0.1; 3]),
        (2.0, f64::NAN, vec![0.1; 3]),
        (2.0, 3.0, vec![f32::NAN; 3]),
        (2.0, 3.0, vec![0.1; 2]),
    ] {
        let error = detector.push_segment(start, end, &scores).unwrap_err();
        assert!(matches!(error, Error::Argument { .. } | Error::LabelCount { .. }), "{error}");
    }
    assert_eq!(detector.push_segment(2.0, 3.0, &[0.0; 3]).unwrap().len(), 3, "rejected pushes change nothing");
    assert_eq!(detector.finish(), []);
}

#[test]
fn events_in_every_format() {
    let event = |onset: f64, offset: f64, label: &str, id: Option<&str>, parents: &[&str]| Event {
        onset,
        offset,
        label: label.into(),
        id: id.map(str::to_string),
        index: 7,
        peak: 0.75,
        mean: 0.5,
        parents: parents.iter().map(|parent| parent.to_string()).collect(),
    };
    let events = [
        event(3661.5, 3662.25, "Rain, heavy", Some("/m/1"), &["Weather", "Water"]),
        event(0.0, 0.01, "\"Dog\" <b>&\tco", None, &[]), // written out of order
    ];
    let text = |format: EventFormat, events: &[Event], file: Option<&str>| {
        let mut writer = EventWriter::new(Vec::new(), format);
        events.iter().for_each(|event| writer.write(event, file).unwrap());
        String::from_utf8(writer.finish().unwrap()).unwrap()
    };
    assert_eq!(
        text(EventFormat::Audacity, &events, None),
        "3661.500000\t3662.250000\tRain, heavy\n0.000000\t0.010000\t\"Dog\" <b>& co\n"
    );
    assert_eq!(
        text(EventFormat::WebVtt, &events, None),
        "WEBVTT\n\n00:00:00.000 --> 00:00:00.010\n\"Dog\" &lt;b&gt;&amp; co (0.75)\n\
         \n01:01:01.500 --> 01:01:02.250\nRain, heavy (0.75)\n"
    );
    assert_eq!(
        text(EventFormat::Csv, &events, Some("a,b.wav")),
        "file,onset,offset,label,id,peak,mean,parents\n\
         \"a,b.wav\",3661.500,3662.250,\"Rain, heavy\",/m/1,0.7500,0.5000,Weather;Water\n\
         \"a,b.wav\",0.000,0.010,\"\"\"Dog\"\" <b>&\tco\",,0.7500,0.5000,\n"
    );
    let json = text(EventFormat::JsonLines, &events, Some("a.wav"));
    for (line, event) in json.lines().zip(&events) {
        assert_eq!(&serde_json::from_str::<Event>(line).unwrap(), event);
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["file"], "a.wav");
    }
    let short = [event(0.0, 0.0004, "a", None, &[]), event(0.0005, 0.0006, "b", None, &[])];
    assert_eq!(
        text(EventFormat::WebVtt, &short, None),
        "WEBVTT\n\n00:00:00.000 --> 00:00:00.001\na (0.75)\n\n00:00:00.001 --> 00:00:00.002\nb (0.75)\n",
        "captions end after they begin"
    );
    let table = text(EventFormat::Table, &events[..1], Some("a.wav"));
    assert!(table.lines().nth(1).unwrap().ends_with("3662.25  0.750  Rain, heavy (Weather, Water)  a.wav"), "{table}");
    let empty = |format| text(format, &[], None);
    assert_eq!((empty(EventFormat::WebVtt).as_str(), empty(EventFormat::Audacity).as_str()), ("WEBVTT\n", ""));
    assert!(empty(EventFormat::Csv).starts_with("file,onset"));
}
