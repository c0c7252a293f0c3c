//! Trains a net that hears English phonemes: `cargo run --release --features cli --example train_phonemes -- --help`.

#[allow(dead_code)] // its tempo is another example's
mod augment;
mod data;
mod generate;
mod net;
#[path = "../../src/bin/clipwise/commands/transcribe/phonemes.rs"]
mod phonemes;
mod text;
#[path = "../training/mod.rs"]
mod training;
mod voices;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use clipwise::metrics::EditCounts;
use clipwise::weights::Parameters;
use clipwise::{Device, Waveform, Weights, device};
use net::{Net, best_paths};
use training::{Failure, Settings, fit};

/// Of all sound here, in Hz.
const RATE: u32 = 16_000;

/// Trains a net that hears English phonemes, from the voices of speech synthesisers.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Let espeak-ng and flite speak the data
    Generate(generate::Args),
    /// Train on it, and test
    Train {
        #[command(flatten)]
        settings: Settings,
        /// Where to train: auto, cpu, cuda or cuda:N
        #[arg(long, default_value = "auto")]
        device: String,
        /// The folder to write
        #[arg(long, value_name = "FOLDER", default_value = "gru-ctc-phonemes")]
        out: PathBuf,
        /// A checkpoint to begin with
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// The folder with the data
        #[arg(value_name = "DATA")]
        data: PathBuf,
    },
    /// The phoneme error rates of a trained net
    Test {
        /// The folder with the data
        #[arg(long, value_name = "DATA")]
        data: Option<PathBuf>,
        /// Recordings to print the phonemes of
        #[arg(long, value_name = "FILE")]
        hear: Vec<PathBuf>,
        /// The folder with the net
        #[arg(value_name = "FOLDER")]
        net: PathBuf,
    },
}

fn main() -> Result<(), Failure> {
    match Args::parse().command {
        Command::Generate(args) => generate::generate(&args),
        Command::Train { settings, device, out, from, data } => {
            let device = device::parse(&device)?;
            train(&settings, &device, &out, from.as_deref(), &data)?;
            test(&out, &data)
        }
        Command::Test { data, hear, net } => {
            for file in &hear {
                let (logits, lengths) = open(&net)?.forward(vec![Waveform::open(file)?.resample(RATE)?])?;
                println!("{}: {}", file.display(), data::text(&best_paths(&logits, &lengths)?.concat()));
            }
            data.map_or(Ok(()), |data| test(&net, &data))
        }
    }
}

fn train(settings: &Settings, device: &Device, out: &Path, from: Option<&Path>, data: &Path) -> Result<(), Failure> {
    let (phrases, validation) = (data::read(data, "train")?, data::read(data, "validation")?);
    let parameters = Parameters::new(device, settings.seed);
    let net = Net::build(&parameters.loader())?;
    if let Some(from) = from {
        parameters.restore(&Weights::open(from)?)?;
    }
    println!("{} phrases, {} parameters", phrases.len(), parameters.count());
    Net::describe(out)?;
    let length = |phrase: &data::Phrase| Ok(std::fs::metadata(&phrase.file)?.len() as usize);
    let lengths = phrases.iter().map(length).collect::<Result<Vec<_>, Failure>>()?;
    let forward = |batch: &[usize], random: &mut _| net.step(&phrases, batch, random);
    let validate = || Ok(Some(Net::build(&parameters.weights()?.loader(device))?.measure(&validation)?.0));
    fit(&parameters, settings, phrases.len(), Some(&lengths), &out.join("model.safetensors"), forward, validate)
}

fn open(folder: &Path) -> Result<Net, Failure> {
    let weights = Weights::open(folder.join("model.safetensors"))?;
    Net::build(&weights.loader(&Device::Cpu))
}

/// Prints the phoneme error rate of each part, with those of the synthesisers.
fn test(folder: &Path, data: &Path) -> Result<(), Failure> {
    let net = open(folder)?;
    for part in ["validation", "words", "voices"] {
        let phrases = data::read(data, part)?;
        let (_, heard) = net.measure(&phrases)?;
        for kind in ["", "espeak", "flite"] {
            let of_kind = phrases.iter().zip(&heard).filter(|(phrase, _)| phrase.voice.starts_with(kind));
            let edits: EditCounts = of_kind.map(|(phrase, heard)| EditCounts::of(&phrase.phonemes, heard)).sum();
            let name = if kind.is_empty() { "all" } else { kind };
            let (wrong, n) = (edits.n_errors(), edits.n_reference());
            println!("{part}, {name}: {wrong} errors in {n} phonemes, PER {:.4}", edits.rate().unwrap_or(0.0));
        }
        if let (Some(phrase), Some(heard)) = (phrases.first(), heard.first()) {
            println!(
                "  {} ({})\n  said  {}\n  heard {}",
                phrase.text,
                phrase.voice,
                data::text(&phrase.phonemes),
                data::text(heard)
            );
        }
    }
    Ok(())
}
