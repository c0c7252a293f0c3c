//! The CTC loss and its gradient against PyTorch and against the sum over all paths.

mod common;

use candle_core::{Device, Tensor, Var};
use clipwise::Error;
use clipwise::ctc::loss::{LossConfig, Reduction, ctc_loss, forward_score};
use clipwise::ctc::{collapse, log_softmax};
use clipwise::device::Threads;
use clipwise::ndarray::Array2;
use common::{assert_close, golden, hashed, values};

const SEED: u64 = 41;
const LENGTHS: [usize; 7] = [13, 9, 5, 1, 4, 3, 6];

fn logits(name: &str, shape: [usize; 3], high: f64) -> Var {
    let values = hashed(name, shape.iter().product(), -high, high, SEED);
    Var::from_tensor(&Tensor::from_vec(values, &shape, &Device::Cpu).unwrap()).unwrap()
}

fn short(blank: u32) -> Vec<Vec<u32>> {
    let targets: [&[u32]; 7] = [&[1, 2, 3], &[4, 4, 1], &[], &[2], &[1, 1, 1], &[3, 2], &[5, 1, 5, 1, 5]];
    targets.iter().map(|target| target.iter().map(|&x| if x == blank { 0 } else { x }).collect()).collect()
}

#[test]
fn losses_and_gradients_equal_pytorch() {
    let golden = golden("ctc_loss.safetensors");
    let long: Vec<Vec<u32>> = [60, 45, 40].map(|n| (0..n).map(|i| 1 + (7 * i * i + 3 * i) % 38).collect()).into();
    let cases = [
        ("short", [7, 13, 6], 2.0, 0, &LENGTHS[..], short(0)),
        ("sharp", [7, 13, 6], 60.0, 0, &LENGTHS[..], short(0)),
        ("last", [7, 13, 6], 2.0, 5, &LENGTHS[..], short(5)),
        ("long", [3, 150, 40], 4.0, 0, &[150, 120, 90][..], long),
    ];
    for (name, shape, high, blank, lengths, targets) in cases {
        let x = logits(name, shape, high);
        for (word, reduction) in [("none", Reduction::None), ("mean", Reduction::Mean), ("sum", Reduction::Sum)] {
            for zero_infinity in [false, true] {
                let key = format!("{name}.{word}{}", if zero_infinity { ".zero_infinity" } else { "" });
                let config = LossConfig { blank, reduction, zero_infinity };
                let loss = ctc_loss(&x, lengths, &targets, &config).unwrap();
                let (got, expected) = (values(&loss), golden.to_vec(&key).unwrap());
                for (got, expected) in got.iter().zip(&expected) {
                    let same = got == expected || (got - expected).abs() < 1e-4f32.max(1e-6 * expected.abs());
                    assert!(same, "{key}: {got}, not {expected}");
                }
                // Log-probabilities instead of logits.
                let log_probs = candle_nn::ops::log_softmax(&x, 2).unwrap();
                let again = values(&ctc_loss(&log_probs, lengths, &targets, &config).unwrap());
                for (again, got) in again.iter().zip(&got) {
                    assert!(again == got || (again - got).abs() < 1e-3, "{key}: {again}, not {got}");
                }
                if let Ok(expected) = golden.to_vec(&format!("{key}.gradient")) {
                    let gradients = loss.backward().unwrap();
                    assert_close(&key, &values(gradients.get(&x).unwrap()), &expected, 1e-5, 1e-5);
                }
            }
        }
    }
}

/// Every path through four frames of four tokens.
#[test]
fn the_score_is_the_sum_over_all_paths() {
    let log_probs = log_softmax(Array2::from_shape_vec((4, 4), hashed("paths", 16, -3.0, 3.0, SEED)).unwrap().view());
    let log_probs = log_probs.unwrap();
    for target in [&[][..], &[1], &[2, 2], &[3, 1, 3], &[1, 2, 3, 1], &[1, 1, 1]] {
        let expected: Vec<usize> = target.iter().map(|&token| token as usize).collect();
        let mut sum = 0.0;
        for path in 0..4usize.pow(4) {
            let ids: Vec<usize> = (0..4).map(|frame| path / 4usize.pow(frame) % 4).collect();
            if collapse(&ids, 0) == expected {
                sum += ids.iter().enumerate().map(|(frame, &id)| f64::from(log_probs[[frame, id]])).sum::<f64>().exp();
            }
        }
        let score = forward_score(log_probs.view(), target, 0).unwrap();
        assert!(score == sum.ln() || (score - sum.ln()).abs() < 1e-6, "{target:?}: {score}, not {}", sum.ln());
    }
}

