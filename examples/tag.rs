//! Tags audio files: `cargo run --release --example tag -- [--weights FILE] FILE…`.
//!
//! The program `clipwise tag` does more: folders, patterns, CSV, JSON, Parquet, several files at once.

use std::path::Path;
use std::process::ExitCode;

use clipwise::{Result, Tagger, Waveform};

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let weights =
        args.iter().position(|arg| arg == "--weights").map(|at| args.drain(at..(at + 2).min(args.len())).next_back());
    if args.is_empty() || args.iter().any(|arg| arg.starts_with("--")) {
        eprintln!("usage: tag [--weights FILE] FILE…");
        return ExitCode::FAILURE;
    }
    match tag(weights.flatten().as_deref(), &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tag(weights: Option<&str>, files: &[String]) -> Result<()> {
    let device = clipwise::device::best()?;
    let tagger = match weights {
        Some(checkpoint) => Tagger::open(checkpoint, &device)?, // its tensors tell the model
        None => Tagger::bundled(&device)?,                      // CED-tiny, which is built in
    };
    for assumption in tagger.assumptions() {
        eprintln!("note: {assumption}");
    }
    for file in files.iter().map(Path::new) {
        let waveform = Waveform::open(file)?; // any sample rate, any number of channels
        let tagging = tagger.tag(&waveform)?;
        let model = &tagger.model().info().name;
        println!("{}  ({:.2} s, {} Hz, {model})", file.display(), waveform.duration(), waveform.sample_rate);
        for tag in tagging.top_k(10) {
            println!("  {:.4}  {:<30}  {}", tag.score, "█".repeat((30.0 * tag.score).round() as usize), tag.label);
        }
    }
    Ok(())
}
