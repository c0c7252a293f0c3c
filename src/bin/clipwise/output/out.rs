//! The output of a run: standard output, or a file that appears under its name when it is complete.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{JsonLines, MakeWriter, Named, Record, RecordWriter, is_same_file, with_suffix};
use crate::input::{Done, Expected, FileArgs, Item, key};
use crate::message::{Failure, cannot, name, say};
use crate::run::interrupt::interrupted;
use crate::run::{Count, Jobs, Outcome, Status};

/// Where results go.
#[derive(clap::Args, Clone, Debug)]
pub struct OutArgs {
    /// Write a file instead: a table (.parquet or .csv), JSON lines (.jsonl), or a matrix of embeddings (.npy, with the names of the
    /// files in OUT.npy.txt). While the run goes on, results are appended to OUT.partial
    #[arg(long, value_name = "OUT", conflicts_with = "skip_done", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// With --out: continue from the OUT.partial of an interrupted run
    #[arg(long, requires = "out", help_heading = "Output")]
    pub resume: bool,
    /// Append JSON lines to this file and skip files that it already has
    #[arg(long, value_name = "OUT.jsonl", help_heading = "Output")]
    pub skip_done: Option<PathBuf>,
    /// Give each file that fails a row with the field `error`, as --out does, and exit with status 0
    #[arg(long, help_heading = "Output")]
    pub error_rows: bool,
}

/// What a run does: its results can be continued only by a run that does the same.
pub struct RunId<'a> {
    pub subcommand: &'static str,
    /// The field that each line of this subcommand has.
    pub field: &'static str,
    pub model: &'a str,
    /// Everything else that decides the results.
    pub settings: String,
}

/// The results of a run on their way out.
pub struct Output {
    writer: Box<dyn RecordWriter>,
    file: Option<Target>,
    /// The file that is written, which no input may be.
    path: Option<PathBuf>,
    done: Option<Done>,
    n_done: usize,
    error_rows: bool,
    fails_softly: bool,
}

/// A file that is written when the run is over.
struct Target {
    path: PathBuf,
    partial: PathBuf,
    make: MakeWriter,
    /// Holds the lock of the partial file.
    _lock: File,
}

impl OutArgs {
    /// Opens the output: the file that the arguments name, in the format that `make` has for the ending of its name, else `print`.
    /// `None` if the file is complete and was to be continued.
    pub fn open(
        &self,
        run: &RunId,
        print: impl FnOnce() -> Result<Box<dyn RecordWriter>, Failure>,
        make: impl FnOnce(&str) -> Option<MakeWriter>,
        endings: &str,
    ) -> Result<Option<Output>, Failure> {
        let fails_softly = self.error_rows;
        let output = |writer, file, path: Option<&PathBuf>, done: Option<Done>, error_rows| {
            let n_done = done.as_ref().map_or(0, Done::len);
            Output { writer, file, path: path.cloned(), done, n_done, error_rows, fails_softly }
        };
        let expected = Expected { subcommand: run.subcommand, field: run.field, model: run.model };
        if let Some(path) = &self.skip_done {
            let (done, file) = Done::open(path, &expected, None)?;
            let writer = Box::new(JsonLines(Named::new(file, name(path))));
            return Ok(Some(output(writer, None, Some(path), Some(done), self.error_rows)));
        }
        let Some(path) = &self.out else {
            return Ok(Some(output(print()?, None, None, None, self.error_rows)));
        };
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let make =
            make(ending).ok_or_else(|| format!("--out {}: expected a name that ends in {endings}", name(path)))?;
        if path.is_dir() {
            return Err(format!("--out {}: expected a file, got a folder", name(path)).into());
        }
        let partial = with_suffix(path, ".partial");
        let is_left = fs::metadata(&partial).is_ok_and(|partial| partial.len() > 0);
        if self.resume && !is_left && path.exists() {
            say(format_args!("note: {} is complete; delete it to start over", name(path)));
            return Ok(None);
        }
        if is_left && !self.resume {
            drop(Done::open(&partial, &expected, None)?); // another run may be writing it
            let partial = name(&partial);
            return Err(
                format!("{partial} was left by an interrupted run: continue with --resume, or delete it").into()
            );
        }
        let settings = format!("clipwise {} with {}: {}", run.subcommand, run.model, run.settings);
        let (done, lock) = Done::open(&partial, &expected, Some(&settings))?;
        let file = lock.try_clone().map_err(|error| cannot("write", &partial, error))?;
        let mut writer = Box::new(JsonLines(Named::new(file, name(&partial))));
        if !is_left {
            writer.write(&Record { run: Some(settings), ..Record::default() })?;
        }
        let target = Target { path: path.clone(), partial, make, _lock: lock };
        Ok(Some(output(writer, Some(target), Some(path), Some(done), true)))
    }

