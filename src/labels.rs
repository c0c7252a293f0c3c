//! Class names: AudioSet's 527 classes, and label files; AudioSet's ontology.

pub(crate) mod by_name;
mod ontology;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;

/// The AudioSet classes: `index,mid,display_name`. Google, CC BY 4.0 (see THIRD_PARTY_NOTICES.md).
const AUDIOSET_CSV: &str = include_str!("labels/audioset.csv");

/// The classes of AudioSet Strong's training set, in the order of PretrainedSED and EfficientSED. Google, CC BY 4.0.
const AUDIOSET_STRONG_CSV: &str = include_str!("labels/audioset_strong.csv");

/// Limit on the size of a label file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A class: its names and its parents in an ontology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Machine id, such as AudioSet's `/m/09x0r`; `None` if the label file has none.
    pub id: Option<String>,
    /// Display name, such as `Speech`.
    pub name: String,
    /// Names of all classes above it in an ontology, nearest first. For `Bark`: `Dog`, `Domestic animals, pets`, `Animal`.
    ///
    /// They need not be in the label set: AudioSet's ontology has 105 classes in addition to the 527, such as `Human voice`
    /// above `Speech`. Empty if no ontology is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
}

impl Label {
    fn named(name: String) -> Self {
        Self { id: None, name, parents: Vec::new() }
    }
}

/// The classes of a model, in the order of its outputs. Cheap to clone.
///
/// ```
/// let labels = clipwise::LabelSet::audioset();
/// assert_eq!(labels.len(), 527);
/// assert_eq!(labels[0].name, "Speech");
/// let dog = labels.index_of("Dog").unwrap();
/// assert_eq!(labels.index_of("/m/0bt9lr"), Some(dog));
/// assert_eq!(labels[dog].parents, ["Domestic animals, pets", "Animal"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelSet(Arc<[Label]>);

impl LabelSet {
    /// AudioSet's 527 classes, in the standard order (`class_labels_indices.csv`), with parents from AudioSet's ontology.
    pub fn audioset() -> Self {
        static AUDIOSET: OnceLock<LabelSet> = OnceLock::new();
        AUDIOSET.get_or_init(|| built_in(AUDIOSET_CSV)).clone()
    }

    /// AudioSet's 527 classes, sorted by display name, as in some checkpoints.
    pub fn audioset_by_name() -> Self {
        static BY_NAME: OnceLock<LabelSet> = OnceLock::new();
        let sorted = || {
            let mut labels = Self::audioset().to_vec();
            labels.sort_by(|a, b| a.name.cmp(&b.name));
            labels.into_iter().collect()
        };
        BY_NAME.get_or_init(sorted).clone()
    }

    /// YAMNet's 521 classes: AudioSet's in the standard order, without six.
    pub fn yamnet() -> Self {
        const WITHOUT: [&str; 6] = [
            "Male speech, man speaking",
            "Female speech, woman speaking",
            "Battle cry",
            "Male singing",
            "Female singing",
            "Funny music",
        ];
        static YAMNET: OnceLock<LabelSet> = OnceLock::new();
        let kept = || Self::audioset().iter().filter(|label| !WITHOUT.contains(&&*label.name)).cloned().collect();
        YAMNET.get_or_init(kept).clone()
    }

    /// The 447 classes of AudioSet Strong's training set, sorted by display name, which the frame-wise MobileNets use.
    ///
    /// 31 of them are not in AudioSet's ontology and have no parents.
    pub fn audioset_strong() -> Self {
        static STRONG: OnceLock<LabelSet> = OnceLock::new();
        STRONG.get_or_init(|| built_in(AUDIOSET_STRONG_CSV)).clone()
    }

    /// Classes named by their index (`class 0`, …), for models with unknown labels.
    pub fn numbered(n_classes: usize) -> Self {
        (0..n_classes).map(|index| format!("class {index}")).collect()
    }

