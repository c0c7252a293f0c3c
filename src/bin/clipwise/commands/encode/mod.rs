//! Hidden states of speech encoders, as a file: `cargo run --release --example encode -- --help`.

#[path = "../command_line/mod.rs"]
mod command_line;
mod model;
mod out;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use clipwise::{Waveform, device};
use command_line::{Failure, about, for_each_file, say, say_notes};
use model::{Encoding, Model};
use out::Out;

/// Computes the hidden states that a speech encoder has for audio files.
///
/// Prints their shapes. With --out, writes them to a file: safetensors with `hidden_0` … `hidden_n`, each [n_frames, dim], as
/// transformers' `hidden_states` has them, the encoder's output as `last_hidden`, and `logits` where the checkpoint has a head
/// (of tokens [n_frames, n_tokens], or of classes [n_classes]); of SpeechTokenizer also `codes` [n_codebooks, n_frames], int32,
/// and of Qwen2-Audio `projected`.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
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
    /// With several audio files: the kind of file that each gets
    #[arg(long, value_enum, default_value_t = out::Kind::Safetensors, requires = "out")]
    format: out::Kind,
    /// Add the times of the frames, in seconds from the beginning of the clip: `times` [n_frames], f64
    #[arg(long, requires = "out")]
    times: bool,
    /// Where to run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Audio files of any rate and number of channels
    #[arg(value_name = "AUDIO", required = true)]
    files: Vec<PathBuf>,
}

const EXAMPLES: &str =
    "If a file fails, one line on stderr says why, the other files are still encoded, and the exit status is 1.

Examples:
  encode --weights wav2vec2-base speech.wav
  encode --weights wavlm-large --layers all --times --out speech.safetensors speech.wav
  encode --weights hubert-base --layers 9 --out speech.npy speech.wav
  encode --weights mms-1b-all --language fra --out states/ *.flac";

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

fn main() -> ExitCode {
    let args = Args::parse();
    command_line::run(args.threads, |good| encode_files(&args, good))
}

/// Encodes every file. Sets `good` to false if a file fails.
fn encode_files(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    let device = device::choose(&args.device)?.device;
    let model = Model::open(&args.weights, args.language.as_deref(), &device)?;
    let layers = args.layers.of(model.encoder().info().n_layers)?;
    let out = args.out.as_deref().map(|path| Out::new(path, args.format, &args.files)).transpose()?;
    if out.as_ref().is_some_and(|out| out.kind() == out::Kind::Npy) && (layers.len() > 1 || args.times) {
        return Err("a .npy file takes one hidden state: name it with --layers, or write .safetensors".into());
    }
    for_each_file(
        &args.files,
        |file| file,
        |file| encode(file, &model, &layers).map_err(|error| about(file, &error)),
        |file, encoding| {
            let written = encoding.and_then(|encoding| report(file, &encoding, args.times, out.as_ref()));
            if let Err(error) = written {
                good.store(false, Ordering::Relaxed);
                say(format_args!("error: {error}"));
            }
            Ok(())
        },
    )?;
    Ok(())
}

fn encode(file: &Path, model: &Model, layers: &[usize]) -> clipwise::Result<Encoding> {
    let waveform = Waveform::open(file)?;
    say_notes(file, waveform.notes());
    model.encode(&waveform, layers)
}

/// Prints or writes the hidden states of a file.
fn report(file: &Path, encoding: &Encoding, times: bool, out: Option<&Out>) -> Result<(), String> {
    match out {
        Some(out) => out.write(file, encoding, times).map_err(|error| format!("{}: {error}", file.display())),
        None => {
            println!("{}", file.display());
            for (name, tensor) in &encoding.tensors {
                println!("  {name:<12} {:?}", tensor.dims());
            }
            Ok(())
        }
    }
}
