//! Fusion against its definition, computed naively in f64.

use clipwise::ctc::{Vocabulary, greedy};
use clipwise::fusion::*;
use clipwise::models::OutputActivation;
use clipwise::ndarray::{Array2, array, s};
use clipwise::{Embedding, Error, LabelSet, Tagging};

mod common;

fn logits(name: &str, n_frames: usize) -> Array2<f32> {
    Array2::from_shape_vec((n_frames, 5), common::hashed(name, n_frames * 5, -4.0, 4.0, 3)).unwrap()
}

fn vocabulary() -> Vocabulary {
    Vocabulary::new(["<pad>", "a", "b", "c", "d"]).unwrap()
}

fn member<'a>(logits: &'a Array2<f32>, vocabulary: &'a Vocabulary, weight: f64) -> Member<'a> {
    Member { logits: logits.view(), vocabulary, frame_seconds: 0.02, weight }
}

/// `exp x / Σ exp x` of a row.
fn softmax(row: &[f64]) -> Vec<f64> {
    let sum: f64 = row.iter().map(|x| x.exp()).sum();
    row.iter().map(|x| x.exp() / sum).collect()
}

#[test]
fn frames_are_the_weighted_mean_of_logits_or_of_probabilities() {
    let (a, b, c, vocabulary) = (logits("a", 9), logits("b", 7), logits("c", 8), vocabulary());
    let members = [member(&a, &vocabulary, 3.0), member(&b, &vocabulary, 2.0), member(&c, &vocabulary, 5.0)];
    for mode in [Average::Logits, Average::Probabilities] {
        let fused = fuse_frames(&members, &Config { mode, ..Config::default() }).unwrap();
        assert_eq!(fused.dim(), (7, 5), "cut to the shortest");
        for frame in 0..7 {
            let rows = [&a, &b, &c].map(|x| x.row(frame).iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let mean = |rows: [Vec<f64>; 3]| -> Vec<f64> {
                (0..5).map(|k| 0.3 * rows[0][k] + 0.2 * rows[1][k] + 0.5 * rows[2][k]).collect()
            };
            let expected = match mode {
                Average::Logits => softmax(&mean(rows)),
                _ => mean(rows.map(|row| softmax(&row))),
            };
            for (got, expected) in fused.row(frame).iter().zip(expected) {
                assert!((f64::from(*got) - expected.ln()).abs() < 1e-5, "{mode:?}: {got}, {}", expected.ln());
            }
        }
        let alone =
            fuse_frames(&[member(&a, &vocabulary, 0.5), member(&b, &vocabulary, 0.0)], &Config::default()).unwrap();
        let first = clipwise::ctc::log_softmax(a.slice(s![..7, ..])).unwrap();
        common::assert_close("a weight of 0", alone.as_slice().unwrap(), first.as_slice().unwrap(), 1e-6, 0.0);
        greedy(fused.view(), &vocabulary, 0.02).unwrap();
    }
}

#[test]
fn members_that_do_not_match_are_errors() {
    let (a, b, vocabulary) = (logits("a", 9), logits("b", 6), vocabulary());
    let config = Config::default();
    let field = |members: &[Member], config: &Config| match fuse_frames(members, config) {
        Err(Error::Config { field, .. } | Error::Argument { name: field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let apart = [member(&a, &vocabulary, 0.5), member(&b, &vocabulary, 0.5)];
    assert_eq!(field(&apart, &config), "max_frame_gap");
    assert_eq!(fuse_frames(&apart, &Config { max_frame_gap: 3, ..config.clone() }).unwrap().nrows(), 6);
    let other = Vocabulary::new(["<pad>", "a", "c", "b", "d"]).unwrap();
    assert_eq!(field(&[member(&a, &vocabulary, 1.0), member(&a, &other, 1.0)], &config), "members");
    let slower = Member { frame_seconds: 0.04, ..member(&a, &vocabulary, 1.0) };
    assert_eq!(field(&[member(&a, &vocabulary, 1.0), slower], &config), "members");
    for weights in [[0.0, 0.0], [-0.5, 1.5], [f64::NAN, 1.0], [f64::INFINITY, 1.0], [f64::MAX, f64::MAX]] {
        assert_eq!(field(&weights.map(|weight| member(&a, &vocabulary, weight)), &config), "weight");
    }
    assert_eq!(field(&[], &config), "weight");
    let mut broken = a.clone();
    broken[[3, 1]] = f32::NAN;
    assert_eq!(field(&[member(&a, &vocabulary, 1.0), member(&broken, &vocabulary, 1.0)], &config), "logits");
    let narrow = a.slice(s![.., ..4]).to_owned();
    assert!(matches!(fuse_frames(&[member(&narrow, &vocabulary, 1.0)], &config), Err(Error::LabelCount { .. })));
    // −∞ is a probability of 0; if the members together exclude every token, nothing is left.
    let certain = array![[0.0, f32::NEG_INFINITY]];
    let (two, opposite) = (Vocabulary::new(["<pad>", "a"]).unwrap(), array![[f32::NEG_INFINITY, 0.0]]);
    let members = [member(&certain, &two, 1.0), member(&opposite, &two, 1.0)];
    assert_eq!(field(&members, &config), "logits");
    let halves = fuse_frames(&members, &Config { mode: Average::Probabilities, ..config }).unwrap();
    assert!(halves.iter().all(|x| (x - 0.5f32.ln()).abs() < 1e-6));
}

fn tagging(logits: &[f32], activation: OutputActivation, embedding: &[f32]) -> Tagging {
    let wide: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    let scores = match activation {
        OutputActivation::Sigmoid => wide.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        _ => softmax(&wide),
    };
    Tagging {
        scores: scores.into_iter().map(|x| x as f32).collect(),
        logits: logits.to_vec(),
        embedding: Embedding(embedding.to_vec()),
        labels: LabelSet::numbered(logits.len()),
    }
}

#[test]
fn taggings_are_fused_by_logits_or_by_probabilities() {
    for activation in [OutputActivation::Sigmoid, OutputActivation::Softmax] {
        let a = tagging(&[2.0, -1.0, 0.5], activation, &[3.0, 4.0]);
        let b = tagging(&[-1.0, 0.0, 0.25], activation, &[0.0, 0.0, 2.0]);
        let by_logits = fuse_taggings(&[(&a, 1.0), (&b, 3.0)], Average::Logits, activation).unwrap();
        let expected = tagging(&[-0.25, -0.25, 0.3125], activation, &[0.3, 0.4, 0.0, 0.0, 0.75f32.sqrt()]);
        common::assert_close("logits", &by_logits.logits, &expected.logits, 1e-6, 0.0);
        common::assert_close("scores", &by_logits.scores, &expected.scores, 1e-6, 0.0);
        common::assert_close("embedding", &by_logits.embedding, &expected.embedding, 1e-6, 0.0);

        let by_probabilities = fuse_taggings(&[(&a, 1.0), (&b, 3.0)], Average::Probabilities, activation).unwrap();
        let mean: Vec<f32> = a.scores.iter().zip(&b.scores).map(|(a, b)| 0.25 * a + 0.75 * b).collect();
        common::assert_close("scores", &by_probabilities.scores, &mean, 1e-6, 0.0);
        let again = tagging(&by_probabilities.logits, activation, &[]);
        common::assert_close("logits have the scores as activation", &again.scores, &mean, 1e-6, 0.0);
        assert_eq!(by_probabilities.labels, a.labels);

        let mut other = b.clone();
        other.labels = ["x", "y", "z"].into_iter().collect();
        let mut shorter = b.clone();
        shorter.logits.pop();
        let mut broken = b.clone();
        broken.logits[1] = f32::NAN;
        for wrong in [other, shorter, broken] {
            let error = fuse_taggings(&[(&a, 1.0), (&wrong, 1.0)], Average::Logits, activation).unwrap_err();
            assert!(matches!(error, Error::Argument { name: "members", .. }), "{error}");
        }
        // Members without probabilities.
        let mut certain = b.clone();
        certain.scores[0] = 1.5;
        let error = fuse_taggings(&[(&certain, 1.0)], Average::Probabilities, OutputActivation::Sigmoid).unwrap_err();
        assert!(matches!(error, Error::Argument { name: "members", .. }), "{error}");
        certain.logits[0] = f32::INFINITY;
        let error = fuse_taggings(&[(&certain, 1.0)], Average::Logits, OutputActivation::Softmax).unwrap_err();
        assert!(matches!(error, Error::Argument { name: "members", .. }), "{error}");
        assert!(matches!(fuse_taggings(&[], Average::Logits, activation), Err(Error::Argument { name: "weight", .. })));
    }
}
