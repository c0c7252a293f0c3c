//! The rows as a table or as JSON lines, and their comparison with earlier ones.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use clipwise::{Precision, device};
use serde::{Deserialize, Serialize};

use super::load::{self, Once};
use super::work::Case;
use crate::message::{Failure, cannot};
use crate::output::stdout;

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// The milliseconds per call of each run, of which there is at least one.
pub struct Times {
    pub ms: Vec<f64>,
    pub calls_per_run: u32,
}

/// What ran where: it is the same for all rows.
#[derive(Clone, Deserialize, Serialize)]
pub struct Machine {
    /// Of clipwise.
    version: String,
    instruction_set: String,
    /// The name of the processor, where the system tells.
    cpu: Option<String>,
    threads: usize,
}

/// A row of the table, a line of JSON.
#[derive(Deserialize, Serialize)]
pub struct Row {
    model: String,
    part: String,
    seconds: f64,
    batch: usize,
    precision: Precision,
    runs: usize,
    calls_per_run: u32,
    ms: Milliseconds,
    real_time_factor: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<Load>,
}

#[derive(Deserialize, Serialize)]
struct Milliseconds {
    min: f64,
    median: f64,
    max: f64,
}

#[derive(Deserialize, Serialize)]
struct Load {
    open_ms: f64,
    peak_rss_mb: Option<f64>,
    checkpoint_mb: Option<f64>,
}

/// A line of JSON with all that is needed to repeat the measurement.
#[derive(Deserialize, Serialize)]
struct Line {
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    row: Row,
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    earlier: Option<Comparison>,
}

#[derive(Serialize)]
struct Comparison {
    median: f64,
    ratio: f64,
    /// Settings that differ, with their earlier values.
    differs: Vec<String>,
}

/// The rows of an earlier run.
pub struct Earlier(Vec<Line>);

impl Machine {
    pub fn here(threads: usize) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").ok();
        let cpu = cpu.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("model name")));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instruction_set: device::instruction_set(),
            cpu: cpu.map(|name| name.trim_start_matches([' ', '\t', ':']).to_owned()),
            threads,
        }
    }
}

impl Row {
    pub fn of_calls(case: &Case, times: Times) -> Self {
        let runs = times.ms.len();
        let ms = Milliseconds::of(times.ms);
        Self {
            model: case.label(),
            part: case.part_name(),
            seconds: case.seconds,
            batch: case.batch,
            precision: case.precision,
            runs,
            calls_per_run: times.calls_per_run,
            real_time_factor: rounded(ms.median / 1e3 / (case.seconds * case.batch as f64), 6),
            ms,
            load: None,
        }
    }

    pub fn of_load(case: &Case, runs: &[Once]) -> Self {
        let load = Load {
            open_ms: Milliseconds::of(runs.iter().map(|run| run.open_ms).collect()).median,
            peak_rss_mb: runs.iter().filter_map(|run| run.peak_rss_mb).max_by(f64::total_cmp).map(|mb| rounded(mb, 1)),
            checkpoint_mb: case.weights.and_then(load::size_mb).map(|mb| rounded(mb, 1)),
        };
        let times = Times { ms: runs.iter().map(|run| run.result_ms).collect(), calls_per_run: 1 };
        Self { load: Some(load), ..Self::of_calls(case, times) }
    }
}

impl Milliseconds {
    /// Of an even number of times, the median is the mean of the middle two.
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let last = times.len() - 1;
        let median = (times[last / 2] + times[last.div_ceil(2)]) / 2.0;
        Self { min: rounded(times[0], 4), median: rounded(median, 4), max: rounded(times[last], 4) }
    }
}

impl Line {
    /// The settings other than model and part, as they are compared and shown.
    fn settings(&self) -> [(&'static str, String); 8] {
        let Self { machine, row, .. } = self;
        [
            ("batch", row.batch.to_string()),
            ("seconds", row.seconds.to_string()),
            ("precision", row.precision.to_string()),
            ("threads", machine.threads.to_string()),
            ("instruction set", machine.instruction_set.clone()),
            ("cpu", machine.cpu.clone().unwrap_or_else(|| "unknown".to_owned())),
            ("runs", row.runs.to_string()),
            ("load", row.load.is_some().to_string()),
        ]
    }
}

impl Earlier {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| cannot("read", path, error))?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Line>, _>>();
        Ok(Self(lines.map_err(|error| cannot("read", path, error))?))
    }

    /// The earlier row of the same model and part that differs in the fewest settings, as compared with `line`.
    fn compare(&self, line: &Line) -> Option<Comparison> {
        let same = |earlier: &&Line| earlier.row.model == line.row.model && earlier.row.part == line.row.part;
        let differs = |earlier: &Line| -> Vec<String> {
            let pairs = earlier.settings().into_iter().zip(line.settings());
            let different = pairs.filter(|(earlier, now)| earlier.1 != now.1);
            different.map(|((name, value), _)| format!("{name} {value}")).collect()
        };
        let earlier = self.0.iter().filter(same).map(|earlier| (differs(earlier), earlier));
        let (differs, earlier) = earlier.min_by_key(|(differs, _)| differs.len())?;
        let median = earlier.row.ms.median;
        Some(Comparison { median, ratio: rounded(line.row.ms.median / median, 4), differs })
    }
}

