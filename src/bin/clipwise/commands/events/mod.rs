//! Finds sounds with their times in recordings of any length: `cargo run --release --example events -- --help`.

#[path = "../command_line/mod.rs"]
mod command_line;
mod progress;
mod rules;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, ValueEnum};
use clipwise::audio::{AudioReader, ReadOptions};
use clipwise::events::{EventFormat, EventWriter};
use clipwise::{Event, EventConfig, EventDetector, Tagger, WindowConfig, Windows};
use command_line::{Failure, ModelArgs, about, after_help, say, say_about};
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
    /// Write DIR/NAME.txt (audacity) or DIR/NAME.vtt (webvtt) for each file NAME.*; no two files may have one NAME
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
    let outputs = args.out_dir.as_deref().map(|folder| outputs(folder, args)).transpose()?;
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
    for (i, file) in args.files.iter().enumerate() {
        let name = (args.files.len() > 1 || args.format != Format::Table).then(|| file.display().to_string());
        // Before its output is made: that may hold an earlier result.
        let found = match Search::open(&tagger, file, &windows, &config) {
            Err(error) => Err(error),
            Ok(search) => match (&mut of_all, outputs.as_ref().and_then(|outputs| outputs.get(i))) {
                (Some(writer), _) => search.find(|event| writer.write(event, name.as_deref()))?,
                (None, Some(path)) => {
                    let to = File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                    search.write(EventWriter::new(BufWriter::new(to), format))?
                }
                (None, None) => search.write(EventWriter::new(io::stdout().lock(), format))?,
            },
        };
        if let Err(error) = found {
            good.store(false, Ordering::Relaxed);
            say(format_args!("error: {}", about(file, &error)));
        }
    }
    if let Some(writer) = of_all {
        drop(writer.finish()?);
    }
    Ok(())
}

/// For each file the one to write, in `folder`, which is made.
fn outputs(folder: &Path, args: &Args) -> Result<Vec<PathBuf>, Failure> {
    let mut inputs = HashMap::new();
    let mut paths = Vec::new();
    for file in &args.files {
        let mut name = file.file_stem().unwrap_or_default().to_owned();
        name.push(".");
        name.push(args.format.extension());
        let path = folder.join(name);
        if let Some(other) = inputs.insert(path.clone(), file) {
            let (other, file, path) = (other.display(), file.display(), path.display());
            return Err(format!("{other} and {file} would both be written to {path}").into());
        }
        paths.push(path);
    }
    std::fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(paths)
}

/// A file that is open.
struct Search<'a> {
    file: &'a Path,
    windows: Windows<'a, AudioReader>,
    detector: EventDetector,
    /// The model's rate in Hz.
    rate: u32,
}

impl<'a> Search<'a> {
    fn open(
        tagger: &'a Tagger,
        file: &'a Path,
        windows: &WindowConfig,
        config: &EventConfig,
    ) -> clipwise::Result<Self> {
        let reader = if file == Path::new("-") {
            // A program that writes to a pipe does not know the length.
            let options = ReadOptions { accept_placeholder_length: true, ..ReadOptions::SKIP_DAMAGE };
            AudioReader::read_with(io::stdin(), &options)?
        } else {
            AudioReader::open(file)?
        };
        let windows = tagger.windows(reader, windows)?;
        let detector = EventDetector::new(config, tagger.labels())?;
        Ok(Self { file, windows, detector, rate: tagger.model().info().sample_rate })
    }

    fn write<W: Write>(self, mut writer: EventWriter<W>) -> io::Result<clipwise::Result<()>> {
        let found = self.find(|event| writer.write(event, None))?;
        writer.finish()?;
        Ok(found)
    }

    /// Hands the events of the file to `write` as they are over. Outer errors are those of writing.
    fn find(self, mut write: impl FnMut(&Event) -> io::Result<()>) -> io::Result<clipwise::Result<()>> {
        let Self { file, mut windows, mut detector, rate } = self;
        let length = windows.source().declared_length();
        let mut progress = Progress::new(file, length.map(|n| n as f64 / f64::from(rate)));
        let mut failed = Ok(());
        for result in windows.by_ref() {
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
        say_about(windows.source());
        Ok(failed)
    }
}
