//! How well a trained head hears people whom it does not know.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clipwise::augment::Random;
use clipwise::ctc::{BeamSearch, CtcModel, LanguageModel, beam, greedy_batch};
use clipwise::metrics::{EditConfusion, EditCounts};
use clipwise::ndarray::Array3;
use clipwise::{Device, Waveform, WaveformBatch};

use crate::RATE;
use crate::corpus::{self, inventory};
use crate::training::Failure;

/// What to test.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint of openai/whisper-tiny.en
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,
    /// Search this many hypotheses at once instead of taking the best path
    #[arg(long, value_name = "WIDTH")]
    beam: Option<usize>,
    /// With --beam: a language model over phonemes, as an ARPA file
    #[arg(long, value_name = "FILE", requires = "beam")]
    language_model: Option<PathBuf>,
    /// Weights of the language model, each tried
    #[arg(long, value_name = "W", default_values_t = [0.5])]
    lm_weight: Vec<f64>,
    /// Bonuses per phoneme, each tried
    #[arg(long, value_name = "B", default_values_t = [0.5])]
    lm_bonus: Vec<f64>,
    /// The part to test on: test or train
    #[arg(long, default_value = "test")]
    part: String,
    /// Recordings to print the phonemes of
    #[arg(long, value_name = "FILE")]
    hear: Vec<PathBuf>,
    /// The folder with the head
    #[arg(value_name = "FOLDER")]
    head: PathBuf,
    /// Folder of the corpus
    #[arg(value_name = "CORPUS")]
    corpus: Option<PathBuf>,
}

/// Kinds of phonemes.
const CLASSES: [(&str, &[&str]); 6] = [
    ("vowels", &["i", "ɪ", "ɛ", "æ", "ɑ", "ɔ", "ʊ", "u", "ʌ", "ɚ", "eɪ", "aɪ", "ɔɪ", "aʊ", "oʊ"]),
    ("plosives", &["p", "b", "t", "d", "k", "ɡ"]),
    ("fricatives", &["f", "v", "θ", "ð", "s", "z", "ʃ", "ʒ", "h"]),
    ("affricates", &["tʃ", "dʒ"]),
    ("nasals", &["m", "n", "ŋ"]),
    ("approximants", &["l", "ɹ", "j", "w"]),
];

/// Recordings that are heard at once.
const AT_ONCE: usize = 16;
/// Draws of speakers for the interval.
const DRAWS: usize = 10_000;

/// Reads the logarithms of probabilities.
enum Reader {
    Greedy,
    Beam(BeamSearch),
}

