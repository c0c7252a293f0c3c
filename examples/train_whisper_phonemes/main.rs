//! Trains a recogniser of English phonemes on Whisper's frozen encoder: `cargo run --release --features cli --example train_whisper_phonemes -- --help`.

#[path = "../train_phonemes/augment.rs"]
#[allow(dead_code)] // what happens to a waveform is used
mod augment;
mod corpus;
mod language_model;
mod net;
#[path = "../../src/bin/clipwise/commands/transcribe/phonemes.rs"]
#[allow(dead_code)] // the ARPAbet is used
mod phonemes;
mod score;
mod states;
#[path = "../training/mod.rs"]
mod training;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use clipwise::augment::Random;
use clipwise::encoders::{WhisperEncoder, whisper};
use clipwise::weights::Parameters;
use clipwise::{Device, Weights};
use corpus::Utterance;
use net::{Net, Shape};
use states::States;
use training::{Failure, Settings, fit};

/// Of all sound here, in Hz.
const RATE: u32 = 16_000;

/// Trains a weighted sum over the layers of Whisper's encoder and a recurrent head to hear English phonemes.
///
/// CORPUS is speechocean762 (https://github.com/jimbozhang/speechocean762): recordings of 250 people, with their phonemes.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the frozen encoder over the training part once, and over copies that are each distorted in their own way
    Encode {
        /// Checkpoint of openai/whisper-tiny.en
        #[arg(long, value_name = "FILE")]
        encoder: PathBuf,
        /// Distorted copies
        #[arg(long, value_name = "N", default_value_t = 6)]
        copies: usize,
        /// How fast the fastest of them are spoken, at the same pitch
        #[arg(long, value_name = "FACTOR", default_value_t = 1.8)]
        fastest: f64,
        /// Seed of the distortions
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Folder of the corpus
        #[arg(value_name = "CORPUS")]
        corpus: PathBuf,
        /// The folder to write, 2 GB per copy; a copy that is there stays
        #[arg(value_name = "STATES")]
        states: PathBuf,
    },
    /// Train on what the encoder said
    Train {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        shape: Shape,
        /// A checkpoint to begin with
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// The folder to write
        #[arg(long, value_name = "FOLDER", default_value = "whisper-tiny-en-phonemes")]
        out: PathBuf,
        /// Speakers of the training part who choose the best epoch, and how much the blank scores, instead; with 0 the last epoch
        /// counts
        #[arg(long, value_name = "N", default_value_t = 12)]
        held_out: usize,
        /// Folder of the corpus
        #[arg(value_name = "CORPUS")]
        corpus: PathBuf,
        /// The folder that `encode` wrote
        #[arg(value_name = "STATES")]
        states: PathBuf,
    },
    /// Write a language model over the phonemes of the training part
    LanguageModel {
        /// Phonemes of the longest n-grams
        #[arg(long, value_name = "N", default_value_t = 4)]
        order: usize,
        /// Folder of the corpus
        #[arg(value_name = "CORPUS")]
        corpus: PathBuf,
        /// The ARPA file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// The phoneme error rate on the test part, whose speakers are others
    Test(score::Args),
}

fn main() -> Result<(), Failure> {
    match Args::parse().command {
        Command::Encode { encoder, copies, fastest, seed, corpus, states } => {
            let weights = Weights::open(&encoder)?;
            let encoder = WhisperEncoder::load(&whisper::Config::from_weights(&weights)?, &weights, &Device::Cpu)?;
            states::write(&encoder, &corpus::read(&corpus, "train")?, (copies, fastest), seed, &states)
        }
        Command::Train { settings, shape, from, out, held_out, corpus, states } => {
            let from = from.map(Weights::read).transpose()?;
            let (utterances, states) = (corpus::read(&corpus, "train")?, States::open(&states)?);
            train((&settings, &shape), from.as_ref(), held_out, &out, &utterances, &states)
        }
        Command::LanguageModel { order, corpus, file } => {
            language_model::write(&corpus::read(&corpus, "train")?, order.max(1), &file)
        }
        Command::Test(args) => score::test(&args),
    }
}

fn train(
    (settings, shape): (&Settings, &Shape),
    from: Option<&Weights>,
    held_out: usize,
    out: &Path,
    utterances: &[Utterance],
    states: &States,
) -> Result<(), Failure> {
    let speakers: Vec<&str> =
        utterances.iter().map(|u| u.speaker.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let order = Random::stream(settings.seed, u64::MAX).permutation(speakers.len());
    let held_out: BTreeSet<&str> = order.iter().take(held_out).map(|&i| speakers[i]).collect();
    let (validation, training): (Vec<&Utterance>, Vec<&Utterance>) =
        utterances.iter().partition(|utterance| held_out.contains(utterance.speaker.as_str()));

    let parameters = Parameters::new(&Device::Cpu, settings.seed);
    let net = Net::build(shape, &parameters.loader())?;
    if let Some(from) = from {
        parameters.restore(from)?;
    }
    println!("{} utterances, {} to validate, {} parameters", training.len(), validation.len(), parameters.count());
    net::describe(shape, out)?;
    let file = out.join("model.safetensors");
    parameters.save(&file)?; // so that no epoch at all is enough to calibrate
    let lengths = training.iter().map(|u| states.n_frames(u)).collect::<Result<Vec<_>, _>>()?;
    let forward = |batch: &[usize], random: &mut Random| {
        let batch: Vec<&Utterance> = batch.iter().map(|&i| training[i]).collect();
        net.step(states, &batch, random)
    };
    let validate = || match validation.is_empty() {
        true => Ok(None),
        false => Net::build(shape, &parameters.weights()?.loader(&Device::Cpu))?.measure(states, &validation).map(Some),
    };
    fit(&parameters, settings, training.len(), Some(&lengths), &file, forward, validate)?;
    let best = Net::build(shape, &Weights::read(&file)?.loader(&Device::Cpu))?;
    net::finish(&file, best.calibrate(states, &validation)?)
}
