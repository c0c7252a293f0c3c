//! Front ends, decoders, streams and windows with settings made of the input.

use std::ops::RangeInclusive;

use arbitrary::{Result, Unstructured};
use clipwise::audio::{Resampler, resample};
use clipwise::augment::{self, Random, ShiftFill, SpecAugment};
use clipwise::ctc::{self, BeamSearch, FrameTimes, GreedyDecoder, LanguageModel, Vocabulary, beam};
use clipwise::events::{EventConfig, EventDetector, Smoothing};
use clipwise::frontend::{
    DeltaConfig, DeltaEdge, DeltaMethod, Fbank, FbankConfig, Lifter, LogMel, LogMelConfig, LogScale, MelAxis,
    MelConfig, MelFeatures, MelNorm, MelScale, Mfcc, MfccConfig, Normalize, PadMode, SeamlessM4t, SeamlessM4tConfig,
    Spectrum, StftConfig, WhisperMel, WhisperMelConfig, Window, delta,
};
use clipwise::models::{M5, m5};
use clipwise::ndarray::Array2;
use clipwise::weights::Parameters;
use clipwise::{LabelSet, Tagger, Waveform, WindowConfig, device, fusion, metrics};

/// The parts that are tried; the first byte of an input chooses one.
const PARTS: [fn(&mut Unstructured) -> Result<()>; 11] = [
    log_mel_of_clip,
    fbank_of_clip,
    mfcc_of_clip,
    speech_features,
    deltas,
    resampling,
    decode,
    windows,
    events,
    augmentation,
    measure,
];

/// Settings and data for one part of the crate. What the settings refuse is an error; what they allow keeps its
/// properties: shapes are as announced, values are finite, pieces give what the whole gives.
pub fn structured(data: &[u8]) {
    let Some((&part, data)) = data.split_first() else { return };
    // What is left when the input ends too early is not tried.
    let _ = PARTS[usize::from(part) % PARTS.len()](&mut Unstructured::new(data));
}

/// A size: mostly one that is used, at times one that nobody needs.
fn size(u: &mut Unstructured, usual: usize) -> Result<usize> {
    Ok(match u.arbitrary::<u8>()? {
        0 => u.arbitrary()?,
        1 => u.int_in_range(0..=2)?,
        2 => 1 << u.int_in_range(0..=40)?,
        _ => u.int_in_range(1..=usual)?,
    })
}

fn rate(u: &mut Unstructured) -> Result<u32> {
    const USUAL: [u32; 8] = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000];
    if u.ratio(1, 8)? { u.arbitrary() } else { u.choose(&USUAL).copied() }
}

fn real(u: &mut Unstructured, usual: f64) -> Result<f64> {
    if u.ratio(1, 16)? { u.arbitrary() } else { Ok(f64::from(u.arbitrary::<u16>()?) / 65_535.0 * usual) }
}

fn option<T>(u: &mut Unstructured, value: impl FnOnce(&mut Unstructured) -> Result<T>) -> Result<Option<T>> {
    if u.arbitrary()? { value(u).map(Some) } else { Ok(None) }
}

/// At most `most` samples; one in 64 clips has any bits for samples.
fn samples(u: &mut Unstructured, most: usize) -> Result<Vec<f32>> {
    let n = u.int_in_range(0..=most)?;
    if u.ratio(1, 64)? {
        return (0..n.min(64)).map(|_| u.arbitrary()).collect();
    }
    let seed: u32 = u.arbitrary()?;
    let scale = *u.choose(&[0.0f32, 1e-30, 1e-3, 1.0, 3e4, 1e30])?;
    let mut random = Random::new(u64::from(seed));
    Ok((0..n).map(|_| (2.0 * random.uniform() - 1.0) as f32 * scale).collect())
}

/// Cuts a clip into pieces of sizes in `sizes`; the last may be shorter.
fn in_pieces(
    u: &mut Unstructured,
    mut clip: &[f32],
    sizes: RangeInclusive<usize>,
    mut push: impl FnMut(&[f32]),
) -> Result<()> {
    while !clip.is_empty() {
        let (piece, rest) = clip.split_at(u.int_in_range(sizes.clone())?.min(clip.len()));
        push(piece);
        clip = rest;
    }
    Ok(())
}

fn matrix(u: &mut Unstructured, most_rows: usize, columns: usize) -> Result<Array2<f32>> {
    let rows = u.int_in_range(0..=most_rows)?;
    let mut values = samples(u, rows * columns)?;
    values.resize(rows * columns, 0.5);
    Ok(Array2::from_shape_vec((rows, columns), values).expect("the number of values fits"))
}

