//! CTC decoding, alignment and edit distances against sums over all paths, KenLM, pyctcdecode, torchaudio and jiwer
//! (`golden/ctc.py`, `golden/ctc_pyctcdecode.py`).

mod common;

use std::collections::HashMap;
use std::path::PathBuf;

use clipwise::ctc::beam::{self, LanguageModelConfig, Unit};
use clipwise::ctc::vocabulary::{self, TokenRef};
use clipwise::ctc::*;
use clipwise::ndarray::{Array2, Array3, ArrayView2, Axis, array, s};
use clipwise::{Error, metrics};
use common::golden_path;
use safetensors::SafeTensors;
use serde_json::Value;

const FRAME: f64 = 0.02;

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden_path(name)).unwrap()).unwrap()
}

fn golden(file: &str, name: &str) -> Array2<f32> {
    let bytes = std::fs::read(golden_path(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Array2::from_shape_vec((view.shape()[0], view.shape()[1]), values).unwrap()
}

fn ids(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as usize).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
}

fn vocabulary(tokens: Vec<String>, blank: usize) -> Vocabulary {
    let config = vocabulary::Config { blank: Some(TokenRef::Index(blank)), ..Default::default() };
    Vocabulary::with_config(tokens, &config).unwrap()
}

/// A search that prunes nothing.
fn everything(n_best: usize) -> beam::Config {
    beam::Config { width: 1 << 20, min_token_log_prob: f64::NEG_INFINITY, max_score_gap: f64::INFINITY, n_best }
}

#[track_caller]
fn assert_near(what: &str, got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "{what}: got {got}, expected {expected}");
}

/// Log-probabilities `[n_frames, n_tokens]` from a multiplicative generator.
fn noise(n_frames: usize, n_tokens: usize, spread: f32, seed: u64) -> Array2<f32> {
    let mut state = seed;
    let logits = Array2::from_shape_simple_fn((n_frames, n_tokens), || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * spread
    });
    log_softmax(logits.view()).unwrap()
}

#[test]
fn a_search_without_pruning_equals_the_sum_over_all_paths() {
    let data = json("ctc.json");
    for (name, case) in data["beam"].as_object().unwrap() {
        let vocabulary = vocabulary(texts(&case["tokens"]), case["blank"].as_u64().unwrap() as usize);
        let log_probs = golden("ctc.safetensors", &format!("beam.{name}"));
        let mut search = BeamSearch::new(&vocabulary, everything(1 << 20)).unwrap();
        let settings = &case["language_model"];
        if !settings.is_null() {
            let model = LanguageModel::open(golden_path(settings["model"].as_str().unwrap())).unwrap();
            let config: LanguageModelConfig = serde_json::from_value(settings.clone()).unwrap();
            search = search.with_language_model(&model, config).unwrap();
        }
        let found = search.decode(log_probs.view(), FRAME).unwrap();
        assert_eq!(found.len() as u64, case["n"].as_u64().unwrap(), "{name}: number of sequences");
        for (got, expected) in found.iter().zip(case["best"].as_array().unwrap()) {
            assert_eq!(got.ids(), ids(&expected["ids"]), "{name}");
            for (what, got) in [("score", got.score), ("ctc", got.ctc_score), ("lm", got.lm_score)] {
                assert_near(&format!("{name} {what}"), got, expected[what].as_f64().unwrap(), 2e-5);
            }
            let aligned = align(log_probs.view(), &got.ids(), &vocabulary, FRAME).unwrap();
            assert_eq!(aligned.path, ids(&expected["path"]), "{name}: best path");
            assert_eq!(got.tokens, aligned.transcript.tokens, "{name}: times are those of the best path");
        }
    }
}

