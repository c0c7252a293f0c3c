//! `clipwise transcribe`.

pub mod encoder;
mod model;
#[allow(dead_code)] // the part about espeak-ng is used here, the rest by the examples that train
mod phonemes;
mod words;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clipwise::ctc::{BeamSearch, CtcModel, LanguageModel, OpenOptions, Vocabulary, align, beam, greedy};
use clipwise::{Waveform, WaveformBatch};

use self::words::{SpokenText, pronounce};
use crate::input::{FileArgs, ReadArgs};
use crate::message::{Failure, about, in_options, name, say};
use crate::model::RunArgs;
use crate::output::{
    JsonLines, MakeWriter, OutArgs, Record, RecordWriter, RunId, Spoken, TranscriptTable, stdout, writer,
};
use crate::run::{JobArgs, Jobs, Outcome, Status, interrupt, with_threads};

/// Say which phonemes are spoken in audio files, and when; or when a known text is spoken.
///
/// Takes audio files of any sample rate and any number of channels (mixed to mono). Without --weights a model of this project
/// listens, which knows the phonemes of English: on the encoder openai/whisper-tiny.en, if it is found, else one that was trained on
/// synthesised speech. A model of letters or word pieces gives words instead.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
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
    /// With --beam: show the N best transcripts
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
    #[arg(long, value_name = "B", default_value_t = 5.0, requires = "hot_word", allow_negative_numbers = true)]
    hot_word_bonus: f64,
    /// Instead of listening, say when this is spoken: the model's tokens separated by spaces ("h ə l oʊ", "|" between
    /// words), or words
    #[arg(long, value_name = "TEXT", conflicts_with = "beam")]
    align: Option<String>,
    /// What the text of --align and --hot-word is made of
    #[arg(long, value_enum, value_name = "KIND", default_value_t = TextKind::Auto)]
    align_as: TextKind,
    /// Pronunciations of words, one a line: the word, a tab, its phonemes with blanks between. Words that are not in it are
    /// left to espeak-ng, where that is installed
    #[arg(long, value_name = "FILE")]
    lexicon: Option<PathBuf>,
    /// The voice that espeak-ng pronounces words with
    #[arg(long, value_name = "VOICE", default_value = "en-us")]
    voice: String,
    /// What to print: a table for people, or JSON lines (one object per file) for programs [default: table]
    #[arg(long, value_enum, help_heading = "Output")]
    format: Option<Format>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    files: FileArgs,
}

const EXAMPLES: &str =
    "If a file fails, one line on stderr says why, the other files are still transcribed, and the exit status is 1.

Examples:
  clipwise transcribe speech.wav
  clipwise transcribe --encoder whisper-tiny.en/model.safetensors speech.wav
  clipwise transcribe --weights mms-1b-all --language fra parole.wav
  clipwise transcribe --beam 50 --n-best 3 --format json *.wav > transcripts.jsonl
  clipwise transcribe --align \"ask not what your country can do for you\" speech.wav
  clipwise transcribe --align \"k ʌ n t ɹ i\" country.wav";

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What the text of `--align` is made of.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum TextKind {
    /// Phonemes if most of its parts are tokens of the model, else words
    Auto,
    /// The model's tokens, divided by spaces; `|` divides words
    Phonemes,
    /// Words, which are pronounced by --lexicon and espeak-ng
    Words,
}

/// How the frames of a clip are read.
enum Reader {
    Greedy,
    Beam(Box<BeamSearch>),
    Align(SpokenText),
}

/// The rate of a file in Hz, its length in seconds, and what is spoken in it.
type Transcribed = (u32, f64, Option<Spoken>);

impl Args {
    pub fn run(self) -> Outcome {
        with_threads(self.run.threads, || self.transcribe_files())
    }

