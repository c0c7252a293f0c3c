//! Where embeddings go.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use clipwise::{Embedding, TaggingModel};
use serde::Serialize;

use crate::collection::Tagged;
use crate::command_line::{Failure, say};
use crate::npy::Npy;
use crate::parquet::Parquet;

/// The format of a file, told by its name.
pub enum Kind {
    Parquet,
    Npy,
    JsonLines,
}

impl Kind {
    pub fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => Ok(Self::Parquet),
            Some("npy") => Ok(Self::Npy),
            Some("jsonl") => Ok(Self::JsonLines),
            _ => Err(format!("{}: the name must end in .parquet, .npy or .jsonl", path.display()).into()),
        }
    }
}

pub enum Out {
    Parquet(Box<Parquet>),
    Npy(Npy),
    JsonLines(Box<dyn Write>),
    /// Names and vectors of all files, to be compared in the end.
    Similarity(Vec<(String, Embedding)>),
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    sample_rate: u32,
    duration: f64,
    embedding: &'a Embedding,
}

impl Out {
    pub fn create(path: &Path, kind: Kind, model: &dyn TaggingModel) -> Result<Self, Failure> {
        let out = match kind {
            Kind::Parquet => Parquet::create(path, &model.info().name).map(|table| Self::Parquet(Box::new(table))),
            Kind::Npy => Npy::create(path, model.info().embedding_dim).map(Self::Npy).map_err(Failure::from),
            Kind::JsonLines => File::create(path).map(Self::append).map_err(Failure::from),
        };
        out.map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }

    pub fn append(file: File) -> Self {
        Self::JsonLines(Box::new(BufWriter::new(file)))
    }

    pub fn print() -> Self {
        Self::JsonLines(Box::new(io::stdout().lock()))
    }

    pub fn similarity() -> Self {
        Self::Similarity(Vec::new())
    }

    pub fn write(&mut self, path: &Path, tagged: Tagged) -> Result<(), Failure> {
        let file = path.to_string_lossy();
        let embedding = tagged.tagging.embedding;
        match self {
            Self::Parquet(parquet) => parquet.write(&file, tagged.sample_rate, tagged.duration, &embedding),
            Self::Npy(npy) => Ok(npy.write(&file, &embedding)?),
            Self::JsonLines(out) => {
                let Tagged { sample_rate, duration, .. } = tagged;
                let line = Line { file: &file, sample_rate, duration, embedding: &embedding };
                writeln!(out, "{}", serde_json::to_string(&line)?)?;
                Ok(out.flush()?)
            }
            Self::Similarity(all) => {
                all.push((file.into_owned(), embedding));
                Ok(())
            }
        }
    }

    /// Writes what is left to be written. A table takes the place of an older one only if it `is_complete`.
    pub fn finish(self, is_complete: bool) -> Result<(), Failure> {
        match self {
            Self::Parquet(parquet) if is_complete => parquet.finish(),
            Self::Parquet(parquet) => {
                let partial = parquet.finish_partial()?;
                say(format_args!("note: the run was not completed: what was done is in {}", partial.display()));
                Ok(())
            }
            Self::Npy(_) => Ok(()),
            Self::JsonLines(mut out) => Ok(out.flush()?),
            Self::Similarity(all) => {
                let mut out = BufWriter::new(io::stdout().lock());
                for (file, a) in &all {
                    let row: Vec<String> = all.iter().map(|(_, b)| format!("{:6.3}", a.cosine(b))).collect();
                    writeln!(out, "{}  {file}", row.join(" "))?;
                }
                Ok(out.flush()?)
            }
        }
    }
}
