//! Embeddings of audio files and how alike they sound.
//!
//! `cargo run --release --example embed -- CHECKPOINT FILE.wav…` prints the cosine similarity of every pair of files;
//! with `--json` first, one JSON object a file with its embedding.

use clipwise::{Tagger, Waveform};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let json = args.first().is_some_and(|arg| arg == "--json");
    args.drain(..usize::from(json));
    let [checkpoint, files @ ..] = args.as_slice() else {
        return Err("usage: embed [--json] CHECKPOINT FILE.wav…".into());
    };

    let device = clipwise::device::best()?;
    let tagger = Tagger::open(checkpoint, &device)?;
    let mut embeddings = Vec::new();
    for file in files {
        let tagging = tagger.tag(&Waveform::open(file)?)?;
        if json {
            println!("{}", serde_json::json!({ "file": file, "embedding": tagging.embedding }));
        }
        embeddings.push(tagging.embedding);
    }
    if !json {
        for (a, file) in embeddings.iter().zip(files) {
            let row: Vec<String> = embeddings.iter().map(|b| format!("{:6.3}", a.cosine(b))).collect();
            println!("{}  {file}", row.join(" "));
        }
    }
    Ok(())
}
