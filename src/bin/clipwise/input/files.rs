//! Which files: names, folders, patterns, lists.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::iter;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use walkdir::{DirEntry, WalkDir};

use crate::message::{Failure, name, say};

/// The names of audio files in folders end like this. Some of these formats can never be read; an error says so, where leaving
/// them out would not.
const AUDIO: [&str; 20] = [
    "aac", "aif", "aiff", "bwf", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mp3", "mp4", "oga", "ogg", "opus", "rf64",
    "wav", "wave", "webm", "wma",
];
/// Names of files left out that a note lists.
const MAX_NAMES: usize = 5;
/// The longest line of a list, in bytes.
const MAX_LINE: u64 = 1 << 16;

/// Which files, in which order.
#[derive(clap::Args, Clone, Debug)]
pub struct FileArgs {
    /// Audio files, folders (all audio files below them, sorted by name), patterns such as 'calls/**/*.wav', or - for standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Also take the files and folders that LIST names, one per line; - is standard input
    #[arg(long, value_name = "LIST", help_heading = "Collections")]
    pub files_from: Option<PathBuf>,
    /// Take every Nth file, beginning with the Ith (1 to N): the share of one of N machines that have the same list
    #[arg(long, value_name = "I/N", help_heading = "Collections")]
    pub shard: Option<Shard>,
}

/// A file, or why there is none.
pub type Item = Result<PathBuf, String>;

impl FileArgs {
    /// Fails if nothing is named.
    pub fn check(&self) -> Result<(), Failure> {
        match self.files.is_empty() && self.files_from.is_none() {
            true => Err("expected a FILE, a folder, a pattern or --files-from LIST; --help says more".into()),
            false => Ok(()),
        }
    }

    /// Lists the files lazily: only the names of one folder are held at once.
    pub fn list(&self) -> impl Iterator<Item = Item> + Send + use<> {
        self.listed(false)
    }

    /// As [`list`](Self::list), with notes on stderr about the files that are left out of folders.
    pub fn list_with_notes(&self) -> impl Iterator<Item = Item> + Send + use<> {
        self.listed(true)
    }

    fn listed(&self, notes: bool) -> impl Iterator<Item = Item> + Send + use<> {
        let named = self.files.clone().into_iter().flat_map(move |path| expand(path, notes));
        let listed = self.files_from.clone().into_iter().flat_map(move |list| read_list(&list, notes));
        let Shard { i, n } = self.shard.unwrap_or(Shard { i: 1, n: 1 });
        named.chain(listed).skip(i - 1).step_by(n)
    }

    /// Whether the files can be listed more than once. What a pipe has given is gone, also under a name such as
    /// `/dev/stdin`, which on some systems shares its position even with a regular file.
    pub fn is_repeatable(&self) -> bool {
        self.files_from.as_deref().is_none_or(|list| list.is_file() && !list.starts_with("/dev"))
    }

    /// The path of a file below the folder that was named, or below the folders of a pattern or of a list; else its name.
    pub fn below_folder<'a>(&self, file: &'a Path) -> &'a Path {
        let below = |named: &PathBuf| match named.to_str().filter(|_| is_pattern(named)).map(split) {
            Some((base, _)) if base == Path::new(".") => file.is_relative().then_some(file),
            Some((base, _)) => file.strip_prefix(base).ok(),
            None => file.strip_prefix(named).ok().filter(|path| !path.as_os_str().is_empty()),
        };
        let is_plain = |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let below = self.files.iter().filter_map(below).filter(is_plain).min_by_key(|path| path.components().count());
        let in_list = self
            .files_from
            .as_ref()
            .map(|_| file)
            .filter(|path| is_plain(path) && self.files.iter().all(|named| named != path));
        let name = || Path::new(file.file_name().unwrap_or(file.as_os_str()));
        below.or(in_list).unwrap_or_else(name)
    }

    /// Whether there is exactly one file, known before anything is listed.
    pub fn is_one_file(&self) -> bool {
        matches!(self.files.as_slice(), [file] if self.files_from.is_none() && !file.is_dir() && !is_pattern(file))
    }
}

/// The `i`th of `n`, from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shard {
    i: usize,
    n: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let (i, n) = numbers.ok_or("expected a share, such as 2/10")?;
        if !(1..=n).contains(&i) {
            return Err(format!("shares count from 1/{n} to {n}/{n}"));
        }
        Ok(Self { i, n })
    }
}

/// Files as they are listed.
pub type Items = Box<dyn Iterator<Item = Item> + Send>;

/// What an argument stands for. A file that has the name is taken before a pattern.
fn expand(path: PathBuf, notes: bool) -> Items {
    match path.to_str().filter(|_| is_pattern(&path)) {
        Some(pattern) => match Pattern::new(pattern) {
            Ok(found) => Box::new(or_error(found.files(), format!("{pattern}: no file matches this pattern"))),
            Err(error) => Box::new(iter::once(Err(format!("{pattern}: {error}")))),
        },
        None => file_or_folder(path, notes),
    }
}

fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(META)) && !path.exists()
}

/// The characters that make a pattern of a name.
const META: [char; 4] = ['*', '?', '[', '{'];

/// A pattern as shells have it: `*` crosses no `/` and stands for no hidden file, `**` stands for folders of any depth.
struct Pattern {
    /// The components before the first with a special character.
    base: PathBuf,
    rest: GlobMatcher,
    /// Folders below the base that may hold a match.
    max_depth: usize,
    takes_hidden: bool,
}

