//! `clipwise live`.

#[cfg(feature = "microphone")]
mod microphone;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::ValueEnum;
use clipwise::audio::{AudioReader, RawFormat, SampleFormat};
use clipwise::{Tagger, TaggerStream, WindowConfig, WindowTagging};

use crate::input::ReadArgs;
use crate::message::{Failure, escaped, say};
use crate::model::{ModelArgs, list_classes};
use crate::output::stdout;
use crate::run::{Outcome, Status, interrupt, with_threads};

/// Tag live audio from standard input or a microphone, and print the tags as they change.
///
/// Standard input is a WAV stream, or raw samples with --raw. The microphone needs the cargo feature `microphone`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Standard input has no header: 16-bit integers or 32-bit floats, little-endian
    #[arg(long, value_enum, value_name = "FORMAT")]
    raw: Option<Raw>,
    /// Samples per second of raw samples
    #[arg(long, value_name = "HZ", default_value_t = 16_000)]
    rate: u32,
    /// Channels of raw samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: u16,
    /// Listen to the microphone
    #[arg(long, conflicts_with = "raw")]
    microphone: bool,
    /// Length of a window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    window: f64,
    /// From window to window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    hop: f64,
    /// Show classes with a score above this
    #[arg(long, value_name = "T", default_value_t = 0.2)]
    threshold: f32,
    /// Show at most this many classes
    #[arg(long, value_name = "N", default_value_t = 5)]
    top_k: usize,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  arecord -f S16_LE -r 16000 -c 1 | clipwise live
  arecord -t raw -f S16_LE -r 44100 -c 2 | clipwise live --raw s16le --rate 44100 --channels 2
  ffmpeg -loglevel error -i radio.m3u8 -f f32le -ac 1 -ar 32000 - | clipwise live --raw f32le --rate 32000 > log.txt
  clipwise live --microphone";

#[derive(Clone, Copy, ValueEnum)]
enum Raw {
    S16le,
    F32le,
}

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || listen(&self))
    }
}

fn listen(args: &Args) -> Outcome {
    let tagger = args.model.open()?.tagger;
    if args.model.list_classes {
        return list_classes(tagger.labels());
    }
    interrupt::on_interrupt()?;
    let config = WindowConfig { length: args.window, hop: args.hop, ..WindowConfig::default() };
    if args.microphone {
        from_microphone(args, &tagger, &config)?;
        return Ok(Status::Good);
    }
    let reader = match args.raw {
        None => args.read.open(Path::new("-"))?,
        Some(raw) => {
            let sample_format = match raw {
                Raw::S16le => SampleFormat::Int16,
                Raw::F32le => SampleFormat::Float32,
            };
            let format = RawFormat { sample_format, sample_rate: args.rate, n_channels: args.channels };
            AudioReader::raw(io::stdin(), &format, &args.read.options(true))?
        }
    };
    let mut display = Display::new(args, tagger.stream(reader.sample_rate(), &config)?);
    for block in reader.take_while(|_| !interrupt::interrupted()) {
        match block {
            Ok(block) => display.push(&block)?,
            Err(error) => {
                display.finish()?; // what was heard until then
                return Err(error.into());
            }
        }
    }
    display.finish()?;
    Ok(Status::Good)
}

#[cfg(feature = "microphone")]
fn from_microphone(args: &Args, tagger: &Tagger, config: &WindowConfig) -> Result<(), Failure> {
    let microphone = microphone::Microphone::open()?;
    let mut display = Display::new(args, tagger.stream(microphone.sample_rate(), config)?);
    while let Some(block) = microphone.next()?.filter(|_| !interrupt::interrupted()) {
        display.push(&block)?;
    }
    display.finish()
}

#[cfg(not(feature = "microphone"))]
fn from_microphone(_: &Args, _: &Tagger, _: &WindowConfig) -> Result<(), Failure> {
    Err("this build cannot listen: build with `--features cli,microphone` (on Linux, install libasound2-dev)".into())
}

/// The tags of now: in place on a terminal, else a line whenever they change.
struct Display<'t> {
    stream: TaggerStream<&'t Tagger>,
    threshold: f32,
    top_k: usize,
    in_place: bool,
    shown: Vec<usize>,
}

impl<'t> Display<'t> {
    fn new(args: &Args, stream: TaggerStream<&'t Tagger>) -> Self {
        let in_place = io::stdout().is_terminal();
        say(format_args!(
            "{} at {} Hz: a result every {} s, {:.2} s after its window at most, and what the model takes",
            stream.tagger().model().info().name,
            stream.sample_rate(),
            args.hop,
            stream.lookahead(),
        ));
        let (threshold, top_k) = (args.threshold, args.top_k);
        Self { stream, threshold, top_k, in_place, shown: Vec::new() }
    }

    fn push(&mut self, block: &[f32]) -> Result<(), Failure> {
        let windows = self.stream.push(block)?;
        Ok(windows.iter().try_for_each(|window| self.show(window))?)
    }

    fn show(&mut self, window: &WindowTagging) -> io::Result<()> {
        let mut tags = window.tagging.top_k(self.top_k);
        tags.retain(|tag| tag.score > self.threshold);
        let indices: Vec<usize> = tags.iter().map(|tag| tag.index).collect();
        let text: Vec<String> = tags.iter().map(|tag| format!("{} {:.2}", escaped(&tag.label), tag.score)).collect();
        let line =
            format!("{:9.2} s  {}", window.end, if text.is_empty() { "-".to_string() } else { text.join("   ") });
        let mut out = stdout();
        if self.in_place {
            write!(out, "\r\x1b[K\x1b[?7l{line}\x1b[?7h")?; // cut at the edge of the terminal
        } else if indices != self.shown {
            writeln!(out, "{line}")?;
        }
        self.shown = indices;
        out.flush()
    }

    fn finish(mut self) -> Result<(), Failure> {
        let (heard, factor) = (self.stream.position(), self.stream.real_time_factor());
        let windows = self.stream.finish()?;
        windows.iter().try_for_each(|window| self.show(window))?;
        if self.in_place {
            writeln!(stdout())?;
        }
        say(format_args!("{heard:.1} s heard; real-time factor {factor:.3}"));
        Ok(())
    }
}
