//! Tags audio as it arrives, here raw 16-bit samples on standard input:
//! `arecord -t raw -f S16_LE -r 16000 -c 1 | cargo run --release --example stream`.

use std::io::Read;

use clipwise::{Result, Tagger, WindowConfig, WindowTagging};

/// Rate of the samples in Hz; the stream resamples.
const SAMPLE_RATE: u32 = 16_000;

fn main() -> Result<()> {
    let tagger = Tagger::bundled(&clipwise::device::best()?)?;
    let windows = WindowConfig { length: 2.0, hop: 0.5, ..WindowConfig::default() };
    let mut stream = tagger.stream(SAMPLE_RATE, &windows)?;

    let mut input = std::io::stdin().lock();
    let mut bytes = [0; 3200]; // 0.1 s; blocks may have any size
    while input.read_exact(&mut bytes).is_ok() {
        let samples: Vec<f32> =
            bytes.as_chunks().0.iter().map(|&sample| f32::from(i16::from_le_bytes(sample)) / 32_768.0).collect();
        stream.push(&samples)?.iter().for_each(print);
    }
    stream.finish()?.iter().for_each(print);
    Ok(())
}

fn print(window: &WindowTagging) {
    let tags: Vec<String> =
        window.tagging.above(0.2).iter().map(|tag| format!("{} {:.2}", tag.label, tag.score)).collect();
    println!("{:8.2} s  {}", window.end, tags.join(", "));
}
