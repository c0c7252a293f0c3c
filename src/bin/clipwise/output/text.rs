//! Tags as a table, as JSON lines, as CSV.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use clap::ValueEnum;
use clipwise::{Tag, Tagger, Tagging, device};
use serde::Serialize;

use crate::collection::Tagged;

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Csv,
}

/// Which tags are shown.
pub struct Selection {
    pub top_k: usize,
    pub threshold: Option<f32>,
    pub full: bool,
}

impl Selection {
    fn tags(&self, tagging: &Tagging) -> Vec<Tag> {
        let mut tags = tagging.top_k(self.top_k);
        tags.retain(|tag| self.threshold.is_none_or(|threshold| tag.score > threshold));
        tags
    }
}

pub struct Report {
    format: Format,
    selection: Selection,
    out: Box<dyn Write>,
    colour: bool,
    n_written: usize,
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    sample_rate: u32,
    duration: f64,
    model: &'a str,
    device: String,
    tags: Vec<Tag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clipwise_output: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
}

/// Characters of the longest bar.
const BAR: usize = 30;

impl Report {
    /// To a file, or to standard output.
    pub fn new(format: Format, selection: Selection, file: Option<File>) -> Self {
        let colour = file.is_none() && io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let out: Box<dyn Write> = match file {
            Some(file) => Box::new(BufWriter::new(file)),
            None => Box::new(io::stdout().lock()),
        };
        Self { format, selection, out, colour, n_written: 0 }
    }

    pub fn write(&mut self, file: &Path, tagged: &Tagged, tagger: &Tagger) -> io::Result<()> {
        let (model, tagging) = (tagger.model(), &tagged.tagging);
        let line = Line {
            file: file.display().to_string(),
            sample_rate: tagged.sample_rate,
            duration: tagged.duration,
            model: &model.info().name,
            device: device::name(model.device()),
            tags: self.selection.tags(tagging),
            clipwise_output: self.selection.full.then_some(tagging.scores.as_slice()),
            embedding: self.selection.full.then_some(tagging.embedding()),
        };
        match self.format {
            Format::Table => self.table(&line)?,
            Format::Json => writeln!(self.out, "{}", serde_json::to_string(&line)?)?,
            Format::Csv => self.csv(&line)?,
        }
        self.n_written += 1;
        self.out.flush()
    }

    /// What is left to be written at the end.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.n_written == 0 && matches!(self.format, Format::Csv) {
            self.csv_header()?;
        }
        self.out.flush()
    }

    fn table(&mut self, line: &Line) -> io::Result<()> {
        if self.n_written > 0 {
            writeln!(self.out)?;
        }
        let Line { file, sample_rate, duration, model, device, tags, .. } = line;
        writeln!(self.out, "{file}  ({duration:.2} s, {sample_rate} Hz, {model} on {device})")?;
        let (dim, plain) = if self.colour { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
        for tag in tags {
            let bar = bar(tag.score);
            writeln!(self.out, "  {:.4}  {dim}{bar}{plain}  {}", tag.score, tag.label)?;
        }
        if tags.is_empty() && self.selection.threshold.is_some() {
            writeln!(self.out, "  no class is above the threshold")?;
        }
        Ok(())
    }

    fn csv_header(&mut self) -> io::Result<()> {
        writeln!(self.out, "file,index,id,label,score")
    }

    fn csv(&mut self, line: &Line) -> io::Result<()> {
        if self.n_written == 0 {
            self.csv_header()?;
        }
        let mut rows = csv::Writer::from_writer(&mut self.out);
        for tag in &line.tags {
            let id = tag.id.as_deref().unwrap_or_default();
            rows.write_record([&line.file, &tag.index.to_string(), id, &tag.label, &tag.score.to_string()])?;
        }
        rows.flush()
    }
}

/// A bar of fixed width in eighths of a character.
fn bar(score: f32) -> String {
    let eighths = (score * (BAR * 8) as f32).round() as usize;
    let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let bar = "█".repeat(eighths / 8) + partial;
    format!("{bar:<BAR$}")
}
