//! Windows of recordings and streams: each equals the cut clip, bit for bit.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use clipwise::audio::{AudioReader, RawFormat, ReadOptions, SampleFormat};
use clipwise::frontend::features::{FeatureKind, Features, FeaturesConfig};
use clipwise::frontend::{ClipRule, FbankConfig, FrontEnd, LogMelConfig, MfccConfig, Reach};
use clipwise::models::ced::WindowMean;
use clipwise::models::{AudioRnnClassifier, Ced, OutputActivation, ced, cnn14, leenet, m5, rnn};
use clipwise::weights::Parameters;
use clipwise::windows::Aggregator;
use clipwise::{
    Aggregation, Detail, Error, EventConfig, EventDetector, LabelSet, ModelInfo, Result, Tagger, TaggerStream,
    TaggingModel, TaggingOutput, Waveform, WaveformBatch, WindowConfig, WindowTagging, Windows, ndarray,
};
use common::{ced_tensors, cnn14_tensors, leenet_tensors, m5_tensors, shipped, signal, values};

/// A narrow CNN14 at 8 kHz whose front end has a floor that depends on the whole clip.
fn narrow() -> Tagger {
    let log_mel = LogMelConfig { top_db: Some(30.0), ..LogMelConfig::PANNS_8K };
    let config = cnn14::Config {
        log_mel,
        channels: [4, 8, 8, 12, 16, 24],
        embedding_dim: 20,
        n_classes: 11,
        ..cnn14::Config::AUDIOSET_8K
    };
    let weights = cnn14_tensors(config.channels, 20, 11, 20).weights();
    let model = cnn14::Cnn14::load(&config, &weights, &Device::Cpu).unwrap();
    Tagger::new(model, LabelSet::numbered(11)).unwrap()
}

fn leenet() -> Tagger {
    let config = leenet::Config { channels: [8; 9], embedding_dim: 12, n_classes: 5, ..leenet::Config::LEENET24 };
    let model = leenet::LeeNet::load(&config, &leenet_tensors(&config, 1).weights(), &Device::Cpu).unwrap();
    Tagger::new(model, LabelSet::numbered(5)).unwrap()
}

fn m5() -> Tagger {
    let config = m5::Config { n_classes: 7, ..m5::Config::M5 };
    let model = m5::M5::load(&config, &m5_tensors(&config, 3).weights(), &Device::Cpu).unwrap();
    Tagger::new(model, LabelSet::numbered(7)).unwrap()
}

/// A small CED with windows of 0.64 s.
fn ced(window_mean: WindowMean) -> Tagger {
    let small = ced::Config { width: 16, n_heads: 2, depth: 1, n_classes: 9, ..ced::Config::TINY };
    let config = ced::Config { target_length: 64, window_mean, ..small };
    let weights = clipwise::Weights::from_tensors(ced_tensors(&config, 2)).unwrap();
    Tagger::new(Ced::load(&config, &weights, &Device::Cpu).unwrap(), LabelSet::numbered(9)).unwrap()
}

/// A small recurrent network.
fn recurrent(features: FeaturesConfig) -> AudioRnnClassifier {
    let config = rnn::Config { features, hidden: 6, n_classes: 4, ..rnn::Config::BIGRU };
    let parameters = Parameters::new(&Device::Cpu, 8);
    AudioRnnClassifier::build(&config, &parameters.loader()).unwrap();
    AudioRnnClassifier::load(&config, &parameters.weights().unwrap(), &Device::Cpu).unwrap()
}

/// Front ends of recurrent networks: Kaldi fbank without and with frames beyond the ends, and MFCC, with settings that
/// depend on the whole clip.
fn features() -> [FeaturesConfig; 4] {
    let plain = |spectrum: FeatureKind| FeaturesConfig { spectrum, deltas: None, normalize: None };
    let mirrored = FbankConfig { snip_edges: false, ..FbankConfig::KALDI_16K };
    [
        plain(FeatureKind::Fbank(FbankConfig::KALDI_16K)),
        FeaturesConfig { spectrum: FeatureKind::Fbank(mirrored), ..FeaturesConfig::LOG_MEL_64 },
        plain(FeatureKind::Mfcc(MfccConfig::TORCHAUDIO_16K)),
        FeaturesConfig::MFCC_39,
    ]
}

