//! What the command lines of the larger examples share: which model, where to run, what to say when something fails.
#![allow(dead_code)] // each example uses a part

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clipwise::audio::{AudioReader, Note, Skipped};
use clipwise::device::{self, Threads};
use clipwise::{LabelSet, OpenOptions, Tagger, models};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Which model, where.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Checkpoint: safetensors, .pth / .pt as PyTorch wrote it, or a folder with config.json and model.safetensors; the
    /// model is recognised from its tensors [default: the model in the box]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Take the checkpoint as this model instead (names below); without --weights one of those in the box, ced-tiny (the default)
    /// or mn04, which takes a seventh of the time
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Checkpoint of the encoder below a head that is published alone (Whisper-AT): a file, or a folder of transformers
    #[arg(long, value_name = "FILE", requires = "weights")]
    encoder: Option<PathBuf>,
    /// Class names of the model: CSV, JSON, or text with one name a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Where to run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl ModelArgs {
    /// Opens the tagger; what it had to assume goes to stderr.
    pub fn open(&self) -> Result<Tagger, Failure> {
        let device::Choice { device, reason, .. } = device::choose(&self.device)?;
        if self.device == "auto" && cfg!(feature = "cuda") {
            say(format_args!("note: {reason}"));
        }
        let mut options = OpenOptions::new().device(&device);
        options.model.clone_from(&self.model);
        options.encoder.clone_from(&self.encoder);
        let mut tagger = match (&self.weights, self.model.as_deref()) {
            (Some(weights), _) => Tagger::open_with(weights, &options)?,
            (None, None | Some("ced-tiny")) => Tagger::bundled(&device)?,
            (None, Some("mn04")) => Tagger::bundled_small(&device)?,
            (None, Some(name)) => {
                return Err(
                    format!("--model {name}: expected --weights, or ced-tiny or mn04, which are in the box").into()
                );
            }
        };
        if let Some(labels) = &self.labels {
            tagger = tagger.with_labels(LabelSet::open(labels)?).map_err(|error| about(labels, &error))?;
        }
        for assumption in tagger.assumptions() {
            say(format_args!("note: {assumption}"));
        }
        Ok(tagger)
    }

    /// Runs a program with as many threads as asked for. It may set its argument to false: all went on, but not all was
    /// well.
    pub fn run(&self, program: impl Fn(&AtomicBool) -> Result<(), Failure> + Send + Sync) -> ExitCode {
        run(self.threads, program)
    }
}

/// As [`ModelArgs::run`], with a number of threads.
pub fn run(threads: Option<usize>, program: impl Fn(&AtomicBool) -> Result<(), Failure> + Send + Sync) -> ExitCode {
    let good = AtomicBool::new(true);
    let result = match threads {
        Some(n) => Threads::new(n).map_err(Failure::from).and_then(|threads| threads.run(|| program(&good))),
        None => program(&good),
    };
    match result {
        // Whoever read our output has seen enough.
        Err(error) if !is_broken_pipe(&*error) => {
            say(format_args!("error: {}", with_causes(&*error)));
            ExitCode::FAILURE
        }
        _ if good.load(Ordering::Relaxed) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The end of `--help`: the names of the models, then `examples`.
pub fn after_help(examples: &str) -> String {
    let models: String =
        models::presets().map(|preset| format!("  {:<20} {}\n", preset.name(), preset.description)).collect();
    format!(
        "Models:\n{models}\nA file that cannot be tagged gives one line on stderr and exit status 1; the others go on.\n\n\
         Examples:\n{examples}"
    )
}

/// Does `work` for each item and hands its result to `report`, with progress on stderr meanwhile where that is a terminal.
pub fn for_each_file<T, R>(
    items: &[T],
    file: impl Fn(&T) -> &Path,
    work: impl Fn(&T) -> R,
    mut report: impl FnMut(&T, R) -> io::Result<()>,
) -> io::Result<()> {
    let progress = items.len() > 1 && io::stderr().is_terminal();
    for (i, item) in items.iter().enumerate() {
        if progress {
            show(format_args!("[{}/{}] {}\r", i + 1, items.len(), file(item).display()));
        }
        let result = work(item);
        if progress {
            show(format_args!("\x1b[K"));
        }
        report(item, result)?;
    }
    Ok(())
}

/// Prints a line on stderr. That nobody reads it is no reason to stop.
pub fn say(line: fmt::Arguments) {
    show(format_args!("{line}\n"));
}

/// Says what was worked around in a file that was read.
pub fn say_notes(file: &Path, notes: &[Note]) {
    // Whoever pipes a stream knows that it has no length.
    let is_known = |note: &Note| matches!(note, Note::UnknownLength { .. }) && file == Path::new("<stream>");
    for note in notes.iter().filter(|note| !is_known(note)) {
        say(format_args!("note: {}: {note}", file.display()));
    }
}

/// Says what was worked around in a recording that was read, and the damage that was skipped.
pub fn say_about(reader: &AudioReader) {
    for Skipped { seconds, detail, .. } in reader.skipped() {
        say(format_args!("note: {}: damaged at {seconds:.1} s and skipped: {detail}", reader.path().display()));
    }
    say_notes(reader.path(), &reader.notes());
}

/// As [`say`], without the end of a line.
pub fn show(text: fmt::Arguments) {
    if cfg!(test) {
        return eprint!("{text}"); // tests keep it to themselves
    }
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// An error with the file that it belongs to, named once.
pub fn about(file: &Path, error: &clipwise::Error) -> String {
    use clipwise::Error::{Audio, Io, Labels};
    match error {
        Audio { .. } | Io { .. } | Labels { .. } => error.to_string(), // these name the file themselves
        _ => format!("{}: {error}", file.display()),
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref() {
        Some(clipwise::Error::Io { cause, .. }) => Some(cause.kind()),
        _ => error.downcast_ref::<io::Error>().map(io::Error::kind),
    };
    std::iter::successors(Some(error), |error| error.source()).any(|cause| io(cause) == Some(io::ErrorKind::BrokenPipe))
}
