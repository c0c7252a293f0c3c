//! Finds the recordings of a folder that sound most like one: `cargo run --release --example similar -- QUERY FOLDER`.

use std::path::PathBuf;

use clipwise::{Embedding, Result, Tagger, Waveform};

fn main() -> Result<()> {
    let [query, folder] = [1, 2].map(|n| std::env::args().nth(n).map(PathBuf::from));
    let (Some(query), Some(folder)) = (query, folder) else {
        eprintln!("usage: similar QUERY FOLDER");
        return Ok(());
    };
    let tagger = Tagger::bundled(&clipwise::device::best()?)?;
    let embed = |file: &PathBuf| -> Result<Embedding> { Ok(tagger.tag(&Waveform::open(file)?)?.embedding) };
    let wanted = embed(&query)?;
    let mut found = Vec::new();
    for file in std::fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
        match embed(&file) {
            Ok(embedding) => found.push((wanted.cosine(&embedding), file)),
            Err(error) => eprintln!("note: left out {}: {error}", file.display()), // no audio, perhaps
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (similarity, file) in found.iter().take(10) {
        println!("{similarity:.3}  {}", file.display());
    }
    Ok(())
}
