//! Which classes of the model a class of the data stands for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clipwise::{LabelSet, Tagging};
use serde::Deserialize;

use super::dataset::{cannot_read, pairs};
use crate::message::Failure;

/// A file that names the model's labels of each class of the data.
pub struct LabelMap(Vec<(String, Vec<String>)>);

/// A value of the JSON form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Labels {
    One(String),
    Many(Vec<String>),
}

impl LabelMap {
    /// Reads JSON by the extension `.json`, CSV otherwise.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            let text = fs::read_to_string(path).map_err(|error| cannot_read(path, error))?;
            let map: BTreeMap<String, Labels> =
                serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
                    format!("{}: expected an object {{\"class\": [\"label\"]}}: {error}", path.display())
                })?;
            let list = |labels| match labels {
                Labels::One(label) => vec![label],
                Labels::Many(labels) => labels,
            };
            return Ok(Self(map.into_iter().map(|(target, labels)| (target, list(labels))).collect()));
        }
        Ok(Self(pairs(path, ["target", "label"])?.into_iter().map(|(target, label)| (target, vec![label])).collect()))
    }
}

/// The classes of the data, each with the indices of its classes of the model.
pub struct Targets {
    pub classes: Vec<Target>,
    /// Classes of the map that are not in the data.
    pub unused: Vec<String>,
}

pub struct Target {
    pub name: String,
    pub labels: Vec<usize>,
}

impl Targets {
    /// Fails with all classes of the data that have no label, and all labels that the model has not.
    pub fn new(names: &[String], model: &LabelSet, map: Option<&LabelMap>) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let mut classes = Vec::new();
        for name in names {
            let entries = map.iter().flat_map(|map| &map.0).filter(|(target, _)| folded(target) == folded(name));
            let mapped: Vec<&String> = entries.flat_map(|(_, labels)| labels).collect();
            let wanted = if mapped.is_empty() { vec![name] } else { mapped };
            let mut labels = Vec::new();
            for label in wanted {
                match index_of(model, label) {
                    Some(index) if labels.contains(&index) => {}
                    Some(index) => labels.push(index),
                    None => problems.push(unknown(name, label, model)),
                }
            }
            classes.push(Target { name: name.clone(), labels });
        }
        if !problems.is_empty() {
            let hint = "name the model's labels of each class in a file and give it with --map";
            return Err(format!("{}\n{hint}", problems.join("\n")).into());
        }
        let known = |target: &str| names.iter().any(|name| folded(name) == folded(target));
        let mut unused: Vec<String> = map
            .iter()
            .flat_map(|map| &map.0)
            .map(|(target, _)| target.clone())
            .filter(|target| !known(target))
            .collect();
        unused.dedup();
        Ok(Self { classes, unused })
    }

    /// The score of each class: the highest of its labels.
    pub fn scores(&self, tagging: &Tagging) -> Vec<f32> {
        let score = |target: &Target| {
            let scores = target.labels.iter().filter_map(|&index| tagging.scores.get(index).copied());
            scores.fold(f32::NEG_INFINITY, f32::max)
        };
        self.classes.iter().map(score).collect()
    }
}

/// Lower case, with one space for everything between words.
fn folded(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

fn index_of(model: &LabelSet, label: &str) -> Option<usize> {
    let same = |name: &str| !folded(name).is_empty() && folded(name) == folded(label);
    model.index_of(label).or_else(|| model.iter().position(|known| same(&known.name)))
}

fn unknown(class: &str, label: &str, model: &LabelSet) -> String {
    let wanted = folded(label);
    let mut names: Vec<&str> = model.iter().map(|known| known.name.as_str()).collect();
    names.sort_by_cached_key(|name| {
        let name = folded(name);
        let shared = wanted.split(' ').filter(|word| name.split(' ').any(|other| other == *word)).count();
        (Reverse(shared), distance(&wanted, &name))
    });
    let nearest: Vec<String> = names.iter().take(5).map(|name| format!("{name:?}")).collect();
    format!("class {class:?}: the model has no label {label:?}; the nearest are {}", nearest.join(", "))
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (above, y) in row.iter_mut().skip(1).zip(&b) {
            let here = (diagonal + usize::from(x != *y)).min(left + 1).min(*above + 1);
            (diagonal, left, *above) = (*above, here, here);
        }
        row[0] = i + 1;
    }
    row.last().copied().unwrap_or_default()
}
