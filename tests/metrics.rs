//! Metrics against scikit-learn (`golden/metrics.py`).

use std::path::PathBuf;

use clipwise::metrics::*;
use clipwise::ndarray::{Array2, ArrayView2, array};
use clipwise::{Error, LabelSet};
use safetensors::{Dtype, SafeTensors};

/// Rounding of sums of a few hundred f64 terms in a different order from scikit-learn's.
const TOLERANCE: f64 = 1e-9;

/// The golden file; every tensor as f64, which represents all its values exactly.
struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        Self(std::fs::read(project("tests/golden/metrics.safetensors")).unwrap())
    }

    fn get(&self, name: &str) -> Array2<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let bytes = view.data();
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
            Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => panic!("{name} is {other:?}"),
        };
        let (rows, columns) = match view.shape() {
            &[columns] => (1, columns),
            &[rows, columns] => (rows, columns),
            other => panic!("{name} has shape {other:?}"),
        };
        Array2::from_shape_vec((rows, columns), values).unwrap()
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.get(name).into_raw_vec_and_offset().0
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        self.vector(name).into_iter().map(|value| value as usize).collect()
    }

    fn binary_cases(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let names = file.names();
        let case = |name: &str| Some(name.strip_prefix("binary.")?.strip_suffix(".scores")?.to_string());
        names.into_iter().filter_map(case).collect()
    }
}

fn project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn flags(values: &[f64]) -> Vec<bool> {
    values.iter().map(|&value| value != 0.0).collect()
}

/// Golden data uses NaN for undefined values.
#[track_caller]
fn assert_same(what: &str, got: Option<f64>, expected: f64) {
    match got {
        None => assert!(expected.is_nan(), "{what}: got nothing, expected {expected}"),
        Some(got) => assert!((got - expected).abs() <= TOLERANCE, "{what}: got {got}, expected {expected}"),
    }
}

fn parts(average: Option<PrecisionRecallF1>) -> [Option<f64>; 3] {
    [average.map(|a| a.precision), average.map(|a| a.recall), average.map(|a| a.f1)]
}

#[test]
fn rankings_of_one_class_equal_scikit_learn() {
    let golden = Golden::open();
    let cases = golden.binary_cases();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let scores = golden.vector(&format!("binary.{case}.scores"));
        let targets = flags(&golden.vector(&format!("binary.{case}.targets")));
        let expected = golden.vector(&format!("binary.{case}.expected"));
        assert_same(&case, average_precision(&scores, &targets).unwrap(), expected[0]);
        assert_same(&case, roc_auc(&scores, &targets).unwrap(), expected[1]);
        let narrow: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
        assert_eq!(average_precision(&narrow, &targets).unwrap(), average_precision(&scores, &targets).unwrap());
        assert_eq!(roc_auc(&narrow, &targets).unwrap(), roc_auc(&scores, &targets).unwrap());
    }
}

#[test]
fn decisions_of_one_class_equal_scikit_learn() {
    let golden = Golden::open();
    for case in golden.binary_cases() {
        let scores = golden.vector(&format!("binary.{case}.scores"));
        let targets = flags(&golden.vector(&format!("binary.{case}.targets")));
        for row in golden.get(&format!("binary.{case}.decisions")).rows() {
            let counts = Counts::at_threshold(&scores, &targets, row[0]).unwrap();
            let Counts { true_positive, false_positive, false_negative, true_negative } = counts;
            let matrix = [true_negative, false_positive, false_negative, true_positive].map(|count| count as f64);
            assert_eq!(&matrix[..], &row.to_vec()[1..5], "{case} at {}", row[0]);
            let ratios = [counts.accuracy(), counts.precision(), counts.recall(), counts.f1(), counts.specificity()];
            for (ratio, &expected) in ratios.into_iter().zip(row.iter().skip(5)) {
                assert_same(&format!("{case} at {}", row[0]), ratio, expected);
            }
        }
    }
}