fn log_mel(u: &mut Unstructured) -> Result<LogMelConfig> {
    let (n_fft, sample_rate) = (size(u, 2048)?, rate(u)?);
    Ok(LogMelConfig {
        sample_rate,
        preemphasis: *u.choose(&[0.0, 0.97])?,
        stft: StftConfig {
            n_fft,
            win_length: if u.arbitrary()? { n_fft } else { size(u, n_fft.clamp(1, 4096))? },
            hop_length: size(u, 1024)?,
            window: *u.choose(&[
                Window::Hann,
                Window::Hamming,
                Window::Blackman,
                Window::Povey,
                Window::Rectangular,
            ])?,
            periodic: u.arbitrary()?,
            center: u.arbitrary()?,
            pad_mode: *u.choose(&[PadMode::Reflect, PadMode::Constant])?,
        },
        power: *u.choose(&[Spectrum::Power, Spectrum::Magnitude])?,
        mel: MelConfig {
            n_mels: size(u, 128)?,
            fmin: real(u, 100.0)?,
            fmax: option(u, |u| real(u, f64::from(sample_rate) / 2.0))?,
            scale: *u.choose(&[MelScale::Slaney, MelScale::Htk])?,
            norm: *u.choose(&[MelNorm::Slaney, MelNorm::None])?,
            axis: *u.choose(&[MelAxis::Hz, MelAxis::Mel])?,
        },
        log: *u.choose(&[LogScale::Decibel, LogScale::Natural, LogScale::NaturalOffset])?,
        reference: real(u, 2.0)? as f32,
        amin: *u.choose(&[1e-10, 1e-5, 0.0, f32::MIN_POSITIVE, f32::MAX])?,
        top_db: option(u, |u| real(u, 120.0).map(|db| db as f32))?,
        shift: *u.choose(&[0.0, 4.5])?,
        divisor: *u.choose(&[1.0, 5.0, 0.0])?,
    })
}

fn fbank(u: &mut Unstructured) -> Result<FbankConfig> {
    let sample_rate = rate(u)?;
    let mut config = FbankConfig::kaldi(sample_rate.clamp(1_000, 1_000_000));
    if u.arbitrary()? {
        (config.n_fft, config.win_length) = (size(u, 2048)?, size(u, 1024)?);
    }
    config.sample_rate = sample_rate;
    config.hop_length = size(u, 512)?;
    config.n_mels = size(u, 128)?;
    config.preemphasis = real(u, 1.0)?;
    (config.remove_dc_offset, config.snip_edges, config.log) = u.arbitrary()?;
    (config.use_energy, config.raw_energy, config.htk_compat) = u.arbitrary()?;
    config.fmin = real(u, 100.0)?;
    config.fmax = option(u, |u| real(u, f64::from(sample_rate) / 2.0))?;
    Ok(config)
}

/// Checks features against what was announced. Only powers of samples far beyond full scale may exceed the range of f32.
fn announced(features: clipwise::Result<Array2<f32>>, clip: &[f32], n_frames: usize, n_features: usize) {
    if let Ok(features) = features {
        assert_eq!(features.dim(), (n_frames, n_features));
        assert!(!features.iter().any(|value| value.is_nan()));
        let usual = clip.iter().all(|x| x.abs() <= 1e6);
        assert!(!usual || features.iter().all(|value| value.is_finite()));
    }
}

/// The most samples of a clip for a front end: what would give very many frames takes time and shows nothing.
fn clip(u: &mut Unstructured, hop_length: usize) -> Result<Vec<f32>> {
    samples(u, hop_length.saturating_mul(256).min(1 << 16))
}

fn log_mel_of_clip(u: &mut Unstructured) -> Result<()> {
    let config = log_mel(u)?;
    let Ok(front_end) = LogMel::new(&config) else { return Ok(()) };
    let clip = clip(u, config.stft.hop_length)?;
    announced(front_end.compute(&clip), &clip, front_end.n_frames(clip.len()), config.mel.n_mels);
    if clip.len() < front_end.min_samples() {
        assert!(front_end.compute(&clip).is_err());
    }
    Ok(())
}

fn fbank_of_clip(u: &mut Unstructured) -> Result<()> {
    let config = fbank(u)?;
    let Ok(front_end) = Fbank::new(&config) else { return Ok(()) };
    let clip = clip(u, config.hop_length)?;
    announced(front_end.compute(&clip), &clip, front_end.n_frames(clip.len()), front_end.n_features());
    Ok(())
}

