//! `clipwise events`.

mod rules;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use clipwise::events::{EventFormat, EventWriter};
use clipwise::{Event, EventConfig, EventDetector, Tagger, WindowConfig, Windows};
use jiff::civil::DateTime;

use crate::input::{FileArgs, Item, ReadArgs};
use crate::message::{Failure, about, cannot, in_options, name, say, say_about};
use crate::model::{ModelArgs, list_classes};
use crate::output::{
    EventCsv, EventJson, EventTable, MakeWriter, OutArgs, Output, Parquet, Record, RecordWriter, stdout, write_whole,
    writer,
};
use crate::run::{JobArgs, Jobs, Outcome, interrupt, progress, with_threads};
pub use rules::{Rules, check};

/// Find sounds with their onsets and offsets in recordings of any length.
///
/// A recording is tagged window by window; memory does not grow with its length. Models with scores per frame give more exact times
/// with --frames. The events of a file are sorted by onset; those of standard input are printed as they end. What was found before a
/// file turns out to be damaged is printed too.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to print or write: a table for people, JSON lines or CSV for programs; Audacity's labels, WebVTT captions, a Raven selection
    /// table or a Praat TextGrid
    #[arg(long, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    format: Format,
    /// Write a file per recording, named after it, into DIR (audacity, raven: .txt; webvtt: .vtt; textgrid: .TextGrid)
    #[arg(long, value_name = "DIR", conflicts_with = "out", help_heading = "Output")]
    out_dir: Option<PathBuf>,
    /// With --out-dir: leave out recordings that have a file there already
    #[arg(long, requires = "out_dir", help_heading = "Output")]
    skip_existing: bool,
    /// When the recordings began, as 2026-05-01T06:30:00: adds the clock time of each onset to table, JSON and CSV
    #[arg(long, value_name = "TIME", help_heading = "Output")]
    start_time: Option<DateTime>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    windows: WindowArgs,
    #[command(flatten)]
    rules: Rules,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    files: FileArgs,
}

/// The windows in which a recording is tagged.
#[derive(clap::Args, Clone, Debug)]
pub struct WindowArgs {
    /// Length of a window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, help_heading = "Windows")]
    window: f64,
    /// Step from window to window in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, help_heading = "Windows")]
    hop: f64,
    /// Windows per call of the model
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Windows")]
    batch: usize,
    /// Use the model's scores per frame
    #[arg(long, help_heading = "Windows")]
    frames: bool,
}

impl WindowArgs {
    pub fn config(&self) -> WindowConfig {
        WindowConfig {
            length: self.window,
            hop: self.hop,
            batch: self.batch,
            framewise: self.frames,
            ..WindowConfig::default()
        }
    }

    /// Fails as every file would with these settings.
    pub fn check(&self, tagger: &Tagger) -> Result<(), Failure> {
        const OPTIONS: [(&str, &str); 4] =
            [("length", "--window"), ("hop", "--hop"), ("batch", "--batch"), ("framewise", "--frames")];
        let windows = Windows::new(tagger, std::iter::empty(), &self.config());
        windows.map(drop).map_err(|error| in_options(error, &OPTIONS))
    }
}

const EXAMPLES: &str = "\
Examples:
  clipwise events forest.wav
  clipwise events --on 0.5 --off 0.2 --allow Dog --allow Bark --jobs 4 recordings/
  clipwise events --weights Cnn14_DecisionLevelMax_mAP=0.385.pth --window 10 --hop 5 --frames --median 11 --min-gap 0.5 forest.wav
  clipwise events --format audacity --out-dir labels recordings/
  clipwise events --start-time 2026-05-01T06:30:00 --out dawn.parquet dawn.flac
  ffmpeg -loglevel error -i film.mkv -f wav - | clipwise events --format json -";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
    Audacity,
    Webvtt,
    Raven,
    Textgrid,
}

impl Format {
    /// The format of a file per recording, and the ending of its name.
    fn of_one_recording(self) -> Option<(EventFormat, &'static str)> {
        match self {
            Self::Table | Self::Json | Self::Csv => None,
            Self::Audacity => Some((EventFormat::Audacity, "txt")),
            Self::Webvtt => Some((EventFormat::WebVtt, "vtt")),
            Self::Raven => Some((EventFormat::Raven, "txt")),
            Self::Textgrid => Some((EventFormat::TextGrid, "TextGrid")),
        }
    }
}

