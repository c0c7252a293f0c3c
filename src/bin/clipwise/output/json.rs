//! JSON lines.

use std::io::Write;

use super::{Record, RecordWriter};
use crate::message::Failure;

/// One JSON object per record, written at once, so that a program which is killed leaves whole lines and at most one torn one.
pub struct JsonLines<W>(pub W);

impl<W: Write> RecordWriter for JsonLines<W> {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let line = serde_json::to_string(record)? + "\n";
        self.0.write_all(line.as_bytes())?;
        Ok(self.0.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}
