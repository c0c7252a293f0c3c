//! Embeddings of audio files and how alike they sound.
//!
//! `cargo run --release --example embed -- FILE.wav…` prints the cosine similarity of every pair of files; with `--json`
//! before the files, one JSON object a file with its embedding instead; with `--weights CHECKPOINT` first, another model's.

use std::ffi::OsString;
use std::io::Write;

use clipwise::{Tagger, Waveform};

fn main() {
    if let Err(error) = embed(std::env::args_os().skip(1).collect()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn embed(mut args: Vec<OsString>) -> Result<(), Box<dyn std::error::Error>> {
    let device = clipwise::device::best()?;
    let tagger = if args.len() > 1 && args[0] == "--weights" {
        let checkpoint = args.drain(..2).next_back().unwrap_or_default();
        Tagger::open(checkpoint, &device)?
    } else {
        Tagger::bundled(&device)?
    };
    tagger.assumptions().iter().for_each(|assumption| eprintln!("note: {assumption}"));
    let json = args.first().is_some_and(|arg| arg == "--json");
    let files = &args[usize::from(json)..];
    if files.is_empty() {
        return Err("usage: embed [--weights CHECKPOINT] [--json] FILE.wav…".into());
    }

    let mut out = std::io::stdout().lock();
    let mut embeddings = Vec::new();
    for file in files {
        let tagging = tagger.tag(&Waveform::open(file)?)?;
        if json {
            let file = file.to_string_lossy();
            writeln!(out, "{}", serde_json::json!({ "file": file, "embedding": tagging.embedding }))?;
        }
        embeddings.push(tagging.embedding);
    }
    if !json {
        for (a, file) in embeddings.iter().zip(files) {
            let row: Vec<String> = embeddings.iter().map(|b| format!("{:6.3}", a.cosine(b))).collect();
            writeln!(out, "{}  {}", row.join(" "), file.display())?;
        }
    }
    Ok(())
}