/// Events of a file.
struct Found {
    events: Vec<Event>,
    sample_rate: u32,
    /// Seconds read so far.
    duration: f64,
}

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || self.find_all())
    }

    fn find_all(&self) -> Outcome {
        if self.out.skip_done.is_some() {
            return Err("--skip-done: events are written by --out, which goes on with --resume".into());
        }
        let of_one = self.format.of_one_recording();
        match of_one {
            Some(_) if self.out.out.is_some() => {
                return Err(
                    "--format: the ending of the name after --out tells the format; labels go to --out-dir".into()
                );
            }
            Some(_) if self.out_dir.is_none() && !self.files.is_one_file() => {
                return Err("--format: labels are for one recording; give --out-dir for several".into());
            }
            None if self.out_dir.is_some() => {
                return Err("--out-dir is for --format audacity, webvtt, raven and textgrid".into());
            }
            _ => {}
        }
        let opened = self.model.open()?;
        let tagger = Arc::clone(&opened.tagger);
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.files.check()?;
        let config = self.rules.config(tagger.labels())?;
        self.windows.check(&tagger)?;
        check(&config, tagger.labels())?;
        let mut labels = match (of_one, &self.out_dir) {
            (Some((format, ending)), Some(folder)) => Some(Labels::in_folder(folder, format, ending)?),
            _ => None,
        };
        let start = self.start_time;
        let names_files = !self.files.is_one_file();
        let print = || -> Result<Box<dyn RecordWriter>, Failure> {
            Ok(match self.format {
                Format::Json => Box::new(EventJson::new(stdout(), start)),
                Format::Csv => Box::new(EventCsv::new(stdout(), start)?),
                Format::Table => Box::new(EventTable::new(stdout(), names_files, start)?),
                _ => Box::new(LabelWriter { format: of_one.map_or(EventFormat::Audacity, |(format, _)| format) }),
            })
        };
        let make = |ending: &str| -> Option<MakeWriter> {
            let opened = opened.clone();
            Some(match ending {
                "parquet" => Box::new(move |path| Ok(Box::new(Parquet::create(path, opened.provenance()?)?))),
                "csv" => Box::new(move |path| Ok(Box::new(EventCsv::new(writer(path)?, start)?))),
                "jsonl" => Box::new(move |path| Ok(Box::new(EventJson::new(writer(path)?, start)))),
                _ => return None,
            })
        };
        let mut output = match labels {
            Some(_) => Output::nothing(),
            None => self.out.open(print, make, ".parquet, .csv or .jsonl")?,
        };
        interrupt::on_interrupt()?;

        let (windows, read, model) = (self.windows.config(), self.read.clone(), Arc::clone(&tagger));
        let most_specific = self.rules.most_specific;
        let streams = of_one.is_none() && !most_specific;
        let shows_position = self.jobs.jobs.get() == 1;
        let work = move |file: &Path, emit: &mut dyn FnMut(Found)| {
            let search =
                Search { tagger: &model, windows: &windows, config: &config, shows_position, streams, most_specific };
            search.find(file, &read, emit).map_err(|error| about(file, &error))
        };
        let existing =
            labels.as_ref().filter(|_| self.skip_existing).map(|labels| (labels.folder.clone(), labels.ending));
        let named = self.files.clone();
        let is_left = move |file: &Item| match (file, &existing) {
            (Ok(file), Some((folder, ending))) => !place(folder, named.below_folder(file), ending).exists(),
            _ => true,
        };
        let files = output.left(&self.files).filter(is_left);
        let jobs = Jobs::new(&self.jobs, self.model.run.threads).counting(&self.files);
        let mut n_unwritten = 0;
        let count = jobs.run(files, work, |file, result| match (result, &mut labels) {
            (Ok(found), Some(labels)) => {
                if let Err(error) = labels.write(self.files.below_folder(file), file, &found, &tagger) {
                    say(format_args!("error: {error}"));
                    n_unwritten += 1;
                }
                Ok(())
            }
            (Ok(found), None) => output.write(&Record {
                file: file.to_string_lossy().into_owned(),
                sample_rate: Some(found.sample_rate),
                duration: Some(found.duration),
                events: Some(found.events),
                ..Record::default()
            }),
            (Err(error), _) => output.write_error(file, error),
        });
        let count = count.map(|mut count| {
            count.failed += n_unwritten;
            count
        });
        output.finish(count)
    }
}

