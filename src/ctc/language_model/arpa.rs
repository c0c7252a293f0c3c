//! Parser of the ARPA format.

use std::io::BufRead;
use std::path::Path;

use super::{Gram, Grams};
use crate::error::{Error, Result};
use crate::files;

/// Limit on the length of a line, in bytes.
const MAX_LINE: usize = 1 << 20;
/// Limit on the order of a model.
const MAX_ORDER: usize = 32;
/// Limit on the bytes before `\data\`, and on those in empty lines after it, so that endless streams are rejected.
const MAX_IDLE: usize = 1 << 20;

type Parsed<T> = std::result::Result<T, String>;

/// A section of the file.
#[derive(PartialEq)]
enum Section {
    /// Before `\data\`.
    Preamble,
    /// The announced numbers of n-grams.
    Counts,
    /// The n-grams of an order.
    Order(usize),
    End,
}

struct Parser {
    grams: Grams,
    section: Section,
    /// The number of n-grams per order, from 1: announced, and found.
    announced: Vec<u64>,
    found: Vec<u64>,
}

pub(super) fn parse(mut reader: impl BufRead, path: &Path) -> Result<Grams> {
    let unusable = |reason: String| Error::Labels { path: path.to_path_buf(), reason };
    let mut parser = Parser {
        grams: Grams { nodes: vec![Gram { probability: f32::NAN, back_off: 0.0 }], ..Grams::default() },
        section: Section::Preamble,
        announced: Vec::new(),
        found: Vec::new(),
    };
    let (mut line, mut number, mut idle) = (Vec::new(), 0usize, 0usize);
    while parser.section != Section::End {
        line.clear();
        let io = |cause| Error::Io { action: "read", path: path.to_path_buf(), cause };
        let n = std::io::Read::take(&mut reader, MAX_LINE as u64).read_until(b'\n', &mut line).map_err(io)?;
        number += 1;
        if n == 0 {
            return Err(unusable(match parser.section {
                Section::Preamble => "expected an ARPA file, got text without a line \\data\\".to_string(),
                _ => format!("the file is truncated: it ends at line {number} without \\end\\"),
            }));
        }
        if n == MAX_LINE {
            return Err(unusable(format!("expected an ARPA file, but line {number} is longer than {MAX_LINE} bytes")));
        }
        if number == 1 && (line.starts_with(&[0x1f, 0x8b]) || line.starts_with(b"mmap lm")) {
            return Err(unusable(
                "expected a plain ARPA file, got one that is compressed or in KenLM's binary format".to_string(),
            ));
        }
        let text = if number == 1 { files::without_mark(&line) } else { &line };
        let text = std::str::from_utf8(text).map_err(|_| unusable(format!("line {number} is not UTF-8 text")))?;
        parser.line(text.trim_ascii()).map_err(|reason| unusable(format!("line {number}: {reason}")))?;
        if parser.section == Section::Preamble || text.trim_ascii().is_empty() {
            idle += n;
        }
        if idle > MAX_IDLE {
            return Err(unusable(format!(
                "expected an ARPA file, got {MAX_IDLE} bytes without an n-gram up to line {number}"
            )));
        }
    }
    parser.finish().map_err(unusable)
}

impl Parser {
    fn line(&mut self, line: &str) -> Parsed<()> {
        if line.is_empty() {
            return Ok(());
        }
        match (&self.section, line) {
            (Section::Preamble, r"\data\") => self.section = Section::Counts,
            (Section::Preamble, _) => {}
            (_, r"\end\") => self.section = Section::End,
            (_, line) if line.starts_with('\\') => {
                let order = line.strip_prefix('\\').and_then(|rest| rest.strip_suffix("-grams:")?.parse().ok());
                let wanted = match self.section {
                    Section::Order(order) => order + 1,
                    _ => 1,
                };
                if order != Some(wanted) || wanted > self.announced.len() {
                    return Err(format!("expected \\{wanted}-grams: or \\end\\, got {line:?}"));
                }
                self.section = Section::Order(wanted);
            }
            (Section::Counts, line) => self.count(line)?,
            (Section::Order(order), line) => self.gram(*order, line)?,
            (Section::End, _) => {}
        }
        Ok(())
    }

    /// `ngram 2=1234`
    fn count(&mut self, line: &str) -> Parsed<()> {
        let pair = line.strip_prefix("ngram").and_then(|rest| rest.split_once('='));
        let parsed = pair.and_then(|(order, n)| Some((order.trim().parse().ok()?, n.trim().parse().ok()?)));
        let (order, n): (usize, u64) =
            parsed.ok_or_else(|| format!("expected a line like \"ngram 1=5000\", got {line:?}"))?;
        if order != self.announced.len() + 1 || order > MAX_ORDER {
            let expected = self.announced.len() + 1;
            return Err(format!("expected order {expected}, at most {MAX_ORDER}, got {order}"));
        }
        self.announced.push(n);
        self.found.push(0);
        Ok(())
    }

    /// A line of an n-gram: `log10 probability, words, optional log10 back-off weight`.
    fn gram(&mut self, order: usize, line: &str) -> Parsed<()> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if fields.len() != order + 1 && fields.len() != order + 2 {
            return Err(format!(
                "expected a probability, {order} words and an optional weight, got {} fields",
                fields.len()
            ));
        }
        let number = |text: &str| match text.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(format!("expected a logarithm, got {text:?}")),
        };
        let probability = number(fields[0])?;
        if probability > 0.0 {
            return Err(format!("expected a log10 probability of at most 0, got {probability}"));
        }
        let back_off = fields.get(order + 1).map_or(Ok(0.0), |text| number(text))?;
        let mut node = 0u32;
        for word in &fields[1..=order] {
            let word = self.word(word, order)?;
            let nodes = &mut self.grams.nodes;
            let next = u32::try_from(nodes.len()).map_err(|_| "more n-grams than can be numbered".to_string())?;
            node = *self.grams.children.entry((node, word)).or_insert_with(|| {
                nodes.push(Gram { probability: f32::NAN, back_off: 0.0 });
                next
            });
        }
        let gram = &mut self.grams.nodes[node as usize];
        if !gram.probability.is_nan() {
            return Err(format!("{:?} occurs twice", fields[1..=order].join(" ")));
        }
        *gram = Gram { probability, back_off };
        self.found[order - 1] += 1;
        let (found, announced) = (self.found[order - 1], self.announced[order - 1]);
        if found > announced {
            return Err(format!("more {order}-grams than the {announced} announced"));
        }
        Ok(())
    }

    fn word(&mut self, word: &str, order: usize) -> Parsed<u32> {
        let words = &mut self.grams.words;
        match words.get(word) {
            Some(&word) => Ok(word),
            None if order == 1 => {
                let id = u32::try_from(words.len()).map_err(|_| "more words than can be numbered".to_string())?;
                words.insert(word.to_string(), id);
                Ok(id)
            }
            None => Err(format!("{word:?} is not among the 1-grams")),
        }
    }

    fn finish(mut self) -> Parsed<Grams> {
        for (order, (announced, found)) in self.announced.iter().zip(&self.found).enumerate() {
            if announced != found {
                return Err(format!("expected {announced} {}-grams, got {found}", order + 1));
            }
        }
        if self.found.first().is_none_or(|&n| n == 0) {
            return Err("the file has no 1-grams".to_string());
        }
        self.grams.order = self.found.iter().rposition(|&n| n > 0).unwrap_or_default() + 1;
        self.grams.unknown = ["<unk>", "<UNK>"].iter().find_map(|name| self.grams.words.get(*name).copied());
        Ok(self.grams)
    }
}
