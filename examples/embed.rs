//! Says how alike audio files sound: `cargo run --release --example embed -- FILE…`.

use clipwise::{Embedding, Result, Tagger, Waveform};

fn main() -> Result<()> {
    let tagger = Tagger::bundled(&clipwise::device::best()?)?;
    let files: Vec<String> = std::env::args().skip(1).collect();
    let embed = |file: &String| -> Result<Embedding> {
        Ok(tagger.tag(&Waveform::open(file)?)?.embedding) // `embedding.0` is a Vec<f32>
    };
    let embeddings = files.iter().map(embed).collect::<Result<Vec<_>>>()?;
    for (file, a) in files.iter().zip(&embeddings) {
        let row: Vec<String> = embeddings.iter().map(|b| format!("{:6.3}", a.cosine(b))).collect();
        println!("{}  {file}", row.join(" "));
    }
    Ok(())
}