    /// Reads a label file. The format is recognised by the content:
    /// - JSON: `["Speech", …]`, `{"0": "Speech", …}`, `{"id2label": {…}}`, or an array of objects
    ///   `{"id": …, "name": …, "parents": […]}`;
    /// - CSV with a header: the name in a column `display_name`, `name` or `label`, the machine id in `mid` or `id`,
    ///   the index in `index` (default: the order of the rows), the names of parents in `parents`, separated by `;`;
    /// - text: one name per line. Empty lines at the end are ignored.
    ///
    /// The file must be UTF-8, with or without a byte-order mark, and at most 64 MiB. Classes of AudioSet get the parents of its
    /// ontology if the file gives none ([`with_audioset_parents`](Self::with_audioset_parents)).
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read or is not a regular file; [`Error::Labels`] if it is too long, has no
    /// labels, has indices that do not run from 0 without gaps, or is invalid JSON or CSV.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let unusable = |path, reason| Error::Labels { path, reason };
        let text = files::read_text(path, MAX_FILE_BYTES, unusable)?;
        let labels = Self::parse(&text).map_err(|reason| unusable(path.to_path_buf(), reason))?;
        Ok(labels.with_audioset_parents())
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let parsed = match text.trim_start().chars().next() {
            None => Err("the file is empty".to_string()),
            Some('[' | '{') => parse_json(text),
            Some(_) if has_csv_header(text) => parse_csv(text),
            Some(_) if is_headless_csv(text) => {
                Err(format!("this looks like CSV without a header: expected a column named one of {NAME_COLUMNS:?}"))
            }
            Some(_) => parse_lines(text),
        }?;
        if parsed.is_empty() { Err("the file has no labels".to_string()) } else { Ok(parsed) }
    }

    /// The index of a class, by machine id or display name (exact match, otherwise ignoring case).
    pub fn index_of(&self, name_or_id: &str) -> Option<usize> {
        let exact = |label: &Label| label.name == name_or_id || label.id.as_deref() == Some(name_or_id);
        self.iter().position(exact).or_else(|| {
            let wanted = name_or_id.to_lowercase();
            self.iter().position(|label| label.name.to_lowercase() == wanted)
        })
    }
}

/// A label file in the crate, with parents.
fn built_in(csv: &str) -> LabelSet {
    parse_csv(csv).expect("the built-in label files are checked by a test").with_audioset_parents()
}

impl std::ops::Deref for LabelSet {
    type Target = [Label];

    fn deref(&self) -> &[Label] {
        &self.0
    }
}

impl FromIterator<Label> for LabelSet {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Self(labels.into_iter().collect())
    }
}

impl<'a> FromIterator<&'a str> for LabelSet {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        names.into_iter().map(str::to_string).collect()
    }
}

impl FromIterator<String> for LabelSet {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        names.into_iter().map(Label::named).collect()
    }
}

type Parsed = std::result::Result<LabelSet, String>;

const NAME_COLUMNS: [&str; 3] = ["display_name", "name", "label"];
const ID_COLUMNS: [&str; 2] = ["mid", "id"];

fn has_csv_header(text: &str) -> bool {
    let header = text.lines().next().unwrap_or_default();
    let is_name = |field: &str| NAME_COLUMNS.contains(&field.trim().trim_matches('"').to_lowercase().as_str());
    header.contains(',') && header.split(',').any(is_name)
}

/// Whether every line begins with a number and a comma, which is an index and not a name.
fn is_headless_csv(text: &str) -> bool {
    let begins_with_index =
        |line: &str| line.split_once(',').is_some_and(|(index, _)| index.trim().parse::<u64>().is_ok());
    text.trim_end().lines().all(begins_with_index)
}

fn parse_lines(text: &str) -> Parsed {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
    match lines.iter().position(|line| line.is_empty()) {
        Some(at) => Err(format!("line {} is empty", at + 1)),
        None => Ok(lines.into_iter().collect()),
    }
}

fn parse_csv(text: &str) -> Parsed {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let place = |name: &&str| header.iter().position(|field| field.eq_ignore_ascii_case(name));
    let column = |names: &[&str]| names.iter().find_map(place);
    let name = column(&NAME_COLUMNS).ok_or_else(|| format!("expected a column named one of {NAME_COLUMNS:?}"))?;
    let (id, index, parents) = (column(&ID_COLUMNS), column(&["index"]), column(&["parents"]));
    let mut labels = BTreeMap::new();
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|error| error.to_string())?;
        let field = |column: usize| record.get(column).unwrap_or_default().trim().to_string();
        let place = match index {
            Some(index) => field(index).parse().map_err(|_| format!("index {:?} is not a number", field(index)))?,
            None => row,
        };
        let parents = parents.map(field).unwrap_or_default();
        let parents = parents.split(';').map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect();
        let id = id.map(field).filter(|id| !id.is_empty());
        insert(&mut labels, place, Label { id, name: field(name), parents })?;
    }
    in_order(labels)
}