#[test]
fn averages_over_classes_equal_scikit_learn() {
    let golden = Golden::open();
    let (scores, targets) = (golden.get("multi.scores"), golden.get("multi.targets").mapv(|value| value != 0.0));
    let (per_class, means) = (golden.get("multi.per_class"), golden.vector("multi.means"));
    let report = MultiLabelReport::new(scores.view(), targets.view()).unwrap();
    for (class, expected) in per_class.rows().into_iter().enumerate() {
        assert_same(&format!("AP of {class}"), report.average_precision[class], expected[0]);
        assert_same(&format!("AUC of {class}"), report.roc_auc[class], expected[1]);
        assert_eq!(report.n_positive[class], targets.column(class).iter().filter(|&&target| target).count());
    }
    assert_eq!((report.average_precision[3], report.roc_auc[3], report.n_positive[3]), (None, None, 0), "absent");
    assert_eq!((report.average_precision[5], report.roc_auc[5]), (Some(1.0), None), "positive everywhere");
    assert_eq!(report.roc_auc[6], Some(0.5), "constant");
    assert_same("mAP", report.mean_average_precision(), means[0]);
    assert_same("mean AUC", report.mean_roc_auc(), means[1]);
    assert_same("d′", report.d_prime(), means[2]);
    let narrow = scores.mapv(|score| score as f32);
    assert_same("mAP, f32", mean_average_precision(narrow.view(), targets.view()).unwrap(), means[0]);

    let counts = |class| {
        let column = (scores.column(class).to_vec(), targets.column(class).to_vec());
        Counts::at_threshold(&column.0, &column.1, 0.5).unwrap()
    };
    let counts: Vec<Counts> = (0..scores.ncols()).map(counts).collect();
    let averages = golden.get("multi.averages");
    for (average, expected) in [macro_average(&counts), micro_average(&counts)].into_iter().zip(averages.rows()) {
        for (got, &expected) in parts(average).into_iter().zip(expected) {
            assert_same("average", got, expected);
        }
    }
}

#[test]
fn single_label_metrics_equal_scikit_learn() {
    let golden = Golden::open();
    let (targets, predictions) = (golden.indices("single.targets"), golden.indices("single.predictions"));
    let accuracy_wanted = golden.vector("single.accuracy")[0];
    let confusion = Confusion::new(&targets, &predictions, 8).unwrap();
    assert_eq!(confusion.counts().mapv(|count| count as f64), golden.get("single.confusion"));
    assert_same("accuracy", confusion.accuracy(), accuracy_wanted);
    assert_same("accuracy", accuracy(&targets, &predictions).unwrap(), accuracy_wanted);
    let (counts, each) = (golden.get("single.one_against_rest"), golden.get("single.each"));
    for class in 0..8 {
        let Counts { true_positive, false_positive, false_negative, true_negative } = confusion.class(class).unwrap();
        let matrix = [true_negative, false_positive, false_negative, true_positive].map(|count| count as f64);
        assert_eq!(&matrix[..], &counts.row(class).to_vec()[..]);
        let ratios = [confusion.precision(class), confusion.recall(class), confusion.f1(class)];
        for (ratio, &expected) in ratios.into_iter().zip(each.column(class)) {
            assert_same(&format!("class {class}"), ratio, expected);
        }
    }
    assert_eq!((confusion.recall(2), confusion.precision(5), confusion.f1(6)), (None, None, None));
    assert_eq!((confusion.class(8), confusion.f1(usize::MAX)), (None, None));
    let averages = golden.get("single.averages");
    for (average, expected) in [confusion.macro_average(), confusion.micro_average()].into_iter().zip(averages.rows()) {
        for (got, &expected) in parts(average).into_iter().zip(expected) {
            assert_same("average", got, expected);
        }
    }
    let scores = golden.get("single.scores");
    for (k, &expected) in (1..).zip(&golden.vector("single.top_k")) {
        assert_same(&format!("top {k}"), top_k_accuracy(scores.view(), &targets, k).unwrap(), expected);
    }
    assert_eq!(top_k_accuracy(scores.view(), &targets, 99).unwrap(), Some(1.0));
}

#[test]
fn d_prime_is_accurate_over_the_whole_range() {
    let golden = Golden::open();
    for (p, expected) in golden.vector("normal.p").into_iter().zip(golden.vector("normal.d_prime")) {
        let got = d_prime(p);
        let close = got == expected || (got - expected).abs() <= TOLERANCE * expected.abs();
        assert!(close, "Φ⁻¹({p:e}): got {got}, expected {expected}");
    }
    assert_eq!((d_prime(0.0), d_prime(0.5), d_prime(1.0)), (f64::NEG_INFINITY, 0.0, f64::INFINITY));
    assert!([-0.1, 1.1, f64::NAN, f64::INFINITY].into_iter().all(|auc| d_prime(auc).is_nan()));
}

/// Two textbook tables.
#[test]
fn fixtures() {
    let counts = |true_positive, true_negative, false_positive, false_negative| Counts {
        true_positive,
        false_positive,
        false_negative,
        true_negative,
    };
    let first = counts(9, 8, 2, 1);
    assert_same("accuracy", first.accuracy(), 0.85);
    assert_same("precision", first.precision(), 9.0 / 11.0);
    assert_same("recall", first.recall(), 0.9);
    assert_same("specificity", first.specificity(), 0.8);
    assert_same("F1", first.f1(), 6.0 / 7.0);
    let second = counts(1, 998, 0, 1);
    assert_same("accuracy", second.accuracy(), 0.999);
    assert_same("precision", second.precision(), 1.0);
    assert_same("recall", second.recall(), 0.5);
}

