//! Tables as CSV.

use std::io::Write;

use clipwise::LabelSet;

use super::{Record, RecordWriter, ShownTag};
use crate::message::Failure;

/// One row per tag: `file,index,id,label,score`, optionally with `parents`, separated by `;`, and the `error` of a failed file.
pub struct Csv<W: Write> {
    to: csv::Writer<W>,
    has_parents: bool,
    has_errors: bool,
}

impl<W: Write> Csv<W> {
    pub fn new(to: W, has_parents: bool, has_errors: bool) -> Result<Self, Failure> {
        let mut to = csv::Writer::from_writer(to);
        let optional = has_parents.then_some("parents").into_iter().chain(has_errors.then_some("error"));
        to.write_record(["file", "index", "id", "label", "score"].into_iter().chain(optional))?;
        Ok(Self { to, has_parents, has_errors })
    }
}

impl<W: Write> RecordWriter for Csv<W> {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        for ShownTag { tag, parents } in record.tags.iter().flatten() {
            let id = tag.id.clone().unwrap_or_default();
            let row = [record.file.clone(), tag.index.to_string(), id, tag.label.clone(), tag.score.to_string()];
            let parents = self.has_parents.then(|| parents.as_deref().unwrap_or_default().join(";"));
            let error = self.has_errors.then(String::new);
            self.to.write_record(row.into_iter().chain(parents).chain(error))?;
        }
        if let Some(error) = record.error.as_ref().filter(|_| self.has_errors) {
            let n_empty = 4 + usize::from(self.has_parents);
            let row =
                std::iter::once(record.file.as_str()).chain(std::iter::repeat_n("", n_empty)).chain([error.as_str()]);
            self.to.write_record(row)?;
        }
        Ok(self.to.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}

/// One row per file, one column per chosen class: `file,CLASS,…,error`, for spreadsheets.
pub struct Wide<W: Write> {
    to: csv::Writer<W>,
    classes: Vec<usize>,
}

impl<W: Write> Wide<W> {
    /// The scores of the classes with these indices. Records need `clipwise_output`.
    pub fn new(to: W, labels: &LabelSet, classes: Vec<usize>) -> Result<Self, Failure> {
        let mut to = csv::Writer::from_writer(to);
        let names = classes.iter().filter_map(|&class| labels.get(class)).map(|label| label.name.as_str());
        to.write_record(std::iter::once("file").chain(names).chain(["error"]))?;
        Ok(Self { to, classes })
    }
}

impl<W: Write> RecordWriter for Wide<W> {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let score = |&class: &usize| record.clipwise_output.as_ref()?.get(class);
        let scores = self.classes.iter().map(|class| score(class).map_or(String::new(), f32::to_string));
        let row = std::iter::once(record.file.clone()).chain(scores).chain([record.error.clone().unwrap_or_default()]);
        self.to.write_record(row)?;
        Ok(self.to.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}