fn recurrent_taggers() -> [Tagger; 4] {
    features().map(|features| Tagger::new(recurrent(features), LabelSet::numbered(4)).unwrap())
}

/// The windows of samples at the model's rate, pushed in blocks of a given size.
fn windows(tagger: &Tagger, samples: &[f32], block: usize, config: &WindowConfig) -> Vec<WindowTagging> {
    let blocks = samples.chunks(block).map(|block| Ok(block.to_vec()));
    Windows::new(tagger, blocks, config).unwrap().collect::<Result<_>>().unwrap()
}

/// Samples of a window whose start is a multiple of `align`.
fn samples_of(config: &WindowConfig, rate: u32, align: usize) -> usize {
    let length = (config.length * f64::from(rate)).round() as usize;
    let farthest = (config.hop * f64::from(rate) / align as f64 - 1e-9).ceil() as usize * align;
    if config.hop <= config.length { length.max(farthest) } else { length }
}

#[test]
fn a_window_equals_the_cut_clip_bit_for_bit() {
    let default = WindowConfig::default;
    let ceds = [WindowMean::Scores, WindowMean::Tokens, WindowMean::ScoresByLength].map(ced);
    let others = [narrow(), shipped("ced-tiny"), leenet(), m5()];
    for tagger in others.into_iter().chain(ceds).chain(recurrent_taggers()) {
        let rate = tagger.model().info().sample_rate;
        let samples = signal(rate as usize * 5 / 2 + 77, rate, 5);
        for config in [
            WindowConfig { length: 1.0, hop: 0.5, batch: 3, ..default() },
            WindowConfig { length: 0.7, hop: 0.333, pad_last: true, ..default() }, // a hop between frames
            WindowConfig { length: 0.4321, hop: 0.4321, batch: 1, ..default() },
            WindowConfig { length: 0.5, hop: 1.1, pad_last: true, ..default() }, // gaps
            WindowConfig { length: 0.04, hop: 0.71, ..default() }, // shorter than the model's shortest clip
            WindowConfig { length: 9.0, hop: 1.0, ..default() },   // longer than the recording
        ] {
            let what = format!("{} {config:?}", tagger.model().info().name);
            let got = windows(&tagger, &samples, 1000, &config);
            let align = tagger.model().front_end().map_or(1, |front_end| front_end.reach().hop_length);
            let length = samples_of(&config, rate, align);
            let mut covered = 0;
            for (k, window) in got.iter().enumerate() {
                let start = (window.start * f64::from(rate)).round() as usize;
                let expected = k as f64 * config.hop * f64::from(rate);
                assert!(
                    start.is_multiple_of(align) && (start as f64 - expected).abs() <= 0.5 * align as f64 + 1e-6,
                    "{what}"
                );
                let end = (start + length).min(samples.len());
                assert_eq!(window.end, end as f64 / f64::from(rate), "{what}");
                assert!(covered < samples.len(), "{what}: the last window reaches the end");
                covered = end;
                let mut clip = samples[start..end].to_vec();
                if config.pad_last {
                    clip.resize(length, 0.0);
                }
                let alone = tagger.tag(&Waveform::new(clip, rate)).unwrap();
                assert_eq!(window.tagging, alone, "{what} window {k}");
            }
            assert!(covered == samples.len() || (config.hop > config.length && got.len() >= 3), "{what}");
            if config.length == 1.0 {
                assert_eq!(got.len(), 5, "{what}: starts at 0, 0.5, 1, 1.5, 2");
                assert_eq!(got, windows(&tagger, &samples, samples.len(), &WindowConfig { batch: 100, ..config }));
            }
        }
    }
}

/// A front end that counts the rows it computes.
#[derive(Debug)]
struct Counting {
    front_end: Features,
    rows: Arc<AtomicUsize>,
}

