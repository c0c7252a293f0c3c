//! `clipwise encode`.

mod model;
mod out;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipwise::encoders::OpenOptions;
use model::Encoding;
pub use model::Model;
use out::Out;

use crate::input::{FileArgs, Item, ReadArgs};
use crate::message::{about, name, say};
use crate::model::RunArgs;
use crate::output::{claimed, stdout};
use crate::run::{JobArgs, Jobs, Outcome, Status, interrupt, with_threads};

/// Compute the hidden states that a speech encoder has for audio files.
///
/// Prints their shapes. With --out, writes them to a file: safetensors with `hidden_0` … `hidden_n`, each [n_frames, dim], as
/// transformers' `hidden_states` has them, the encoder's output as `last_hidden`, and `logits` where the checkpoint has a head
/// (of tokens [n_frames, n_tokens], or of classes [n_classes]); of SpeechTokenizer also `codes` [n_codebooks, n_frames], int32,
/// and of Qwen2-Audio `projected`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder with config.json and weights as transformers saves them, or a checkpoint file, whose tensors tell the encoder
    #[arg(long, value_name = "FOLDER|FILE")]
    weights: PathBuf,
    /// Which hidden states: last, all, or numbers such as 0,6,12, where 0 is the input of the first layer
    #[arg(long, value_name = "LAYERS", default_value = "last", value_parser = Selection::parse)]
    layers: Selection,
    /// Language of an MMS model, such as fra: its adapters and its head
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<String>,
    /// Write here: FILE.safetensors; or FILE.npy, which takes one hidden state. For several audio files, a folder in which each
    /// gets a file of its name
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
    /// Leave out audio files that have a file in the folder --out already
    #[arg(long, requires = "out")]
    skip_existing: bool,
    /// With several audio files: the kind of file that each gets [default: safetensors]
    #[arg(long, value_enum, requires = "out")]
    format: Option<out::Kind>,
    /// Add the times of the frames, in seconds from the beginning of the clip: `times` [n_frames], f64
    #[arg(long, requires = "out")]
    times: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    files: FileArgs,
}

const EXAMPLES: &str =
    "If a file fails, one line on stderr says why, the other files are still encoded, and the exit status is 1.

Examples:
  clipwise encode --weights wav2vec2-base speech.wav
  clipwise encode --weights wavlm-large --layers all --times --out speech.safetensors speech.wav
  clipwise encode --weights hubert-base --layers 9 --out speech.npy speech.wav
  clipwise encode --weights mms-1b-all --language fra --out states/ *.flac";

/// Which hidden states are wanted.
#[derive(Debug, Clone)]
enum Selection {
    Last,
    All,
    These(Vec<usize>),
}

impl Selection {
    fn parse(text: &str) -> Result<Self, String> {
        let number =
            |part: &str| part.trim().parse().map_err(|_| format!("expected last, all or numbers, got {part:?}"));
        match text {
            "last" => Ok(Self::Last),
            "all" => Ok(Self::All),
            _ => text.split(',').map(number).collect::<Result<_, _>>().map(Self::These),
        }
    }

    /// The numbers of the hidden states, of `n_layers`.
    fn of(&self, n_layers: usize) -> Result<Vec<usize>, String> {
        match self {
            Self::Last => Ok(vec![n_layers - 1]),
            Self::All => Ok((0..n_layers).collect()),
            Self::These(layers) => match layers.iter().find(|&&layer| layer >= n_layers) {
                Some(layer) => Err(format!("--layers: expected 0 to {}, got {layer}", n_layers - 1)),
                None => Ok(layers.clone()),
            },
        }
    }
}

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.run.threads, || self.encode_files())
    }

    fn encode_files(&self) -> Outcome {
        self.files.check()?;
        let options = OpenOptions::new().device(&self.run.device()?).precision(self.run.precision);
        let model = Arc::new(Model::open(&self.weights, self.language.as_deref(), &options)?);
        let layers = self.layers.of(model.encoder().info().n_layers)?;
        let out = self.out.as_deref().map(|path| Out::new(path, self.format, &self.files)).transpose()?;
        if out.as_ref().is_some_and(|out| out.kind() == out::Kind::Npy) && (layers.len() > 1 || self.times) {
            return Err("a .npy file takes one hidden state: name it with --layers, or write .safetensors".into());
        }
        interrupt::on_interrupt()?;
        let read = self.read.clone();
        let work = move |file: &Path, emit: &mut dyn FnMut(Encoding)| {
            let encoding = read.waveform(file).and_then(|waveform| model.encode(&waveform, &layers));
            encoding.map(emit).map_err(|error| about(file, &error))
        };
        let jobs = Jobs::new(&self.jobs, self.run.threads).counting(&self.files, self.skip_existing);
        let mut n_unwritten = 0;
        let files = self.files.list_with_notes();
        let files: Box<dyn Iterator<Item = Item> + Send> = match &out {
            Some(out) => {
                let (out, named) = (out.clone(), self.files.clone());
                Box::new(claimed(files, move |file| out.place(named.below_folder(file)), self.skip_existing))
            }
            None => Box::new(files),
        };
        let count = jobs.run(files, work, |file, result| {
            let (Ok(encoding), Some(out)) = (&result, &out) else {
                return result.map_or(Ok(()), |encoding| print(file, &encoding));
            };
            if let Err(error) = out.write(self.files.below_folder(file), encoding, self.times) {
                say(format_args!("error: {}: {error}", name(file)));
                n_unwritten += 1;
            }
            Ok(())
        })?;
        Ok(if n_unwritten > 0 { Status::SomeFailed } else { count.into() })
    }
}

/// Prints the shapes of the hidden states of a file.
fn print(file: &Path, encoding: &Encoding) -> Result<(), crate::message::Failure> {
    let mut to = stdout();
    writeln!(to, "{}", name(file))?;
    for (name, tensor) in &encoding.tensors {
        writeln!(to, "  {name:<12} {:?}", tensor.dims())?;
    }
    Ok(to.flush()?)
}