#[test]
fn undefined_metrics_are_none() {
    assert_eq!(average_precision::<f32>(&[], &[]).unwrap(), None);
    assert_eq!(roc_auc::<f64>(&[], &[]).unwrap(), None);
    assert_eq!(accuracy::<usize>(&[], &[]).unwrap(), None);
    let (scores, targets) = (Array2::<f32>::zeros((0, 0)), Array2::from_elem((0, 0), false));
    assert_eq!(mean_average_precision(scores.view(), targets.view()).unwrap(), None);
    assert_eq!(MultiLabelReport::new(scores.view(), targets.view()).unwrap().d_prime(), None);
    assert_eq!(top_k_accuracy(scores.view(), &[], 1).unwrap(), None);
    let confusion = Confusion::new(&[], &[], 0).unwrap();
    assert_eq!((confusion.accuracy(), confusion.macro_average(), confusion.micro_average()), (None, None, None));
    assert_eq!(Counts::default().accuracy(), None);
    let largest =
        Counts { true_positive: u64::MAX, false_positive: u64::MAX, false_negative: u64::MAX, true_negative: 0 };
    assert_eq!(largest.accuracy(), Some(1.0 / 3.0));
    assert_eq!(micro_average(&[largest, largest]).unwrap().recall, 0.5);
}

#[test]
fn infinite_scores_are_ranked() {
    let scores = [f32::INFINITY, 1.0, f32::NEG_INFINITY, f32::INFINITY];
    assert_eq!(roc_auc(&scores, &[true, true, false, false]).unwrap(), Some(0.625));
    assert_eq!(average_precision(&scores, &[true, false, false, true]).unwrap(), Some(1.0));
}

#[test]
fn invalid_arguments_are_typed_errors() {
    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: clipwise::Result<T>, message: &str) {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error:?}");
        assert_eq!(error.to_string(), message);
    }
    let nan = [0.5, f32::NAN];
    refused(average_precision(&nan, &[true, false]), "scores = NaN: expected a number as score 1");
    refused(roc_auc(&[0.5], &[]), "targets = 0 values: expected 1, as many as scores");
    refused(accuracy(&[1, 2], &[1]), "predictions = 1 values: expected 2, as many as targets");
    refused(Counts::at_threshold(&nan, &[true, true], 0.5), "scores = NaN: expected a number as score 1");
    refused(Counts::at_threshold(&[0.5], &[true], f64::NAN), "threshold = NaN: expected a number");
    let scores = array![[0.1, 0.2], [0.3, f64::NAN]];
    let targets = array![[true, false], [false, true]];
    refused(
        MultiLabelReport::new(scores.view(), targets.view()),
        "scores = NaN: expected a number as score 1 of class 1",
    );
    let flat: ArrayView2<bool> = targets.view().into_shape_with_order((1, 4)).unwrap();
    let message = "targets = [1, 4]: expected the shape of the scores, [2, 2]";
    refused(mean_average_precision(scores.view(), flat), message);
    refused(top_k_accuracy(scores.view(), &[0, 0], 0), "k = 0: expected at least 1");
    refused(top_k_accuracy(scores.view(), &[0, 0], 1), "scores = NaN: expected a number as score [1, 1]");
    refused(top_k_accuracy(scores.view(), &[2, 0], 1), "targets = 2: expected a class index below 2 as value 0");
    refused(top_k_accuracy(scores.view(), &[0], 1), "targets = 1 values: expected 2, as many as rows of scores");
    refused(Confusion::new(&[0], &[3], 3), "predictions = 3: expected a class index below 3 as value 0");
    refused(
        Confusion::new(&[usize::MAX], &[0], 3),
        &format!("targets = {}: expected a class index below 3 as value 0", usize::MAX),
    );
    let message = format!("n_classes = {}: expected at most 8192", usize::MAX);
    refused(Confusion::new(&[], &[], usize::MAX), &message);
}

#[test]
fn the_label_map_of_the_evaluate_example_names_audioset_classes() {
    let text = std::fs::read_to_string(project("examples/esc10.json")).unwrap();
    let map: std::collections::BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap();
    assert_eq!(map.len(), 10);
    let audioset = LabelSet::audioset();
    for name in map.values().flatten() {
        assert!(audioset.iter().any(|label| label.name == *name), "{name}");
    }
}