fn parse_json(text: &str) -> Parsed {
    use serde_json::Value;
    let label = |value: &Value| match value {
        Value::String(name) => Ok(Label::named(name.clone())),
        Value::Object(fields) => {
            let text = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)?.as_str().map(str::to_string));
            let name = text(&NAME_COLUMNS)
                .ok_or_else(|| format!("expected one of the fields {NAME_COLUMNS:?} in every object"))?;
            let parents = match fields.get("parents") {
                Some(parents) => serde_json::from_value(parents.clone())
                    .map_err(|_| format!("the parents of {name:?} are not an array of names"))?,
                None => Vec::new(),
            };
            Ok(Label { id: text(&ID_COLUMNS), name, parents })
        }
        other => Err(format!("{other} is not a label")),
    };
    let root: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let root = root.get("id2label").or_else(|| root.get("labels")).unwrap_or(&root);
    match root {
        Value::Array(values) => values.iter().map(label).collect::<std::result::Result<_, _>>(),
        Value::Object(fields) => {
            let mut labels = BTreeMap::new();
            for (key, value) in fields {
                let place = key.parse().map_err(|_| format!("key {key:?} is not an index"))?;
                insert(&mut labels, place, label(value)?)?;
            }
            in_order(labels)
        }
        _ => Err("expected an array or an object".to_string()),
    }
}

fn insert(labels: &mut BTreeMap<usize, Label>, place: usize, label: Label) -> std::result::Result<(), String> {
    if label.name.is_empty() {
        return Err(format!("class {place} has no name"));
    }
    match labels.insert(place, label) {
        Some(_) => Err(format!("index {place} occurs twice")),
        None => Ok(()),
    }
}

fn in_order(labels: BTreeMap<usize, Label>) -> Parsed {
    match labels.keys().enumerate().find(|&(wanted, &index)| wanted != index) {
        Some((wanted, _)) => Err(format!("index {wanted} is missing")),
        None => Ok(labels.into_values().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audioset_527_classes() {
        let strong = LabelSet::audioset_strong();
        assert_eq!((strong.len(), &*strong[446].name), (447, "Zipper (clothing)"));
        assert_eq!(strong[0].id.as_deref(), Some("/m/07q2z82"));
        let labels = LabelSet::audioset();
        assert_eq!(labels.len(), 527);
        assert_eq!(labels[1].name, "Male speech, man speaking");
        assert_eq!(labels[1].id.as_deref(), Some("/m/05zppz"));
        assert_eq!(labels[526].name, "Field recording");
        assert_eq!(labels.index_of("telephone bell ringing"), labels.index_of("Telephone bell ringing"));
        assert_eq!(labels.index_of("no such sound"), None);
    }

    #[test]
    fn label_file_formats_agree() {
        let plain: LabelSet = ["Dog", "Rain, heavy"].into_iter().collect();
        for text in [
            "Dog\nRain, heavy\n\n",
            "Dog\r\nRain, heavy",
            r#"["Dog", "Rain, heavy"]"#,
            r#"{"1": "Rain, heavy", "0": "Dog"}"#,
            r#"{"id2label": {"0": "Dog", "1": "Rain, heavy"}, "other": 1}"#,
            "label,note\nDog,x\n\"Rain, heavy\",y\n",
            "index,name\n1,\"Rain, heavy\"\n0,Dog\n",
            "Index,MID,Name\n1,,\"Rain, heavy\"\n0,,Dog\n",
        ] {
            assert_eq!(LabelSet::parse(text).as_ref(), Ok(&plain), "{text:?}");
        }
        let with_ids = LabelSet::parse(r#"[{"mid": "/m/1", "display_name": "Dog"}]"#).unwrap();
        assert_eq!(with_ids[0].id.as_deref(), Some("/m/1"));
        for text in [
            r#"[{"name": "Dog", "parents": ["Domestic animals, pets", "Animal"]}, "Rain"]"#,
            "name,parents\nDog,\"Domestic animals, pets; Animal\"\nRain,\n",
        ] {
            let labels = LabelSet::parse(text).unwrap();
            assert_eq!(labels[0].parents, ["Domestic animals, pets", "Animal"], "{text:?}");
            assert!(labels[1].parents.is_empty());
        }
    }

    #[test]
    fn invalid_label_files_are_described() {
        for (text, reason) in [
            ("", "empty"),
            ("[]", "no labels"),
            ("[1, 2]", "not a label"),
            ("{\"a\": \"Dog\"}", "not an index"),
            ("{\"0\": \"Dog\", \"2\": \"Cat\"}", "index 1 is missing"),
            ("index,name\n0,Dog\n0,Cat\n", "occurs twice"),
            ("index,name\nx,Dog\n", "not a number"),
            ("Dog\n\nCat\n", "line 2 is empty"),
            ("{\"0\": ", "EOF"),
            (r#"[{"name": "Dog", "parents": "Animal"}]"#, "not an array"),
            ("index,name\n", "no labels"),
            ("0,/m/09x0r,\"Speech\"\n1,/m/05zppz,\"Male speech\"\n", "without a header"),
        ] {
            let error = LabelSet::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
