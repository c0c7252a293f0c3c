//! The contract of the trait `FrontEnd`, for each implementation.

mod common;

use clipwise::Error;
use clipwise::frontend::features::{FeatureKind, Features, FeaturesConfig};
use clipwise::frontend::{
    Fbank, FbankConfig, FrontEnd, LogMel, LogMelConfig, Mfcc, MfccConfig, Normalize, SeamlessM4t, SeamlessM4tConfig,
    StftConfig, WhisperMel, WhisperMelConfig,
};
use clipwise::ndarray::{Array2, s};
use common::signal;

/// Each front end, with the setting that makes it depend on the whole clip.
fn front_ends() -> Vec<(Box<dyn FrontEnd>, Option<&'static str>)> {
    let log_mel = |config: LogMelConfig| Box::new(LogMel::new(&config).unwrap());
    let fbank = |config: FbankConfig| Box::new(Fbank::new(&config).unwrap());
    let mfcc = |config: MfccConfig| Box::new(Mfcc::new(&config).unwrap());
    let seamless = |config: SeamlessM4tConfig| Box::new(SeamlessM4t::new(&config).unwrap());
    let features = |config: FeaturesConfig| Box::new(Features::new(&config).unwrap());
    let published = SeamlessM4tConfig::SEAMLESS_M4T_16K;
    let data_set = Some(Normalize::DataSet { mean: vec![-30.0], std: vec![12.0] });
    let energy = FbankConfig { use_energy: true, ..FbankConfig::KALDI_16K };
    vec![
        (log_mel(LogMelConfig::PANNS_32K), None),
        (
            log_mel(LogMelConfig {
                stft: StftConfig { center: false, ..LogMelConfig::PANNS_16K.stft },
                ..LogMelConfig::PANNS_16K
            }),
            None,
        ),
        (
            log_mel(LogMelConfig {
                stft: StftConfig { n_fft: 401, ..LogMelConfig::SPEECH_16K.stft },
                ..LogMelConfig::SPEECH_16K
            }),
            None,
        ),
        (log_mel(LogMelConfig::LIBROSA_22K), Some("top_db")),
        (fbank(energy), None),
        (fbank(FbankConfig { snip_edges: false, ..FbankConfig::KALDI_16K }), None),
        (mfcc(MfccConfig::KALDI_16K), None),
        (mfcc(MfccConfig::TORCHAUDIO_LN_16K), None),
        (mfcc(MfccConfig::LIBROSA_22K), Some("top_db")),
        (Box::new(WhisperMel::new(&WhisperMelConfig::MELS_80).unwrap()), Some("top_db")),
        (seamless(published.clone()), Some("normalize")),
        (seamless(SeamlessM4tConfig { normalize: None, ..published.clone() }), Some("stride")),
        (seamless(SeamlessM4tConfig { normalize: None, stride: 1, ..published }), None),
        (features(FeaturesConfig::MFCC_39), Some("deltas")),
        (features(FeaturesConfig::LOG_MEL_64), Some("normalize")),
        (features(FeaturesConfig::SPEECH_COMMANDS), Some("top_db")),
        (
            features(FeaturesConfig {
                spectrum: FeatureKind::Fbank(FbankConfig::KALDI_16K),
                deltas: None,
                normalize: data_set,
            }),
            None,
        ),
    ]
}

#[test]
fn front_ends_report_their_output_sizes() {
    for (front_end, _) in front_ends() {
        let (rate, least) = (front_end.sample_rate(), front_end.min_samples());
        for n_samples in [least, least + 1, 7_001, 16_000] {
            let got = front_end.compute(&signal(n_samples, rate, 1)).unwrap();
            let due = (front_end.n_frames(n_samples), front_end.n_features());
            assert_eq!(got.dim(), due, "{n_samples} samples, {front_end:?}");
        }
        let short = front_end.compute(&vec![0.1; least - 1]);
        assert!(matches!(short, Err(Error::TooShort { needed, got }) if (needed, got) == (least, least - 1)));
        let mut broken = signal(16_000, rate, 1);
        broken[9_000] = f32::NAN;
        assert!(matches!(front_end.compute(&broken), Err(Error::NonFinite { .. })), "{front_end:?}");
    }
}

#[test]
fn computing_in_two_steps_equals_compute() {
    for (front_end, _) in front_ends() {
        let samples = signal(9_999, front_end.sample_rate(), 1);
        let frames = front_end.frames(&samples).unwrap();
        let whole = front_end.compute(&samples).unwrap();
        assert_eq!(front_end.finish(frames.clone(), samples.len()).unwrap(), whole, "{front_end:?}");
        // The layout of the array does not matter.
        let turned = frames.t().as_standard_layout().into_owned().reversed_axes();
        assert_eq!(front_end.finish(turned, samples.len()).unwrap(), whole, "{front_end:?}");
        let (n_frames, n_columns) = frames.dim();
        assert_eq!(front_end.frames_dim(samples.len()), frames.dim(), "{front_end:?}");
        // Rows computed separately equal those of the whole.
        let mut last = Array2::zeros((5, n_columns));
        front_end.frames_into(&samples, n_frames - 5, last.as_slice_mut().unwrap()).unwrap();
        assert_eq!(last, frames.slice(s![n_frames - 5.., ..]), "{front_end:?}");
        for (first, length) in [(n_frames - 4, 5 * n_columns), (0, n_columns + 1), (usize::MAX, n_columns)] {
            let refused = front_end.frames_into(&samples, first, &mut vec![0.0; length]);
            assert!(
                matches!(refused, Err(Error::Argument { name: "out.len()", .. })),
                "{first}, {length}, {front_end:?}"
            );
        }
        for wrong in [(n_frames + 1, n_columns), (n_frames - 1, n_columns), (n_frames, n_columns + 1), (0, 0)] {
            let refused = front_end.finish(Array2::zeros(wrong), samples.len());
            assert!(matches!(refused, Err(Error::Argument { name: "frames", .. })), "{wrong:?}, {front_end:?}");
        }
    }
}

#[test]
fn frames_depend_only_on_samples_within_their_reach() {
    for (front_end, rule) in front_ends() {
        assert_eq!(front_end.clip_rule().map(|rule| rule.setting), rule, "{front_end:?}");
        let reach = front_end.reach();
        // A window that begins with frame 7 of the recording: frames that do not touch its ends equal the recording's.
        let recording = signal(16_000, front_end.sample_rate(), 1);
        let (start, length) = (7 * reach.hop_length, 7_003);
        let window = &recording[start..start + length];
        let first = reach.before.div_ceil(reach.hop_length);
        let end = (length - reach.after) / reach.hop_length + 1;
        assert!(end > first + 5);
        let rows = |of: &Array2<f32>, from: usize| of.slice(s![from + first..from + end, ..]).to_owned();
        let (own, all) = (front_end.frames(window).unwrap(), front_end.frames(&recording).unwrap());
        assert_eq!(rows(&own, 0), rows(&all, 7), "{front_end:?}");
        if rule.is_none() {
            let (own, all) = (front_end.compute(window).unwrap(), front_end.compute(&recording).unwrap());
            assert_eq!(rows(&own, 0), rows(&all, 7), "{front_end:?}");
        }
    }
}
