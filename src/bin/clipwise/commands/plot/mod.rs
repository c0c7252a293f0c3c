//! `clipwise plot`.

mod draw;
mod font;

use std::any::Any;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipwise::frontend::{LogMel, LogMelConfig, LogScale, MelConfig, StftConfig};
use clipwise::{Event, EventConfig, EventDetector, Tagger, Waveform, WindowConfig};

use self::draw::{Class, Picture};
use super::events::{Rules, WindowArgs, check};
use crate::input::{FileArgs, Item, ReadArgs};
use crate::message::{Failure, about, cannot, escaped, name, say};
use crate::model::{ModelArgs, list_classes};
use crate::output::stdout;
use crate::run::{JobArgs, Jobs, Outcome, Status, interrupt, with_threads};

/// Draw audio files as PNG: log-mel spectrogram, scores over time of the highest classes, events.
#[derive(clap::Args, Clone)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The picture of one file [default: FILE with .png]
    #[arg(long, short, value_name = "PNG", conflicts_with = "out_dir", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Write a picture per file into DIR
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out_dir: Option<PathBuf>,
    /// Draw the scores of K classes, at most 9
    #[arg(long, value_name = "K", default_value_t = 6, value_parser = clap::value_parser!(u8).range(..=9), help_heading = "Output")]
    top_k: u8,
    /// Leave out files that have a picture already
    #[arg(long, help_heading = "Output")]
    skip_existing: bool,
    /// TrueType or OpenType font of the text [default: DejaVu Sans; a font of the system where that lacks a letter]
    #[arg(long, value_name = "FONT", help_heading = "Output")]
    font: Option<PathBuf>,
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

const EXAMPLES: &str = "\
Examples:
  clipwise plot dog.wav
  clipwise plot --out-dir pictures --jobs 4 recordings/
  clipwise plot --weights Cnn14_DecisionLevelMax_mAP=0.385.pth --frames --out dog-frames.png dog.wav";

/// Rows of events that fit into a picture.
const MAX_ROWS: usize = 10;

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.model.run.threads, || self.plot())
    }

    fn plot(&self) -> Outcome {
        let tagger = self.model.open()?.tagger;
        if self.model.list_classes {
            return list_classes(tagger.labels());
        }
        self.files.check()?;
        if self.out.is_some() && !self.files.is_one_file() {
            return Err("--out: the picture of one file; give --out-dir for several".into());
        }
        if self.out.as_ref().is_some_and(|out| !is_png(out)) {
            return Err("--out: expected a name that ends in .png".into());
        }
        let config = self.rules.config(tagger.labels())?;
        self.windows.check(&tagger)?;
        check(&config, tagger.labels())?;
        let font = self.font.as_deref().map(font::read).transpose()?;
        interrupt::on_interrupt()?;
        let plotter = Plotter {
            tagger: Arc::clone(&tagger),
            windows: self.windows.config(),
            rules: config,
            top_k: usize::from(self.top_k),
            read: self.read.clone(),
        };
        let work = move |file: &Path, emit: &mut dyn FnMut(Picture)| plotter.picture(file).map(emit);
        let jobs = Jobs::new(&self.jobs, self.model.run.threads).counting(&self.files);
        let mut pictures = Pictures { args: self, font, written: HashMap::new() };
        let mut n_unwritten = 0;
        let args = self.clone();
        let is_left =
            move |file: &Item| !file.as_ref().is_ok_and(|file| args.skip_existing && args.place(file).exists());
        let count = jobs.run(self.files.list_with_notes().filter(is_left), work, |file, result| {
            let Ok(picture) = result else { return Ok(()) };
            match pictures.write(file, &picture) {
                Ok(path) => Ok(writeln!(stdout(), "{}", name(&path))?),
                Err(error) => {
                    say(format_args!("error: {error}"));
                    n_unwritten += 1;
                    Ok(())
                }
            }
        })?;
        Ok(if n_unwritten > 0 { Status::SomeFailed } else { count.into() })
    }
}

impl Args {
    /// The picture of a file.
    fn place(&self, file: &Path) -> PathBuf {
        match (&self.out, &self.out_dir) {
            (Some(out), _) => out.clone(),
            (None, Some(folder)) => folder.join(self.files.below_folder(file)).with_extension("png"),
            (None, None) if file == Path::new("-") => PathBuf::from("clipwise.png"),
            (None, None) => file.with_extension("png"),
        }
    }
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"))
}

