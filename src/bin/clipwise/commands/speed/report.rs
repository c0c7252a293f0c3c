//! The times as a table or as a line of JSON.

use std::io::{self, Write};

use clap::ValueEnum;
use clipwise::Precision;
use serde::Serialize;

use super::work::Case;
use crate::output::stdout;

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// One line of JSON.
#[derive(Serialize)]
pub struct Report {
    model: String,
    part: String,
    seconds: f64,
    batch: usize,
    threads: usize,
    precision: Precision,
    ms: Milliseconds,
    real_time_factor: f64,
    peak_rss_mb: Option<f64>,
}

#[derive(Serialize)]
struct Milliseconds {
    min: f64,
    median: f64,
    max: f64,
}

impl Report {
    /// `times` holds the milliseconds of at least one call.
    pub fn new(case: &Case, threads: usize, mut times: Vec<f64>) -> Self {
        let Case { model, part, seconds, batch, weights, precision } = *case;
        let file = weights.and_then(|path| path.file_name()).unwrap_or_default();
        times.sort_by(f64::total_cmp);
        let last = times.len() - 1;
        // Of an even number of times, the mean of the middle two.
        let median = (times[last / 2] + times[last.div_ceil(2)]) / 2.0;
        Self {
            model: if model.is_empty() { file.to_string_lossy().into_owned() } else { model.to_owned() },
            part: name(part),
            seconds,
            batch,
            threads,
            precision,
            ms: Milliseconds { min: rounded(times[0], 3), median: rounded(median, 3), max: rounded(times[last], 3) },
            real_time_factor: rounded(median / 1e3 / (seconds * batch as f64), 6),
            peak_rss_mb: peak_rss_mb(),
        }
    }

    pub fn write(&self, format: Format) -> io::Result<()> {
        let mut out = stdout();
        match format {
            Format::Json => writeln!(out, "{}", serde_json::to_string(self)?),
            Format::Table => self.table(&mut out),
        }
    }

    fn table(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { model, part, seconds, batch, threads, precision, ms, real_time_factor, peak_rss_mb } = self;
        let memory = peak_rss_mb.map_or("unknown".to_owned(), |mb| format!("{mb:.0} MB"));
        let faster = 1.0 / real_time_factor;
        let plural = if *threads == 1 { "" } else { "s" };
        writeln!(out, "{model}, {part}: {batch} x {seconds} s, {threads} thread{plural}, {precision}")?;
        writeln!(out, "  time of a call    {:.2} ms  ({:.2} to {:.2})", ms.median, ms.min, ms.max)?;
        writeln!(out, "  real-time factor  {real_time_factor}  ({faster:.0} times faster than real time)")?;
        writeln!(out, "  peak memory       {memory}")
    }
}

/// As the command line spells it.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn rounded(x: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (x * scale).round() / scale
}

/// The high-water mark of the process's resident memory in 10^6 bytes, where the system has such a file.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(rounded(kib * 1024.0 / 1e6, 1))
}
