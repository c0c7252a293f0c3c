//! Labelled files: a folder a class, or a CSV.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::input::{is_audio, skipped_note};
use crate::message::{Failure, name};
use crate::run::{Count, Jobs};

/// A file with the index of its class.
pub struct Clip {
    pub file: PathBuf,
    pub class: usize,
}

/// Clips and the names of their classes, in alphabetical order.
pub struct Dataset {
    pub classes: Vec<String>,
    pub clips: Vec<Clip>,
}

impl Dataset {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let rows = if fs::metadata(path).map_err(|error| cannot_read(path, error))?.is_dir() {
            folder(path)?
        } else {
            table(path)?
        };
        let names: BTreeSet<String> = rows.iter().map(|(_, label)| label.clone()).collect();
        let classes: Vec<String> = names.into_iter().collect();
        let class = |label: &String| classes.binary_search(label).unwrap_or_default(); // every label is among them
        let clips = rows.iter().map(|(file, label)| Clip { file: file.clone(), class: class(label) }).collect();
        Ok(Self { classes, clips })
    }
}

impl Dataset {
    /// Works on each clip. `report` gets the index of the clip with its result, or with the error, which also gives a line on stderr.
    pub fn run<R: Send + 'static>(
        &self,
        jobs: Jobs,
        work: impl Fn(&Path, &mut dyn FnMut(R)) -> Result<(), String> + Send + Sync + 'static,
        mut report: impl FnMut(usize, Result<R, &str>),
    ) -> Result<Count, Failure> {
        let files: Vec<_> = self.clips.iter().map(|clip| Ok(clip.file.clone())).collect();
        let mut indices = 0..files.len();
        jobs.of(files.len()).run(files.into_iter(), work, |_, result| {
            if let Some(index) = indices.next() {
                report(index, result); // there is one result per clip
            }
            Ok(())
        })
    }
}

pub fn cannot_read(path: &Path, error: impl std::fmt::Display) -> Failure {
    format!("cannot read {}: {error}", path.display()).into()
}

type Rows = Vec<(PathBuf, String)>;

/// The audio files of each folder in `path`, in alphabetical order; hidden ones and deeper folders are left out.
fn folder(path: &Path) -> Result<Rows, Failure> {
    let mut rows = Vec::new();
    for class in entries(path)?.into_iter().filter(|entry| entry.is_dir()) {
        let label = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = entries(&class)?.into_iter().filter(|entry| !entry.is_dir());
        let (audio, others): (Vec<_>, Vec<_>) = files.partition(|file| is_audio(file));
        if !others.is_empty() {
            let names: Vec<String> =
                others.iter().filter_map(|file| Some(name(Path::new(file.file_name()?)))).collect();
            skipped_note(&class, names.len(), &names);
        }
        rows.extend(audio.into_iter().map(|file| (file, label.clone())));
    }
    if rows.is_empty() {
        return Err(format!("{}: expected one folder of audio files per class, got none", path.display()).into());
    }
    Ok(rows)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| cannot_read(folder, error))?;
    let shown = entries.iter().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let mut paths: Vec<PathBuf> = shown.map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// The rows of a CSV with the header `file,label`.
fn table(path: &Path) -> Result<Rows, Failure> {
    let base = path.parent().unwrap_or(Path::new(""));
    let rows = pairs(path, ["file", "label"])?;
    if rows.is_empty() {
        return Err(format!("{}: no rows in it", path.display()).into());
    }
    Ok(rows.into_iter().map(|(file, label)| (base.join(file), label)).collect())
}

/// Two columns of a CSV file, found by their names in the header; other columns are ignored.
pub fn pairs(path: &Path, names: [&str; 2]) -> Result<Vec<(String, String)>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| cannot_read(path, error))?;
    let broken = |error: csv::Error| format!("{}: {error}", path.display());
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(broken)?.clone();
    let [first, second] = names.map(|name| header.iter().position(|field| field == name));
    let (Some(first), Some(second)) = (first, second) else {
        let found = header.iter().collect::<Vec<_>>().join(",");
        return Err(
            format!("{}: the header must name {} and {}, it is {found:?}", path.display(), names[0], names[1]).into()
        );
    };
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        match (record.get(first), record.get(second)) {
            (Some(a), Some(b)) if !a.is_empty() && !b.is_empty() => rows.push((a.to_string(), b.to_string())),
            _ => return Err(format!("{}: line {line}: {} or {} is empty", path.display(), names[0], names[1]).into()),
        }
    }
    Ok(rows)
}
