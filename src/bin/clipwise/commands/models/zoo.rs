//! Facts about the named models, from `zoo.csv`.

use serde::{Deserialize, Serialize};

/// What is known of one model. An empty field of the table is `None`.
#[derive(Deserialize, Serialize)]
pub struct Facts {
    pub name: String,
    pub family: String,
    pub model: String,
    /// What the model takes, without the sample rate.
    pub input: String,
    /// In Hz.
    pub sample_rate: u32,
    pub n_parameters: u64,
    /// On AudioSet's evaluation set, as published.
    pub map: Option<f64>,
    /// Of the published weights.
    pub licence: Option<String>,
    /// The published file, or the repository on the Hugging Face hub.
    pub file: Option<String>,
    pub link: Option<String>,
    pub md5: Option<String>,
    pub sha256: Option<String>,
    /// Size of the file.
    pub bytes: Option<u64>,
    /// The largest difference of scores and embedding from PyTorch's.
    pub difference: String,
}

/// The table, grouped by family.
pub fn zoo() -> Result<Vec<Facts>, csv::Error> {
    csv::Reader::from_reader(include_str!("zoo.csv").as_bytes()).deserialize().collect()
}

impl Facts {
    /// The sample rate in kHz: `22.05 kHz`.
    pub fn rate(&self) -> String {
        format!("{} kHz", f64::from(self.sample_rate) / 1e3)
    }

    /// The number of parameters in three digits or less: `27 k`, `0.98 M`, `80.8 M`, `1.2 G`.
    pub fn size(&self) -> String {
        match self.n_parameters as f64 {
            n if n < 1e5 => format!("{:.0} k", n / 1e3),
            n if n < 1e6 => format!("{:.2} M", n / 1e6),
            n if n < 1e8 => format!("{:.1} M", n / 1e6),
            n if n < 1e9 => format!("{:.0} M", n / 1e6),
            n => format!("{:.1} G", n / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use clipwise::{Device, Error, ModelConfig, Weights, models};

    use super::*;
    use crate::model::BUILT_IN;

    /// Models of up to this size are built to count their parameters.
    const MAX_COUNTED: u64 = 12_000_000;

    fn by_name() -> BTreeMap<String, Facts> {
        let zoo = zoo().unwrap();
        let n = zoo.len();
        let by_name: BTreeMap<_, _> = zoo.into_iter().map(|facts| (facts.name.clone(), facts)).collect();
        assert_eq!(by_name.len(), n, "a name stands twice in the table");
        by_name
    }

    /// Values of `key` anywhere in a configuration.
    fn values_of(key: &str, value: &serde_json::Value) -> Vec<u64> {
        match value {
            serde_json::Value::Object(fields) => {
                let own = fields.get(key).and_then(serde_json::Value::as_u64);
                own.into_iter().chain(fields.values().flat_map(|value| values_of(key, value))).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_model_is_in_the_table_with_its_sample_rate_and_map() {
        let mut zoo = by_name();
        for preset in models::presets() {
            let name = preset.name();
            let facts = zoo.remove(name).unwrap_or_else(|| panic!("zoo.csv has no row for {name}"));
            for rate in values_of("sample_rate", &serde_json::to_value(&preset.config).unwrap()) {
                assert_eq!(u64::from(facts.sample_rate), rate, "{name}");
            }
            if let Some((_, map)) = preset.description.rsplit_once("mAP ") {
                let map = map.split(' ').next().unwrap().parse().ok();
                assert_eq!(facts.map, map, "{name}: {}", preset.description);
            }
            // Who publishes weights says under which licence, and where.
            assert_eq!(facts.licence.is_some(), facts.file.is_some(), "{name}");
            assert_eq!(facts.link.is_some(), facts.file.is_some(), "{name}");
            assert!(!preset.description.contains("no published weights") || facts.file.is_none(), "{name}");
        }
        assert!(zoo.is_empty(), "no models have these names: {:?}", zoo.keys());
    }

    /// The number of values that a model asks of a checkpoint, without the running statistics of batch norms.
    fn count(config: &ModelConfig, expected: u64) -> u64 {
        // Loading stops early at a file much smaller than the model, so the file has a tensor of that size under a name of its own.
        let n_bytes = 3 * expected as usize;
        let header = format!(r#"{{"filler":{{"dtype":"U8","shape":[{n_bytes}],"data_offsets":[0,{n_bytes}]}}}}"#);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + n_bytes, 0);
        match config.load(&Weights::from_bytes(file).unwrap(), &Device::Cpu) {
            Err(Error::Weights(report)) if !report.stopped => {
                let is_trained = |name: &str| !name.contains("running_");
                let trained = report.missing.iter().filter(|tensor| is_trained(&tensor.name));
                trained.map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
            }
            Err(error) => panic!("{}: {error}", config.name()),
            Ok(_) => panic!("{}: loaded from nothing", config.name()),
        }
    }

    #[test]
    fn numbers_of_parameters_are_those_of_the_models() {
        let zoo = by_name();
        for preset in models::presets() {
            let expected = zoo[preset.name()].n_parameters;
            if expected <= MAX_COUNTED {
                assert_eq!(count(&preset.config, expected), expected, "{}", preset.name());
            }
        }
    }

    /// A row of the page.
    fn row(facts: &Facts) -> String {
        let dash = || "–".to_string();
        let built_in = if BUILT_IN.iter().any(|(name, _)| *name == facts.name) { ", built in" } else { "" };
        let file = match (&facts.file, &facts.link) {
            (Some(file), Some(link)) => format!("[`{file}`]({link})"),
            _ => dash(),
        };
        let bytes = facts.bytes.map(|bytes| format!("{bytes} bytes"));
        let md5 = facts.md5.as_ref().map(|md5| format!("MD5 `{md5}`"));
        let sha256 = facts.sha256.as_ref().map(|sha256| format!("SHA-256 `{sha256}`"));
        let known: Vec<String> = [bytes, md5, sha256].into_iter().flatten().collect();
        format!(
            "| `{}`{built_in} | {} | {} {} | {} | {} | {} | {file} | {} | {} |",
            facts.name,
            facts.model,
            facts.rate(),
            facts.input,
            facts.size(),
            facts.map.map_or_else(dash, |map| format!("{map:.3}")),
            facts.licence.clone().unwrap_or_else(dash),
            if known.is_empty() { dash() } else { known.join(", ") },
            facts.difference,
        )
    }

    #[test]
    fn the_page_has_a_row_for_every_model() {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md")).unwrap();
        let written: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = zoo().unwrap().iter().map(row).collect();
        assert!(written == expected, "docs/models.md: expected these rows\n{}", expected.join("\n"));
    }
}
