//! Draws what a model hears in an audio file: `cargo run --release --example plot -- dog.wav`.

#[path = "../command_line/mod.rs"]
mod command_line;
mod draw;
#[path = "../events/rules.rs"]
mod rules;

use std::any::Any;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clipwise::frontend::{LogMel, LogMelConfig, LogScale, MelConfig, StftConfig};
use clipwise::{Event, EventDetector, Tagger, Waveform, WindowConfig};
use command_line::{Failure, ModelArgs, after_help, say, say_notes};
use draw::{Class, Picture};
use rules::Rules;

/// Draws an audio file as a PNG: its log-mel spectrogram, the scores of the classes that score highest, and events.
#[derive(Parser)]
#[command(version, after_help = after_help(EXAMPLES))]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The picture [default: FILE with .png]
    #[arg(long, short, value_name = "PNG")]
    out: Option<PathBuf>,
    /// Length of a window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    window: f64,
    /// From window to window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    hop: f64,
    /// Use the model's results per frame
    #[arg(long)]
    frames: bool,
    /// Draw the scores of this many classes, at most 9
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(..=9))]
    top_k: u8,
    #[command(flatten)]
    rules: Rules,
    /// Audio file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

const EXAMPLES: &str = "  plot dog.wav
  plot --weights Cnn14_DecisionLevelMax_mAP=0.385.pth --frames --out dog-frames.png dog.wav";

/// Rows of events that fit into a picture.
const MAX_ROWS: usize = 10;

fn main() -> ExitCode {
    let args = Args::parse();
    args.model.run(|_| plot(&args))
}

fn plot(args: &Args) -> Result<(), Failure> {
    let tagger = args.model.open()?;
    let waveform = Waveform::open(&args.file)?;
    say_notes(&args.file, waveform.notes());
    let seconds = waveform.duration();
    let classes = hear(args, &tagger, &waveform)?;
    let waveform = waveform.resample(tagger.model().info().sample_rate)?;
    // What the model sees, in decibels.
    let log_mel = tagger.model().front_end().and_then(|front_end| (front_end as &dyn Any).downcast_ref::<LogMel>());
    let seen = match log_mel {
        Some(log_mel) => LogMelConfig { log: LogScale::Decibel, top_db: None, ..*log_mel.config() },
        None => LogMelConfig {
            sample_rate: waveform.sample_rate,
            stft: StftConfig { hop_length: 256, ..LogMelConfig::PANNS_32K.stft },
            mel: MelConfig { fmax: None, ..LogMelConfig::PANNS_32K.mel },
            ..LogMelConfig::PANNS_32K
        },
    };
    let front_end = LogMel::new(&seen)?;
    let mut samples = waveform.samples;
    samples.resize(samples.len().max(front_end.min_samples()), 0.0);
    let picture = Picture {
        title: format!(
            "{}    {}",
            args.file.file_name().unwrap_or_default().to_string_lossy(),
            tagger.model().info().name
        ),
        seconds,
        log_mel: front_end.compute(&samples)?,
        mel_hz: mel_hz(&front_end),
        threshold: args.rules.on,
        classes,
    };
    let out = args.out.clone().unwrap_or_else(|| args.file.with_extension("png"));
    picture.draw(&out)?;
    Ok(writeln!(io::stdout(), "{}", out.display())?)
}

/// The scores of the highest classes over time, and the events.
fn hear(args: &Args, tagger: &Tagger, waveform: &Waveform) -> Result<Vec<Class>, Failure> {
    let config = WindowConfig { length: args.window, hop: args.hop, framewise: args.frames, ..WindowConfig::default() };
    let mut detector = EventDetector::new(&args.rules.config()?, tagger.labels())?;
    let (mut times, mut scores, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for window in tagger.windows(waveform.clone(), &config)? {
        let window = window?;
        events.extend(detector.push(&window)?);
        match window.frames {
            Some(frames) => {
                for (i, row) in frames.scores.rows().into_iter().enumerate() {
                    let (start, end) = frames.span(i);
                    times.push(0.5 * (start + end));
                    scores.push(row.to_vec());
                }
            }
            None => {
                times.push(0.5 * (window.start + window.end));
                scores.push(window.tagging.scores);
            }
        }
    }
    events.extend(detector.finish());
    let peak = |class: usize| scores.iter().fold(0.0f32, |peak, row| peak.max(row[class]));
    let mut order: Vec<(f32, usize)> = (0..tagger.labels().len()).map(|class| (peak(class), class)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut n_rows = 0;
    let class = |(place, &(_, class)): (usize, &(f32, usize))| {
        let points = times.iter().zip(&scores).map(|(&time, row)| (time, row[class]));
        let scores = if place < usize::from(args.top_k) { points.collect() } else { Vec::new() };
        let mut events: Vec<Event> = events.iter().filter(|event| event.index == class).cloned().collect();
        n_rows += usize::from(!events.is_empty());
        if n_rows > MAX_ROWS {
            events.clear();
        }
        let label = tagger.labels()[class].name.clone();
        (!scores.is_empty() || !events.is_empty()).then_some(Class { label, scores, events })
    };
    let classes = order.iter().enumerate().filter_map(class).collect();
    if n_rows > MAX_ROWS {
        say(format_args!("note: {n_rows} classes have events: the {MAX_ROWS} that score highest are drawn"));
    }
    Ok(classes)
}

/// The frequency at which each filter is highest.
fn mel_hz(front_end: &LogMel) -> Vec<f64> {
    let config = front_end.config();
    let highest = |row: clipwise::ndarray::ArrayView1<f32>| {
        let bin = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(bin, _)| bin);
        bin as f64 * f64::from(config.sample_rate) / config.stft.n_fft as f64
    };
    front_end.mel().to_array().rows().into_iter().map(highest).collect()
}
