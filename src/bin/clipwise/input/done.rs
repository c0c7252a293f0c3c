//! The files that an earlier run has done.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::files::{Item, Items};
use crate::message::{Failure, name, say};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 26;
/// How every line begins.
const BEGINNING: &[u8] = b"{\"file\":\"";

/// The files that are done, by [`key`].
pub struct Done(HashSet<[u64; 2]>);

/// What the lines of a file are expected to be.
pub struct Expected<'a> {
    pub subcommand: &'a str,
    /// The field that each line of the subcommand has.
    pub field: &'a str,
    pub model: &'a str,
}

#[derive(Deserialize)]
struct Line {
    file: String,
    run: Option<String>,
    model: Option<String>,
    error: Option<IgnoredAny>,
    tags: Option<IgnoredAny>,
    embedding: Option<IgnoredAny>,
    tokens: Option<IgnoredAny>,
    events: Option<IgnoredAny>,
}

impl Line {
    fn check(&self, expected: &Expected) -> Result<(), String> {
        let Expected { subcommand, field, model } = expected;
        let fields =
            [("tags", &self.tags), ("embedding", &self.embedding), ("tokens", &self.tokens), ("events", &self.events)];
        if self.error.is_none() && !fields.iter().any(|(name, value)| name == field && value.is_some()) {
            return Err(format!("expected a line of `clipwise {subcommand}`, with the field {field}"));
        }
        match &self.model {
            Some(other) if other != model => Err(format!("expected a result of the model {model}, got one of {other}")),
            _ => Ok(()),
        }
    }
}

impl Done {
    /// Reads the JSON lines of earlier runs, locks the file and opens it to append more. A last line that was being written when the
    /// program was killed is cut off. Files that failed are not done. With `settings`, the first line must state the same ones.
    pub fn open(path: &Path, expected: &Expected, settings: Option<&str>) -> Result<(Self, File), Failure> {
        let about = |error: &dyn std::fmt::Display| Failure::from(format!("{}: {error}", name(path)));
        let unusable = |n: usize, reason: &str| about(&format!("line {n}: {reason}"));
        let foreign = "expected a line that this program wrote, got another";
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(|error| about(&error))?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(about(&"another run is writing this file"));
        }
        let mut done = Self(HashSet::new());
        let mut lines = BufReader::new(&file);
        let (mut line, mut n, mut end) = (Vec::new(), 0, 0);
        while lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|error| about(&error))? > 0 {
            n += 1;
            if line.last() != Some(&b'\n') {
                let is_ours = if line.len() < BEGINNING.len() {
                    BEGINNING.starts_with(&line)
                } else {
                    line.starts_with(BEGINNING)
                };
                if !is_ours || line.len() as u64 == MAX_LINE {
                    return Err(unusable(n, foreign));
                }
                break;
            }
            let parsed: Line = serde_json::from_slice(&line).map_err(|_| unusable(n, foreign))?;
            match (&parsed.run, settings) {
                (Some(run), Some(settings)) if run != settings => {
                    return Err(about(&format!("expected the results of {settings}; got those of {run}")));
                }
                (Some(_), _) => {}
                (None, _) => {
                    parsed.check(expected).map_err(|reason| unusable(n, &reason))?;
                    if parsed.error.is_none() {
                        done.0.insert(key(&parsed.file));
                    }
                }
            }
            end += line.len() as u64;
            line.clear();
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|error| about(&error))?;
        if done.len() > 0 {
            let files = if done.len() == 1 { "file is" } else { "files are" };
            say(format_args!("note: {}: {} {files} done already", name(path), done.len()));
        }
        Ok((done, file))
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All files without an earlier run, else those that are not done, each once.
    pub fn left(done: Option<Self>, files: impl Iterator<Item = Item> + Send + 'static) -> Items {
        match done {
            Some(done) => Box::new(done.skip(files)),
            None => Box::new(files),
        }
    }

    /// The files that are not done, each once.
    pub fn skip(mut self, files: impl Iterator<Item = Item> + Send) -> impl Iterator<Item = Item> + Send {
        files.filter_map(move |file| match file {
            Ok(path) => match path.to_str() {
                Some(name) => self.0.insert(key(name)).then_some(Ok(path)),
                None => Some(Err(format!("{}: expected a name in UTF-8, since names tell what is done", name(&path)))),
            },
            error => Some(error),
        })
    }
}

/// A hash of a name: 16 bytes, however long the name.
pub fn key(name: &str) -> [u64; 2] {
    [0, 1].map(|salt| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(name.as_bytes());
        hasher.finish()
    })
}