    /// Whether the name after --out ends like this.
    pub fn has_ending(&self, ending: &str) -> bool {
        self.out.as_ref().is_some_and(|out| out.extension().is_some_and(|found| found == ending))
    }

    /// Whether files that an earlier run has done are skipped.
    pub fn continues(&self) -> bool {
        self.resume || self.skip_done.is_some()
    }
}

impl Output {
    /// Works on the files that are left, writes the record of each, and completes the output.
    pub fn write_each<R: Send + 'static>(
        mut self,
        jobs: &Jobs,
        files: &FileArgs,
        work: impl Fn(&Path, &mut dyn FnMut(R)) -> Result<(), String> + Send + Sync + 'static,
        record: impl Fn(&Path, R) -> Record,
    ) -> Outcome {
        let files = self.left(files);
        let count = jobs.run(files, work, |file, result| match result {
            Ok(result) => self.write(&record(file, result)),
            Err(error) => self.write_error(file, error),
        });
        self.finish(count)
    }

    /// The files that are left to be done, in order, each once if the output has those of an earlier run. An input that is the output
    /// is an error.
    pub fn left(&mut self, files: &FileArgs) -> Box<dyn Iterator<Item = Item> + Send> {
        let out = self.path.clone();
        let checked = files.list_with_notes().map(move |file| match file {
            Ok(file) if out.as_ref().is_some_and(|out| is_same_file(out, &file)) => {
                Err(format!("{}: the output would overwrite it", name(&file)))
            }
            file => file,
        });
        Done::left(self.done.take(), checked)
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
    pub fn finish(self, ended: Result<Count, Failure>) -> Outcome {
        let Self { writer, file, n_done, fails_softly, .. } = self;
        let finished = writer.finish();
        let count = match ended {
            Ok(count) => count,
            Err(error) => {
                // The reason comes before what follows from it.
                file.into_iter().for_each(Target::leave);
                return Err(error);
            }
        };
        finished?;
        let is_complete = !interrupted() && (count.done + n_done > 0 || count.failed == 0 || fails_softly);
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
        let new = with_suffix(&self.path, ".new");
        if let Err(error) = self.convert(&new).and_then(|()| replace(&new, &self.path)) {
            let _ = fs::remove_file(&new);
            let _ = fs::remove_file(with_suffix(&new, ".txt"));
            return Err(error);
        }
        fs::remove_file(&self.partial).map_err(|error| cannot("delete", &self.partial, error))
    }

    fn lines(&self) -> Result<impl Iterator<Item = Result<String, Failure>>, Failure> {
        let cannot_read = |error| cannot("read", &self.partial, error);
        let file = File::open(&self.partial).map_err(cannot_read)?;
        Ok(BufReader::new(file).lines().map(move |line| line.map_err(cannot_read)))
    }

    /// Writes the last record of each file: one that failed in an earlier run may have been done in a later one.
    fn convert(&self, new: &Path) -> Result<(), Failure> {
        #[derive(serde::Deserialize)]
        struct Line {
            file: String,
        }
        let mut last = HashMap::new();
        for (n, line) in self.lines()?.enumerate() {
            let Line { file } = serde_json::from_str(&line?)?;
            last.insert(key(&file), n);
        }
        let mut writer = (self.make)(new)?;
        for (n, line) in self.lines()?.enumerate() {
            let record: Record = serde_json::from_str(&line?)?;
            if record.run.is_none() && last.get(&key(&record.file)) == Some(&n) {
                writer.write(&record)?;
            }
        }
        writer.finish()
    }

    /// Says where the results of a run are that was ended early.
    fn leave(self) {
        let (path, partial) = (name(&self.path), name(&self.partial));
        say(format_args!("note: {path} is not complete: its results so far are in {partial}; --resume continues"));
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
