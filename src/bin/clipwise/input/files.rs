//! Which files: names, folders, patterns, lists.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::iter;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use glob::{MatchOptions, glob_with};
use walkdir::WalkDir;

/// How files of a folder that are taken end. Some can never be read; to say so is better than to leave them out unseen.
const AUDIO: [&str; 14] =
    ["aac", "aif", "aiff", "bwf", "flac", "m4a", "m4b", "mp3", "oga", "ogg", "opus", "rf64", "wav", "wave"];
/// No pattern crosses a `/` or begins hidden names.
const AS_SHELLS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// The longest line of a list, in bytes.
const MAX_LINE: u64 = 1 << 16;

/// Which files, in which order.
#[derive(clap::Args, Clone, Debug)]
pub struct FileArgs {
    /// Audio files, folders (all audio files below them, by name), or patterns such as 'calls/**/*.wav'
    #[arg(value_name = "FILE", required_unless_present = "files_from")]
    pub files: Vec<PathBuf>,
    /// Take the files, and the folders, that this list names too, one per line; blank lines are left out, `-` is standard input
    #[arg(long, value_name = "LIST")]
    pub files_from: Option<PathBuf>,
    /// Take every Nth file only, beginning with the Ith (1 to N): the share of one of N machines that have the same list
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// A file, or why there is none.
pub type Item = Result<PathBuf, String>;

impl FileArgs {
    /// One by one, as they are asked for; only a folder's own names are held at once.
    pub fn list(&self) -> impl Iterator<Item = Item> + Send + use<> {
        let named = self.files.clone().into_iter().flat_map(expand);
        let listed = self.files_from.clone().into_iter().flat_map(|list| read_list(&list));
        let Shard { i, n } = self.shard.unwrap_or(Shard { i: 1, n: 1 });
        named.chain(listed).skip(i - 1).step_by(n)
    }

    /// Whether the files can be listed more than once. What a pipe has given is gone, also under a name such as
    /// `/dev/stdin`, which on some systems shares its place even with a regular file.
    pub fn is_repeatable(&self) -> bool {
        self.files_from.as_deref().is_none_or(|list| list.is_file() && !list.starts_with("/dev"))
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
fn expand(path: PathBuf) -> Items {
    let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
    match pattern.map(|text| (text, glob_with(text, AS_SHELLS))) {
        Some((text, Ok(paths))) => {
            let files = paths.filter(|path| path.as_ref().map_or(true, |path| !path.is_dir()));
            Box::new(or_error(files.map(|path| path.map_err(|error| error.to_string())), format!("no file is {text}")))
        }
        Some((text, Err(error))) => Box::new(iter::once(Err(format!("{text}: {error}")))),
        None => file_or_folder(path),
    }
}

fn file_or_folder(path: PathBuf) -> Items {
    if !path.is_dir() {
        return Box::new(iter::once(Ok(path)));
    }
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let entries = WalkDir::new(&path).follow_links(true).sort_by_file_name().into_iter();
    let entries = entries.filter_entry(move |entry| entry.depth() == 0 || !hidden(entry.file_name()));
    let files = entries.filter_map(|entry| match entry {
        Ok(entry) => (entry.file_type().is_file() && is_audio(entry.path())).then(|| Ok(entry.into_path())),
        Err(error) => Some(Err(error.to_string())),
    });
    Box::new(or_error(files, format!("{}: no audio files in this folder", path.display())))
}

fn is_audio(path: &Path) -> bool {
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

/// The lines of a list. Names in it are no patterns: they may well hold brackets.
fn read_list(list: &Path) -> Items {
    let name = list.display().to_string();
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
        lines = None; // what follows cannot be told apart
        Some(Err(format!("{name}, line {number}: {reason}")))
    });
    let is_blank = |path: &PathBuf| path.to_str().is_some_and(|line| line.trim().is_empty());
    let named = lines.filter(move |line| !line.as_ref().is_ok_and(is_blank));
    Box::new(named.flat_map(|line| match line {
        Ok(path) => file_or_folder(path),
        error => Box::new(iter::once(error)),
    }))
}
