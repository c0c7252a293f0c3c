//! `clipwise events`.

mod rules;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use clipwise::events::{EventFormat, EventWriter};
use clipwise::{Event, EventConfig, EventDetector, Tagger, WindowConfig, Windows};
use jiff::civil::DateTime;

use crate::input::{FileArgs, Item, ReadArgs};
use crate::message::{Failure, about, cannot, in_options, say, say_about};
use crate::model::{ModelArgs, list_classes};
use crate::output::{
    EventCsv, EventJson, EventTable, MakeWriter, OutArgs, Parquet, Record, RecordWriter, RunId, claimed, stdout,
    write_whole, writer,
};
use crate::run::{Count, JobArgs, Jobs, Outcome, Status, interrupt, progress, with_threads};
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
    /// table or a Praat TextGrid [default: table]
    #[arg(long, value_enum, help_heading = "Output")]
    format: Option<Format>,
    /// Write a file per recording, named after it, into DIR (audacity, raven: .txt; webvtt: .vtt; textgrid: .TextGrid)
    #[arg(long, value_name = "DIR", conflicts_with = "out", help_heading = "Output")]
    out_dir: Option<PathBuf>,
    /// With --out-dir: leave out recordings that have a file there already
    #[arg(long, requires = "out_dir", help_heading = "Output")]
    skip_existing: bool,
    /// When the recordings began, as 2026-05-01T06:30:00: adds the clock time of each onset to table, JSON and CSV
    #[arg(long, value_name = "TIME", value_parser = clock_time, help_heading = "Output")]
    start_time: Option<DateTime>,
    /// Leave out an event if more specific ones of AudioSet's ontology sound for at least half of it
    #[arg(long, help_heading = "Output")]
    most_specific: bool,
    /// Name the classes above each event in AudioSet's ontology, nearest first
    #[arg(long, help_heading = "Output")]
    parents: bool,
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

fn clock_time(text: &str) -> Result<DateTime, String> {
    text.parse().map_err(|_| "expected a local time such as 2026-05-01T06:30:00".to_string())
}

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || self.find_all())
    }

    fn find_all(&self) -> Outcome {
        let format = self.format.unwrap_or(Format::Table);
        let of_one = format.of_one_recording();
        self.check(of_one.is_some())?;
        let opened = self.model.open()?;
        let tagger = Arc::clone(&opened.tagger);
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.files.check()?;
        let config = self.rules.config(tagger.labels(), self.parents)?;
        self.windows.check(&tagger)?;
        check(&config, tagger.labels())?;
        let labels =
            of_one.zip(self.out_dir.as_ref()).map(|((format, ending), folder)| Labels { folder, format, ending });
        let (start, error_rows) = (self.start_time, self.out.error_rows);
        let names_files = !self.files.is_one_file();
        let max_hz = 0.5 * f64::from(tagger.model().info().sample_rate);
        let provenance = self.out.out.as_ref().map(|_| opened.provenance()).transpose()?;
        let run = RunId {
            subcommand: "events",
            field: "events",
            model: &tagger.model().info().name,
            settings: format!(
                "{:?}, {:?}, {config:?}, most specific {}, {}",
                self.read,
                self.windows,
                self.most_specific,
                provenance.as_ref().map_or("", |of| &of.sha256)
            ),
        };
        let print = || -> Result<Box<dyn RecordWriter>, Failure> {
            Ok(match (format, of_one) {
                (_, Some((format, _))) => Box::new(LabelWriter { format, max_hz }),
                (Format::Json, _) => Box::new(EventJson::new(stdout(), start)),
                (Format::Csv, _) => Box::new(EventCsv::new(stdout(), start, error_rows)?),
                _ => Box::new(EventTable::new(stdout(), names_files, start)?),
            })
        };
        let make = |ending: &str| -> Option<MakeWriter> {
            let of = provenance.clone()?;
            Some(match ending {
                "parquet" => Box::new(move |path| Ok(Box::new(Parquet::create(path, of.clone(), start)?))),
                "csv" => Box::new(move |path| Ok(Box::new(EventCsv::new(writer(path)?, start, true)?))),
                "jsonl" => Box::new(move |path| Ok(Box::new(EventJson::new(writer(path)?, start)))),
                _ => return None,
            })
        };
        let mut output = match labels {
            Some(_) => None,
            None => match self.out.open(&run, print, make, ".parquet, .csv or .jsonl")? {
                Some(output) => Some(output),
                None => return Ok(Status::Good),
            },
        };
        interrupt::on_interrupt()?;

        let (windows, read, model) = (self.windows.config(), self.read.clone(), Arc::clone(&tagger));
        let most_specific = self.most_specific;
        let streams = of_one.is_none() && !most_specific;
        let shows_position = self.jobs.jobs == 1;
        let work = move |file: &Path, emit: &mut dyn FnMut(Found)| {
            let search =
                Search { tagger: &model, windows: &windows, config: &config, shows_position, streams, most_specific };
            search.find(file, &read, emit).map_err(|error| about(file, &error))
        };
        let files = match &mut output {
            Some(output) => output.left(&self.files),
            None => Box::new(self.files.list_with_notes()),
        };
        let place = labels.as_ref().map(|labels| {
            let (folder, ending, named) = (labels.folder.clone(), labels.ending, self.files.clone());
            move |file: &Path| folder.join(named.below_folder(file)).with_extension(ending)
        });
        let files: Box<dyn Iterator<Item = Item> + Send> = match place.clone() {
            Some(place) => Box::new(claimed(files, place, self.skip_existing)),
            None => files,
        };
        let jobs = Jobs::new(&self.jobs, self.model.run.threads)
            .counting(&self.files, self.out.continues() || self.skip_existing);
        let mut n_unwritten = 0;
        let count =
            jobs.run(files, work, |file, result| match (result, labels.as_ref().zip(place.as_ref()), &mut output) {
                (Ok(found), Some((labels, place)), _) => {
                    if let Err(error) = labels.write(&place(file), &found, max_hz) {
                        say(format_args!("error: {error}"));
                        n_unwritten += 1;
                    }
                    Ok(())
                }
                (Ok(found), None, Some(output)) => output.write(&Record {
                    file: file.to_string_lossy().into_owned(),
                    sample_rate: Some(found.sample_rate),
                    duration: Some(found.duration),
                    events: Some(found.events),
                    ..Record::default()
                }),
                (Err(error), _, Some(output)) => output.write_error(file, error),
                (_, _, None) => Ok(()),
            });
        let count = count.map(|count| Count { failed: count.failed + n_unwritten, ..count });
        match output {
            Some(output) => output.finish(count),
            None => Ok(count?.into()),
        }
    }
}

