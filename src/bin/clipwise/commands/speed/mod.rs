//! `clipwise speed`.

mod load;
mod report;
mod seeded;
mod work;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clipwise::Precision;
use clipwise::device::Threads;
use report::{Earlier, Format, Machine, Report, Row, Times};
use work::{CHECKPOINT, Case, Part, Work, model_name};

use crate::message::{Failure, say, with_causes};
use crate::run::{Outcome, Status};

/// Calls before the clock runs: the first one touches memory that later ones find in place.
const WARM_UP: usize = 2;
/// A run repeats calls that are shorter than this, up to a number of calls.
const SHORTEST_RUN: Duration = Duration::from_millis(20);
const MAX_CALLS: u128 = 10_000;

/// What is timed without --model and --weights: the two built-in models, and networks of which each is bound by another kernel.
/// Model, part, length of a clip in seconds, clips per call.
const STANDARD: [(&str, Part, f64, &[u16]); 7] = [
    ("ced-tiny", Part::All, 10.0, &[1]),
    ("mn04", Part::All, 10.0, &[1]),
    ("log-mel", Part::All, 10.0, &[1]),
    ("whisper-tiny", Part::Trunk, 30.0, &[1]),
    ("m5", Part::All, 1.0, &[1, 64]),
    ("gru", Part::All, 10.0, &[1, 16]),
    ("lstm", Part::All, 10.0, &[1, 16]),
];

/// Measure how long a model takes on the CPU of this machine.
///
/// Without --weights it times seeded random weights that are made in memory (ced-tiny and mn04: the built-in models). Time does
/// not depend on their values. The input is seeded noise.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Which models: any that `clipwise models` lists; speech encoders by their names (whisper-tiny, wav2vec2-base …);
    /// cnn14-narrow, CNN14 with an eighth of the channels; gru and lstm, two bidirectional layers of 256; log-mel, that of PANNs;
    /// checkpoint, what --weights is [default: checkpoint with --weights, else the standard set]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = model_name)]
    model: Vec<String>,
    /// Which part: from waveform to scores, from features to scores, or from waveform to features (a model without front end
    /// is all trunk) [default: all; in the standard set, that of each model]
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Length of each clip in seconds [default: 10; in the standard set, that of each model]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    /// Clips in a call; several numbers give several rows [default: 1; in the standard set, those of each model]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    batch: Vec<u16>,
    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Runs that are timed, after two calls that are not. A run is one call, or as many as take 20 ms
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Checkpoint of the model: as `clipwise tag` takes it, or a speech encoder or CTC model as `clipwise encode` takes it
    #[arg(long, value_name = "FILE|FOLDER")]
    weights: Option<PathBuf>,
    /// Compute in this precision: f32, int8 or f16_weights
    #[arg(long, value_name = "PRECISION", default_value_t)]
    precision: Precision,
    /// Add a linear CTC head with N tokens to a speech encoder with random weights
    #[arg(long, value_name = "N", conflicts_with = "weights", value_parser = clap::value_parser!(u32).range(1..1 << 20))]
    tokens: Option<u32>,
    /// Time from opening a checkpoint or a built-in model to the first result, and the peak memory. Each run is a process of
    /// its own
    #[arg(long)]
    load: bool,
    /// Compare with the results in FILE, which an earlier run printed with --format json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// What to print: a table for people or JSON lines (one object per row) for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// In the processes of --load: loads once and prints what it took.
    #[arg(long, hide = true)]
    load_once: bool,
}

const HELP: &str = "Values (JSON names):
  ms                milliseconds per call, for the whole batch: smallest, median and largest of the runs. With --load, from
                    opening the checkpoint to the first result
  real_time_factor  median time of a call divided by the duration of all its clips: 0.02 is 50 times faster than real time
  load              with --load: median milliseconds until the model is open, most memory of the process (peak_rss_mb, in 10^6
                    bytes, as Linux counts it; null elsewhere), size of the checkpoint
  earlier           with --compare: the earlier median, the ratio of the medians (below 1: faster now), and the settings that
                    differed, with their earlier values

Examples:
  clipwise speed --threads 1 --format json > before.jsonl
  clipwise speed --threads 1 --compare before.jsonl
  clipwise speed --model cnn14,cnn6 --part trunk --batch 1,4
  clipwise speed --model wav2vec2-base --tokens 32
  clipwise speed --load --weights Cnn14_mAP=0.431.pth";

/// The longest clip, in seconds.
const MAX_SECONDS: f64 = 3600.0;

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS);
    seconds.ok_or_else(|| format!("expected more than 0 and at most {MAX_SECONDS}"))
}

impl Args {
    pub fn run(self) -> Outcome {
        let threads = self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let pool = Threads::new(threads)?;
        let earlier = self.compare.as_deref().map(Earlier::open).transpose()?;
        let cases = self.cases();
        if self.load_once {
            return pool.run(|| load::once(&cases[0]));
        }
        let report = Report::new(self.format, &cases, Machine::here(threads), earlier)?;
        let row = |case| -> Result<Row, Failure> {
            Ok(match self.load {
                true => Row::of_load(case, &load::runs(case, threads, self.runs)?),
                false => Row::of_calls(case, pool.run(|| time(&mut case.prepare()?, self.runs.into()))?),
            })
        };
        let mut status = Status::Good;
        for case in &cases {
            match row(case) {
                Ok(row) => report.write(row)?,
                Err(error) => {
                    say(format_args!("error: {}: {}", case.label(), with_causes(&*error)));
                    status = Status::SomeFailed;
                }
            }
        }
        Ok(status)
    }

    /// One per row.
    fn cases(&self) -> Vec<Case<'_>> {
        let case = |model, part, seconds, batch: u16| Case {
            model,
            part: self.part.unwrap_or(part),
            seconds: self.seconds.unwrap_or(seconds),
            batch: batch.into(),
            weights: self.weights.as_deref(),
            precision: self.precision,
            n_tokens: self.tokens.map(|n| n as usize),
        };
        let batches = |usual: &'static [u16]| if self.batch.is_empty() { usual.to_vec() } else { self.batch.clone() };
        let models: Vec<(&str, Part, f64, &[u16])> = match (self.model.is_empty(), &self.weights) {
            (true, None) if self.load => STANDARD[..2].to_vec(),
            (true, None) => STANDARD.to_vec(),
            (true, Some(_)) => vec![(CHECKPOINT, Part::All, 10.0, &[1])],
            (false, _) => self.model.iter().map(|model| (model.as_str(), Part::All, 10.0, &[1][..])).collect(),
        };
        let cases = models.into_iter().flat_map(|(model, part, seconds, usual)| {
            batches(usual).into_iter().map(move |batch| case(model, part, seconds, batch))
        });
        cases.collect()
    }
}

/// The milliseconds per call of each run.
fn time(work: &mut Work, runs: usize) -> Result<Times, Failure> {
    let mut call = || {
        let start = Instant::now();
        work().map(|()| start.elapsed())
    };
    for _ in 1..WARM_UP {
        call()?;
    }
    let calls = (SHORTEST_RUN.as_nanos() / call()?.as_nanos().max(1)).clamp(1, MAX_CALLS) as u32;
    let mut ms = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        (0..calls).try_for_each(|_| work())?;
        ms.push(start.elapsed().as_secs_f64() * 1e3 / f64::from(calls));
    }
    Ok(Times { ms, calls_per_run: calls })
}
