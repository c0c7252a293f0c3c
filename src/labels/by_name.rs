//! Label sets in serialized results: the name of a built-in set, a list for any other set.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::LabelSet;

type BuiltIn = (&'static str, fn() -> LabelSet);

const BUILT_IN: [BuiltIn; 4] = [
    ("audioset", LabelSet::audioset),
    ("audioset_by_name", LabelSet::audioset_by_name),
    ("audioset_strong", LabelSet::audioset_strong),
    ("yamnet", LabelSet::yamnet),
];

#[derive(Deserialize)]
#[serde(untagged)]
enum Labels {
    BuiltIn(String),
    List(LabelSet),
}

pub(crate) fn serialize<S: Serializer>(labels: &LabelSet, serializer: S) -> Result<S::Ok, S::Error> {
    match BUILT_IN.iter().find(|(_, built_in)| built_in() == *labels) {
        Some((name, _)) => serializer.serialize_str(name),
        None => labels.serialize(serializer),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LabelSet, D::Error> {
    match Labels::deserialize(deserializer)? {
        Labels::List(labels) => Ok(labels),
        Labels::BuiltIn(wanted) => {
            let found = BUILT_IN.iter().find(|(name, _)| *name == wanted);
            let unknown = || {
                let names = BUILT_IN.map(|(name, _)| name).join(", ");
                de::Error::custom(format!("expected labels as a list or one of {names}, got {wanted:?}"))
            };
            Ok(found.ok_or_else(unknown)?.1())
        }
    }
}