#[test]
fn a_search_of_usual_width_equals_pyctcdecode() {
    let data = json("ctc_pyctcdecode.json");
    let tokens = texts(&data["labels"]);
    let vocabulary = vocabulary(tokens, 0);
    assert!(vocabulary.word_delimiter() == Some(3) && !vocabulary.is_spaced());
    let model = LanguageModel::open(golden_path("ctc_words.arpa")).unwrap();
    let config = LanguageModelConfig {
        weight: data["alpha"].as_f64().unwrap(),
        bonus: data["beta"].as_f64().unwrap(),
        ..Default::default()
    };
    let without = BeamSearch::new(&vocabulary, beam::Config::default()).unwrap();
    let with = without.clone().with_language_model(&model, config).unwrap();
    for (at, clip) in data["clips"].as_array().unwrap().iter().enumerate() {
        let log_probs = golden("ctc_pyctcdecode.safetensors", &format!("speech.{at}"));
        for (kind, search) in [("without", &without), ("with", &with)] {
            let (got, expected) = (search.decode(log_probs.view(), FRAME).unwrap().remove(0), &clip[kind]);
            // pyctcdecode's sums lack some paths and include others, of texts that differ in spaces.
            assert_eq!(got.text, expected["text"].as_str().unwrap(), "clip {at} {kind} a model");
            assert_near("ctc", got.ctc_score, expected["ctc"].as_f64().unwrap(), 0.1);
            assert_near("score", got.score, expected["score"].as_f64().unwrap(), 0.1);
        }
    }
}

#[test]
fn language_model_scores_equal_kenlm() {
    let models: HashMap<&str, LanguageModel> = ["ctc_words.arpa", "ctc_tokens.arpa"]
        .map(|name| (name, LanguageModel::open(golden_path(name)).unwrap()))
        .into();
    assert_eq!((models["ctc_words.arpa"].order(), models["ctc_tokens.arpa"].order()), (3, 4));
    for case in json("ctc.json")["language_model"].as_array().unwrap() {
        let (model, units) = (&models[case["model"].as_str().unwrap()], texts(&case["units"]));
        let whole = case["whole"].as_bool().unwrap();
        let mut context = if whole { model.start() } else { Default::default() };
        let mut scores = Vec::new();
        for unit in &units {
            let (score, next) = model.score(&context, unit);
            scores.push(score);
            context = next;
        }
        if whole {
            scores.push(model.score_end(&context));
            let sum: f64 = scores.iter().sum();
            assert_near("sentence", model.score_sentence(units.iter().map(String::as_str)), sum, 1e-9);
        }
        let expected = case["scores"].as_array().unwrap();
        assert_eq!(scores.len(), expected.len());
        for (got, expected) in scores.iter().zip(expected) {
            assert_near(&format!("{units:?}"), *got, expected.as_f64().unwrap(), 1e-5);
        }
        let unknown: Vec<bool> = units.iter().map(|unit| !model.contains(unit)).collect();
        assert_eq!(Value::from(unknown), case["unknown"], "{units:?}");
    }
}

#[test]
fn errors_of_damaged_language_models_name_the_line() {
    let arpa = |counts: &str, rest: &str| format!("\\data\\\n{counts}\n\n{rest}");
    let unigrams = "\\1-grams:\n-1 a -0.5\n-1 b\n\n";
    for (text, reason) in [
        (String::new(), "without a line"),
        ("hello\n".to_string(), "without a line"),
        ("\\data\\\n".to_string(), "truncated"),
        (arpa("ngram 1=2", unigrams), "truncated"),
        (arpa("ngram 1=3", &format!("{unigrams}\\end\\")), "expected 3 1-grams, got 2"),
        (arpa("ngram 1=x", ""), "line 2"),
        (arpa("ngram 2=1", ""), "expected order 1, at most 32, got 2"),
        (arpa("ngram 1=2", "\\2-grams:\n"), "expected \\1-grams:"),
        (arpa("ngram 1=2", &format!("{unigrams}\\2-grams:\n")), "expected \\2-grams: or"),
        (arpa("ngram 1=2", "\\1-grams:\n0.5 a\n"), "of at most 0"),
        (arpa("ngram 1=2", "\\1-grams:\nnan a\n"), "expected a logarithm"),
        (arpa("ngram 1=2", "\\1-grams:\n-1 a\n-2 a\n"), "occurs twice"),
        (arpa("ngram 1=2", "\\1-grams:\n-1 a b c\n"), "4 fields"),
        (arpa("ngram 1=2\nngram 2=1", &format!("{unigrams}\\2-grams:\n-1 a c\n")), "not among the 1-grams"),
        (arpa("ngram 1=0", "\\end\\"), "no 1-grams"),
        ("mmap lm http://kheafield.com/code".to_string(), "binary"),
    ] {
        let error = LanguageModel::read(text.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Labels { .. }) && error.to_string().contains(reason), "{text:?}: {error}");
    }
}

