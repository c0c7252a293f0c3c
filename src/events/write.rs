//! Writing events as text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::Event;

/// An output format of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventFormat {
    /// A table for reading: onset, offset, peak, label, and [`parents`](Event::parents) if there are any.
    Table,
    /// One JSON object per line: the fields of [`Event`], and `file` if there is one.
    JsonLines,
    /// CSV with the header `file,onset,offset,label,id,peak,mean,parents`; parents are separated by `;`.
    Csv,
    /// Audacity's label track: onset, offset and label, separated by tabs. For events of one file.
    Audacity,
    /// Captions for video and audio players (WebVTT). Written at the end, because the format requires them sorted by
    /// onset. For events of one file.
    WebVtt,
    /// A selection table of Raven, sorted by onset, over all frequencies: written at the end. Of one file.
    Raven,
    /// A Praat TextGrid with an interval tier per class: written at the end. Of one file.
    TextGrid,
}

impl EventFormat {
    /// Whether the format includes the file of an event. Other formats are for events of one file.
    pub fn names_files(self) -> bool {
        matches!(self, Self::Table | Self::JsonLines | Self::Csv)
    }
}

/// Writes events one by one, in the given order. (Detectors return events in the order of their ends.)
///
/// ```
/// use clipwise::events::{EventFormat, EventWriter};
///
/// let mut text = Vec::new();
/// let mut writer = EventWriter::new(&mut text, EventFormat::Audacity);
/// # let dog = clipwise::Event { onset: 1.5, offset: 2.0, label: "Dog".into(), id: None, index: 0, peak: 0.9, mean: 0.8, parents: vec![] };
/// writer.write(&dog, None)?;
/// writer.finish()?;
/// assert_eq!(text, b"1.500000\t2.000000\tDog\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct EventWriter<W: Write> {
    to: W,
    format: EventFormat,
    /// Whether nothing has been written yet.
    fresh: bool,
    /// Events of a format that is written at the end.
    held: Vec<Event>,
    /// Length of the recording in seconds.
    duration: f64,
    /// The highest frequency of the recording in Hz.
    max_hz: f64,
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(flatten)]
    event: &'a Event,
}

impl<W: Write> EventWriter<W> {
    /// Creates a writer to a file or buffer, which need not be buffered.
    pub fn new(to: W, format: EventFormat) -> Self {
        Self { to, format, fresh: true, held: Vec::new(), duration: 0.0, max_hz: 24_000.0 }
    }

    /// The length of the recording in seconds, where a TextGrid ends (default: with the last event), and its highest frequency in
    /// Hz, to which Raven's selections reach (default: 24,000).
    pub fn set_recording(&mut self, duration: f64, max_hz: f64) {
        (self.duration, self.max_hz) = (duration, max_hz);
    }

    /// Writes an event. `file` is written if the format [includes file names](EventFormat::names_files).
    ///
    /// # Errors
    /// Errors of the underlying writer.
    pub fn write(&mut self, event: &Event, file: Option<&str>) -> io::Result<()> {
        self.begin()?;
        let Event { onset, offset, label, peak, parents, .. } = event;
        let line = match self.format {
            EventFormat::Table => {
                let file = file.map(|file| format!("  {file}")).unwrap_or_default();
                let parents = if parents.is_empty() { String::new() } else { format!(" ({})", parents.join(", ")) };
                format!("{onset:>10.2} {offset:>10.2} {peak:>6.3}  {label}{parents}{file}\n")
            }
            EventFormat::JsonLines => serde_json::to_string(&Line { file, event })? + "\n",
            EventFormat::Csv => csv_row(event, file)?,
            EventFormat::Audacity => format!("{onset:.6}\t{offset:.6}\t{}\n", in_one_line(label)),
            EventFormat::WebVtt | EventFormat::Raven | EventFormat::TextGrid => {
                self.held.push(event.clone());
                return Ok(());
            }
        };
        self.to.write_all(line.as_bytes())
    }

