//! Tags as a table for people.

use std::io::{self, IsTerminal, StdoutLock, Write};

use super::{Named, Record, RecordWriter, ShownTag, stdout};
use crate::message::{Failure, escaped};

/// Characters of the longest bar.
const BAR: usize = 30;

/// A heading per file and a bar per tag, on standard output.
pub struct Text {
    out: Named<StdoutLock<'static>>,
    colour: bool,
    /// Whether tags may be missing because of a threshold.
    has_threshold: bool,
    n_written: usize,
}

impl Text {
    pub fn new(has_threshold: bool) -> Self {
        Self { out: stdout(), colour: is_coloured(), has_threshold, n_written: 0 }
    }
}

/// Whether standard output shows colours.
pub fn is_coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

impl RecordWriter for Text {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let out = &mut self.out;
        if self.n_written > 0 {
            writeln!(out)?;
        }
        self.n_written += 1;
        let file = escaped(&record.file);
        if let Some(error) = &record.error {
            return Ok(writeln!(out, "{file}  error: {}", escaped(error))?);
        }
        let (duration, sample_rate) = (record.duration.unwrap_or_default(), record.sample_rate.unwrap_or_default());
        let [model, device] = [&record.model, &record.device].map(|text| text.as_deref().unwrap_or_default());
        writeln!(out, "{file}  ({duration:.2} s, {sample_rate} Hz, {model} on {device})")?;
        let (dim, plain) = if self.colour { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
        for ShownTag { tag, parents } in record.tags.iter().flatten() {
            let bar = bar(tag.score);
            let parents = parents.as_deref().filter(|parents| !parents.is_empty());
            let parents = parents.map(|parents| format!(" ({})", parents.join(", "))).unwrap_or_default();
            writeln!(out, "  {:.4}  {dim}{bar}{plain}  {}{}", tag.score, escaped(&tag.label), escaped(&parents))?;
        }
        if record.tags.as_ref().is_none_or(Vec::is_empty) && self.has_threshold {
            writeln!(out, "  no class is above the threshold")?;
        }
        Ok(out.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// A bar of fixed width in eighths of a character.
fn bar(score: f32) -> String {
    let eighths = (score * (BAR * 8) as f32).round() as usize;
    let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let bar = "█".repeat(eighths / 8) + partial;
    format!("{bar:<BAR$}")
}
