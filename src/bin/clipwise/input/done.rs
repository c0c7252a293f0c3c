//! The files that an earlier run has done.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::files::{Item, Items};
use crate::message::{Failure, name, say};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 26;
/// How every line begins.
const BEGINNING: &[u8] = b"{\"file\":\"";

/// Names of files that are done: 16 bytes each, however long the names.
pub struct Done(HashSet<[u64; 2]>);

#[derive(Deserialize)]
struct Line {
    file: String,
}

impl Done {
    /// Reads the JSON lines of earlier runs, locks the file and opens it to append more. A last line that was being written when the
    /// program was killed is cut off.
    pub fn open(path: &Path) -> Result<(Self, File), Failure> {
        let about = |error: &dyn std::fmt::Display| Failure::from(format!("{}: {error}", name(path)));
        let unusable = |n: usize| about(&format!("line {n}: expected a line that this program wrote, got another"));
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
                    return Err(unusable(n));
                }
                break;
            }
            let Line { file } = serde_json::from_slice(&line).map_err(|_| unusable(n))?;
            done.insert(&file);
            end += line.len() as u64;
            line.clear();
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|error| about(&error))?;
        if !done.0.is_empty() {
            say(format_args!("note: {}: {} files are done already", name(path), done.0.len()));
        }
        Ok((done, file))
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
                Some(name) => self.insert(name).then_some(Ok(path)),
                None => Some(Err(format!("{}: expected a name in UTF-8, since names tell what is done", name(&path)))),
            },
            error => Some(error),
        })
    }

    /// Whether the name was new.
    fn insert(&mut self, name: &str) -> bool {
        let key = [0, 1].map(|salt| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(salt);
            hasher.write(name.as_bytes());
            hasher.finish()
        });
        self.0.insert(key)
    }
}
