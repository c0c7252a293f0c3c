//! `clipwise models`.

mod zoo;

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use clipwise::models;
use serde::Serialize;

use self::zoo::Facts;
use super::transcribe::encoder;
use crate::message::Failure;
use crate::model::{BUILT_IN, model_name};
use crate::output::stdout;
use crate::run::{Outcome, Status};

/// List the models: names, what they are, where their checkpoints come from.
#[derive(clap::Args)]
pub struct Args {
    /// Print all that is known about these models, and where checkpoints are looked for [default: a line for every model]
    #[arg(value_name = "NAME", value_parser = model_name)]
    names: Vec<String>,
    /// What to print: text for people, or JSON lines (one object per model) for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A model that checkpoints can be opened as.
#[derive(Serialize)]
struct Model {
    #[serde(flatten)]
    facts: Facts,
    description: &'static str,
    built_in: bool,
}

impl Args {
    pub fn run(self) -> Outcome {
        let mut out = BufWriter::new(stdout());
        for model in self.models()? {
            match self.format {
                Format::Json => writeln!(out, "{}", serde_json::to_string(&model)?)?,
                Format::Text if self.names.is_empty() => model.write_line(&mut out)?,
                Format::Text => model.write_all(&mut out)?,
            }
        }
        if matches!(self.format, Format::Text) && !self.names.is_empty() {
            write_places(&mut out)?;
        }
        out.flush()?;
        Ok(Status::Good)
    }

    /// The models in the order of their names on the command line; without names, all.
    fn models(&self) -> Result<Vec<Model>, Failure> {
        let mut zoo = zoo::zoo()?;
        if !self.names.is_empty() {
            let place = |facts: &Facts| self.names.iter().position(|name| *name == facts.name);
            zoo.retain(|facts| place(facts).is_some());
            zoo.sort_by_key(place);
        }
        let model = |facts: Facts| Model {
            description: models::presets()
                .find(|preset| preset.name() == facts.name)
                .map_or("", |preset| preset.description),
            built_in: BUILT_IN.iter().any(|(name, _)| *name == facts.name),
            facts,
        };
        Ok(zoo.into_iter().map(model).collect())
    }
}

impl Model {
    fn write_line(&self, out: &mut impl Write) -> io::Result<()> {
        let Facts { name, map, licence, .. } = &self.facts;
        let map = map.map(|map| format!("mAP {map:.3}")).unwrap_or_default();
        let licence = licence.as_deref().unwrap_or_default();
        let (rate, size) = (self.facts.rate(), self.facts.size());
        writeln!(out, "{name:<24} {rate:>9} {size:>7} {map:<9}  {licence:<15} {}", self.description)
    }

    fn write_all(&self, out: &mut impl Write) -> io::Result<()> {
        let facts = &self.facts;
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == facts.name);
        let fields = [
            ("model", Some(facts.model.clone())),
            ("family", Some(facts.family.clone())),
            ("input", Some(format!("{} {}", facts.rate(), facts.input))),
            ("parameters", Some(facts.n_parameters.to_string())),
            ("AudioSet mAP", facts.map.map(|map| format!("{map:.3}"))),
            ("licence", facts.licence.clone()),
            ("file", facts.file.clone()),
            ("link", facts.link.clone()),
            ("bytes", facts.bytes.map(|bytes| bytes.to_string())),
            ("MD5", facts.md5.clone()),
            ("SHA-256", facts.sha256.clone()),
            ("from PyTorch", Some(facts.difference.clone())),
            ("built in", built_in.map(|(_, sha256)| format!("converted, SHA-256 {sha256}"))),
        ];
        writeln!(out, "{}: {}", facts.name, self.description)?;
        for (field, value) in fields {
            if let Some(value) = value {
                writeln!(out, "  {field:<13} {value}")?;
            }
        }
        writeln!(out)
    }
}

/// Prints where checkpoints are looked for.
fn write_places(out: &mut impl Write) -> io::Result<()> {
    let [(tiny, _), (mn04, _)] = BUILT_IN;
    writeln!(out, "Checkpoints are looked for:")?;
    writeln!(out, "  built in      {tiny} (the default) and {mn04} (--model {mn04})")?;
    writeln!(out, "  --weights     any other: the file or folder that it names; nothing is downloaded")?;
    let found =
        encoder::find().map_or("not found".to_string(), |path| format!("found: {}", crate::message::name(&path)));
    writeln!(
        out,
        "  transcribe    the encoder {}: --encoder, else {}, else {} ({found})",
        encoder::REPOSITORY,
        encoder::VARIABLE,
        encoder::cache().map_or("the cache of Hugging Face's tools".to_string(), |cache| crate::message::name(&cache)),
    )
}