#[test]
fn hot_words_add_their_bonus_for_each_occurrence_and_nothing_else() {
    // With a delimiter only whole words match, otherwise any run; "aa" overlaps itself.
    let words = Vocabulary::new(["<pad>", "a", "b", "|"]).unwrap();
    let runs = Vocabulary::new(["<pad>", "a", "b"]).unwrap();
    for (vocabulary, n_frames, phrases) in [
        (&words, 7, vec![("ab", 1.5), ("b", 0.75), ("a ab", 1.0)]),
        (&runs, 8, vec![("ab", 0.7), ("aba", 1.1), ("aa", -0.6), ("b", 0.2)]),
    ] {
        let log_probs = noise(n_frames, vocabulary.len(), 4.0, 5);
        let search = BeamSearch::new(vocabulary, everything(1 << 20)).unwrap();
        let with = search.clone().with_hot_words(&phrases).unwrap();
        let plain = search.decode(log_probs.view(), FRAME).unwrap();
        let scored = with.decode(log_probs.view(), FRAME).unwrap();
        assert_eq!(plain.len(), scored.len());
        let ctc: HashMap<Vec<usize>, f64> = plain.iter().map(|found| (found.ids(), found.ctc_score)).collect();
        for found in &scored {
            let names: String = found.tokens.iter().map(|token| token.name.as_str()).collect();
            let count = |phrase: &str| {
                let (names, phrase) = match vocabulary.has_words() {
                    true => (format!("|{names}|"), format!("|{}|", phrase.replace(' ', "|"))),
                    false => (names.clone(), phrase.to_string()),
                };
                (0..names.len()).filter(|&at| names[at..].starts_with(&phrase)).count() as f64
            };
            let bonus: f64 = phrases.iter().map(|&(phrase, bonus)| bonus * count(phrase)).sum();
            assert_near(&names, found.score, ctc[&found.ids()] + bonus, 1e-9);
        }
        assert!(scored.is_sorted_by(|a, b| a.score >= b.score));
    }
    let search = BeamSearch::new(&words, beam::Config::default()).unwrap();
    for phrases in [[("xyz", 1.0)], [("", 1.0)], [("ab", f64::NAN)], [("ab", f64::MAX)]] {
        let error = search.clone().with_hot_words(&phrases).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
    }
}

