//! `clipwise speed`.

mod report;
mod seeded;
mod work;

use std::path::PathBuf;
use std::time::Instant;

use clipwise::Precision;
use clipwise::device::Threads;
use report::{Format, Report};
use work::{Case, Part, Work};

use crate::message::Failure;
use crate::run::{Outcome, Status};

/// Calls before the clock runs: the first one touches memory that later ones find in place.
const WARM_UP: usize = 2;

/// Measure how long a model takes on the CPU of this machine.
///
/// Without --weights it times seeded random weights that are made in memory (ced-tiny and mn04: the built-in models). Time does
/// not depend on their values. The input is seeded noise.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Which model: any that `clipwise models` lists; cnn14-narrow, CNN14 with an eighth of the channels; whisper-tiny, its
    /// encoder; encoder, any speech encoder (with --weights); gru and lstm, two bidirectional layers of 256 [default: what
    /// --weights is, else cnn14]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Which part: from waveform to scores, from features to scores, or from waveform to features (a model without front end
    /// is all trunk)
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// Length of each clip in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Clips in a call
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Calls that are timed, after two that are not
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Checkpoint of the model, as `clipwise tag` takes it
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Compute in this precision: f32, or int8
    #[arg(long, value_name = "PRECISION", default_value_t)]
    precision: Precision,
    /// What to print: a table for people or one line of JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const HELP: &str = "Values:
  ms                milliseconds a call, for the whole batch: smallest, median and largest of the runs
  real_time_factor  median time of a call divided by the duration of all its clips: 0.02 is 50 times faster than real time
  peak_rss_mb       most memory of the process up to its end, in 10^6 bytes, as Linux counts it; null elsewhere. It includes
                    the weights as a file in memory: seeded ones while the model is built, the pages read of a FILE

Examples:
  clipwise speed
  clipwise speed --model cnn14 --part trunk --batch 4 --threads 1 --format json
  clipwise speed --weights Cnn14_mAP=0.431.pth";

/// The longest clip, in seconds.
const MAX_SECONDS: f64 = 3600.0;

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS);
    seconds.ok_or_else(|| format!("expected more than 0 and at most {MAX_SECONDS}"))
}

impl Args {
    pub fn run(self) -> Outcome {
        let batch = usize::from(self.batch);
        let threads = self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let model = self.model.as_deref().unwrap_or(if self.weights.is_some() { "" } else { "cnn14" });
        let (weights, precision) = (self.weights.as_deref(), self.precision);
        let case = Case { model, part: self.part, seconds: self.seconds, batch, weights, precision };
        let times = Threads::new(threads)?.run(|| time(&mut case.prepare()?, self.runs.into()))?;
        Report::new(&case, threads, times).write(self.format)?;
        Ok(Status::Good)
    }
}

/// Milliseconds of each call.
fn time(work: &mut Work, runs: usize) -> Result<Vec<f64>, Failure> {
    (0..WARM_UP).try_for_each(|_| work())?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}