pub fn test(args: &Args) -> Result<(), Failure> {
    let model = CtcModel::open_with_encoder(&args.head, &args.encoder, &Device::Cpu)?;
    let vocabulary = model.vocabulary().ok_or("the head has no vocab.json")?;
    let mut readers = vec![("best path".to_string(), Reader::Greedy)];
    if let Some(width) = args.beam {
        let search = || BeamSearch::new(vocabulary, beam::Config { width, ..beam::Config::default() });
        readers.push((format!("beam of {width}"), Reader::Beam(search()?)));
        if let Some(file) = &args.language_model {
            let language_model = LanguageModel::open(file)?;
            for &weight in &args.lm_weight {
                for &bonus in &args.lm_bonus {
                    let config = beam::LanguageModelConfig { weight, bonus, ..Default::default() };
                    let search = search()?.with_language_model(&language_model, config)?;
                    readers.push((format!("language model x {weight}, bonus {bonus}"), Reader::Beam(search)));
                }
            }
        }
    }
    // By reader, the ids of the tokens of each clip.
    let hear = |clips: Vec<Vec<f32>>| -> Result<Vec<Vec<Vec<u32>>>, Failure> {
        let output = model.forward(&WaveformBatch::new(clips, RATE)?)?;
        let values = output.log_probs.flatten_all()?.to_vec1::<f32>()?;
        let log_probs = Array3::from_shape_vec(output.log_probs.dims3()?, values)?;
        let read = |(_, reader): &(String, Reader)| {
            let transcripts = match reader {
                Reader::Greedy => greedy_batch(log_probs.view(), &output.lengths, vocabulary, &output.times)?,
                Reader::Beam(search) => {
                    let best = search.decode_batch(log_probs.view(), &output.lengths, &output.times)?;
                    best.into_iter().flatten().collect()
                }
            };
            Ok(transcripts.into_iter().map(|clip| clip.tokens.iter().map(|token| token.id as u32).collect()).collect())
        };
        readers.iter().map(read).collect()
    };

    for file in &args.hear {
        let heard = hear(vec![Waveform::open(file)?.resample(RATE)?.samples])?;
        for ((name, _), heard) in readers.iter().zip(&heard) {
            let text: Vec<&str> = heard[0].iter().map(|&token| inventory()[token as usize - 1]).collect();
            println!("{}, {name}: {}", file.display(), text.join(" "));
        }
    }
    let Some(corpus) = &args.corpus else { return Ok(()) };
    let utterances = corpus::read(corpus, &args.part)?;
    let mut heard = vec![Vec::new(); readers.len()];
    for some in utterances.chunks(AT_ONCE) {
        let clips = some.iter().map(|u| Ok(u.open()?.samples)).collect::<Result<Vec<_>, Failure>>()?;
        heard.iter_mut().zip(hear(clips)?).for_each(|(all, more)| all.extend(more));
        eprint!("\r{} of {}", heard[0].len(), utterances.len());
    }
    eprintln!();
    for ((name, _), heard) in readers.iter().zip(&heard) {
        let (mut of_speaker, mut confusion) = (BTreeMap::<&str, EditCounts>::new(), EditConfusion::default());
        for (utterance, heard) in utterances.iter().zip(heard) {
            *of_speaker.entry(&utterance.speaker).or_default() += EditCounts::of(&utterance.phonemes, heard);
            confusion.add(&utterance.phonemes, heard);
        }
        let of_speaker: Vec<EditCounts> = of_speaker.into_values().collect();
        report(name, &of_speaker, &confusion);
    }
    Ok(())
}

/// Prints the phoneme error rate with its interval, and the errors by kind.
fn report(name: &str, of_speaker: &[EditCounts], confusion: &EditConfusion<u32>) {
    let rate = |counts: EditCounts| counts.rate().unwrap_or(0.0);
    let all: EditCounts = of_speaker.iter().copied().sum();
    let mut random = Random::new(1);
    let n = of_speaker.len();
    let mut draw = || rate((0..n).map(|_| of_speaker[random.below(n)]).sum());
    let mut rates: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    rates.sort_by(f64::total_cmp);
    println!(
        "{name}: PER {:.4} (95 %: {:.4} to {:.4}, bootstrap over {n} speakers); of {} phonemes {} taken for others, {} missed, \
         {} added",
        rate(all),
        rates[DRAWS / 40],
        rates[DRAWS - 1 - DRAWS / 40],
        all.n_reference(),
        all.substitutions,
        all.deletions,
        all.insertions
    );
    let inventory = inventory();
    for (class, members) in CLASSES {
        let is_member =
            |token: Option<&u32>| token.is_some_and(|&token| members.contains(&inventory[token as usize - 1]));
        let (mut n, mut wrong, mut added) = (0, 0, 0);
        for pair in confusion.pairs() {
            if is_member(pair.reference) {
                n += pair.n;
                wrong += if pair.reference == pair.hypothesis { 0 } else { pair.n };
            } else if pair.reference.is_none() && is_member(pair.hypothesis) {
                added += pair.n;
            }
        }
        println!(
            "  {class:<13} {n:6} phonemes, {:.3} taken for others or missed, {:.3} added",
            wrong as f64 / n as f64,
            added as f64 / n as f64
        );
    }
    let name = |token: Option<&u32>| token.map_or("-", |&token| inventory[token as usize - 1]);
    let worst: Vec<String> = (confusion.errors().iter().take(15))
        .map(|pair| format!("{}→{} {}", name(pair.reference), name(pair.hypothesis), pair.n))
        .collect();
    println!("  most frequent errors: {}", worst.join(", "));
}