#[test]
fn frames_in_pieces_give_the_same_as_the_whole() {
    let vocabulary = Vocabulary::new(["<pad>", "a", "b", "|", "c"]).unwrap();
    let log_probs = noise(1500, 5, 9.0, 11);
    let config = beam::Config { width: 12, n_best: 5, ..Default::default() };
    let model = LanguageModel::open(golden_path("ctc_words.arpa")).unwrap();
    let search = BeamSearch::new(&vocabulary, config).unwrap();
    let search = search.with_language_model(&model, LanguageModelConfig::default()).unwrap();
    let search = search.with_hot_words(&[("ab", 2.0), ("ba ab", 1.0)]).unwrap();
    let whole = search.decode(log_probs.view(), FRAME).unwrap();
    let best_path = greedy(log_probs.view(), &vocabulary, FRAME).unwrap();
    assert_eq!(whole.len(), 5);
    // Times survive pruning: they are those of the best path, unless it left the search.
    let aligned = align(log_probs.view(), &whole[0].ids(), &vocabulary, FRAME).unwrap().transcript.tokens;
    let same = whole[0].tokens.iter().zip(&aligned).filter(|(a, b)| a == b).count();
    assert!(same * 100 >= aligned.len() * 98 && aligned.len() > 600, "{same} of {}", aligned.len());
    for piece in [1, 7, 640] {
        let mut beams = search.decoder(FRAME).unwrap();
        let mut best = GreedyDecoder::new(&vocabulary, FRAME).unwrap();
        let (mut ended, mut settled) = (Vec::new(), Vec::new());
        for frames in log_probs.axis_chunks_iter(Axis(0), piece) {
            beams.push(frames).unwrap();
            ended.extend(best.push(frames).unwrap().to_vec());
            if beams.n_frames() % 160 < piece {
                let now = beams.transcripts().unwrap()[0].ids();
                assert!(now.starts_with(&settled), "what is settled stays");
                settled = now[..beams.n_settled()].to_vec();
            }
        }
        beams.push(log_probs.slice(s![..0, ..])).unwrap();
        assert_eq!(beams.transcripts().unwrap(), whole, "pieces of {piece}");
        assert!(whole[0].ids().starts_with(&settled) && settled.len() > 100, "{} tokens are settled", settled.len());
        assert_eq!(best.transcript().unwrap(), best_path, "pieces of {piece}");
        assert!(best_path.tokens.starts_with(&ended) && best_path.tokens.len() <= ended.len() + 1);
    }
}

#[test]
fn times_words_and_confidences_of_a_greedy_transcript() {
    let vocabulary = Vocabulary::new(["[PAD]", "h", "i", "|"]).unwrap();
    let chosen = [0, 1, 1, 2, 0, 0, 2, 3, 3, 1];
    let log_probs = Array2::from_shape_fn((10, 4), |(frame, token)| {
        let right: f32 = if frame == 2 { 0.7 } else { 0.9 };
        if chosen[frame] == token { right.ln() } else { ((1.0 - right) / 3.0).ln() }
    });
    let transcript = greedy(log_probs.view(), &vocabulary, 0.5).unwrap();
    assert_eq!((transcript.text.as_str(), transcript.ids()), ("hii h", vec![1, 2, 2, 3, 1]));
    let first = &transcript.tokens[0];
    assert_eq!((first.name.as_str(), first.frames.clone(), first.onset, first.offset), ("h", 1..3, 0.5, 1.5));
    assert_near("confidence", f64::from(first.confidence), 0.8, 1e-6);
    let words: Vec<_> = transcript.words.iter().map(|word| (word.text.as_str(), word.onset, word.offset)).collect();
    assert_eq!(words, [("hii", 0.5, 3.5), ("h", 4.5, 5.0)]);
    assert_near("score", transcript.score, 9.0 * 0.9f64.ln() + 0.7f64.ln(), 1e-5);
    let json = serde_json::to_string(&transcript).unwrap();
    assert_eq!(serde_json::from_str::<Transcript>(&json).unwrap().tokens, transcript.tokens);
}

