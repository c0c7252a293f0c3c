//! Lines on stderr, and errors.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use clipwise::audio::{AudioReader, Note, Skipped};

use crate::input::STREAM;
use crate::run::progress;

/// Why a subcommand ends.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Prints a line on stderr, above a progress bar. Write errors are ignored.
pub fn say(line: fmt::Arguments) {
    if cfg!(test) {
        return eprintln!("{line}"); // the test harness captures it
    }
    progress::suspend(|| {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    });
}

/// Text in one line: control characters, which could move the cursor or fake a line, are escaped.
pub fn escaped(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        false => Cow::Borrowed(text),
        true => text
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect::<String>()
            .into(),
    }
}

/// The name of a file, in one line.
pub fn name(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

/// An error with the name of its file, if it does not state that itself.
pub fn about(file: &Path, error: &clipwise::Error) -> String {
    // Some errors have several lines; a line break in the name makes none.
    let text = error.to_string().replace(&*file.to_string_lossy(), &name(file));
    let states_file = matches!(error, clipwise::Error::Audio { .. }) || text.contains(&name(file));
    escaped_lines(&if states_file { text } else { format!("{}: {text}", name(file)) })
}

/// Text whose lines are [`escaped`].
fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// The error of a setting in terms of the options of the command line: pairs of a field of a config and its option.
pub fn in_options(error: clipwise::Error, options: &[(&str, &str)]) -> Failure {
    use clipwise::Error::{Argument, Config};
    let (Config { field, value, reason } | Argument { name: field, value, reason }) = &error else {
        return error.into();
    };
    let Some((_, option)) = options.iter().find(|(name, _)| name == field) else { return error.into() };
    let value = if value == "true" { String::new() } else { format!(" {value}") };
    // A reason may name another setting.
    let reason = options.iter().fold(reason.clone(), |reason, (field, option)| {
        reason.replace(&format!("{field} = "), &format!("{option} ")).replace(&format!("`{field}`"), option)
    });
    format!("{option}{value}: {reason}").into()
}

/// An error of writing or reading a file, with its name.
pub fn cannot(verb: &str, file: &Path, error: impl fmt::Display) -> Failure {
    format!("cannot {verb} {}: {error}", name(file)).into()
}

/// Prints what was worked around in a file.
pub fn say_notes(file: &Path, notes: &[Note]) {
    // A pipe has no length: that is no news.
    let is_known = |note: &Note| matches!(note, Note::UnknownLength { .. }) && file == Path::new(STREAM);
    for note in notes.iter().filter(|note| !is_known(note)) {
        say(format_args!("note: {}: {note}", name(file)));
    }
}

/// Prints what was worked around in a recording that was read, and the damage that was skipped.
pub fn say_about(reader: &AudioReader) {
    for Skipped { seconds, detail, .. } in reader.skipped() {
        say(format_args!("note: {}: skipped damage at {seconds:.1} s: {detail}", name(reader.path())));
    }
    say_notes(reader.path(), &reader.notes());
}

/// An error and its causes.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    escaped_lines(&causes.map(|cause| cause.to_string()).collect::<Vec<_>>().join(": "))
}

/// Whether the reader of our output is gone.
pub fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref() {
        Some(clipwise::Error::Io { cause, .. }) => Some(cause.kind()),
        _ => error.downcast_ref::<io::Error>().map(io::Error::kind),
    };
    std::iter::successors(Some(error), |error| error.source()).any(|cause| io(cause) == Some(io::ErrorKind::BrokenPipe))
}