/// How events are looked for.
struct Search<'a> {
    tagger: &'a Tagger,
    windows: &'a WindowConfig,
    config: &'a EventConfig,
    shows_position: bool,
    /// Whether the events of standard input are emitted as they end.
    streams: bool,
    most_specific: bool,
}

impl Search<'_> {
    /// Emits the events of a file, sorted by onset, even if its end cannot be read; those of standard input as they end.
    fn find(&self, file: &Path, read: &ReadArgs, emit: &mut dyn FnMut(Found)) -> clipwise::Result<()> {
        let reader = read.open(file)?;
        let sample_rate = reader.sample_rate();
        let is_stream = self.streams && file == Path::new("-");
        let mut windows = self.tagger.windows(reader, self.windows)?;
        let mut detector = EventDetector::new(self.config, self.tagger.labels())?;
        let length = windows.source().declared_length();
        let length = length.map(|n| n as f64 / f64::from(self.tagger.model().info().sample_rate));
        let mut events = Vec::new();
        let mut ended = Ok(());
        for window in windows.by_ref() {
            match window.and_then(|window| Ok((window.end, detector.push(&window)?))) {
                Ok((end, found)) => {
                    events.extend(found);
                    if is_stream && !events.is_empty() {
                        emit(Found { events: std::mem::take(&mut events), sample_rate, duration: end });
                    }
                    if self.shows_position {
                        progress::position(file, end, length);
                    }
                }
                Err(error) => ended = Err(error),
            }
        }
        events.extend(detector.finish());
        events.sort_by(|a, b| a.onset.total_cmp(&b.onset).then(a.index.cmp(&b.index)));
        if self.most_specific {
            events = rules::most_specific(events, self.tagger.labels());
        }
        say_about(windows.source());
        emit(Found { events, sample_rate, duration: windows.source().seconds_read() });
        ended
    }
}

/// Label files in a folder, one per recording.
struct Labels {
    folder: PathBuf,
    format: EventFormat,
    ending: &'static str,
    /// The recording of each file that was written.
    written: HashMap<PathBuf, PathBuf>,
}

impl Labels {
    fn in_folder(folder: &Path, format: EventFormat, ending: &'static str) -> Result<Self, Failure> {
        Ok(Self { folder: folder.into(), format, ending, written: HashMap::new() })
    }

    /// Writes the labels of a recording. Neither another recording's labels nor an input is overwritten.
    fn write(&mut self, relative: &Path, recording: &Path, found: &Found, tagger: &Tagger) -> Result<(), Failure> {
        let path = place(&self.folder, relative, self.ending);
        if let Some(other) = self.written.get(&path) {
            let [recording, other, path] = [recording, other, &path].map(name);
            return Err(format!("{recording}: its labels would overwrite those of {other} in {path}").into());
        }
        if path.canonicalize().is_ok_and(|path| recording.canonicalize().is_ok_and(|recording| path == recording)) {
            return Err(format!("{}: its labels would overwrite it", name(recording)).into());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| cannot("create", folder, error))?;
        }
        write_whole(&path, |partial| {
            let mut labels = EventWriter::new(writer(partial)?, self.format);
            labels.set_recording(
                found.duration,
                0.5 * f64::from(tagger.model().info().sample_rate.min(found.sample_rate)),
            );
            found.events.iter().try_for_each(|event| labels.write(event, None))?;
            labels.finish()?;
            Ok(())
        })?;
        self.written.insert(path, recording.into());
        Ok(())
    }
}

/// The labels of a recording whose path below the folder that was named is `relative`.
fn place(folder: &Path, relative: &Path, ending: &str) -> PathBuf {
    folder.join(relative).with_extension(ending)
}

/// Labels of one recording, on standard output.
struct LabelWriter {
    format: EventFormat,
}

impl RecordWriter for LabelWriter {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let mut labels = EventWriter::new(stdout(), self.format);
        let max_hz = 0.5 * f64::from(record.sample_rate.unwrap_or_default());
        labels.set_recording(record.duration.unwrap_or_default(), max_hz);
        record.events.iter().flatten().try_for_each(|event| labels.write(event, None))?;
        labels.finish()?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}