#[test]
fn a_real_models_frames_collapse_as_in_its_own_code() {
    let Some(folder) = std::env::var_os("CLIPWISE_REAL") else {
        return println!("skipped: CLIPWISE_REAL is not set, so real/ctc-frames-jfk.json is not at hand");
    };
    let file = PathBuf::from(folder).join("real/ctc-frames-jfk.json");
    let data: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let (frames, expected) = (ids(&data["frame_token_ids"]), ids(&data["token_ids"]));
    let blank = 190; // silence at the beginning
    assert_eq!((frames.len(), expected.len()), (551, 98));
    assert_eq!(collapse(&frames, blank), expected);
    let certain = Array2::from_shape_fn((551, 191), |(t, id)| if frames[t] == id { 0.0 } else { f32::NEG_INFINITY });
    let vocabulary = Vocabulary::numbered(191, blank).unwrap();
    let transcript = greedy(certain.view(), &vocabulary, FRAME).unwrap();
    assert_eq!(transcript.ids(), expected);
    let beams = BeamSearch::new(&vocabulary, beam::Config::default()).unwrap();
    assert_eq!(beams.decode(certain.view(), FRAME).unwrap(), std::slice::from_ref(&transcript));
    assert_eq!(align(certain.view(), &expected, &vocabulary, FRAME).unwrap().transcript, transcript);
}

#[test]
fn clips_of_a_batch_are_decoded_as_if_alone() {
    let vocabulary = Vocabulary::new(["<pad>", "a", "b", "|"]).unwrap();
    let lengths = [30, 1, 17];
    let batch = Array3::from_shape_fn((3, 30, 4), |(clip, frame, token)| {
        if frame < lengths[clip] { noise(30, 4, 6.0, clip as u64)[[frame, token]] } else { f32::NAN }
    });
    let search = BeamSearch::new(&vocabulary, beam::Config::default()).unwrap();
    let times = [FrameTimes::new(FRAME), FrameTimes::new(FRAME).until(0.015), FrameTimes::new(FRAME).until(0.33)];
    let greedily = greedy_batch(batch.view(), &lengths, &vocabulary, &times).unwrap();
    let widely = search.decode_batch(batch.view(), &lengths, &times).unwrap();
    for (clip, &length) in lengths.iter().enumerate() {
        let alone = noise(30, 4, 6.0, clip as u64).slice_move(s![..length, ..]);
        assert_eq!(greedily[clip], greedy(alone.view(), &vocabulary, times[clip]).unwrap());
        assert_eq!(widely[clip], search.decode(alone.view(), times[clip]).unwrap());
    }
    for lengths in [&[30, 1][..], &[30, 1, 31]] {
        let error = greedy_batch(batch.view(), lengths, &vocabulary, &times[..lengths.len()]).unwrap_err();
        assert!(matches!(error, Error::Argument { name: "lengths", .. }), "{error}");
    }
    let error = search.decode_batch(batch.view(), &lengths, &times[1..]).unwrap_err();
    assert!(matches!(error, Error::Argument { name: "times", .. }), "{error}");
}

