//! The shortest useful program: `cargo run --release --example quickstart -- CHECKPOINT FILE.wav`.

use clipwise::{Tagger, Waveform};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(checkpoint), Some(file)) = (args.next(), args.next()) else {
        return Err("usage: quickstart CHECKPOINT FILE.wav".into());
    };

    let device = clipwise::device::best()?;
    let tagger = Tagger::open(checkpoint, &device)?; // the model is recognised from its tensors
    let tagging = tagger.tag(&Waveform::open(file)?)?; // any sample rate, any number of channels
    for tag in tagging.top_k(5) {
        println!("{:5.3}  {}", tag.score, tag.label);
    }
    Ok(())
}
