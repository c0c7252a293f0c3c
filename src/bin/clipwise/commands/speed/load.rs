//! `--load`: the time from opening a checkpoint to the first result, and the memory that this takes.
//!
//! Each run is a process of its own: the high-water mark of memory is that of a process, and a second load would find memory
//! that the first one left.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::work::Case;
use crate::message::Failure;
use crate::output::stdout;
use crate::run::{Outcome, Status};

/// One run.
#[derive(Deserialize, Serialize)]
pub struct Once {
    /// Milliseconds until the model is open.
    pub open_ms: f64,
    /// Milliseconds until the first result.
    pub result_ms: f64,
    pub peak_rss_mb: Option<f64>,
}

/// Loads, computes one result and prints what it took.
pub fn once(case: &Case) -> Outcome {
    let start = Instant::now();
    let mut work = case.prepare()?;
    let open_ms = start.elapsed().as_secs_f64() * 1e3;
    work()?;
    let once = Once { open_ms, result_ms: start.elapsed().as_secs_f64() * 1e3, peak_rss_mb: peak_rss_mb() };
    writeln!(stdout(), "{}", serde_json::to_string(&once)?)?;
    Ok(Status::Good)
}

/// Runs in processes of their own.
pub fn runs(case: &Case, threads: usize, runs: u16) -> Result<Vec<Once>, Failure> {
    if case.has_random_weights() {
        return Err("--load: expected --weights, or a built-in model".into());
    }
    (0..runs).map(|_| child(case, threads)).collect()
}

fn child(case: &Case, threads: usize) -> Result<Once, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["speed", "--load-once", "--model", case.model, "--part", &case.part_name()]);
    command.arg(format!("--seconds={}", case.seconds)).arg(format!("--batch={}", case.batch));
    command.arg(format!("--threads={threads}"));
    command.arg(format!("--precision={}", case.precision));
    if let Some(weights) = case.weights {
        command.arg("--weights").arg(weights);
    }
    let output = command.output()?;
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("error: ").into()),
    }
}

/// The size of a checkpoint in 10^6 bytes: a file, or all files of a folder.
pub fn size_mb(path: &Path) -> Option<f64> {
    let bytes = |path: &Path| Some(path.metadata().ok()?.len());
    let bytes = match path.is_dir() {
        true => path.read_dir().ok()?.filter_map(|entry| bytes(&entry.ok()?.path())).sum(),
        false => bytes(path)?,
    };
    Some(bytes as f64 / 1e6)
}

/// The high-water mark of the process's resident memory in 10^6 bytes, where the system has such a file.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
