//! Transcripts as a table, as JSON lines.

use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use clipwise::Waveform;
use clipwise::ctc::{Transcript, Word};
use serde::Serialize;

use crate::message::escaped;
use crate::output::{Named, is_coloured, stdout};

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// What was found in a file.
pub struct Transcribed {
    pub waveform: Waveform,
    /// Best first; there is one.
    pub transcripts: Vec<Transcript>,
    /// The words of a text that was looked for.
    pub words: Option<Vec<Word>>,
}

impl Transcribed {
    /// The mean confidence of the tokens; `None` if there are none.
    pub fn confidence(&self) -> Option<f32> {
        let tokens = &self.transcripts.first()?.tokens;
        (!tokens.is_empty()).then(|| tokens.iter().map(|token| token.confidence).sum::<f32>() / tokens.len() as f32)
    }

    /// Whether the confidence is so low that an alignment is probably wrong.
    pub fn is_unsure(&self) -> bool {
        self.confidence().is_some_and(|confidence| confidence < super::LOW_CONFIDENCE)
    }
}

pub struct Report {
    format: Format,
    model: String,
    out: Named<io::StdoutLock<'static>>,
    colour: bool,
    n_written: usize,
}

/// One line of JSON; times in seconds.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    duration: f64,
    model: &'a str,
    text: &'a str,
    score: f64,
    /// The mean confidence of the tokens.
    confidence: Option<f64>,
    tokens: Vec<Part<'a>>,
    words: Vec<Part<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Other<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
    onset: f64,
    offset: f64,
    confidence: f64,
}

#[derive(Serialize)]
struct Other<'a> {
    text: &'a str,
    score: f64,
}

/// A frame is longer than a tenth of a millisecond.
fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

impl Report {
    pub fn new(format: Format, model: String) -> Self {
        Self { format, model, out: stdout(), colour: is_coloured(), n_written: 0 }
    }

    pub fn write(&mut self, file: &Path, transcribed: &Transcribed) -> io::Result<()> {
        let Some((best, others)) = transcribed.transcripts.split_first() else { return Ok(()) };
        let part = |text, onset, offset, confidence: f32| Part {
            text,
            onset: rounded(onset),
            offset: rounded(offset),
            confidence: rounded(f64::from(confidence)),
        };
        let words = transcribed.words.as_deref().unwrap_or(&best.words);
        let line = Line {
            file: file.display().to_string(),
            duration: rounded(transcribed.waveform.duration()),
            model: &self.model,
            text: &best.text,
            score: rounded(best.score),
            confidence: transcribed.confidence().map(|confidence| rounded(f64::from(confidence))),
            tokens: best.tokens.iter().map(|t| part(&t.name, t.onset, t.offset, t.confidence)).collect(),
            words: words.iter().map(|w| part(&w.text, w.onset, w.offset, w.confidence)).collect(),
            others: others.iter().map(|other| Other { text: &other.text, score: rounded(other.score) }).collect(),
        };
        match self.format {
            Format::Table => {
                if self.n_written > 0 {
                    writeln!(self.out)?;
                }
                let rate = transcribed.waveform.sample_rate;
                writeln!(
                    self.out,
                    "{file}  ({duration:.2} s, {rate} Hz, {})",
                    self.model,
                    file = escaped(&line.file),
                    duration = line.duration
                )?;
                table(&mut self.out, self.colour, &line, transcribed.words.is_some() || words.len() > 1)?;
            }
            Format::Json => writeln!(self.out, "{}", serde_json::to_string(&line)?)?,
        }
        self.n_written += 1;
        self.out.flush()
    }
}

/// The text, others that were found, then tokens with times, each word above its own.
fn table(out: &mut impl Write, colour: bool, line: &Line, with_words: bool) -> io::Result<()> {
    let (dim, bold, plain) = if colour { ("\x1b[36m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    match line.text {
        "" => writeln!(out, "  no speech was heard")?,
        text => writeln!(out, "  {bold}{text}{plain}")?,
    }
    for other in &line.others {
        writeln!(out, "  {}  ({:+.2})", other.text, other.score - line.score)?;
    }
    let mut words = line.words.iter().peekable();
    for token in &line.tokens {
        if let Some(word) = words.next_if(|word| with_words && word.onset <= token.onset) {
            let Part { text, onset, offset, confidence } = word;
            writeln!(out, "  {bold}{onset:8.2} {offset:8.2}  {confidence:.2}  {text}{plain}")?;
        }
        let Part { text, onset, offset, confidence } = token;
        let bar = "▪".repeat((confidence * 10.0).round() as usize);
        writeln!(out, "  {onset:8.2} {offset:8.2}  {confidence:.2}  {dim}{bar:<10}{plain}  {text}")?;
    }
    Ok(())
}