#[test]
fn no_time_is_later_than_the_end_of_the_clip() {
    let vocabulary = Vocabulary::new(["<pad>", "a", "b", "|"]).unwrap();
    let path = [0, 1, 1, 0, 3, 2, 2];
    let certain = Array2::from_shape_fn((7, 4), |(t, id)| if path[t] == id { 0.0 } else { f32::NEG_INFINITY });
    let search = BeamSearch::new(&vocabulary, beam::Config::default()).unwrap();
    // Onset and offset of a, | and b for several clip lengths; frames begin at 0, 0.02, … and the last ends at 0.14.
    for (end, expected) in [
        (None, [(0.02, 0.06), (0.08, 0.1), (0.1, 0.14)]),
        (Some(0.2), [(0.02, 0.06), (0.08, 0.1), (0.1, 0.14)]),
        (Some(0.131), [(0.02, 0.06), (0.08, 0.1), (0.1, 0.131)]),
        (Some(0.1), [(0.02, 0.06), (0.08, 0.1), (0.1, 0.1)]),
        (Some(0.05), [(0.02, 0.05), (0.05, 0.05), (0.05, 0.05)]),
        (Some(0.0), [(0.0, 0.0); 3]),
    ] {
        let times = end.map_or(FRAME.into(), |end| FrameTimes::new(FRAME).until(end));
        let mut transcripts = search.decode(certain.view(), times).unwrap();
        transcripts.push(greedy(certain.view(), &vocabulary, times).unwrap());
        transcripts.push(align(certain.view(), &[1, 3, 2], &vocabulary, times).unwrap().transcript);
        // Decoders that learn the clip's length late.
        let (mut pieces, mut wide) = (GreedyDecoder::new(&vocabulary, FRAME).unwrap(), search.decoder(FRAME).unwrap());
        for frames in certain.axis_chunks_iter(Axis(0), 3) {
            pieces.push(frames).unwrap();
            wide.push(frames).unwrap();
        }
        if let Some(end) = end {
            pieces.end_at(end).unwrap();
            wide.end_at(end).unwrap();
        }
        transcripts.push(pieces.transcript().unwrap());
        transcripts.extend(wide.transcripts().unwrap());
        assert_eq!(transcripts.len(), 5);
        for transcript in transcripts {
            assert_eq!(transcript.ids(), [1, 3, 2]);
            assert_eq!(transcript.tokens.iter().map(|token| token.frames.len()).collect::<Vec<_>>(), [2, 1, 2]);
            for (token, (onset, offset)) in transcript.tokens.iter().zip(expected) {
                assert_near("onset", token.onset, onset, 1e-12);
                assert_near("offset", token.offset, offset, 1e-12);
                assert!(end.is_none_or(|end| token.onset <= token.offset && token.offset <= end));
            }
            for (word, (onset, offset)) in transcript.words.iter().zip([expected[0], expected[2]]) {
                assert_near("onset of a word", word.onset, onset, 1e-12);
                assert_near("offset of a word", word.offset, offset, 1e-12);
            }
        }
    }
    for end in [-0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let times = FrameTimes::new(FRAME).until(end);
        let is_refused = |error| matches!(error, Error::Argument { name: "end", .. });
        assert!(is_refused(greedy(certain.view(), &vocabulary, times).unwrap_err()));
        assert!(is_refused(search.decode(certain.view(), times).unwrap_err()));
        assert!(is_refused(align(certain.view(), &[1], &vocabulary, times).unwrap_err()));
        let mut decoder = GreedyDecoder::new(&vocabulary, FrameTimes::new(FRAME).until(0.03)).unwrap();
        decoder.push(certain.view()).unwrap();
        assert!(is_refused(decoder.end_at(end).unwrap_err()));
        assert!(is_refused(search.decoder(FRAME).unwrap().end_at(end).unwrap_err()));
        assert_eq!(decoder.transcript().unwrap().tokens[0].offset, 0.03);
    }
}

#[test]
fn alignments_equal_torchaudio() {
    for (name, case) in json("ctc.json")["align"].as_object().unwrap() {
        let size = |field: &str| case[field].as_u64().unwrap() as usize;
        let log_probs = match name.as_str() {
            "long" => common_frames("align.long", size("n_frames"), size("n_tokens"), 3.0),
            name => golden("ctc.safetensors", &format!("align.{name}")),
        };
        let vocabulary = Vocabulary::numbered(size("n_tokens"), size("blank")).unwrap();
        let found = align(log_probs.view(), &ids(&case["targets"]), &vocabulary, FRAME).unwrap();
        assert_eq!(found.path, ids(&case["path"]), "{name}");
        assert_near(name, found.transcript.score, case["score"].as_f64().unwrap(), 1e-3);
        let expected = case["spans"].as_array().unwrap();
        assert_eq!(found.transcript.tokens.len(), expected.len(), "{name}");
        for (token, span) in found.transcript.tokens.iter().zip(expected) {
            let place = |at: usize| span[at].as_u64().unwrap() as usize;
            assert_eq!((token.id, token.frames.clone()), (place(0), place(1)..place(2)), "{name}");
            assert_near(name, f64::from(token.confidence), span[3].as_f64().unwrap(), 1e-5);
        }
    }
}

