//! Several files at once, results in the order of the files.

use std::io::{self, IsTerminal};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clipwise::device::Threads;

use super::files::{FileArgs, Item};
use super::interrupt::interrupted;
use crate::command_line::{Failure, say, show};

/// How many files at once.
#[derive(clap::Args, Clone, Debug)]
pub struct JobArgs {
    /// Files at once. Each has its share of the threads, so that many short files are done sooner than one after the other
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZero<u16>,
}

/// Files on their way to results.
pub struct Jobs {
    jobs: usize,
    threads: Option<usize>,
    /// Files in all, once that is known; 0 before.
    total: Arc<AtomicUsize>,
    progress: bool,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub done: usize,
    pub failed: usize,
}

type Answer<R> = Receiver<Result<R, String>>;

impl Jobs {
    /// As many jobs as asked for, with as many threads in all.
    pub fn new(args: &JobArgs, threads: Option<usize>) -> Self {
        let total = Arc::new(AtomicUsize::new(0));
        Self { jobs: usize::from(args.jobs.get()), threads, total, progress: false }
    }

    /// Shows on stderr, where that is a terminal, which of the files is worked on.
    pub fn with_progress(mut self, files: &FileArgs) -> Self {
        self.progress = io::stderr().is_terminal();
        if self.progress && files.is_repeatable() {
            let (files, total) = (files.list(), Arc::clone(&self.total));
            thread::spawn(move || total.store(files.count(), Ordering::Relaxed));
        }
        self
    }

    /// Does `work` for each file and hands its result to `report` in the order of the files. A file that fails gives a line
    /// on stderr. At most a few files a job are ahead of the one that is reported, so memory does not grow with the list.
    ///
    /// An interruption ends it early, without waiting for work that is under way.
    pub fn run<R: Send + 'static>(
        &self,
        files: impl Iterator<Item = Item> + Send + 'static,
        work: impl Fn(&Path) -> Result<R, String> + Send + Sync + 'static,
        mut report: impl FnMut(&Path, R) -> Result<(), Failure>,
    ) -> Result<Count, Failure> {
        let (to_workers, tasks) = channel::<(PathBuf, Sender<Result<R, String>>)>();
        let (to_reporter, answers) = sync_channel::<(Item, Answer<R>)>(4 * self.jobs);
        // Threads that are not waited for: the list may be a pipe on which nothing comes any more.
        thread::spawn(move || {
            for file in files.take_while(|_| !interrupted()) {
                let (to, answer) = channel();
                if to_reporter.send((file.clone(), answer)).is_err() {
                    return;
                }
                if let Ok(file) = file {
                    let _ = to_workers.send((file, to));
                }
            }
        });
        let (tasks, work) = (Arc::new(Mutex::new(tasks)), Arc::new(work));
        for _ in 0..self.jobs {
            let (tasks, work, pool) = (Arc::clone(&tasks), Arc::clone(&work), self.pool()?);
            let next = move || tasks.lock().ok()?.recv().ok();
            thread::spawn(move || {
                while let Some((file, to)) = next().filter(|_| !interrupted()) {
                    let result = match &pool {
                        Some(pool) => pool.run(|| work(&file)),
                        None => work(&file),
                    };
                    let _ = to.send(result);
                }
            });
        }
        drop(tasks);

        let mut count = Count::default();
        while let Some((file, answer)) = wait(&answers) {
            let result = match &file {
                Ok(path) => {
                    self.show(count, path);
                    match wait(&answer) {
                        Some(result) => result,
                        None if interrupted() => break,
                        None => return Err(format!("{}: the program has a fault", path.display()).into()),
                    }
                }
                Err(error) => Err(error.clone()),
            };
            self.clear();
            match (file, result) {
                (Ok(path), Ok(result)) => {
                    report(&path, result)?;
                    count.done += 1;
                }
                (_, Err(error)) | (Err(error), _) => {
                    say(format_args!("error: {error}"));
                    count.failed += 1;
                }
            }
        }
        Ok(count)
    }

    /// The threads of one job: `None` is the pool that everything shares.
    fn pool(&self) -> clipwise::Result<Option<Threads>> {
        if self.jobs == 1 && self.threads.is_none() {
            return Ok(None);
        }
        let all = self.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
        Threads::new((all / self.jobs).max(1)).map(Some)
    }

    fn show(&self, count: Count, file: &Path) {
        if self.progress {
            let total = self.total.load(Ordering::Relaxed);
            let of = if total > 0 { format!("/{total}") } else { String::new() };
            show(format_args!("[{}{of}] {}\r", count.done + count.failed + 1, file.display()));
        }
    }

    fn clear(&self) {
        if self.progress {
            show(format_args!("\x1b[K"));
        }
    }
}

/// What comes next; `None` if nothing will, or if nothing is there when the program is interrupted.
fn wait<T>(from: &Receiver<T>) -> Option<T> {
    loop {
        let stopping = interrupted();
        match from.recv_timeout(if stopping { Duration::ZERO } else { Duration::from_millis(100) }) {
            Ok(value) => return Some(value),
            Err(RecvTimeoutError::Timeout) if !stopping => {}
            Err(_) => return None,
        }
    }
}