impl FrontEnd for Counting {
    fn sample_rate(&self) -> u32 {
        self.front_end.sample_rate()
    }
    fn hop_length(&self) -> usize {
        self.front_end.hop_length()
    }
    fn n_features(&self) -> usize {
        self.front_end.n_features()
    }
    fn n_frames(&self, n_samples: usize) -> usize {
        self.front_end.n_frames(n_samples)
    }
    fn min_samples(&self) -> usize {
        self.front_end.min_samples()
    }
    fn reach(&self) -> Reach {
        self.front_end.reach()
    }
    fn clip_rule(&self) -> Option<ClipRule> {
        self.front_end.clip_rule()
    }
    fn frames_dim(&self, n_samples: usize) -> (usize, usize) {
        self.front_end.frames_dim(n_samples)
    }
    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()> {
        self.rows.fetch_add(out.len() / self.frames_dim(samples.len()).1, Ordering::Relaxed);
        self.front_end.frames_into(samples, first, out)
    }
    fn finish(&self, frames: ndarray::Array2<f32>, n_samples: usize) -> Result<ndarray::Array2<f32>> {
        self.front_end.finish(frames, n_samples)
    }
}

/// A recurrent network with such a front end.
struct Counted(AudioRnnClassifier, Counting);

impl TaggingModel for Counted {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }
    fn device(&self) -> &Device {
        self.0.device()
    }
    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        self.0.forward(batch, detail)
    }
    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.1)
    }
    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.0.forward_features(features, detail)
    }
}

#[test]
fn windows_that_overlap_share_the_frames_of_any_front_end() {
    for config in features() {
        let (rows, front_end) = (Arc::new(AtomicUsize::new(0)), Features::new(&config).unwrap());
        let (rate, reach) = (front_end.sample_rate(), front_end.reach());
        let (hop, n_windows) = (20 * reach.hop_length, 16);
        let length = 10 * hop + 99;
        // The recording's frames are computed once each, and for every window those that touch one of its ends.
        let at_ends = front_end.frames_dim(length).0
            - ((length - reach.after) / reach.hop_length + 1 - reach.before.div_ceil(reach.hop_length));
        let n_samples = length + (n_windows - 1) * hop;
        let due = front_end.frames_dim(n_samples).0 + (n_windows - 1) * at_ends;

        let model = Counted(recurrent(config.clone()), Counting { front_end, rows: rows.clone() });
        let tagger = Tagger::new(model, LabelSet::numbered(4)).unwrap();
        let seconds = |samples: usize| samples as f64 / f64::from(rate);
        let window = WindowConfig { length: seconds(length), hop: seconds(hop), ..WindowConfig::default() };
        let got = windows(&tagger, &signal(n_samples, rate, 5), 3_000, &window);
        assert_eq!(got.len(), n_windows);
        assert_eq!(rows.load(Ordering::Relaxed), due, "{config:?}");
        assert!(due < 2 * front_end_rows(&tagger, n_samples), "{config:?}");
    }
}

fn front_end_rows(tagger: &Tagger, n_samples: usize) -> usize {
    tagger.model().front_end().unwrap().frames_dim(n_samples).0
}

