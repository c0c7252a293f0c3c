//! How a subcommand runs: threads, files at once, interruptions, progress, the exit status.

pub mod interrupt;
mod jobs;
pub mod progress;

use std::process::ExitCode;

use clipwise::device::Threads;

use crate::message::{Failure, in_options, is_broken_pipe, say, with_causes};
pub use jobs::{Count, JobArgs, Jobs};

/// How a subcommand ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    Good,
    /// It went on to the end, and some files failed.
    SomeFailed,
}

impl From<Count> for Status {
    fn from(count: Count) -> Self {
        if count.failed == 0 { Self::Good } else { Self::SomeFailed }
    }
}

/// The end of a subcommand.
pub type Outcome = Result<Status, Failure>;

/// Runs `work` with a number of threads, or with the pool that has one thread per core.
pub fn with_threads(threads: Option<usize>, work: impl FnOnce() -> Outcome + Send) -> Outcome {
    match threads {
        Some(n) => Threads::new(n).map_err(|error| in_options(error, &[("threads", "--threads")]))?.run(work),
        None => work(),
    }
}

/// Prints the error of a subcommand. The exit status is 0, 1 after an error or if a file failed, 130 after an interruption.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    let code = match outcome {
        Ok(Status::Good) => ExitCode::SUCCESS,
        Ok(Status::SomeFailed) => ExitCode::FAILURE,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {}", with_causes(&*error)));
            ExitCode::FAILURE
        }
    };
    interrupt::exit_code(code)
}
