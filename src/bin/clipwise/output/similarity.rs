//! How alike files sound.

use std::io::{BufWriter, Write};

use clipwise::Embedding;

use super::{Record, RecordWriter, stdout};
use crate::message::{Failure, escaped};

/// The cosine similarity of every pair of embeddings, printed at the end.
#[derive(Default)]
pub struct Similarity(Vec<(String, Embedding)>);

impl RecordWriter for Similarity {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        self.0.extend(record.embedding.clone().map(|embedding| (record.file.clone(), Embedding(embedding))));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        let mut out = BufWriter::new(stdout());
        for (file, a) in &self.0 {
            let row: Vec<String> = self.0.iter().map(|(_, b)| format!("{:6.3}", a.cosine(b))).collect();
            writeln!(out, "{}  {}", row.join(" "), escaped(file))?;
        }
        Ok(out.flush()?)
    }
}
