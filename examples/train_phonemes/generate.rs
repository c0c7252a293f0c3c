//! The data: phrases spoken by espeak-ng and flite, with the phonemes that they say they spoke.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clipwise::Waveform;
use clipwise::augment::Random;
use rayon::prelude::*;

use crate::text::Words;
use crate::training::Failure;
use crate::voices::Voice;
use crate::{RATE, phonemes};

/// What to make.
#[derive(clap::Args)]
pub struct Args {
    /// Phrases to train on
    #[arg(long, default_value_t = 20_000)]
    n: usize,
    /// Phrases in each of the three other parts
    #[arg(long, default_value_t = 500)]
    n_test: usize,
    /// The share of phrases that flite speaks; 0 if it is not installed
    #[arg(long, default_value_t = 0.3)]
    flite: f64,
    /// A list of English words, one a line
    #[arg(long, default_value = "/usr/share/dict/american-english-small")]
    words: PathBuf,
    /// Seed of phrases and voices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder to write
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

/// Writes the parts: `train`, `validation` (other phrases of the same words and voices), `words` (the same voices, words that
/// the training lacks) and `voices` (words and voices that it lacks).
pub fn generate(args: &Args) -> Result<(), Failure> {
    let parts = [
        ("validation", args.n_test, false, false),
        ("words", args.n_test, true, false),
        ("voices", args.n_test, true, true),
        ("train", args.n, false, false),
    ];
    for (i, (part, n, new_words, new_voices)) in parts.into_iter().enumerate() {
        let words = Words::read(&args.words, new_words)?;
        let folder = args.data.join(part);
        std::fs::create_dir_all(&folder)?;
        let done = AtomicUsize::new(0);
        let refused = Mutex::new(Vec::new());
        let line = |index: usize| -> Result<Option<String>, Failure> {
            let mut random = Random::stream(args.seed.wrapping_mul(16) + i as u64, index as u64);
            let (phrase, voice) = (words.phrase(&mut random), Voice::draw(new_voices, args.flite, &mut random));
            let file = folder.join(format!("{index:06}.wav"));
            let said = speak(&voice, &phrase, &file)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(100) || done == n {
                eprint!("\r{part}: {done} of {n}");
            }
            match said {
                Ok(said) if !said.is_empty() => {
                    Ok(Some(format!("{part}/{index:06}.wav\t{}\t{}\t{phrase}\n", voice.describe(), said.join(" "))))
                }
                Ok(_) => Ok(None),
                Err(phoneme) => {
                    if let Ok(mut refused) = refused.lock() {
                        refused.push(phoneme);
                    }
                    Ok(None)
                }
            }
        };
        let lines = (0..n).into_par_iter().map(line).collect::<Result<Vec<_>, Failure>>()?;
        let mut list = std::fs::File::create(args.data.join(format!("{part}.tsv")))?;
        list.write_all(lines.into_iter().flatten().collect::<String>().as_bytes())?;
        let mut refused = refused.into_inner()?;
        refused.sort();
        refused.dedup();
        eprintln!("; phonemes of no use: {refused:?}");
    }
    Ok(())
}

/// Writes what a voice says, at [`RATE`], and gives its phonemes, or the name of one that is not known.
fn speak(voice: &Voice, phrase: &str, file: &Path) -> Result<Result<Vec<&'static str>, String>, Failure> {
    let said = match voice {
        Voice::Espeak { name, rate, pitch, gap } => {
            let mut command = Command::new("espeak-ng");
            command.args(["-v", name, "-s", &rate.to_string(), "-p", &pitch.to_string(), "-g", &gap.to_string()]);
            command.args(["--ipa", "--sep=_", "-w"]).arg(file).arg(phrase);
            phonemes::of_espeak(&output(command)?)
        }
        Voice::Flite { name, stretch, pitch } => {
            let mut command = Command::new("flite");
            command.args(["-voice", name, "-ps", "--setf", &format!("duration_stretch={stretch:.3}")]);
            command.args(["--setf", &format!("int_f0_target_mean={pitch:.1}"), "-t", phrase]).arg(file);
            phonemes::of_arpabet(&output(command)?)
        }
    };
    Waveform::open(file)?.resample(RATE)?.write_with(file, clipwise::audio::SampleFormat::Int16)?;
    Ok(said)
}

/// What a program prints.
fn output(mut command: Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name} does not run ({error}): install it, e.g. apt-get install {name}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