impl Args {
    /// Fails for options that contradict each other.
    fn check(&self, is_labels: bool) -> Result<(), Failure> {
        let has_out = self.out.out.is_some();
        let errors = [
            (self.out.skip_done.is_some(), "--skip-done: events are written by --out, which continues with --resume"),
            (
                has_out && self.format.is_some(),
                "--format is for standard output and --out-dir: the ending of the name after --out tells the format",
            ),
            (
                is_labels && self.out_dir.is_none() && !self.files.is_one_file(),
                "--format: labels are for one recording; give --out-dir for several",
            ),
            (!is_labels && self.out_dir.is_some(), "--out-dir is for --format audacity, webvtt, raven and textgrid"),
            (is_labels && self.out.error_rows, "--error-rows is for tables and JSON lines"),
            (is_labels && self.start_time.is_some(), "--start-time is for tables and JSON lines"),
            (
                self.parents && (is_labels || self.out.has_ending("parquet")),
                "--parents is for tables on standard output, JSON lines and CSV",
            ),
        ];
        match errors.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
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
struct Labels<'a> {
    folder: &'a PathBuf,
    format: EventFormat,
    ending: &'static str,
}

impl Labels<'_> {
    fn write(&self, path: &Path, found: &Found, max_hz: f64) -> Result<(), Failure> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| cannot("create", folder, error))?;
        }
        write_whole(path, |partial| {
            write_labels(writer(partial)?, self.format, &found.events, found.duration, found.sample_rate, max_hz)
        })
    }
}

/// Labels of one recording, on standard output.
struct LabelWriter {
    format: EventFormat,
    /// Half the rate of the model.
    max_hz: f64,
}

impl RecordWriter for LabelWriter {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let (Some(events), Some(duration)) = (&record.events, record.duration) else { return Ok(()) };
        write_labels(stdout(), self.format, events, duration, record.sample_rate.unwrap_or(u32::MAX), self.max_hz)
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Frequencies reach to `max_hz`, of the model, or to half the rate of the recording.
fn write_labels(
    to: impl Write,
    format: EventFormat,
    events: &[Event],
    duration: f64,
    sample_rate: u32,
    max_hz: f64,
) -> Result<(), Failure> {
    let mut labels = EventWriter::new(to, format);
    labels.set_recording(duration, max_hz.min(0.5 * f64::from(sample_rate)));
    events.iter().try_for_each(|event| labels.write(event, None))?;
    labels.finish()?;
    Ok(())
}
