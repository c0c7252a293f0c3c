//! Where results go: standard output, or a file that appears under its name when it is complete.

mod csv;
mod events;
mod json;
mod npy;
mod parquet;
mod record;
mod similarity;
mod text;
mod transcript;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use self::csv::{Csv, Wide};
pub use events::{EventCsv, EventJson, EventTable};
pub use json::JsonLines;
pub use npy::Npy;
pub use parquet::{Parquet, Provenance};
pub use record::{Record, ShownTag};
pub use similarity::Similarity;
pub use text::{Text, is_coloured};
pub use transcript::{Spoken, TranscriptTable};

use crate::input::{Done, FileArgs, Item};
use crate::message::{Failure, cannot, name, say};
use crate::run::interrupt::interrupted;
use crate::run::{Count, Status};

/// Where results go.
#[derive(clap::Args, Clone, Debug)]
pub struct OutArgs {
    /// Write a file instead: a table (.parquet or .csv), JSON lines (.jsonl), or a matrix of embeddings (.npy, with the names of the
    /// files in OUT.npy.txt). Until the run is over, results are appended to OUT.partial
    #[arg(long, value_name = "OUT", conflicts_with = "skip_done", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// With --out: go on with OUT.partial, which an interrupted run left behind
    #[arg(long, requires = "out", help_heading = "Output")]
    pub resume: bool,
    /// Append JSON lines to this file and skip files that it already has
    #[arg(long, value_name = "OUT.jsonl", help_heading = "Output")]
    pub skip_done: Option<PathBuf>,
    /// Give a file that fails a row with the field `error` (as --out always does), and exit with status 0
    #[arg(long, help_heading = "Output")]
    pub error_rows: bool,
}

/// Writes records in one format.
pub trait RecordWriter {
    fn write(&mut self, record: &Record) -> Result<(), Failure>;

    /// Writes what is left to be written.
    fn finish(self: Box<Self>) -> Result<(), Failure>;
}

/// Makes the writer of a file.
pub type MakeWriter = Box<dyn Fn(&Path) -> Result<Box<dyn RecordWriter>, Failure>>;

struct Nothing;

impl RecordWriter for Nothing {
    fn write(&mut self, _: &Record) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The results of a run on their way out.
pub struct Output {
    writer: Box<dyn RecordWriter>,
    file: Option<Target>,
    done: Option<Done>,
    error_rows: bool,
    fails_softly: bool,
}

/// A file that is written when the run is over.
struct Target {
    path: PathBuf,
    partial: PathBuf,
    /// `None` for JSON lines: the partial file is what is wanted.
    make: Option<MakeWriter>,
    /// Holds the lock of the partial file.
    _lock: File,
}

impl OutArgs {
    /// Opens the output: the file that the arguments name, in the format that `make` has for the ending of its name, else `print`.
    pub fn open(
        &self,
        print: impl FnOnce() -> Result<Box<dyn RecordWriter>, Failure>,
        make: impl FnOnce(&str) -> Option<MakeWriter>,
        endings: &str,
    ) -> Result<Output, Failure> {
        let (error_rows, fails_softly) = (self.error_rows, self.error_rows);
        if let Some(path) = &self.skip_done {
            let (done, file) = Done::open(path)?;
            let writer = Box::new(JsonLines(Named { to: file, name: name(path) }));
            return Ok(Output { writer, file: None, done: Some(done), error_rows, fails_softly });
        }
        let Some(path) = &self.out else {
            return Ok(Output { writer: print()?, file: None, done: None, error_rows, fails_softly });
        };
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let make = match ending {
            "jsonl" => make(ending),
            _ => Some(
                make(ending).ok_or_else(|| format!("--out {}: expected a name that ends in {endings}", name(path)))?,
            ),
        };
        if path.is_dir() {
            return Err(format!("--out {}: expected a file, got a folder", name(path)).into());
        }
        let partial = with_suffix(path, ".partial");
        let is_left = fs::metadata(&partial).is_ok_and(|partial| partial.len() > 0);
        let (done, lock) = Done::open(&partial)?;
        if is_left && !self.resume {
            let partial = name(&partial);
            return Err(format!("{partial} was left by an interrupted run: go on with --resume, or delete it").into());
        }
        let file = lock.try_clone().map_err(|error| cannot("write", &partial, error))?;
        let writer = Box::new(JsonLines(Named { to: file, name: name(&partial) }));
        let target = Target { path: path.clone(), partial, make, _lock: lock };
        Ok(Output { writer, file: Some(target), done: Some(done), error_rows: true, fails_softly })
    }
}

impl Output {
    /// Of a subcommand that writes its results elsewhere.
    pub fn nothing() -> Self {
        Self { writer: Box::new(Nothing), file: None, done: None, error_rows: false, fails_softly: false }
    }

