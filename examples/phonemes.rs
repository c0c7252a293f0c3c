//! Says which phonemes of English are spoken in a file, and when:
//! `cargo run --release --example phonemes -- FILE [WHISPER_TINY_EN.safetensors]`.
//!
//! The second file is `model.safetensors` of `openai/whisper-tiny.en`. Without it, a model of synthesised speech is used.

use clipwise::ctc::{CtcModel, greedy};
use clipwise::{Result, Waveform, WaveformBatch};

fn main() -> Result<()> {
    let [file, encoder] = [1, 2].map(|n| std::env::args().nth(n));
    let Some(file) = file else {
        eprintln!("usage: phonemes FILE [WHISPER_TINY_EN.safetensors]");
        return Ok(());
    };
    let device = clipwise::device::best()?;
    let model = match encoder {
        Some(encoder) => CtcModel::open_with_encoder("weights/whisper-tiny-en-phonemes", encoder, &device)?,
        None => CtcModel::open("weights/gru-ctc-phonemes", &device)?,
    };
    let waveform = Waveform::open(file)?.resample(model.sample_rate())?;
    let output = model.forward(&WaveformBatch::from(&waveform))?;
    let log_probs = output.clip(0)?; // [n_frames, n_tokens]
    let Some(vocabulary) = model.vocabulary() else { return Ok(()) };
    let transcript = greedy(log_probs.view(), vocabulary, output.times[0])?;
    println!("{}", transcript.text);
    for token in &transcript.tokens {
        println!("{:8.2} {:8.2}  {:.2}  {}", token.onset, token.offset, token.confidence, token.name);
    }
    Ok(())
}