fn mfcc_of_clip(u: &mut Unstructured) -> Result<()> {
    let (mel, hop_length) = if u.arbitrary()? {
        let config = log_mel(u)?;
        let hop_length = config.stft.hop_length;
        (MelFeatures::LogMel(config), hop_length)
    } else {
        let config = fbank(u)?;
        let hop_length = config.hop_length;
        (MelFeatures::Fbank(config), hop_length)
    };
    let lifter = match u.int_in_range(0..=2)? {
        0 => Lifter::None,
        1 => Lifter::Librosa(real(u, 30.0)?),
        _ => Lifter::Kaldi(real(u, 30.0)?),
    };
    let config = MfccConfig { mel, n_mfcc: size(u, 40)?, lifter };
    let Ok(front_end) = Mfcc::new(&config) else { return Ok(()) };
    let clip = clip(u, hop_length)?;
    announced(front_end.compute(&clip), &clip, front_end.n_frames(clip.len()), config.n_mfcc);
    Ok(())
}

fn speech_features(u: &mut Unstructured) -> Result<()> {
    let config = SeamlessM4tConfig {
        fbank: fbank(u)?,
        normalize: option(u, |u| Ok(Normalize::MeanVariance { ddof: size(u, 2)?, eps: real(u, 1e-3)? }))?,
        stride: size(u, 4)?,
        padding_value: u.arbitrary()?,
    };
    if let Ok(front_end) = SeamlessM4t::new(&config) {
        let clips = [clip(u, config.fbank.hop_length)?, clip(u, config.fbank.hop_length)?];
        let alone = clips.each_ref().map(|clip| front_end.compute(clip));
        if let (Ok(batch), [Ok(a), Ok(b)]) = (front_end.compute_batch(&[&clips[0], &clips[1]]), alone) {
            assert_eq!(batch.input_features.dim().0, 2);
            assert_eq!(batch.input_features.dim().1, a.nrows().max(b.nrows()));
        }
    }
    if u.ratio(1, 4)? {
        let config = WhisperMelConfig { n_mels: size(u, 128)?, max_frames: size(u, 300)? };
        if let Ok(front_end) = WhisperMel::new(&config) {
            let clip = clip(u, 160)?;
            announced(front_end.compute(&clip), &clip, front_end.n_frames(clip.len()), config.n_mels);
        }
    }
    Ok(())
}

fn deltas(u: &mut Unstructured) -> Result<()> {
    let columns = u.int_in_range(0..=40)?;
    let features = matrix(u, 64, columns)?;
    let methods = [DeltaMethod::SavitzkyGolay, DeltaMethod::Regression, DeltaMethod::Kaldi];
    let edges = [DeltaEdge::Interp, DeltaEdge::Nearest, DeltaEdge::Mirror, DeltaEdge::Constant, DeltaEdge::Wrap];
    let config = DeltaConfig { method: *u.choose(&methods)?, width: size(u, 21)?, edge: *u.choose(&edges)? };
    if let Ok(deltas) = delta(features.view(), size(u, 4)?, &config) {
        assert_eq!(deltas.dim(), features.dim());
    }
    Ok(())
}

fn resampling(u: &mut Unstructured) -> Result<()> {
    let (from, to, clip) = (rate(u)?, rate(u)?, samples(u, 8_192)?);
    // A clip that grows a thousandfold takes time and shows nothing.
    if u64::from(to) > 64 * u64::from(from) {
        return Ok(());
    }
    let Ok(whole) = resample(&clip, from, to) else { return Ok(()) };
    // A stream refuses a filter that is longer than any clip here.
    let Ok(mut resampler) = Resampler::new(from, to) else { return Ok(()) };
    let mut pieces = Vec::new();
    in_pieces(u, &clip, 1..=2048, |piece| resampler.push(piece, &mut pieces).expect("the samples are finite"))?;
    resampler.finish(&mut pieces).expect("the stream can end");
    assert!(whole.iter().map(|x| x.to_bits()).eq(pieces.iter().map(|x| x.to_bits())), "{from} to {to} Hz");
    Ok(())
}

const ARPA: &str = "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-1.0 <unk>\n-0.5 a -0.3\n-0.7 b -0.2\n-0.9 </s>\n\n\
                    \\2-grams:\n-0.2 a b\n-0.4 b </s>\n\n\\end\\\n";

