//! Finds sounds with their times in recordings of any length: `cargo run --release --example events -- --help`.

#[path = "../command_line/mod.rs"]
mod command_line;
mod progress;
mod rules;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, ValueEnum};
use clipwise::audio::AudioReader;
use clipwise::events::{EventFormat, EventWriter};
use clipwise::{EventConfig, EventDetector, Tagger, WindowConfig, Windows};
use command_line::{Failure, ModelArgs, about, after_help, say};
use progress::Progress;
use rules::Rules;

/// Finds sounds with their times in audio files of any length.
///
/// A file is tagged window by window; memory does not grow with its length. Models with results per frame find onsets and
/// offsets more exactly with --frames. What was found before a file turns out to be damaged is printed.
#[derive(Parser)]
#[command(version, after_help = after_help(EXAMPLES))]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// What to print: a table for people, JSON lines or CSV for programs, labels for Audacity, captions for players
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write DIR/NAME.txt (audacity) or DIR/NAME.vtt (webvtt) for each file
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// Length of a window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    window: f64,
    /// From window to window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    hop: f64,
    /// Windows that the model sees at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: usize,
    /// Use the model's results per frame
    #[arg(long)]
    frames: bool,
    #[command(flatten)]
    rules: Rules,
    /// Audio files; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

const EXAMPLES: &str = "  events forest.wav
  events --window 2 --hop 1 --on 0.5 --off 0.2 --allow Dog --allow Bark forest.wav
  events --weights Cnn14_DecisionLevelMax_mAP=0.385.pth --frames --median 11 --min-gap 0.5 forest.wav
  events --format webvtt --out-dir captions *.wav
  ffmpeg -i film.mkv -f wav - | events --format json -";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
    Audacity,
    Webvtt,
}

impl Format {
    fn of_events(self) -> EventFormat {
        match self {
            Self::Table => EventFormat::Table,
            Self::Json => EventFormat::JsonLines,
            Self::Csv => EventFormat::Csv,
            Self::Audacity => EventFormat::Audacity,
            Self::Webvtt => EventFormat::WebVtt,
        }
    }

    fn extension(self) -> &'static str {
        if self == Self::Webvtt { "vtt" } else { "txt" }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.model.run(|good| find_all(&args, good))
}

/// `good` becomes false if a file cannot be read to its end.
fn find_all(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    let format = args.format.of_events();
    if !format.names_files() && args.files.len() > 1 && args.out_dir.is_none() {
        return Err("this format is for one file: give --out-dir for several".into());
    }
    if format.names_files() && args.out_dir.is_some() {
        return Err("--out-dir is for --format audacity and webvtt".into());
    }
    let tagger = args.model.open()?;
    let config = args.rules.config()?;
    let windows = WindowConfig {
        length: args.window,
        hop: args.hop,
        batch: args.batch,
        framewise: args.frames,
        ..WindowConfig::default()
    };
    // What no file could change is said once.
    Windows::new(&tagger, std::iter::empty(), &windows)?;
    EventDetector::new(&config, tagger.labels())?;
    let mut of_all = format.names_files().then(|| EventWriter::new(io::stdout().lock(), format));
    for file in &args.files {
        let name = (args.files.len() > 1 || args.format != Format::Table).then(|| file.display().to_string());
        let found = match (&mut of_all, &args.out_dir) {
            (Some(writer), _) => find(&tagger, file, &windows, &config, |event| writer.write(event, name.as_deref())),
            (None, Some(folder)) => {
                std::fs::create_dir_all(folder)?;
                let path = folder.join(file.file_stem().unwrap_or_default()).with_extension(args.format.extension());
                let to = File::create(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                of_one(&tagger, file, &windows, &config, EventWriter::new(BufWriter::new(to), format))
            }
            (None, None) => {
                let writer = EventWriter::new(io::stdout().lock(), format);
                of_one(&tagger, file, &windows, &config, writer)
            }
        };
        match found? {
            Ok(()) => {}
            Err(error) => {
                good.store(false, Ordering::Relaxed);
                say(format_args!("error: {}", about(file, &error)));
            }
        }
    }
    if let Some(writer) = of_all {
        drop(writer.finish()?);
    }
    Ok(())
}

fn of_one<W: Write>(
    tagger: &Tagger,
    file: &Path,
    windows: &WindowConfig,
    config: &EventConfig,
    mut writer: EventWriter<W>,
) -> io::Result<clipwise::Result<()>> {
    let found = find(tagger, file, windows, config, |event| writer.write(event, None))?;
    writer.finish()?;
    Ok(found)
}

/// Hands the events of a file to `write` as they are over. Outer errors are those of writing.
fn find(
    tagger: &Tagger,
    file: &Path,
    windows: &WindowConfig,
    config: &EventConfig,
    mut write: impl FnMut(&clipwise::Event) -> io::Result<()>,
) -> io::Result<clipwise::Result<()>> {
    let reader = if file == Path::new("-") { AudioReader::read(io::stdin()) } else { AudioReader::open(file) };
    let started =
        reader.and_then(|reader| Ok((tagger.windows(reader, windows)?, EventDetector::new(config, tagger.labels())?)));
    let (mut results, mut detector) = match started {
        Ok(started) => started,
        Err(error) => return Ok(Err(error)),
    };
    let rate = f64::from(tagger.model().sample_rate());
    let mut progress = Progress::new(file, results.source().declared_length().map(|n| n as f64 / rate));
    let mut failed = Ok(());
    for result in results.by_ref() {
        match result.and_then(|window| Ok((window.end, detector.push(&window)?))) {
            Ok((end, events)) => {
                if !events.is_empty() {
                    progress.clear();
                }
                events.iter().try_for_each(&mut write)?;
                progress.show(end);
            }
            Err(error) => failed = Err(error),
        }
    }
    progress.clear();
    detector.finish().iter().try_for_each(&mut write)?;
    for skipped in results.source().skipped() {
        say(format_args!(
            "note: {}: damaged at {:.1} s and skipped: {}",
            file.display(),
            skipped.seconds,
            skipped.detail
        ));
    }
    Ok(failed)
}
