//! Says which phonemes are spoken in audio files, and when: `cargo run --release --example transcribe -- --help`.

#[path = "../command_line/mod.rs"]
mod command_line;
mod encoder;
#[allow(dead_code)] // the part about espeak-ng is used
#[path = "../train_phonemes/phonemes.rs"]
mod phonemes;
mod report;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use clipwise::ctc::{BeamSearch, CtcModel, LanguageModel, OpenOptions, Vocabulary, align, beam, greedy};
use clipwise::{Waveform, WaveformBatch, device};
use command_line::{Failure, about, for_each_file, say, say_notes};
use report::{Format, Report, Transcribed};
use words::Spoken;

/// The model of this project, on an encoder that has to be downloaded.
const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/whisper-tiny-en-phonemes");
/// The one that needs nothing else, and knows synthesised speech only.
const WITHOUT_ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/gru-ctc-phonemes");

/// Says which phonemes are spoken in audio files, and when; or when a known text is spoken.
///
/// Takes audio files of any sample rate and any number of channels (mixed to mono). Without --weights a model of this project
/// listens, which knows the phonemes of English: on the encoder openai/whisper-tiny.en, if it is found, else one that was trained on
/// synthesised speech. A model of letters or word pieces gives words instead.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// Folder of a CTC model: config.json, model.safetensors and vocab.json, also as transformers saves its ForCTC models
    /// [default: one of this project]
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
    /// Checkpoint of the encoder, a file or a folder, if the folder of the model holds its head alone [default: what
    /// CLIPWISE_WHISPER_TINY_EN names, else openai/whisper-tiny.en in the cache of Hugging Face's tools]
    #[arg(long, value_name = "PATH")]
    encoder: Option<PathBuf>,
    /// Language of an MMS model, such as fra: its adapters, its head and its vocabulary
    #[arg(long, value_name = "LANGUAGE", requires = "weights", conflicts_with = "encoder")]
    language: Option<String>,
    /// Search this many hypotheses at once, over all their paths, instead of taking the best path
    #[arg(long, value_name = "WIDTH")]
    beam: Option<usize>,
    /// With --beam: also show this many transcripts in all
    #[arg(long, value_name = "N", default_value_t = 1, requires = "beam")]
    n_best: usize,
    /// With --beam: a language model over the model's tokens, or over its words, as an ARPA file
    #[arg(long, value_name = "FILE", requires = "beam")]
    language_model: Option<PathBuf>,
    /// Weight of the language model
    #[arg(long, value_name = "W", default_value_t = 0.5, requires = "language_model")]
    lm_weight: f64,
    /// Bonus for each token or word with a language model
    #[arg(long, value_name = "B", default_value_t = 1.5, requires = "language_model", allow_negative_numbers = true)]
    lm_bonus: f64,
    /// With --beam: favour this phrase, given as --align takes it, such as "k ʌ n t ɹ i"; may be repeated
    #[arg(long, value_name = "PHRASE", requires = "beam")]
    hot_word: Vec<String>,
    /// What a hot word adds to the logarithm of a transcript's probability
    #[arg(long, value_name = "B", default_value_t = 5.0, requires = "hot_word")]
    hot_word_bonus: f64,
    /// Instead of listening, say when this is spoken: the model's tokens with blanks between ("h ə l oʊ", "|" between
    /// words), or words
    #[arg(long, value_name = "TEXT", conflicts_with = "beam")]
    align: Option<String>,
    /// Pronunciations of words, one a line: the word, a tab, its phonemes with blanks between. Words that are not in it are
    /// left to espeak-ng, where that is installed
    #[arg(long, value_name = "FILE")]
    lexicon: Option<PathBuf>,
    /// The voice that espeak-ng pronounces words with
    #[arg(long, value_name = "VOICE", default_value = "en-us")]
    voice: String,
    /// What to print: a table for people, or JSON lines (one object a file) for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Where to run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Audio files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

const EXAMPLES: &str = "A file that cannot be transcribed gives one line on stderr and exit status 1; the others go on.

Examples:
  transcribe speech.wav
  transcribe --encoder whisper-tiny.en/model.safetensors speech.wav
  transcribe --weights mms-1b-all --language fra parole.wav
  transcribe --beam 50 --n-best 3 --format json *.wav > transcripts.jsonl
  transcribe --align \"ask not what your country can do for you\" speech.wav
  transcribe --align \"k ʌ n t ɹ i\" country.wav";

fn main() -> ExitCode {
    let args = Args::parse();
    command_line::run(args.threads, |good| transcribe_files(&args, good))
}

/// How a clip's frames are read.
enum Reader {
    Greedy,
    Beam(Box<BeamSearch>),
    Align(Spoken),
}