fn decode(u: &mut Unstructured) -> Result<()> {
    let tokens = ["<pad>", "a", "b", "|", "ab", " ", "é", ""];
    let n_tokens = u.int_in_range(1..=tokens.len())?;
    let Ok(vocabulary) = Vocabulary::new(tokens[..n_tokens].iter().copied()) else { return Ok(()) };
    let logits = matrix(u, 40, n_tokens)?;
    let log_probs = if u.ratio(1, 8)? { Ok(logits.clone()) } else { ctc::log_softmax(logits.view()) };
    let Ok(log_probs) = log_probs else { return Ok(()) };
    let mut times = FrameTimes::new(real(u, 0.1)?);
    times.end = option(u, |u| real(u, 4.0))?;

    let whole = ctc::greedy(log_probs.view(), &vocabulary, times);
    if let (Ok(whole), Ok(mut decoder)) = (whole, GreedyDecoder::new(&vocabulary, times)) {
        for row in log_probs.rows() {
            decoder.push(row.insert_axis(clipwise::ndarray::Axis(0))).expect("the whole was decoded");
        }
        assert_eq!(decoder.transcript().expect("the whole was decoded"), whole);
    }

    let config = beam::Config {
        width: size(u, 16)?.min(1 << 12), // wider beams take seconds
        min_token_log_prob: -real(u, 20.0)?,
        max_score_gap: real(u, 20.0)?,
        n_best: size(u, 8)?,
    };
    if let Ok(mut search) = BeamSearch::new(&vocabulary, config) {
        if u.arbitrary()? {
            let model = LanguageModel::read(ARPA.as_bytes()).expect("the model is valid");
            let config = beam::LanguageModelConfig {
                weight: real(u, 2.0)?,
                bonus: real(u, 4.0)?,
                unknown: -real(u, 40.0)?,
                boundaries: u.arbitrary()?,
                unit: option(u, |u| Ok(*u.choose(&[beam::Unit::Tokens, beam::Unit::Words])?))?,
            };
            let Ok(with_model) = search.with_language_model(&model, config) else { return Ok(()) };
            search = with_model;
        }
        if u.arbitrary()? {
            let Ok(with_words) = search.with_hot_words(&[("ab", real(u, 5.0)?), ("a b", real(u, 5.0)?)]) else {
                return Ok(());
            };
            search = with_words;
        }
        let whole = search.decode(log_probs.view(), times);
        if let (Ok(whole), Ok(mut decoder)) = (whole, search.decoder(times)) {
            for row in log_probs.rows() {
                decoder.push(row.insert_axis(clipwise::ndarray::Axis(0))).expect("the whole was decoded");
            }
            assert_eq!(decoder.transcripts().expect("the whole was decoded"), whole);
        }
    }

    let targets: Vec<usize> =
        (0..u.int_in_range(0..=8)?).map(|_| u.int_in_range(0..=n_tokens)).collect::<Result<_>>()?;
    if let Ok(alignment) = ctc::align(log_probs.view(), &targets, &vocabulary, times) {
        assert_eq!(ctc::collapse(&alignment.path, vocabulary.blank()), targets);
    }
    let member =
        |weight| fusion::Member { logits: logits.view(), vocabulary: &vocabulary, frame_seconds: 0.02, weight };
    let mode = *u.choose(&[fusion::Average::Logits, fusion::Average::Probabilities])?;
    let config = fusion::Config { mode, max_frame_gap: size(u, 4)? };
    if let Ok(fused) = fusion::fuse_frames(&[member(real(u, 1.0)?), member(real(u, 1.0)?)], &config) {
        assert_eq!(fused.dim(), logits.dim());
    }
    Ok(())
}

/// A tagger of a few channels, which is quick.
fn small_tagger() -> Tagger {
    let mut config = m5::Config::M5;
    (config.channels, config.n_classes) = (2, 3);
    config.stages = vec![m5::Stage { channels: 2, layers: 1 }].into();
    let weights = Parameters::new(&device::cpu(), 1);
    let model = M5::build(&config, &weights.loader()).expect("the configuration is valid");
    Tagger::new(model, LabelSet::numbered(3)).expect("there are three labels")
}

fn windows(u: &mut Unstructured) -> Result<()> {
    let tagger = small_tagger();
    let config = WindowConfig {
        length: real(u, 0.5)?,
        hop: real(u, 0.5)?,
        pad_last: u.arbitrary()?,
        batch: size(u, 8)?,
        framewise: u.arbitrary()?,
    };
    // A hop of few samples makes as many windows as there are samples.
    if config.hop < 0.01 && config.hop > 0.0 {
        return Ok(());
    }
    let clip = samples(u, 8_192)?;
    let sample_rate = *u.choose(&[8_000, 16_000, 11_025])?;
    let Ok(mut stream) = tagger.stream(sample_rate, &config) else { return Ok(()) };
    let whole = tagger.windows(Waveform::new(clip.clone(), sample_rate), &config).expect("the stream could begin");
    let Ok(whole) = whole.collect::<clipwise::Result<Vec<_>>>() else { return Ok(()) };
    let mut pieces = Vec::new();
    in_pieces(u, &clip, 16..=4096, |piece| pieces.extend(stream.push(piece).expect("the recording was tagged")))?;
    pieces.extend(stream.finish().expect("the recording was tagged"));
    assert_eq!(pieces, whole, "{config:?}");
    Ok(())
}

