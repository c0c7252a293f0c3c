//! Where results go: standard output, or a file that appears under its name when it is complete.

mod csv;
mod events;
mod json;
mod npy;
mod out;
mod parquet;
mod places;
mod record;
mod similarity;
mod text;
mod transcript;

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

pub use self::csv::{Csv, Wide};
pub use events::{EventCsv, EventJson, EventTable};
pub use json::JsonLines;
pub use npy::Npy;
#[cfg(test)]
pub use out::Output;
pub use out::{OutArgs, RunId};
pub use parquet::{Parquet, Provenance};
pub use places::{claimed, is_same_file};
pub use record::{Record, ShownTag};
pub use similarity::Similarity;
pub use text::{Text, is_coloured};
pub use transcript::{Spoken, TranscriptTable};

use crate::message::{Failure, cannot, name};
use crate::run::progress;

/// Writes records in one format.
pub trait RecordWriter {
    fn write(&mut self, record: &Record) -> Result<(), Failure>;

    /// Writes what is left to be written.
    fn finish(self: Box<Self>) -> Result<(), Failure>;
}

/// Makes the writer of a file.
pub type MakeWriter = Box<dyn Fn(&Path) -> Result<Box<dyn RecordWriter>, Failure>>;

/// A path with more after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Writes a file under another name first, so that a file with the right name is whole.
pub fn write_whole(path: &Path, write: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let partial = with_suffix(path, ".partial");
    let written =
        write(&partial).and_then(|()| fs::rename(&partial, path).map_err(|error| cannot("write", path, error)));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// A buffered file.
pub fn writer(path: &Path) -> Result<Named<BufWriter<File>>, Failure> {
    let file = File::create(path).map_err(|error| cannot("write", path, error))?;
    Ok(Named::new(BufWriter::new(file), name(path)))
}

/// Standard output.
pub fn stdout() -> Named<io::StdoutLock<'static>> {
    let hides_progress = io::stdout().is_terminal();
    Named { to: io::stdout().lock(), name: "standard output".to_string(), hides_progress }
}

/// A writer whose errors name it.
pub struct Named<W> {
    to: W,
    name: String,
    /// Whether the progress bar is hidden while this writes, since both are on a terminal.
    hides_progress: bool,
}

impl<W> Named<W> {
    pub fn new(to: W, name: String) -> Self {
        Self { to, name, hides_progress: false }
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", self.name))
    }
}

impl<W: Write> Write for Named<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.hides_progress {
            true => progress::suspend(|| self.to.write(bytes)),
            false => self.to.write(bytes),
        };
        written.map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush().map_err(|error| self.named(error))
    }
}