    fn transcribe_files(&self) -> Outcome {
        self.files.check()?;
        let mut options = OpenOptions::new().device(&self.run.device()?).precision(self.run.precision);
        options.language.clone_from(&self.language);
        let named = model::open(self.weights.as_deref(), self.encoder.as_deref(), &options)?;
        let model::Named { model, name: model_name } = named;
        for assumption in model.assumptions() {
            say(format_args!("note: {assumption}"));
        }
        let vocabulary = model.vocabulary().cloned();
        let vocabulary =
            vocabulary.ok_or_else(|| format!("{model_name}: expected a vocabulary (vocab.json) beside the weights"))?;
        let reader = self.reader(&vocabulary)?;
        interrupt::on_interrupt()?;
        let read = self.read.clone();
        let work = move |file: &Path, emit: &mut dyn FnMut(Transcribed)| {
            let transcribed = read.waveform(file).and_then(|clip| transcribe(clip, &model, &vocabulary, &reader));
            transcribed.map(emit).map_err(|error| about(file, &error))
        };
        let is_json = self.format == Some(Format::Json) || self.format.is_none() && self.out.skip_done.is_some();
        if self.out.skip_done.is_some() && !is_json {
            return Err("--skip-done writes JSON lines: expected --format json".into());
        }
        let print = || -> Result<Box<dyn RecordWriter>, Failure> {
            Ok(match is_json {
                true => Box::new(JsonLines(stdout())),
                false => Box::new(TranscriptTable::new(self.align.is_some())),
            })
        };
        let run = RunId { subcommand: "transcribe", field: "tokens", model: &model_name, settings: self.settings() };
        let make = |ending: &str| -> Option<MakeWriter> {
            match ending {
                "jsonl" => Some(Box::new(|path| Ok(Box::new(JsonLines(writer(path)?))))),
                _ => None,
            }
        };
        let Some(output) = self.out.open(&run, print, make, ".jsonl")? else { return Ok(Status::Good) };
        let jobs = Jobs::new(&self.jobs, self.run.threads).counting(&self.files, self.out.continues());
        output.write_each(&jobs, &self.files, work, |file, (sample_rate, duration, spoken): Transcribed| {
            if let Some(spoken) = spoken.as_ref().filter(|spoken| self.align.is_some() && spoken.is_doubtful()) {
                let confidence = spoken.confidence.unwrap_or_default();
                say(format_args!(
                    "note: {}: low confidence ({confidence:.2}): the text is probably not what is spoken",
                    name(file)
                ));
            }
            Record {
                file: file.to_string_lossy().into_owned(),
                sample_rate: Some(sample_rate),
                duration: Some(duration),
                model: Some(model_name.clone()),
                spoken,
                ..Record::default()
            }
        })
    }

    /// What decides the transcripts, in words.
    fn settings(&self) -> String {
        format!(
            "{:?}",
            (
                (&self.weights, &self.encoder, &self.language, &self.read),
                (self.beam, self.n_best, &self.language_model, self.lm_weight, self.lm_bonus),
                (&self.hot_word, self.hot_word_bonus, &self.align, self.align_as, &self.lexicon, &self.voice),
            )
        )
    }

    fn reader(&self, vocabulary: &Vocabulary) -> Result<Reader, Failure> {
        let pronounce = |text: &str| pronounce(text, self.align_as, vocabulary, self.lexicon.as_deref(), &self.voice);
        if let Some(text) = &self.align {
            return Ok(Reader::Align(pronounce(text)?));
        }
        let Some(width) = self.beam else { return Ok(Reader::Greedy) };
        let config = beam::Config { width, n_best: self.n_best, ..beam::Config::default() };
        let options = [("width", "--beam"), ("n_best", "--n-best")];
        let mut search = BeamSearch::new(vocabulary, config).map_err(|error| in_options(error, &options))?;
        if let Some(file) = &self.language_model {
            let config = beam::LanguageModelConfig {
                weight: self.lm_weight,
                bonus: self.lm_bonus,
                ..beam::LanguageModelConfig::default()
            };
            search = search.with_language_model(&LanguageModel::open(file)?, config)?;
        }
        let mut phrases = Vec::new();
        for phrase in &self.hot_word {
            phrases.push((vocabulary.text(&pronounce(phrase)?.targets(vocabulary))?, self.hot_word_bonus));
        }
        Ok(Reader::Beam(Box::new(search.with_hot_words(&phrases)?)))
    }
}

fn transcribe(
    waveform: Waveform,
    model: &CtcModel,
    vocabulary: &Vocabulary,
    reader: &Reader,
) -> clipwise::Result<Transcribed> {
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
    Ok((waveform.sample_rate, waveform.duration(), Spoken::new(&transcripts, words.as_deref())))
}