/// The folder before the first component with a special character, and the components from that one on.
fn split(pattern: &str) -> (PathBuf, Vec<&str>) {
    let mut parts: Vec<&str> = pattern.split('/').collect();
    let n_literal = parts.iter().take_while(|part| !part.contains(META)).count();
    let base = match pattern.split_at(parts[..n_literal].iter().map(|part| part.len() + 1).sum()).0 {
        "" => PathBuf::from("."),
        base => PathBuf::from(base),
    };
    (base, parts.split_off(n_literal))
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, globset::Error> {
        let (base, rest) = split(pattern);
        let max_depth = if rest.contains(&"**") { usize::MAX } else { rest.len() };
        let takes_hidden = rest.iter().any(|part| part.starts_with('.'));
        let rest = GlobBuilder::new(&rest.join("/")).literal_separator(true).build()?.compile_matcher();
        Ok(Self { base, rest, max_depth, takes_hidden })
    }

    fn files(self) -> impl Iterator<Item = Item> + Send {
        let Self { base, rest, max_depth, takes_hidden } = self;
        let entries = WalkDir::new(&base).max_depth(max_depth).follow_links(true).sort_by_file_name().into_iter();
        let entries = entries.filter_entry(move |entry| takes_hidden || !is_hidden(entry));
        entries.filter_map(move |entry| match entry {
            Ok(entry) => {
                let relative = entry.path().strip_prefix(&base).unwrap_or(entry.path());
                let is_match = entry.file_type().is_file() && rest.is_match(relative);
                is_match.then(|| Ok(if base == Path::new(".") { relative } else { entry.path() }.to_path_buf()))
            }
            Err(error) if error.depth() == 0 => None, // no such folder: nothing matches
            Err(error) => Some(Err(error.to_string())),
        })
    }
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn file_or_folder(path: PathBuf, notes: bool) -> Items {
    if !path.is_dir() {
        return Box::new(iter::once(Ok(path)));
    }
    let entries = WalkDir::new(&path).follow_links(true).sort_by_file_name().into_iter();
    let mut entries = entries.filter_entry(|entry| !is_hidden(entry));
    let mut left_out = LeftOut { folder: path.clone(), n_files: 0, names: Vec::new() };
    let files = iter::from_fn(move || {
        loop {
            match entries.next() {
                Some(Ok(entry)) if !entry.file_type().is_file() => {}
                Some(Ok(entry)) if is_audio(entry.path()) => return Some(Ok(entry.into_path())),
                Some(Ok(entry)) => left_out.add(entry.path()),
                Some(Err(error)) => return Some(Err(error.to_string())),
                None => {
                    if notes {
                        left_out.say();
                    }
                    return None;
                }
            }
        }
    });
    Box::new(or_error(files, format!("{}: expected audio files in this folder, got none", name(&path))))
}

/// Prints that files of a folder were skipped, and the names of some.
pub fn skipped_note(folder: &Path, n_files: usize, names: &[String]) {
    let files = if n_files == 1 { "file" } else { "files" };
    let shown = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    let more = if n_files > MAX_NAMES { ", …" } else { "" };
    say(format_args!("note: {}: skipped {n_files} {files} without an audio extension: {shown}{more}", name(folder)));
}

/// Files of a folder whose names do not end like those of audio files.
struct LeftOut {
    folder: PathBuf,
    n_files: usize,
    names: Vec<String>,
}

impl LeftOut {
    fn add(&mut self, path: &Path) {
        self.n_files += 1;
        if self.names.len() < MAX_NAMES {
            self.names.push(name(path.strip_prefix(&self.folder).unwrap_or(path)));
        }
    }

    fn say(&mut self) {
        if self.n_files > 0 {
            skipped_note(&self.folder, self.n_files, &self.names);
            self.n_files = 0;
        }
    }
}

/// Whether the name of a file ends like that of an audio file.
pub fn is_audio(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| AUDIO.iter().any(|audio| audio.eq_ignore_ascii_case(extension)))
}

/// The items, or an error if there are none.
fn or_error(mut items: impl Iterator<Item = Item>, error: String) -> impl Iterator<Item = Item> {
    let mut error = Some(error);
    iter::from_fn(move || match items.next() {
        Some(item) => {
            error = None;
            Some(item)
        }
        None => error.take().map(Err),
    })
}

/// The lines of a list. Names in it are not patterns: they may well contain brackets.
fn read_list(list: &Path, notes: bool) -> Items {
    let name = name(list);
    let reader: Box<dyn Read + Send> = match list.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => match File::open(list) {
            Ok(file) => Box::new(file),
            Err(error) => return Box::new(iter::once(Err(format!("cannot open {name}: {error}")))),
        },
    };
    let mut lines = Some(BufReader::new(reader));
    let mut number = 0;
    let lines = iter::from_fn(move || {
        let mut line = Vec::new();
        number += 1;
        let reason = match lines.as_mut()?.take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(n) if n as u64 == MAX_LINE => "too long for the name of a file".to_string(),
            Ok(_) => {
                let mut line = line.strip_suffix(b"\n").unwrap_or(&line);
                if number == 1 {
                    line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line); // a byte-order mark
                }
                match str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) {
                    Ok(line) => return Some(Ok(PathBuf::from(line))),
                    Err(_) => return Some(Err(format!("{name}, line {number}: not UTF-8"))),
                }
            }
            Err(error) => error.to_string(),
        };
        lines = None; // where the next name begins is unknown
        Some(Err(format!("{name}, line {number}: {reason}")))
    });
    let is_blank = |path: &PathBuf| path.to_str().is_some_and(|line| line.trim().is_empty());
    let named = lines.filter(move |line| !line.as_ref().is_ok_and(is_blank));
    Box::new(named.flat_map(move |line| match line {
        Ok(path) => file_or_folder(path, notes),
        error => Box::new(iter::once(error)),
    }))
}
