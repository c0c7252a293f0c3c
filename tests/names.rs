//! The names of enum values in command-line options and configuration files.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use clipwise::ctc::beam::Unit;
use clipwise::frontend::{LogScale, PadMode, Window};
use clipwise::fusion::Average;
use clipwise::models::{OutputActivation, ced::WindowMean, rnn::TimePooling};
use clipwise::nn::{Cell, Pooling};
use clipwise::{Aggregation, Error, Precision};

fn check<T: Debug + Display + FromStr<Err = Error> + PartialEq + serde::Serialize>(value: T, name: &str) {
    assert_eq!(value.to_string(), name);
    assert_eq!(format!("{value:>20}").trim_start(), name);
    assert_eq!(format!("{value:>20}").len(), 20);
    assert_eq!(name.parse::<T>().unwrap(), value);
    assert_eq!(serde_json::to_value(&value).unwrap(), name);
    let error = "nonsense".parse::<T>().unwrap_err().to_string();
    assert!(error.contains("nonsense") && error.contains(name), "{error}");
}

#[test]
fn names_equal_those_in_config_files() {
    check(Aggregation::Embedding, "embedding");
    check(Average::Probabilities, "probabilities");
    check(Cell::Lstm, "lstm");
    check(LogScale::NaturalOffset, "natural_offset");
    check(OutputActivation::Softmax, "softmax");
    check(PadMode::Reflect, "reflect");
    check(Pooling::Avg, "avg");
    check(Precision::Int8, "int8");
    check(TimePooling::Attention, "attention");
    check(Unit::Words, "words");
    check(Window::Povey, "povey");
    check(WindowMean::ScoresByLength, "scores_by_length");
}