#[test]
fn invalid_arguments_are_errors_and_impossible_targets_are_independent() {
    let config = LossConfig { reduction: Reduction::None, ..LossConfig::default() };
    let field = |result: clipwise::Result<Tensor>| match result {
        Err(Error::Config { field, .. } | Error::Argument { name: field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let x = logits("short", [7, 13, 6], 2.0);
    let (lengths, targets) = (LENGTHS.as_slice(), short(0));
    let with = |targets: &[Vec<u32>], blank: usize| ctc_loss(&x, lengths, targets, &LossConfig { blank, ..config });
    assert_eq!(field(ctc_loss(&x, &[14; 7], &targets, &config)), "lengths");
    assert_eq!(field(ctc_loss(&x, &lengths[1..], &targets, &config)), "lengths");
    assert_eq!(field(with(&targets[1..], 0)), "targets.len()");
    assert_eq!(field(with(&targets, 6)), "blank");
    assert_eq!(field(with(&targets, 3)), "targets");
    assert_eq!(field(with(&vec![vec![u32::MAX]; 7], 0)), "targets");
    assert!(matches!(ctc_loss(&x.get(0).unwrap(), lengths, &targets, &config), Err(Error::Tensor { .. })));

    // Invalid scores matter only in frames within a clip's length; -inf is a probability of 0.
    let usual = values(&with(&targets, 0).unwrap());
    let mut scores = values(&x);
    let of = |scores: &[f32]| {
        let x = Tensor::from_slice(scores, (7, 13, 6), &Device::Cpu).unwrap();
        ctc_loss(&x, lengths, &targets, &config)
    };
    scores[6 * 13 - 1 + 9 * 6 + 1] = f32::NAN; // beyond the end of the second clip
    assert_eq!(values(&of(&scores).unwrap()), usual);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut scores = scores.clone();
        scores[5] = bad;
        assert_eq!(field(of(&scores)), "logits");
    }
    let mut none = scores.clone();
    none[..6].fill(f32::NEG_INFINITY);
    assert_eq!(field(of(&none)), "logits");
    none[1] = 0.0;
    assert!(values(&of(&none).unwrap())[0].is_finite());
    none[..2].copy_from_slice(&[f32::NEG_INFINITY; 2]);
    none[4] = 0.0; // only a token that is not in the target
    assert_eq!(values(&of(&none).unwrap())[0], f32::INFINITY);
    // Without frames, only an empty target fits.
    let x = Tensor::zeros((2, 0, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values(&ctc_loss(&x, &[0, 0], &[vec![], vec![1]], &config).unwrap()), [0.0, f32::INFINITY]);
    assert!(forward_score(Array2::<f32>::zeros((3, 0)).view(), &[], 0).is_err());
    // Far more tokens than frames are handled cheaply.
    let score = forward_score(Array2::<f32>::zeros((10_000, 5)).view(), &vec![1; 1_000_000], 0);
    assert_eq!(score.unwrap(), f64::NEG_INFINITY);
}

#[test]
fn losses_do_not_depend_on_the_threads_nor_on_the_batch() {
    let x = logits("short", [7, 13, 6], 2.0);
    let targets = short(0);
    let config = LossConfig { zero_infinity: true, ..LossConfig::default() };
    let run = |threads: usize| {
        Threads::new(threads).unwrap().run(|| {
            let loss = ctc_loss(&x, &LENGTHS, &targets, &config).unwrap();
            (values(&loss), values(loss.backward().unwrap().get(&x).unwrap()))
        })
    };
    assert_eq!(run(1), run(3));
    let config = LossConfig { reduction: Reduction::None, ..config };
    let all = values(&ctc_loss(&x, &LENGTHS, &targets, &config).unwrap());
    for row in 0..7 {
        let alone = x.narrow(0, row, 1).unwrap().narrow(1, 0, LENGTHS[row]).unwrap();
        let alone = ctc_loss(&alone, &LENGTHS[row..=row], &targets[row..=row], &config).unwrap();
        assert_eq!(values(&alone), all[row..=row]);
    }
}
