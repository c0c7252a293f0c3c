//! A progress bar on stderr, where that is a terminal.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::message;

/// The bar that is shown; other output goes above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The files of a run, or the seconds of a long file.
pub struct Progress(ProgressBar);

impl Progress {
    /// Over files, whose number may become known later.
    pub fn of_files() -> Self {
        let bar = ProgressBar::no_length();
        if !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        set_style(&bar, "[{pos}] {elapsed} {wide_msg}");
        *shown() = Some(bar.clone());
        Self(bar)
    }

    pub fn set_length(&self, n_files: usize) {
        set_style(&self.0, "[{pos}/{len}] {bar:24} ETA {eta}  {wide_msg}");
        self.0.set_length(n_files as u64);
    }

    /// The file that is worked on, after `n_done`.
    pub fn show(&self, n_done: usize, file: &Path) {
        self.0.set_position(n_done as u64);
        self.0.set_message(message::name(file));
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        *shown() = None;
    }
}

/// Shows how far a long recording is: a position in seconds, and its length if the file states it.
pub fn position(file: &Path, seconds: f64, length: Option<f64>) {
    let bar = shown().clone();
    if let Some(bar) = bar {
        let of = length.map(|length| format!(" of {}", clock(length))).unwrap_or_default();
        bar.set_message(format!("{}  {}{of}", message::name(file), clock(seconds)));
    }
}

/// Does something while the bar is hidden.
pub fn suspend<R>(print: impl FnOnce() -> R) -> R {
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.min(1e9) as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
