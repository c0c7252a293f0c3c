//! How far a long file is.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::command_line::show;

const WIDTH: usize = 24;

/// One line on stderr, where that is a terminal: position, speed, time to go.
pub struct Progress {
    name: String,
    /// Length in seconds, if the file tells it.
    length: Option<f64>,
    begun: Instant,
    shown: Option<Instant>,
    on: bool,
}

impl Progress {
    pub fn new(file: &Path, length: Option<f64>) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, length, begun: Instant::now(), shown: None, on: io::stderr().is_terminal() }
    }

    /// Shows a position in seconds, a few times a second at most.
    pub fn show(&mut self, position: f64) {
        if !self.on || self.shown.is_some_and(|shown| shown.elapsed() < Duration::from_millis(200)) {
            return;
        }
        self.shown = Some(Instant::now());
        let speed = position / self.begun.elapsed().as_secs_f64().max(1e-3);
        let line = match self.length.filter(|&length| length > 0.0) {
            Some(length) => {
                let share = (position / length).min(1.0);
                let done = (share * WIDTH as f64) as usize;
                let bar = "#".repeat(done) + &"-".repeat(WIDTH - done);
                let left = clock((length - position).max(0.0) / speed.max(1e-9));
                let (position, length) = (clock(position), clock(length));
                format!("[{bar}] {:3.0} %  {position} of {length}  {speed:.1} x real time  ETA {left}", 100.0 * share)
            }
            None => format!("{}  {speed:.1} x real time", clock(position)),
        };
        show(format_args!("\r\x1b[K\x1b[?7l{}  {line}\x1b[?7h", self.name)); // cut at the edge of the terminal
    }

    /// Takes the line away, before other text.
    pub fn clear(&mut self) {
        if self.on && self.shown.take().is_some() {
            show(format_args!("\r\x1b[K"));
        }
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.min(1e9) as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
