//! Tables as CSV.

use std::io::Write;

use clipwise::LabelSet;

use super::{Record, RecordWriter};
use crate::message::Failure;

/// One row per tag: `file,index,id,label,score`. A file that failed has no row.
pub struct Csv<W: Write>(csv::Writer<W>);

impl<W: Write> Csv<W> {
    pub fn new(to: W) -> Result<Self, Failure> {
        let mut writer = csv::Writer::from_writer(to);
        writer.write_record(["file", "index", "id", "label", "score"])?;
        Ok(Self(writer))
    }
}

impl<W: Write> RecordWriter for Csv<W> {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        for tag in record.tags.iter().flatten() {
            let id = tag.id.as_deref().unwrap_or_default();
            self.0.write_record([&record.file, &tag.index.to_string(), id, &tag.label, &tag.score.to_string()])?;
        }
        Ok(self.0.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        Ok(self.0.flush()?)
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
