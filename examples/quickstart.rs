//! The shortest useful program: `cargo run --release --example quickstart -- FILE.wav [CHECKPOINT]`.

use clipwise::{Result, Tagger, Waveform};

fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let result = match args.as_slice() {
        [file] => tag(file.as_ref(), None),
        [file, checkpoint] => tag(file.as_ref(), Some(checkpoint.as_ref())),
        _ => return eprintln!("usage: quickstart FILE.wav [CHECKPOINT]"),
    };
    if let Err(error) = result {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn tag(file: &std::path::Path, checkpoint: Option<&std::path::Path>) -> Result<()> {
    let device = clipwise::device::best()?;
    let tagger = match checkpoint {
        Some(checkpoint) => Tagger::open(checkpoint, &device)?, // the model is recognised from its tensors
        None => Tagger::bundled(&device)?,                      // the model in the box (feature `bundled`)
    };
    tagger.assumptions().iter().for_each(|assumption| eprintln!("note: {assumption}"));
    let tagging = tagger.tag(&Waveform::open(file)?)?; // any sample rate, any number of channels
    for tag in tagging.top_k(5) {
        println!("{:5.3}  {}", tag.score, tag.label);
    }
    Ok(())
}