/// Prints rows as they come.
pub struct Report {
    format: Format,
    machine: Machine,
    earlier: Option<Earlier>,
    /// Width of the column of names.
    width: usize,
}

impl Report {
    pub fn new(format: Format, cases: &[Case], machine: Machine, earlier: Option<Earlier>) -> io::Result<Self> {
        let width = cases.iter().map(|case| case.label().chars().count()).max().unwrap_or(0).max(5);
        if matches!(format, Format::Table) {
            let Machine { version, instruction_set, cpu, threads } = &machine;
            let plural = if *threads == 1 { "" } else { "s" };
            let cpu = cpu.as_ref().map_or(String::new(), |cpu| format!(", {cpu}"));
            let mut out = stdout();
            writeln!(out, "clipwise {version}, {instruction_set}, {threads} thread{plural}{cpu}")?;
            let titles =
                format!("{:width$}  part      batch  seconds  precision   median ms      min ms  x real time", "model");
            let earlier = if earlier.is_some() { "  earlier ms  ratio" } else { "" };
            writeln!(out, "{titles}{earlier}")?;
        }
        Ok(Self { format, machine, earlier, width })
    }

    pub fn write(&self, row: Row) -> io::Result<()> {
        let mut line = Line { machine: self.machine.clone(), row, earlier: None };
        line.earlier = self.earlier.as_ref().and_then(|earlier| earlier.compare(&line));
        match self.format {
            Format::Json => writeln!(stdout(), "{}", serde_json::to_string(&line)?),
            Format::Table => self.table_row(&line),
        }
    }

    fn table_row(&self, line: &Line) -> io::Result<()> {
        let Row { model, part, seconds, batch, precision, ms, real_time_factor, load, .. } = &line.row;
        let (width, faster) = (self.width, 1.0 / real_time_factor);
        let (median, min) = (digits(ms.median), digits(ms.min));
        let mut out = stdout();
        write!(out, "{model:width$}  {part:8}  {batch:5}  {seconds:7}  {:9}", precision.to_string())?;
        write!(out, "  {median:>10}  {min:>10}  {faster:11.0}")?;
        match (&line.earlier, &self.earlier) {
            (Some(earlier), _) => {
                write!(out, "  {:>10}  {:5.3}", digits(earlier.median), earlier.ratio)?;
                if !earlier.differs.is_empty() {
                    write!(out, "  (earlier: {})", earlier.differs.join(", "))?;
                }
            }
            (None, Some(_)) => write!(out, "  {:>10}  {:>5}", "-", "-")?,
            (None, None) => {}
        }
        writeln!(out)?;
        let Some(Load { open_ms, peak_rss_mb, checkpoint_mb }) = load else { return Ok(()) };
        let peak = peak_rss_mb.map_or("unknown".to_owned(), |mb| format!("{mb} MB"));
        let share = peak_rss_mb.zip(*checkpoint_mb).map(|(peak, size)| (size, peak / size));
        let share = share.map_or(String::new(), |(size, ratio)| format!(", {ratio:.2} x the checkpoint's {size} MB"));
        writeln!(out, "{:width$}  first result; open after {} ms, peak memory {peak}{share}", "", digits(*open_ms))
    }
}

/// Milliseconds with three decimals, below 1 ms with four.
fn digits(ms: f64) -> String {
    if ms < 1.0 { format!("{ms:.4}") } else { format!("{ms:.3}") }
}

fn rounded(x: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (x * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with a median of `median` ms.
    fn line(model: &str, batch: usize, threads: usize, median: f64) -> Line {
        let machine = Machine { version: "1".to_owned(), instruction_set: "portable".to_owned(), cpu: None, threads };
        let case = Case { model, batch, ..Case::default() };
        Line { machine, row: Row::of_calls(&case, Times { ms: vec![median], calls_per_run: 1 }), earlier: None }
    }

    #[test]
    fn a_row_is_compared_with_the_earlier_one_that_is_most_alike() {
        let text: Vec<String> = [line("m5", 1, 1, 2.0), line("m5", 64, 1, 8.0), line("gru", 1, 1, 5.0)]
            .iter()
            .map(|line| serde_json::to_string(line).unwrap())
            .collect();
        let earlier = Earlier(text.iter().map(|line| serde_json::from_str(line).unwrap()).collect());
        let same = earlier.compare(&line("m5", 64, 1, 2.0)).unwrap();
        assert_eq!((same.median, same.ratio), (8.0, 0.25));
        assert!(same.differs.is_empty());
        let other = earlier.compare(&line("gru", 1, 2, 2.5)).unwrap();
        assert_eq!((other.ratio, other.differs), (0.5, vec!["threads 1".to_owned()]));
        assert!(earlier.compare(&line("lstm", 1, 1, 1.0)).is_none());
    }

    #[test]
    fn the_median_of_an_even_number_of_times_is_the_mean_of_the_middle_two() {
        let ms = Milliseconds::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((ms.min, ms.median, ms.max), (1.0, 2.5, 4.0));
    }
}