/// Where pictures go.
struct Pictures<'a> {
    args: &'a Args,
    font: Option<&'static [u8]>,
    /// The audio file of each picture that was written.
    written: HashMap<PathBuf, PathBuf>,
}

impl Pictures<'_> {
    fn write(&mut self, file: &Path, picture: &Picture) -> Result<PathBuf, Failure> {
        let path = self.args.place(file);
        if let Some(other) = self.written.get(&path) {
            let [file, other, path] = [file, other, &path].map(name);
            return Err(format!("{file}: its picture would overwrite that of {other}, {path}").into());
        }
        if is_png(file) {
            return Err(format!("{}: its picture would overwrite it", name(file)).into());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| cannot("create", folder, error))?;
        }
        let font = self.font.unwrap_or_else(|| font::for_text(&picture.text()));
        // Under another name until it is whole; the ending tells the encoder the format.
        let partial = path.with_extension("partial.png");
        let written = picture
            .draw(&partial, font)
            .and_then(|()| std::fs::rename(&partial, &path).map_err(|error| cannot("write", &path, error)));
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        written?;
        self.written.insert(path.clone(), file.into());
        Ok(path)
    }
}

/// What is drawn of every file.
struct Plotter {
    tagger: Arc<Tagger>,
    windows: WindowConfig,
    rules: EventConfig,
    top_k: usize,
    read: ReadArgs,
}

impl Plotter {
    fn picture(&self, file: &Path) -> Result<Picture, String> {
        let about = |error: &clipwise::Error| about(file, error);
        let waveform = self.read.waveform(file).map_err(|error| about(&error))?;
        self.of_waveform(file, waveform).map_err(|error| about(&error))
    }

    fn of_waveform(&self, file: &Path, waveform: Waveform) -> clipwise::Result<Picture> {
        let model = self.tagger.model();
        let seconds = waveform.duration();
        let classes = self.classes(file, &waveform)?;
        let waveform = waveform.resample(model.info().sample_rate)?;
        // The model's own log-mel spectrogram, in decibels.
        let log_mel = model.front_end().and_then(|front_end| (front_end as &dyn Any).downcast_ref::<LogMel>());
        let shown = match log_mel {
            Some(log_mel) => LogMelConfig { log: LogScale::Decibel, top_db: None, ..*log_mel.config() },
            None => LogMelConfig {
                sample_rate: waveform.sample_rate,
                stft: StftConfig { hop_length: 256, ..LogMelConfig::PANNS_32K.stft },
                mel: MelConfig { fmax: None, ..LogMelConfig::PANNS_32K.mel },
                ..LogMelConfig::PANNS_32K
            },
        };
        let front_end = LogMel::new(&shown)?;
        let mut samples = waveform.samples;
        samples.resize(samples.len().max(front_end.min_samples()), 0.0);
        let title = file.file_name().unwrap_or_default().to_string_lossy();
        Ok(Picture {
            title: format!("{}    {}", escaped(&title), model.info().name),
            seconds,
            log_mel: front_end.compute(&samples)?,
            mel_hz: mel_hz(&front_end),
            threshold: self.rules.threshold_on,
            classes,
        })
    }

    /// The scores of the highest classes over time, and the events.
    fn classes(&self, file: &Path, waveform: &Waveform) -> clipwise::Result<Vec<Class>> {
        let labels = self.tagger.labels();
        let mut detector = EventDetector::new(&self.rules, labels)?;
        let (mut times, mut scores, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for window in self.tagger.windows(waveform.clone(), &self.windows)? {
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
        let mut order: Vec<(f32, usize)> = (0..labels.len()).map(|class| (peak(class), class)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut n_rows = 0;
        let class = |(place, &(_, class)): (usize, &(f32, usize))| {
            let points = times.iter().zip(&scores).map(|(&time, row)| (time, row[class]));
            let scores = if place < self.top_k { points.collect() } else { Vec::new() };
            let mut events: Vec<Event> = events.iter().filter(|event| event.index == class).cloned().collect();
            n_rows += usize::from(!events.is_empty());
            if n_rows > MAX_ROWS {
                events.clear();
            }
            let label = labels[class].name.clone();
            (!scores.is_empty() || !events.is_empty()).then_some(Class { label, scores, events })
        };
        let classes = order.iter().enumerate().filter_map(class).collect();
        if n_rows > MAX_ROWS {
            let file = name(file);
            say(format_args!(
                "note: {file}: {n_rows} classes have events: the {MAX_ROWS} with the highest scores are drawn"
            ));
        }
        Ok(classes)
    }
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
