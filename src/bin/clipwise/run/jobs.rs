//! Several files at once, results in the order of the files.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clipwise::device::Threads;

use super::interrupt::interrupted;
use super::progress::Progress;
use crate::input::{FileArgs, Item};
use crate::message::{Failure, name, say};

/// How many files at once.
#[derive(clap::Args, Clone, Debug)]
pub struct JobArgs {
    /// Work on N files at once, each with its share of the threads: many short files are done sooner
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Collections")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
}

/// Runs work on files.
pub struct Jobs {
    n_jobs: usize,
    threads: Option<usize>,
    /// Lists the files a second time, to count them.
    counted: Option<FileArgs>,
    n_files: Option<usize>,
}

/// How many files were done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub done: usize,
    pub failed: usize,
}

/// A message from the thread that lists files.
enum Listed<R> {
    File(PathBuf, Receiver<Answer<R>>),
    Error(String),
    End,
}

/// A message from the thread that works on a file.
enum Answer<R> {
    Part(R),
    End(Result<(), String>),
}

impl Jobs {
    /// Shares `threads`, or one per core, among the jobs.
    pub fn new(args: &JobArgs, threads: Option<usize>) -> Self {
        Self { n_jobs: usize::from(args.jobs), threads, counted: None, n_files: None }
    }

    /// Counts the files, for the progress bar, unless some of them are skipped.
    pub fn counting(mut self, files: &FileArgs, skips_some: bool) -> Self {
        self.counted = (files.is_repeatable() && !skips_some).then(|| files.clone());
        self
    }

    /// States the number of files, for the progress bar.
    pub fn of(mut self, n_files: usize) -> Self {
        self.n_files = Some(n_files);
        self
    }

    /// Calls `work` for each file. What it emits is handed to `report` in the order of the files, then the error if the file failed,
    /// which also gives a line on stderr. At most four files per job are ahead of the one that is reported, so memory does not
    /// grow with the number of files.
    ///
    /// An interruption ends the run without waiting for work that is under way.
    pub fn run<R: Send + 'static>(
        &self,
        files: impl Iterator<Item = Item> + Send + 'static,
        work: impl Fn(&Path, &mut dyn FnMut(R)) -> Result<(), String> + Send + Sync + 'static,
        mut report: impl FnMut(&Path, Result<R, &str>) -> Result<(), Failure>,
    ) -> Result<Count, Failure> {
        let (to_workers, tasks) = channel::<(PathBuf, Sender<Answer<R>>)>();
        let (to_reporter, listed) = sync_channel::<Listed<R>>(4 * self.n_jobs);
        // The threads are not joined: the list may be a pipe on which nothing comes any more.
        thread::spawn(move || {
            for file in files.take_while(|_| !interrupted()) {
                let message = match file {
                    Ok(path) => {
                        let (to, answers) = channel();
                        if to_workers.send((path.clone(), to)).is_err() {
                            return;
                        }
                        Listed::File(path, answers)
                    }
                    Err(error) => Listed::Error(error),
                };
                if to_reporter.send(message).is_err() {
                    return;
                }
            }
            let _ = to_reporter.send(Listed::End);
        });
        let (tasks, work) = (Arc::new(Mutex::new(tasks)), Arc::new(work));
        for _ in 0..self.n_jobs {
            let (tasks, work, pool) = (Arc::clone(&tasks), Arc::clone(&work), self.pool()?);
            let next = move || tasks.lock().ok()?.recv().ok();
            thread::spawn(move || {
                while let Some((file, to)) = next().filter(|_| !interrupted()) {
                    let mut emit = |part| drop(to.send(Answer::Part(part)));
                    let result = match &pool {
                        Some(pool) => pool.run(|| work(&file, &mut emit)),
                        None => work(&file, &mut emit),
                    };
                    let _ = to.send(Answer::End(result));
                }
            });
        }
        drop(tasks);

        let progress = Progress::of_files();
        self.n_files.into_iter().for_each(|n_files| progress.set_length(n_files));
        let total = self.count_files();
        let mut count = Count::default();
        while let Some(message) = wait(&listed)? {
            if let Ok(total) = total.try_recv() {
                progress.set_length(total);
            }
            let (path, result) = match message {
                Listed::End => break,
                Listed::Error(error) => (PathBuf::new(), Err(error)),
                Listed::File(path, answers) => {
                    progress.show(count.done + count.failed, &path);
                    let result = loop {
                        match wait(&answers).map_err(|error| format!("{}: {error}", name(&path)))? {
                            Some(Answer::Part(part)) => report(&path, Ok(part))?,
                            Some(Answer::End(result)) => break result,
                            None => return Ok(count), // interrupted
                        }
                    };
                    (path, result)
                }
            };
            match result {
                Ok(()) => count.done += 1,
                Err(error) => {
                    say(format_args!("error: {error}"));
                    count.failed += 1;
                    report(&path, Err(&error))?;
                }
            }
        }
        Ok(count)
    }

    /// The threads of one job: `None` is the pool that everything shares.
    fn pool(&self) -> clipwise::Result<Option<Threads>> {
        if self.n_jobs == 1 && self.threads.is_none() {
            return Ok(None);
        }
        let all = self.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
        Threads::new((all / self.n_jobs).max(1)).map(Some)
    }

    /// Receives the number of files once they are counted.
    fn count_files(&self) -> Receiver<usize> {
        let (to, total) = channel();
        if let Some(files) = self.counted.clone() {
            thread::spawn(move || to.send(files.list().count()));
        }
        total
    }
}

/// What comes next; `None` if nothing is there when the program is interrupted. An error if the sender is gone, which says when it
/// has nothing more to send.
fn wait<T>(from: &Receiver<T>) -> Result<Option<T>, &'static str> {
    loop {
        let stopping = interrupted();
        match from.recv_timeout(if stopping { Duration::ZERO } else { Duration::from_millis(100) }) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Timeout) if !stopping => {}
            Err(_) if stopping => return Ok(None),
            Err(_) => return Err("a thread of the program panicked"),
        }
    }
}