    /// The files that are left to be done, in order, each once if the output has those of an earlier run.
    pub fn left(&mut self, files: &FileArgs) -> Box<dyn Iterator<Item = Item> + Send> {
        Done::left(self.done.take(), files.list_with_notes())
    }

    pub fn write(&mut self, record: &Record) -> Result<(), Failure> {
        self.writer.write(record)
    }

    /// A file that failed.
    pub fn write_error(&mut self, file: &Path, error: &str) -> Result<(), Failure> {
        if !self.error_rows || file.as_os_str().is_empty() {
            return Ok(());
        }
        self.writer.write(&Record::failed(&file.to_string_lossy(), error))
    }

    /// Completes the output of a run. If the run was ended early, or every file failed, a file stays as it was.
    pub fn finish(self, ended: Result<Count, Failure>) -> Result<Status, Failure> {
        let Self { writer, file, fails_softly, .. } = self;
        let finished = writer.finish();
        let count = ended?; // the reason comes before what follows from it
        finished?;
        let is_complete = !interrupted() && (count.done > 0 || count.failed == 0);
        match file {
            Some(target) if is_complete => target.complete()?,
            Some(target) => target.leave(),
            None => {}
        }
        Ok(if fails_softly { Status::Good } else { count.into() })
    }
}

impl Target {
    /// Writes the file beside its place, then puts it there.
    fn complete(self) -> Result<(), Failure> {
        let Self { path, partial, make, .. } = &self;
        let Some(make) = make else {
            return fs::rename(partial, path).map_err(|error| cannot("write", path, error));
        };
        let cannot_read = |error: &dyn std::fmt::Display| cannot("read", partial, error);
        let lines = BufReader::new(File::open(partial).map_err(|error| cannot_read(&error))?).lines();
        let new = with_suffix(path, ".new");
        let mut writer = make(&new)?;
        for line in lines {
            let line = line.map_err(|error| cannot_read(&error))?;
            writer.write(&serde_json::from_str(&line).map_err(|error| cannot_read(&error))?)?;
        }
        writer.finish()?;
        replace(&new, path)?;
        fs::remove_file(partial).map_err(|error| cannot("delete", partial, error))
    }

    /// Says where the results of a run are that was ended early. An empty file goes.
    fn leave(self) {
        let Self { path, partial, .. } = self;
        if fs::metadata(&partial).is_ok_and(|partial| partial.len() == 0) {
            let _ = fs::remove_file(&partial);
        } else {
            let (path, partial) = (name(&path), name(&partial));
            say(format_args!("note: {path} is not complete: its results so far are in {partial}; --resume goes on"));
        }
    }
}

/// Puts a new file, and the list of names that a matrix has beside it, in the place of an earlier one.
fn replace(new: &Path, path: &Path) -> Result<(), Failure> {
    let (new_names, names) = (with_suffix(new, ".txt"), with_suffix(path, ".txt"));
    if new_names.exists() {
        fs::rename(&new_names, &names).map_err(|error| cannot("write", &names, error))?;
    }
    fs::rename(new, path).map_err(|error| cannot("write", path, error))
}

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
    Ok(Named { to: BufWriter::new(file), name: name(path) })
}

/// Standard output.
pub fn stdout() -> Named<io::StdoutLock<'static>> {
    Named { to: io::stdout().lock(), name: "standard output".to_string() }
}

/// A writer whose errors name it.
pub struct Named<W> {
    to: W,
    name: String,
}

impl<W> Named<W> {
    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", self.name))
    }
}

impl<W: Write> Write for Named<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes).map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush().map_err(|error| self.named(error))
    }
}
