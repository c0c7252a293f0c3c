//! Events as tables and JSON lines.

use std::io::Write;

use jiff::civil::DateTime;

use super::{JsonLines, Record, RecordWriter};
use crate::message::{Failure, escaped};

/// Columns for people: onset, offset, peak and label, perhaps clock time and file.
pub struct EventTable<W> {
    to: W,
    names_files: bool,
    start: Option<DateTime>,
}

impl<W: Write> EventTable<W> {
    pub fn new(mut to: W, names_files: bool, start: Option<DateTime>) -> Result<Self, Failure> {
        let time = if start.is_some() { "  time                   " } else { "" };
        writeln!(to, "{:>10} {:>10} {:>6}{time}  label", "onset", "offset", "peak")?;
        to.flush()?;
        Ok(Self { to, names_files, start })
    }
}

impl<W: Write> RecordWriter for EventTable<W> {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let file = if self.names_files { format!("  {}", escaped(&record.file)) } else { String::new() };
        if let Some(error) = &record.error {
            writeln!(self.to, "{:>10} {:>10} {:>6}  error: {}{file}", "-", "-", "-", escaped(error))?;
        }
        for record in record.of_events(self.start) {
            let Some(event) = &record.event else { continue };
            let time = record.time.map(|time| format!("  {time}")).unwrap_or_default();
            let parents =
                if event.parents.is_empty() { String::new() } else { format!(" ({})", event.parents.join(", ")) };
            let label = escaped(&event.label);
            let (onset, offset, peak) = (event.onset, event.offset, event.peak);
            writeln!(self.to, "{onset:>10.2} {offset:>10.2} {peak:>6.3}{time}  {label}{parents}{file}")?;
        }
        Ok(self.to.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}

/// `file,onset,offset,label,id,peak,mean,parents`, optionally with the clock `time` of the onset and the `error` of a failed file. Parents
/// are separated by `;`.
pub struct EventCsv<W: Write> {
    to: csv::Writer<W>,
    start: Option<DateTime>,
    has_errors: bool,
}

impl<W: Write> EventCsv<W> {
    pub fn new(to: W, start: Option<DateTime>, has_errors: bool) -> Result<Self, Failure> {
        let mut to = csv::Writer::from_writer(to);
        let header = ["file", "onset", "offset", "label", "id", "peak", "mean", "parents"];
        to.write_record(header.into_iter().chain(start.map(|_| "time")).chain(has_errors.then_some("error")))?;
        Ok(Self { to, start, has_errors })
    }
}

impl<W: Write> RecordWriter for EventCsv<W> {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        for Record { file, event, time, .. } in record.of_events(self.start) {
            let Some(event) = event else { continue };
            let row = [
                file,
                format!("{:.3}", event.onset),
                format!("{:.3}", event.offset),
                event.label,
                event.id.unwrap_or_default(),
                format!("{:.4}", event.peak),
                format!("{:.4}", event.mean),
                event.parents.join(";"),
            ];
            self.to.write_record(row.into_iter().chain(time).chain(self.has_errors.then(String::new)))?;
        }
        if let Some(error) = record.error.as_ref().filter(|_| self.has_errors) {
            let n_empty = 7 + usize::from(self.start.is_some());
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

/// One JSON object per event: the file and the fields of [`Event`](clipwise::Event).
pub struct EventJson<W> {
    to: JsonLines<W>,
    start: Option<DateTime>,
}

impl<W: Write> EventJson<W> {
    pub fn new(to: W, start: Option<DateTime>) -> Self {
        Self { to: JsonLines(to), start }
    }
}

impl<W: Write> RecordWriter for EventJson<W> {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        for record in record.of_events(self.start) {
            let Record { file, event, time, error, .. } = record;
            self.to.write(&Record { file, event, time, error, ..Record::default() })?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        Box::new(self.to).finish()
    }
}