#[test]
fn windows_that_touch_cover_the_recording() {
    for tagger in [narrow(), leenet(), m5()] {
        let rate = tagger.model().info().sample_rate;
        let hop_length = tagger.model().front_end().map_or(1, |front_end| front_end.reach().hop_length);
        let step = tagger.model().info().frames.unwrap().step;
        let sample = |seconds: f64| (seconds * f64::from(rate)).round() as usize;
        for (length, hop) in [(0.995, 0.995), (0.4321, 0.4321), (2.5001, 2.4999), (3.0, 3.0), (1.234, 1.0)] {
            for (framewise, align) in [(false, hop_length), (true, step)] {
                let config = WindowConfig { length, hop, framewise, ..WindowConfig::default() };
                if framewise && TaggerStream::new(&tagger, rate, &config).is_err() {
                    continue; // a hop of less than a frame, or too long for M5
                }
                let n_samples = 3 * samples_of(&config, rate, align);
                for n_samples in [n_samples - 1, n_samples, n_samples + step + 1] {
                    let what = format!("{} {config:?} {n_samples}", tagger.model().info().name);
                    let got = windows(&tagger, &signal(n_samples, rate, 3), 20_000, &config);
                    let mut covered = 0;
                    for window in &got {
                        assert!(covered < n_samples && sample(window.start) <= covered, "{what}");
                        covered = sample(window.end);
                    }
                    assert_eq!(covered, n_samples, "{what}");
                    let mut end_of_frames = 0.0;
                    for frames in got.iter().filter_map(|window| window.frames.as_ref()) {
                        assert_eq!(frames.start, end_of_frames, "{what}");
                        end_of_frames = frames.end;
                    }
                    let missing = n_samples as f64 / f64::from(rate) - end_of_frames;
                    assert!(!framewise || (0.0..2.0 * step as f64 / f64::from(rate)).contains(&missing), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_stream_gives_the_windows_of_the_recording_for_any_block_size() {
    let tagger = Arc::new(narrow());
    let waveform = Waveform::new(signal(11_025 * 3 + 5, 11_025, 2), 11_025);
    for (framewise, pad_last, sizes) in
        [(false, false, &[1usize, 997, 40_000][..]), (true, false, &[61, 12_289, 40_000]), (false, true, &[4099])]
    {
        let config = WindowConfig { length: 0.8, hop: 0.3, pad_last, framewise, ..WindowConfig::default() };
        let resampled = waveform.resample(8_000).unwrap();
        let expected = windows(&tagger, &resampled.samples, 777, &config);
        let of_recording: Result<Vec<_>> = tagger.windows(waveform.clone(), &config).unwrap().collect();
        assert_eq!(of_recording.unwrap(), expected);
        assert_eq!(expected.len(), 9);
        let mut stream = TaggerStream::new(tagger.clone(), 11_025, &config).unwrap();
        for &size in sizes {
            for round in 0..2 {
                let mut got = Vec::new();
                assert_eq!(stream.real_time_factor(), 0.0);
                for block in waveform.samples.chunks(size) {
                    for window in stream.push(block).unwrap() {
                        let late = stream.position() - window.end;
                        let longest = stream.lookahead() + size as f64 / 11_025.0 + 1e-9;
                        assert!(late <= longest, "{late} s after its end, at most {longest} were said");
                        got.push(window);
                    }
                }
                assert!(stream.real_time_factor() > 0.0);
                got.extend(stream.finish().unwrap());
                assert_eq!(got, expected, "blocks of {size}, round {round}, {config:?}");
            }
        }
        // A rejected block leaves no trace.
        let (first, rest) = waveform.samples.split_at(10_000);
        let mut got = stream.push(first).unwrap();
        match stream.push(&[0.0, f32::NAN]).unwrap_err() {
            Error::NonFinite { index: 10_001, .. } => {}
            other => panic!("{other}"),
        }
        got.extend(stream.push(rest).unwrap());
        got.extend(stream.finish().unwrap());
        assert_eq!(got, expected);
        stream.push(first).unwrap();
        stream.reset();
        assert_eq!((stream.position(), stream.finish().unwrap().len()), (0.0, 0));
        assert!(stream.latency() > 0.8 && stream.latency() < 1.1, "{}", stream.latency());
    }
}

#[test]
fn two_streams_on_two_threads_equal_sequential_ones() {
    let tagger = narrow();
    let config = WindowConfig { length: 1.0, hop: 0.25, ..WindowConfig::default() };
    let run = |seed: u64| {
        let mut stream = TaggerStream::new(&tagger, 16_000, &config).unwrap();
        let mut got = Vec::new();
        for block in signal(60_000, 16_000, seed).chunks(1234) {
            got.extend(stream.push(block).unwrap());
        }
        got.extend(stream.finish().unwrap());
        got
    };
    let expected = [run(1), run(2)];
    let run = &run;
    let got = std::thread::scope(|scope| [1, 2].map(|seed| scope.spawn(move || run(seed))).map(|t| t.join().unwrap()));
    assert_eq!(got, expected);
    assert_ne!(got[0], got[1]);
}

#[test]
fn every_frame_comes_once_from_the_window_whose_ends_are_farthest() {
    for (tagger, n_samples) in [(narrow(), 30_500), (leenet(), 120_000), (m5(), 60_000)] {
        let rate = f64::from(tagger.model().info().sample_rate);
        let grid = tagger.model().info().frames.unwrap();
        let step = grid.step as f64 / rate;
        let samples = signal(n_samples, tagger.model().info().sample_rate, 9);
        for (length, hop) in [(20.0 * step, 7.0 * step), (40.0 * step, 40.0 * step), (40.0 * step, 36.0 * step)] {
            let (length, hop) = if grid.step == 80 { (5.0 * length, 5.0 * hop) } else { (length / 4.0, hop / 4.0) };
            let config = WindowConfig { length, hop, framewise: true, ..WindowConfig::default() };
            if grid.first > 0 && hop == length {
                // 10 frames of time: 9 of the model's.
                match TaggerStream::new(&tagger, rate as u32, &config).unwrap_err() {
                    Error::Config { field: "hop", reason, .. } => {
                        assert!(reason.contains("at most 4.608 s"), "{reason}")
                    }
                    other => panic!("{other}"),
                }
                continue;
            }
            let got = windows(&tagger, &samples, 999, &config);
            let n_samples_of =
                |window: &WindowTagging| ((window.start * rate).round() as usize, (window.end * rate).round() as usize);
            let mut next = 0.0;
            for (k, window) in got.iter().enumerate() {
                let what = format!("{} {config:?} window {k}", tagger.model().info().name);
                let frames = window.frames.as_ref().unwrap();
                let (start, end) = n_samples_of(window);
                assert_eq!(start % grid.step, 0, "{what}");
                let batch = WaveformBatch::new(vec![samples[start..end].to_vec()], rate as u32).unwrap();
                let whole = tagger.model().forward(&batch, Detail::Frames).unwrap().framewise_output.unwrap();
                let first = ((frames.start * rate).round() as usize - grid.first - start) / grid.step;
                let own = whole.get(0).unwrap().narrow(0, first, frames.scores.nrows()).unwrap();
                assert_eq!(values(&own), frames.scores.iter().copied().collect::<Vec<_>>(), "{what}");
                assert!(frames.start == next || k == 0, "{what}: {} follows {next}", frames.start);
                next = frames.end;
                let middle = 0.5 * (window.end + got.get(k + 1).map_or(f64::NAN, |next| next.start));
                if k + 1 < got.len() && grid.first == 0 {
                    assert!((frames.end - middle).abs() <= step, "{what}: {} {middle}", frames.end);
                }
                assert_eq!(
                    window.tagging,
                    tagger.tag(&Waveform::new(samples[start..end].to_vec(), rate as u32)).unwrap()
                );
            }
            let end = n_samples as f64 / rate;
            assert!(got.len() >= 2 && next <= end && next > end - 2.0 * step - grid.first as f64 / rate);
        }
    }
}

#[test]
fn a_recording_may_end_before_its_first_frame() {
    let tagger = m5();
    let first = tagger.model().info().frames.unwrap().first;
    let config = WindowConfig { framewise: true, ..WindowConfig::default() };
    for (n_samples, n_frames) in [(1, 0), (50, 0), (first, 0), (first + 1, 1), (6_848, 1), (10_943, 1), (10_944, 2)] {
        let got = windows(&tagger, &signal(n_samples, 8_000, 1), 4_096, &config);
        let frames = got[0].frames.as_ref().unwrap();
        let end = n_samples as f64 / 8_000.0;
        assert!(got.len() == 1 && frames.start <= frames.end && frames.end <= end, "{n_samples}: {frames:?}");
        assert_eq!(frames.scores.nrows(), n_frames, "{n_samples}");
        let events = EventConfig { threshold_on: 0.0, threshold_off: 0.0, ..EventConfig::default() };
        let mut detector = EventDetector::new(&events, tagger.labels()).unwrap();
        detector.push(&got[0]).unwrap();
        assert_eq!(detector.finish().len(), if n_frames == 0 { 0 } else { 7 }, "{n_samples}");
    }
    let short = WindowConfig { length: 0.8, hop: 0.6, ..config };
    assert!(matches!(TaggerStream::new(&tagger, 8_000, &short), Err(Error::Config { field: "length", .. })));
}

/// A model that returns which samples it was given: `[n, first sample, last sample]`.
struct Echo(ModelInfo);

impl TaggingModel for Echo {
    fn info(&self) -> &ModelInfo {
        &self.0
    }
    fn device(&self) -> &Device {
        &Device::Cpu
    }
    fn forward(&self, waveforms: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        self.0.check(detail)?;
        let row = |row: &Vec<f32>| [row.len() as f32, row[0], row[row.len() - 1]];
        let rows: Vec<f32> = waveforms.rows().iter().flat_map(row).collect();
        let logits = Tensor::from_vec(rows, (waveforms.len(), 3), &Device::Cpu).unwrap();
        let embedding = Tensor::zeros((waveforms.len(), 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        Ok(TaggingOutput::new(logits.clone(), logits, embedding))
    }
}

#[test]
fn a_stream_of_a_day_neither_drifts_nor_grows() {
    if !alone("a_stream_of_a_day_neither_drifts_nor_grows") {
        return;
    }
    let tagger = Tagger::new(Echo(ModelInfo::new("echo", 1_000, 3, 1)), LabelSet::numbered(3)).unwrap();
    // 1/3 s is not a whole number of samples.
    let config = WindowConfig { length: 1.0, hop: 10.0 / 3.0, ..WindowConfig::default() };
    let mut stream = TaggerStream::new(&tagger, 1_000, &config).unwrap();
    let day = 24 * 3600 * 1_000u64;
    let sample = |i: u64| (i % 9_973) as f32;
    let (mut pushed, mut k, mut after_an_hour) = (0, 0u64, None);
    let mut block = Vec::new();
    while pushed < day {
        block.clear();
        block.extend((pushed..day.min(pushed + 16_001)).map(sample));
        pushed += block.len() as u64;
        for window in stream.push(&block).unwrap() {
            let start = (k as f64 * 10_000.0 / 3.0).round() as u64;
            assert_eq!((window.start, window.end), (start as f64 / 1_000.0, (start + 1_000) as f64 / 1_000.0));
            assert_eq!(window.tagging.scores, [1_000.0, sample(start), sample(start + 999)]);
            k += 1;
        }
        if pushed > day / 24 && after_an_hour.is_none() {
            after_an_hour = Some(resident());
        }
    }
    assert_eq!(stream.position(), 86_400.0);
    assert_eq!(k, 25_920);
    if let (Some(Some(before)), Some(after)) = (after_an_hour, resident()) {
        // The samples of a day would take 346 MB.
        assert!(after < before + (2 << 20), "{before} bytes after an hour, {after} after a day");
    }
}

#[test]
fn a_recording_of_ten_hours_takes_the_memory_of_minutes() {
    if !alone("a_recording_of_ten_hours_takes_the_memory_of_minutes") {
        return;
    }
    let tagger = Tagger::new(Echo(ModelInfo::new("echo", 1_000, 3, 1)), LabelSet::numbered(3)).unwrap();
    let seconds = 10 * 3600;
    let zeros = std::io::Read::take(std::io::repeat(0), 2 * 1_000 * seconds);
    let format = RawFormat { sample_format: SampleFormat::Int16, sample_rate: 1_000, n_channels: 1 };
    let recording = AudioReader::raw(zeros, &format, &ReadOptions::default()).unwrap();
    let mut windows = tagger.windows(recording, &WindowConfig::default()).unwrap();
    let n_windows = windows.by_ref().take(200).map(Result::unwrap).count();
    let before = resident();
    assert_eq!(n_windows + windows.by_ref().map(Result::unwrap).count(), (seconds / 5 - 1) as usize);
    assert_eq!(windows.position(), seconds as f64);
    if let (Some(before), Some(after)) = (before, resident()) {
        // All samples would take 144 MB.
        assert!(after < before + (2 << 20), "{before} bytes after 200 windows, {after} at the end");
    }
}

#[test]
fn waiting_windows_take_no_more_memory_with_a_small_hop() {
    if !alone("waiting_windows_take_no_more_memory_with_a_small_hop") {
        return;
    }
    let tagger = Tagger::new(Echo(ModelInfo::new("echo", 1_000, 3, 1)), LabelSet::numbered(3)).unwrap();
    // 2,001 windows of 40 kB.
    let config = WindowConfig { length: 10.0, hop: 0.001, ..WindowConfig::default() };
    let samples = signal(12_000, 1_000, 6);
    let before = most_resident();
    let expected = windows(&tagger, &samples, samples.len(), &config);
    assert_eq!(expected.len(), 2_001);
    let mut stream = TaggerStream::new(&tagger, 1_000, &config).unwrap();
    for size in [12_000, 5_999] {
        let mut got = Vec::new();
        for block in samples.chunks(size) {
            got.extend(stream.push(block).unwrap());
        }
        got.extend(stream.finish().unwrap());
        assert_eq!(got, expected, "blocks of {size}");
    }
    if let (Some(before), Some(after)) = (before, most_resident()) {
        assert!(after < before + (24 << 20), "{before} bytes before, {after} at most");
    }
}

/// Runs a test in a separate process, so that other tests do not affect its memory. Returns true in that process.
fn alone(test: &str) -> bool {
    if std::env::var_os("CLIPWISE_TEST_ALONE").is_some() {
        return true;
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args([test, "--exact", "--nocapture"]).env("CLIPWISE_TEST_ALONE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Memory of this process in bytes, if the system reports it.
fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4096)
}

/// Peak memory of this process in bytes, if the system reports it.
fn most_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[test]
fn an_error_of_the_source_comes_after_the_samples_read() {
    let tagger = Tagger::new(Echo(ModelInfo::new("echo", 1_000, 3, 1)), LabelSet::numbered(3)).unwrap();
    let config = WindowConfig { length: 1.0, hop: 1.0, ..WindowConfig::default() };
    let lost = || Error::Io { action: "read", path: "tape.wav".into(), cause: std::io::Error::other("gone") };
    let blocks = [Ok(vec![0.1; 2_300]), Err(lost()), Ok(vec![0.1; 9_000])];
    let mut windows = Windows::new(&tagger, blocks.into_iter(), &config).unwrap();
    let ends: Vec<f64> = windows.by_ref().take(3).map(|window| window.unwrap().end).collect();
    assert_eq!(ends, [1.0, 2.0, 2.3]);
    assert!(matches!(windows.next(), Some(Err(Error::Io { .. }))));
    assert!(windows.next().is_none() && windows.next().is_none());
    assert_eq!(windows.position(), 2.3);

    let blocks = [Ok(vec![0.1; 1_500]), Ok(vec![f32::INFINITY])];
    let results: Vec<_> = Windows::new(&tagger, blocks.into_iter(), &config).unwrap().collect();
    assert!(results.len() == 3 && matches!(results[2], Err(Error::NonFinite { index: 1_500, .. })), "{results:?}");
    for empty in [vec![], vec![Ok(Vec::new())]] {
        assert_eq!(Windows::new(&tagger, empty.into_iter(), &config).unwrap().count(), 0);
    }
}

#[test]
fn invalid_windows_are_rejected() {
    let (tagger, echo) =
        (narrow(), Tagger::new(Echo(ModelInfo::new("echo", 1_000, 3, 1)), LabelSet::numbered(3)).unwrap());
    let default = WindowConfig::default;
    for (field, config) in [
        ("length", WindowConfig { length: 0.0, ..default() }),
        ("length", WindowConfig { length: f64::NAN, ..default() }),
        ("length", WindowConfig { length: 1e-9, ..default() }), // no sample
        ("length", WindowConfig { length: 1e9, ..default() }),
        ("hop", WindowConfig { hop: -1.0, ..default() }),
        ("hop", WindowConfig { hop: 0.004, ..default() }), // less than a frame
        ("hop", WindowConfig { hop: f64::INFINITY, ..default() }),
        ("batch", WindowConfig { batch: 0, ..default() }),
        ("hop", WindowConfig { hop: 11.0, framewise: true, ..default() }),
    ] {
        match TaggerStream::new(&tagger, 8_000, &config).unwrap_err() {
            Error::Config { field: got, .. } | Error::Argument { name: got, .. } => {
                assert_eq!(got, field, "{config:?}")
            }
            other => panic!("{other}"),
        }
    }
    let framewise = WindowConfig { framewise: true, ..default() };
    assert!(matches!(TaggerStream::new(&echo, 8_000, &framewise), Err(Error::Config { field: "framewise", .. })));
    assert!(matches!(TaggerStream::new(&echo, 0, &default()), Err(Error::Argument { .. })));
}

#[test]
fn windows_become_one_result_by_mean_maximum_or_embedding() {
    for tagger in [narrow(), m5()] {
        let rate = tagger.model().info().sample_rate;
        let samples = signal(3 * rate as usize - 999, rate, 4);
        let config = WindowConfig { length: 1.2, hop: 0.9, ..WindowConfig::default() };
        let windows = windows(&tagger, &samples, 5000, &config);
        assert!(windows.len() > 2 && windows.last().unwrap().end - windows.last().unwrap().start < 1.19);
        let aggregate = |aggregation: Aggregation| {
            let mut aggregator = Aggregator::new(aggregation);
            windows.iter().for_each(|window| aggregator.push(window));
            let at_once = Windows::new(&tagger, std::iter::once(Ok(samples.clone())), &config).unwrap();
            let tagging = aggregator.finish(&tagger).unwrap();
            assert_eq!(tagging, at_once.aggregate(aggregation).unwrap());
            tagging
        };
        let column = |pick: &dyn Fn(&WindowTagging) -> Vec<f32>| {
            let rows: Vec<Vec<f32>> = windows.iter().map(pick).collect();
            ndarray::Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| f64::from(rows[i][j]))
        };
        let (scores, embeddings) = (column(&|w| w.tagging.scores.clone()), column(&|w| w.tagging.embedding.to_vec()));
        let seconds: ndarray::Array1<f64> = windows.iter().map(|w| w.end - w.start).collect();
        let mean = |values: &ndarray::Array2<f64>| (seconds.dot(values) / seconds.sum()).mapv(|x| x as f32).to_vec();
        let max = |values: &ndarray::Array2<f64>| {
            values.map_axis(ndarray::Axis(0), |column| column.fold(f64::MIN, |a, &b| a.max(b)) as f32).to_vec()
        };
        let close = |a: &[f32], b: &[f32]| common::assert_close("aggregated", a, b, 1e-6, 1e-6);

        let by_mean = aggregate(Aggregation::Mean);
        close(&by_mean.scores, &mean(&scores));
        close(&by_mean.embedding, &mean(&embeddings));
        let by_max = aggregate(Aggregation::Max);
        assert_eq!((&by_max.scores, by_max.embedding.to_vec()), (&max(&scores), max(&embeddings)));
        let by_embedding = aggregate(Aggregation::Embedding);
        close(&by_embedding.embedding, &mean(&embeddings));
        for tagging in [&by_mean, &by_embedding] {
            let exps: Vec<f32> = tagging.logits.iter().map(|x| x.exp()).collect();
            let activated = |x: &f32| {
                if tagger.model().info().activation == OutputActivation::Softmax {
                    x / exps.iter().sum::<f32>()
                } else {
                    x / (1.0 + x)
                }
            };
            close(&exps.iter().map(activated).collect::<Vec<_>>(), &tagging.scores);
        }
    }
    let none = Aggregator::new(Aggregation::Mean).finish(&narrow()).unwrap_err();
    assert!(matches!(none, Error::TooShort { .. }));
}