    /// Writes the rest (captions; the header, if there were no events), and returns the underlying writer.
    ///
    /// # Errors
    /// Errors of the underlying writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.begin()?;
        self.held.sort_by(|a, b| a.onset.total_cmp(&b.onset).then(a.index.cmp(&b.index)));
        match self.format {
            EventFormat::WebVtt => self.captions()?,
            EventFormat::Raven => self.selections()?,
            EventFormat::TextGrid => self.text_grid()?,
            EventFormat::Table | EventFormat::JsonLines | EventFormat::Csv | EventFormat::Audacity => {}
        }
        self.to.flush()?;
        Ok(self.to)
    }

    fn captions(&mut self) -> io::Result<()> {
        for event in &self.held {
            // A caption must end after its start.
            let onset = milliseconds(event.onset);
            let (onset, offset) = (clock(onset), clock(milliseconds(event.offset).max(onset + 1)));
            let text = in_one_line(&event.label).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            write!(self.to, "\n{onset} --> {offset}\n{text} ({:.2})\n", event.peak)?;
        }
        Ok(())
    }

    fn selections(&mut self) -> io::Result<()> {
        for (number, event) in self.held.iter().enumerate() {
            let (number, max_hz) = (number + 1, self.max_hz);
            let Event { onset, offset, peak, .. } = event;
            let label = in_one_line(&event.label);
            writeln!(
                self.to,
                "{number}\tSpectrogram 1\t1\t{onset:.6}\t{offset:.6}\t0.0\t{max_hz:.1}\t{label}\t{peak:.4}"
            )?;
        }
        Ok(())
    }

    /// A tier must cover the recording: between events stand intervals without text.
    fn text_grid(&mut self) -> io::Result<()> {
        let end = self.held.iter().fold(self.duration, |end, event| end.max(event.offset));
        let mut tiers: BTreeMap<usize, Vec<&Event>> = BTreeMap::new();
        for event in &self.held {
            tiers.entry(event.index).or_default().push(event);
        }
        let to = &mut self.to;
        let size = tiers.len();
        writeln!(to, "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\nxmin = 0\nxmax = {end:.6}")?;
        writeln!(to, "tiers? <exists>\nsize = {size}\nitem []:")?;
        for (number, events) in tiers.values().enumerate() {
            let mut intervals: Vec<(f64, f64, String)> = Vec::new();
            let mut at = 0.0;
            for event in events {
                // Events of a class that come as they like could overlap; the earlier one keeps its time.
                let (onset, offset) = (event.onset.max(at), event.offset.max(at));
                if onset > at {
                    intervals.push((at, onset, String::new()));
                }
                if offset > onset {
                    intervals.push((onset, offset, format!("{:.2}", event.peak)));
                }
                at = offset;
            }
            if at < end {
                intervals.push((at, end, String::new()));
            }
            let name = in_one_line(&events[0].label).replace('"', "\"\"");
            writeln!(to, "    item [{}]:\n        class = \"IntervalTier\"\n        name = \"{name}\"", number + 1)?;
            writeln!(to, "        xmin = 0\n        xmax = {end:.6}\n        intervals: size = {}", intervals.len())?;
            for (number, (onset, offset, text)) in intervals.iter().enumerate() {
                writeln!(to, "        intervals [{}]:\n            xmin = {onset:.6}", number + 1)?;
                writeln!(to, "            xmax = {offset:.6}\n            text = \"{text}\"")?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.fresh) {
            return Ok(());
        }
        let header = match self.format {
            EventFormat::Table => format!("{:>10} {:>10} {:>6}  label\n", "onset", "offset", "peak"),
            EventFormat::Csv => "file,onset,offset,label,id,peak,mean,parents\n".to_string(),
            EventFormat::WebVtt => "WEBVTT\n".to_string(),
            EventFormat::Raven => {
                "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tLabel\tScore\n"
                    .to_string()
            }
            EventFormat::JsonLines | EventFormat::Audacity | EventFormat::TextGrid => return Ok(()),
        };
        self.to.write_all(header.as_bytes())
    }
}

fn csv_row(event: &Event, file: Option<&str>) -> io::Result<String> {
    let mut row = csv::Writer::from_writer(Vec::new());
    let time = |seconds: f64| format!("{seconds:.3}");
    row.write_record([
        file.unwrap_or_default(),
        &time(event.onset),
        &time(event.offset),
        &event.label,
        event.id.as_deref().unwrap_or_default(),
        &format!("{:.4}", event.peak),
        &format!("{:.4}", event.mean),
        &event.parents.join(";"),
    ])?;
    let bytes = row.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Replaces tabs and line breaks, which would end the label.
fn in_one_line(label: &str) -> String {
    label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn milliseconds(seconds: f64) -> u64 {
    // Leaves room to add 1 without overflow.
    (seconds.max(0.0) * 1000.0).round().min(1e18) as u64
}

/// `hh:mm:ss.mmm`.
fn clock(milliseconds: u64) -> String {
    let (rest, ms) = (milliseconds / 1000, milliseconds % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", rest / 3600, rest / 60 % 60, rest % 60)
}
