//! What is spoken in a file, as a table and as a part of a record.

use std::io::{StdoutLock, Write};

use clipwise::ctc::{Transcript, Word};
use serde::{Deserialize, Serialize};

use super::{Named, Record, RecordWriter, is_coloured, stdout};
use crate::message::{Failure, escaped};

/// The best transcript of a file, with its tokens and words. Times in seconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Spoken {
    pub text: String,
    /// Logarithm of its probability, with a language model's share if there is one.
    pub score: f64,
    /// The mean confidence of the tokens.
    pub confidence: Option<f64>,
    pub tokens: Vec<Part>,
    pub words: Vec<Part>,
    /// The next best transcripts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Part {
    text: String,
    onset: f64,
    offset: f64,
    confidence: f64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Other {
    text: String,
    score: f64,
}

/// A frame is longer than a tenth of a millisecond.
fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

impl Spoken {
    /// Of transcripts, best first, and the words of a text that was aligned; `None` without a transcript.
    pub fn new(transcripts: &[Transcript], words: Option<&[Word]>) -> Option<Self> {
        let (best, others) = transcripts.split_first()?;
        let part = |text: &str, onset, offset, confidence: f32| Part {
            text: text.to_string(),
            onset: rounded(onset),
            offset: rounded(offset),
            confidence: rounded(f64::from(confidence)),
        };
        let sum: f32 = best.tokens.iter().map(|token| token.confidence).sum();
        let confidence = (!best.tokens.is_empty()).then(|| rounded(f64::from(sum / best.tokens.len() as f32)));
        let words = words.unwrap_or(&best.words);
        let other = |other: &Transcript| Other { text: other.text.clone(), score: rounded(other.score) };
        Some(Self {
            text: best.text.clone(),
            score: rounded(best.score),
            confidence,
            tokens: best.tokens.iter().map(|t| part(&t.name, t.onset, t.offset, t.confidence)).collect(),
            words: words.iter().map(|w| part(&w.text, w.onset, w.offset, w.confidence)).collect(),
            others: others.iter().map(other).collect(),
        })
    }
}

impl Spoken {
    /// Whether the confidence is so low that the aligned text is probably not spoken in the recording.
    pub fn is_doubtful(&self) -> bool {
        let n_probable = self.tokens.iter().filter(|token| token.confidence > 0.1).count();
        self.confidence.is_some_and(|confidence| confidence < 0.3) || 10 * n_probable < 7 * self.tokens.len()
    }
}

/// A heading per file, its text, then its tokens with times, each word above its own.
pub struct TranscriptTable {
    out: Named<StdoutLock<'static>>,
    colour: bool,
    /// Whether a text was aligned, whose words are always shown.
    is_aligned: bool,
    n_written: usize,
}

impl TranscriptTable {
    pub fn new(is_aligned: bool) -> Self {
        Self { out: stdout(), colour: is_coloured(), is_aligned, n_written: 0 }
    }
}

impl RecordWriter for TranscriptTable {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let out = &mut self.out;
        if self.n_written > 0 {
            writeln!(out)?;
        }
        self.n_written += 1;
        let file = escaped(&record.file);
        let Some(spoken) = &record.spoken else {
            return Ok(writeln!(out, "{file}  error: {}", escaped(record.error.as_deref().unwrap_or_default()))?);
        };
        let (duration, sample_rate) = (record.duration.unwrap_or_default(), record.sample_rate.unwrap_or_default());
        writeln!(out, "{file}  ({duration:.2} s, {sample_rate} Hz, {})", record.model.as_deref().unwrap_or_default())?;
        let (dim, bold, plain) = if self.colour { ("\x1b[36m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        match spoken.text.as_str() {
            "" => writeln!(out, "  no speech was found")?,
            text => writeln!(out, "  {bold}{}{plain}", escaped(text))?,
        }
        for other in &spoken.others {
            writeln!(out, "  {}  ({:+.2})", escaped(&other.text), other.score - spoken.score)?;
        }
        let with_words = self.is_aligned || spoken.words.len() > 1;
        let mut words = spoken.words.iter().peekable();
        for token in &spoken.tokens {
            if let Some(word) = words.next_if(|word| with_words && word.onset <= token.onset) {
                let Part { text, onset, offset, confidence } = word;
                writeln!(out, "  {bold}{onset:8.2} {offset:8.2}  {confidence:.2}  {}{plain}", escaped(text))?;
            }
            let Part { text, onset, offset, confidence } = token;
            let bar = "▪".repeat((confidence * 10.0).round() as usize);
            writeln!(out, "  {onset:8.2} {offset:8.2}  {confidence:.2}  {dim}{bar:<10}{plain}  {}", escaped(text))?;
        }
        Ok(out.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}