/// Transcribes every file; `good` becomes false for one that cannot be transcribed.
fn transcribe_files(args: &Args, good: &AtomicBool) -> Result<(), Failure> {
    let device::Choice { device, reason, .. } = device::choose(&args.device)?;
    if args.device == "auto" && cfg!(feature = "cuda") {
        say(format_args!("note: {reason}"));
    }
    let found = encoder::find();
    let weights = match (&args.weights, args.encoder.as_ref().or(found.as_ref())) {
        (Some(weights), _) => weights,
        (None, Some(_)) => Path::new(WEIGHTS),
        (None, None) => {
            say(format_args!(
                "note: {} is not here, so a model listens that knows synthesised speech only: for people, download its \
                 model.safetensors from huggingface.co and name it with --encoder or {}",
                encoder::REPOSITORY,
                encoder::VARIABLE
            ));
            Path::new(WITHOUT_ENCODER)
        }
    };
    let mut options = OpenOptions::new().device(&device);
    options.language.clone_from(&args.language);
    let on = |encoder: &Path| CtcModel::open_with_encoder(weights, encoder, &device);
    let model = match &args.encoder {
        Some(encoder) => on(encoder)?,
        None => match (CtcModel::open_with(weights, &options), &found) {
            (Err(clipwise::Error::UnknownModel(_)), Some(found)) => on(found)?, // the folder holds the head alone
            (opened, _) => opened?,
        },
    };
    for assumption in model.assumptions() {
        say(format_args!("note: {assumption}"));
    }
    let vocabulary = model
        .vocabulary()
        .ok_or_else(|| format!("{}: a model without vocab.json: its tokens have no names", weights.display()))?;
    let reader = reader(args, vocabulary)?;
    let name = weights.file_name().unwrap_or(weights.as_os_str()).to_string_lossy().into_owned();
    let mut report = Report::new(args.format, name);
    for_each_file(
        &args.files,
        |file| file,
        |file| transcribe(file, &model, vocabulary, &reader),
        |file, transcribed| match transcribed {
            Ok(transcribed) => report.write(file, &transcribed),
            Err(error) => {
                good.store(false, Ordering::Relaxed);
                say(format_args!("error: {}", about(file, &error)));
                Ok(())
            }
        },
    )?;
    Ok(())
}

fn reader(args: &Args, vocabulary: &Vocabulary) -> Result<Reader, Failure> {
    let pronounce = |text: &str| words::pronounce(text, vocabulary, args.lexicon.as_deref(), &args.voice);
    if let Some(text) = &args.align {
        return Ok(Reader::Align(pronounce(text)?));
    }
    let Some(width) = args.beam else { return Ok(Reader::Greedy) };
    let config = beam::Config { width, n_best: args.n_best, ..beam::Config::default() };
    let mut search = BeamSearch::new(vocabulary, config)?;
    if let Some(file) = &args.language_model {
        let config = beam::LanguageModelConfig {
            weight: args.lm_weight,
            bonus: args.lm_bonus,
            ..beam::LanguageModelConfig::default()
        };
        search = search.with_language_model(&LanguageModel::open(file)?, config)?;
    }
    let mut phrases = Vec::new();
    for phrase in &args.hot_word {
        phrases.push((vocabulary.text(&pronounce(phrase)?.targets(vocabulary))?, args.hot_word_bonus));
    }
    Ok(Reader::Beam(Box::new(search.with_hot_words(&phrases)?)))
}

fn transcribe(
    file: &Path,
    model: &CtcModel,
    vocabulary: &Vocabulary,
    reader: &Reader,
) -> clipwise::Result<Transcribed> {
    let waveform = Waveform::open(file)?;
    say_notes(file, waveform.notes());
    let samples = waveform.resample(model.sample_rate())?.samples;
    let output = model.forward(&WaveformBatch::new(vec![samples], model.sample_rate())?)?;
    // Resampling may have moved the end by a part of a sample.
    let (log_probs, times) = (output.clip(0)?, output.times[0].until(waveform.duration()));
    let (transcripts, words) = match reader {
        Reader::Greedy => (vec![greedy(log_probs.view(), vocabulary, times)?], None),
        Reader::Beam(search) => (search.decode(log_probs.view(), times)?, None),
        Reader::Align(spoken) => {
            let aligned = align(log_probs.view(), &spoken.targets(vocabulary), vocabulary, times)?;
            let words = spoken.words(&aligned.transcript, vocabulary);
            (vec![aligned.transcript], Some(words))
        }
    };
    Ok(Transcribed { waveform, transcripts, words })
}
