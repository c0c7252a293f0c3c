//! The program `clipwise`: audio tagging from the command line.

mod commands;
mod input;
mod message;
mod model;
mod output;
mod run;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Says which sounds are in audio files: tags, events with times, embeddings, plots, phonemes, classifiers of your own.
///
/// Audio of any sample rate and channel count is read from WAV, FLAC, MP3, Ogg (Vorbis, Opus), MPEG-4, Matroska, AIFF and CAF files.
/// Without --weights, CED-tiny tags: a model of AudioSet's 527 classes that is built in.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Tag(commands::tag::Args),
    Embed(commands::embed::Args),
    Events(commands::events::Args),
    Live(commands::live::Args),
    Plot(commands::plot::Args),
    Transcribe(commands::transcribe::Args),
    Encode(commands::encode::Args),
    Evaluate(commands::evaluate::Args),
    Probe(commands::probe::Args),
    Speed(commands::speed::Args),
    Models(commands::models::Args),
}

fn main() -> ExitCode {
    let status = match Cli::parse().command {
        Command::Tag(args) => args.run(),
        Command::Embed(args) => args.run(),
        Command::Events(args) => args.run(),
        Command::Live(args) => args.run(),
        Command::Plot(args) => args.run(),
        Command::Transcribe(args) => args.run(),
        Command::Encode(args) => args.run(),
        Command::Evaluate(args) => args.run(),
        Command::Probe(args) => args.run(),
        Command::Speed(args) => args.run(),
        Command::Models(args) => args.run(),
    };
    run::exit_code(status)
}