/// The hashed frames of `golden/ctc.py`.
fn common_frames(name: &str, n_frames: usize, n_tokens: usize, spread: f64) -> Array2<f32> {
    let logits = common::hashed(name, n_frames * n_tokens, -spread, spread, 61);
    log_softmax(ArrayView2::from_shape((n_frames, n_tokens), &logits).unwrap()).unwrap()
}

#[test]
fn impossible_alignments_are_typed_errors() {
    let vocabulary = Vocabulary::new(["<pad>", "a", "b"]).unwrap();
    let log_probs = noise(4, 3, 4.0, 3);
    let align = |targets: &[usize]| align(log_probs.view(), targets, &vocabulary, FRAME);
    assert!(matches!(align(&[1, 1, 2, 2]), Err(Error::TooFewFrames { needed: 6, got: 4 })));
    assert!(matches!(align(&[1, 1, 1]), Err(Error::TooFewFrames { needed: 5, got: 4 })));
    assert!(matches!(align(&[1, 0]), Err(Error::Argument { name: "targets", .. })));
    assert!(matches!(align(&[3]), Err(Error::Argument { name: "targets", .. })));
    assert_eq!(align(&[]).unwrap().path, [0, 0, 0, 0]);
    assert_eq!(align(&[1, 2, 1, 2]).unwrap().path, [1, 2, 1, 2]);
    let without_b = array![[0.5f32, 0.5, 0.0], [0.5, 0.5, 0.0]].mapv(f32::ln);
    let error = clipwise::ctc::align(without_b.view(), &[2], &vocabulary, FRAME).unwrap_err();
    assert!(matches!(error, Error::Argument { name: "log_probs", .. }), "{error}");
}

#[test]
fn hostile_frames_are_typed_errors() {
    let vocabulary = Vocabulary::new(["<pad>", "a", "b"]).unwrap();
    let search = BeamSearch::new(&vocabulary, beam::Config::default()).unwrap();
    let everything = |frames: ArrayView2<f32>| {
        [
            greedy(frames, &vocabulary, FRAME).unwrap_err(),
            search.decode(frames, FRAME).unwrap_err(),
            align(frames, &[1], &vocabulary, FRAME).unwrap_err(),
        ]
    };
    let good = noise(3, 3, 4.0, 1);
    let with = |value: f32| {
        let mut frames = good.clone();
        frames[[1, 2]] = value;
        frames
    };
    let mut impossible = good.clone();
    impossible.row_mut(2).fill(f32::NEG_INFINITY);
    for frames in [with(f32::NAN), with(f32::INFINITY), with(3.0), impossible.clone()] {
        for error in everything(frames.view()) {
            assert!(matches!(error, Error::Argument { name: "log_probs", .. }), "{error}");
        }
    }
    for error in everything(Array2::zeros((0, 3)).view()) {
        assert!(matches!(error, Error::TooFewFrames { needed: 1, got: 0 }), "{error}");
    }
    for error in everything(noise(3, 4, 4.0, 1).view()) {
        assert!(matches!(error, Error::LabelCount { n_classes: 4, n_labels: 3 }), "{error}");
    }
    for error in everything(Array2::zeros((3, 0)).view()) {
        assert!(matches!(error, Error::Argument { name: "n_tokens", .. }), "{error}");
    }
    for frame_seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(greedy(good.view(), &vocabulary, frame_seconds), Err(Error::Argument { .. })));
        assert!(
            search.decoder(frame_seconds).is_err() && align(good.view(), &[1], &vocabulary, frame_seconds).is_err()
        );
    }
    assert!(matches!(Vocabulary::numbered(3, 3), Err(Error::Config { field: "blank", .. })));
    assert!(matches!(log_softmax(with(f32::NAN).view()), Err(Error::Argument { name: "logits", .. })));
    assert!(matches!(log_softmax(impossible.view()), Err(Error::Argument { name: "logits", .. })));
    assert_eq!(log_softmax(Array2::zeros((0, 3)).view()).unwrap().dim(), (0, 3));

    // A rejected push leaves the decoder unchanged; a probability of 0 is not an error.
    let mut decoder = search.decoder(FRAME).unwrap();
    decoder.push(good.view()).unwrap();
    let before = decoder.transcripts().unwrap();
    assert!(decoder.push(impossible.view()).is_err());
    assert_eq!(decoder.transcripts().unwrap(), before);
    decoder.push(with(f32::NEG_INFINITY).view()).unwrap();
    assert!(decoder.transcripts().unwrap()[0].score.is_finite());

    for config in [
        beam::Config { width: 0, ..Default::default() },
        beam::Config { n_best: 0, ..Default::default() },
        beam::Config { min_token_log_prob: f64::NAN, ..Default::default() },
        beam::Config { max_score_gap: -1.0, ..Default::default() },
    ] {
        assert!(matches!(BeamSearch::new(&vocabulary, config), Err(Error::Config { .. })));
    }
    let model = LanguageModel::open(golden_path("ctc_tokens.arpa")).unwrap();
    for config in [
        LanguageModelConfig { unit: Some(Unit::Words), ..Default::default() },
        LanguageModelConfig { weight: f64::NAN, ..Default::default() },
    ] {
        assert!(matches!(search.clone().with_language_model(&model, config), Err(Error::Config { .. })));
    }
}