fn events(u: &mut Unstructured) -> Result<()> {
    let labels = LabelSet::numbered(3);
    let config = EventConfig {
        threshold_on: real(u, 1.0)? as f32,
        threshold_off: real(u, 1.0)? as f32,
        min_duration: real(u, 1.0)?,
        min_gap: real(u, 1.0)?,
        smoothing: match u.int_in_range(0..=2)? {
            0 => Smoothing::None,
            1 => Smoothing::Median(size(u, 9)?),
            _ => Smoothing::Mean(size(u, 9)?),
        },
        allow: if u.arbitrary()? { vec!["1".into(), "no such class".into()] } else { Vec::new() },
        parents: u.arbitrary()?,
        ..EventConfig::default()
    };
    let Ok(mut detector) = EventDetector::new(&config, &labels) else { return Ok(()) };
    let (mut found, mut end) = (Vec::new(), 0.0);
    for _ in 0..u.int_in_range(0..=64)? {
        let start = if u.ratio(1, 16)? { real(u, 10.0)? } else { end };
        end = start + real(u, 1.0)?;
        let scores: Vec<f32> = (0..3).map(|_| real(u, 1.0).map(|score| score as f32)).collect::<Result<_>>()?;
        found.extend(detector.push_segment(start, end, &scores).unwrap_or_default());
    }
    found.extend(detector.finish());
    for event in &found {
        assert!(event.onset <= event.offset && event.duration() >= config.min_duration - 1e-9, "{event:?}");
        assert!(event.peak >= config.threshold_on, "{event:?}");
    }
    Ok(())
}

fn augmentation(u: &mut Unstructured) -> Result<()> {
    let mut random = Random::new(u.arbitrary()?);
    let mut clip = samples(u, 1024)?;
    let n_samples = clip.len();
    let fill = *u.choose(&[ShiftFill::Zeros, ShiftFill::Wrap])?;
    augment::shift(&mut clip, u.arbitrary()?, fill);
    augment::random_shift(&mut clip, size(u, 100)?, fill, &mut random);
    let _ = augment::add_gaussian_noise(&mut clip, real(u, 60.0)?, &mut random);
    let noise = samples(u, 1024)?;
    let _ = augment::add_noise(&mut clip, &noise, real(u, 60.0)?);
    assert_eq!(clip.len(), n_samples);

    let columns = u.int_in_range(0..=16)?;
    let mut features = matrix(u, 64, columns)?;
    let spec_augment = SpecAugment {
        time_drop_width: size(u, 16)?,
        time_stripes: size(u, 4)?,
        freq_drop_width: size(u, 8)?,
        freq_stripes: size(u, 4)?,
    };
    let _ = spec_augment.apply(&mut features, &mut random);
    Ok(())
}

fn measure(u: &mut Unstructured) -> Result<()> {
    let scores = samples(u, 64)?;
    let targets: Vec<bool> = (0..scores.len()).map(|_| u.arbitrary()).collect::<Result<_>>()?;
    for value in [metrics::average_precision(&scores, &targets), metrics::roc_auc(&scores, &targets)] {
        if let Ok(Some(value)) = value {
            assert!((0.0..=1.0).contains(&value), "{value}");
        }
    }
    let _ = metrics::Counts::at_threshold(&scores, &targets, real(u, 1.0)?);
    let classes: Vec<usize> = (0..u.int_in_range(0..=32)?).map(|_| size(u, 4)).collect::<Result<_>>()?;
    let predictions: Vec<usize> = classes.iter().map(|_| size(u, 4)).collect::<Result<_>>()?;
    if let Ok(confusion) = metrics::Confusion::new(&classes, &predictions, u.int_in_range(0..=6)?) {
        let _ = (confusion.accuracy(), confusion.macro_average(), confusion.micro_average());
    }
    let counts = metrics::EditCounts::of(&classes, &predictions);
    assert!(counts.n_reference() == classes.len() as u64);
    let edits = metrics::edits(&classes, &predictions);
    assert!(edits.len() >= classes.len().max(predictions.len()));
    Ok(())
}
