//! Trains a net that hears English phonemes: `cargo run --release --example train_phonemes -- --help`.

mod generate;
mod phonemes;
mod text;
mod voices;

use clap::{Parser, Subcommand};

type Failure = Box<dyn std::error::Error + Send + Sync>;

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
}

fn main() -> Result<(), Failure> {
    match Args::parse().command {
        Command::Generate(args) => generate::generate(&args),
    }
}