#[test]
fn edit_distances_equal_jiwer() {
    let data = &json("ctc.json")["edit"];
    for case in data["sequences"].as_array().unwrap() {
        let (reference, hypothesis) = (ids(&case["reference"]), ids(&case["hypothesis"]));
        let counts = metrics::EditCounts::of(&reference, &hypothesis);
        assert_eq!(counts.n_errors(), case["errors"].as_u64().unwrap(), "{case}");
        assert_eq!(counts.n_reference(), reference.len() as u64);
        // The edits turn one sequence into the other.
        let mut made = Vec::new();
        let mut next = 0;
        for edit in metrics::edits(&reference, &hypothesis) {
            let (from, to) = match edit {
                metrics::Edit::Match { reference: from, hypothesis: to } => {
                    assert_eq!(reference[from], hypothesis[to]);
                    (Some(from), Some(to))
                }
                metrics::Edit::Substitute { reference: from, hypothesis: to } => {
                    assert_ne!(reference[from], hypothesis[to]);
                    (Some(from), Some(to))
                }
                metrics::Edit::Delete { reference } => (Some(reference), None),
                metrics::Edit::Insert { hypothesis } => (None, Some(hypothesis)),
            };
            if let Some(from) = from {
                assert_eq!(from, next);
                next += 1;
            }
            made.extend(to.inspect(|&to| assert_eq!(to, made.len())).map(|to| hypothesis[to]));
        }
        assert_eq!((next, made), (reference.len(), hypothesis.clone()));
        let mut confusion = metrics::EditConfusion::default();
        confusion.add(&reference, &hypothesis);
        assert_eq!(confusion.counts(), counts);
        let errors = confusion.errors();
        assert_eq!(errors.iter().map(|error| error.n).sum::<u64>(), counts.n_errors());
        assert!(errors.is_sorted_by(|a, b| a.n >= b.n));
    }
    let (mut words, mut characters) = (metrics::EditCounts::default(), metrics::EditCounts::default());
    for pair in data["texts"].as_array().unwrap() {
        let (reference, hypothesis) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        words += metrics::EditCounts::of_words(reference, hypothesis);
        characters += metrics::EditCounts::of_characters(reference, hypothesis);
    }
    assert_near("WER", words.rate().unwrap(), data["wer"].as_f64().unwrap(), 1e-12);
    assert_near("CER", characters.rate().unwrap(), data["cer"].as_f64().unwrap(), 1e-12);
    assert_eq!(metrics::EditCounts::of::<u8>(&[], &[]).rate(), None);
    assert_eq!(metrics::EditCounts::of::<u8>(&[], &[1]).n_errors(), 1);
}
