//! Vocabulary files: Hugging Face, text, fairseq, s3prl.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{Config, TokenRef, Vocabulary};
use crate::ctc::languages;
use crate::error::{Error, Result};
use crate::files;

/// Limit on the size of a vocabulary file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Tokens that fairseq prepends to those of a dictionary. The first is the blank of its CTC models.
const FAIRSEQ: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
/// Tokens that s3prl prepends to those of its file. The first is the blank.
const S3PRL: [&str; 3] = ["<pad>", "<eos>", "<unk>"];

type Parsed<T> = std::result::Result<T, String>;

pub(super) fn open(path: &Path, config: &Config) -> Result<Vocabulary> {
    if path.is_dir() {
        return open_folder(path, config);
    }
    let (tokens, config) = parse(&read(path)?, config).map_err(|reason| unusable(path, reason))?;
    build(path, tokens, &config)
}

pub(super) fn open_s3prl(path: &Path) -> Result<Vocabulary> {
    let text = read(path)?;
    let own = lines(&text).map_err(|reason| unusable(path, reason))?;
    let tokens = S3PRL.iter().map(ToString::to_string).chain(own).collect();
    build(path, tokens, &Config { blank: Some(TokenRef::Index(0)), ..Config::default() })
}

/// The name of the vocabulary file in a folder, if there is one.
pub(in crate::ctc) fn in_folder(folder: &Path) -> Result<Option<&'static str>> {
    files::first_of(folder, &["vocab.json", "tokens.txt", "vocab.txt"])
}

fn open_folder(folder: &Path, config: &Config) -> Result<Vocabulary> {
    let Some(name) = in_folder(folder)? else {
        return Err(unusable(folder, "expected vocab.json, tokens.txt or vocab.txt in the folder".to_string()));
    };
    let path = folder.join(name);
    let mut config = config.clone();
    if let (None, Some(name)) = (&config.language, files::first_of(folder, &["tokenizer_config.json"])?) {
        config.language = read_json(&folder.join(name))?.get("target_lang").and_then(Value::as_str).map(str::to_string);
    }
    let (mut tokens, mut config) = parse(&read(&path)?, &config).map_err(|reason| unusable(&path, reason))?;
    for name in ["added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"] {
        if files::first_of(folder, &[name])?.is_none() {
            continue;
        }
        let beside = folder.join(name);
        let value = read_json(&beside)?;
        if name == "added_tokens.json" {
            add(&mut tokens, &value).map_err(|reason| unusable(&beside, reason))?;
        } else {
            take_special(&mut config, &tokens, &value);
        }
    }
    build(&path, tokens, &config)
}

fn unusable(path: &Path, reason: String) -> Error {
    Error::Labels { path: path.to_path_buf(), reason }
}

fn build(path: &Path, tokens: Vec<String>, config: &Config) -> Result<Vocabulary> {
    if tokens.is_empty() {
        return Err(unusable(path, "the file has no tokens".to_string()));
    }
    Vocabulary::with_config(tokens, config).map_err(|error| unusable(path, error.to_string()))
}

fn read(path: &Path) -> Result<String> {
    files::read_text(path, MAX_FILE_BYTES, |path, reason| Error::Labels { path, reason })
}

fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_str(&read(path)?).map_err(|error| unusable(path, error.to_string()))
}

fn parse(text: &str, config: &Config) -> Parsed<(Vec<String>, Config)> {
    let mut config = config.clone();
    // A list of tokens may begin with a bracket (`[PAD]`), so the end must look like JSON as well.
    let (start, end) = (text.trim_start().chars().next(), text.trim_end().chars().next_back());
    let tokens = match (start, end) {
        (None, _) => return Err("the file is empty".to_string()),
        (Some('{'), _) => json(text, config.language.as_deref())?,
        (Some('['), Some(']')) if text.trim_start().trim_start_matches('[').trim_start().starts_with('"') => {
            json(text, None)?
        }
        _ => {
            let lines = lines(text)?;
            match numbered(&lines)? {
                None => lines,
                Some(Numbered::Indices(tokens)) => tokens,
                Some(Numbered::Counts(own)) => {
                    config.blank.get_or_insert(TokenRef::Index(0));
                    FAIRSEQ.iter().map(ToString::to_string).chain(own).collect()
                }
            }
        }
    };
    Ok((tokens, config))
}

/// One token per line. Only line ends are removed, since a space may be a token.
fn lines(text: &str) -> Parsed<Vec<String>> {
    let tokens: Vec<String> = text.lines().map(str::to_string).collect();
    match tokens.iter().skip(1).position(String::is_empty) {
        Some(at) => Err(format!("line {} is empty", at + 2)),
        None => Ok(tokens),
    }
}

enum Numbered {
    /// The second column is the index of each token.
    Indices(Vec<String>),
    /// The second column is the frequency of each token in a corpus.
    Counts(Vec<String>),
}

/// Parses lines that all consist of a token, a space or tab, and a number.
fn numbered(lines: &[String]) -> Parsed<Option<Numbered>> {
    let split = |line: &String| -> Option<(u64, String)> {
        let line = line.trim_end();
        let (token, number) = line.rsplit_once([' ', '\t'])?;
        Some((number.parse().ok()?, token.to_string()))
    };
    let Some(rows) = lines.iter().map(split).collect::<Option<Vec<(u64, String)>>>() else { return Ok(None) };
    let mut sorted = rows.clone();
    sorted.sort();
    let indices = sorted.iter().enumerate().all(|(wanted, (number, _))| *number == wanted as u64);
    Ok(Some(match indices {
        true => Numbered::Indices(sorted.into_iter().map(|(_, token)| token).collect()),
        // Lists with counts do not contain the blank.
        false if rows.iter().any(|(_, token)| super::BLANKS.contains(&token.as_str())) => {
            return Err("expected indices from 0 without gaps".to_string());
        }
        false => Numbered::Counts(rows.into_iter().map(|(_, token)| token).collect()),
    }))
}

/// Parses a list of tokens, a map from tokens to indices, or such a map per language.
fn json(text: &str, language: Option<&str>) -> Parsed<Vec<String>> {
    match serde_json::from_str(text).map_err(|error| error.to_string())? {
        Value::Array(values) => {
            let name =
                |value: &Value| value.as_str().map(str::to_string).ok_or_else(|| format!("{value} is not a token"));
            values.iter().map(name).collect()
        }
        Value::Object(mut fields) => {
            if fields.values().any(Value::is_object) {
                let known: Vec<String> = fields.keys().cloned().collect();
                let own = language.and_then(|language| fields.remove(language));
                let Some(Value::Object(own)) = own else {
                    let (n, shown) = (known.len(), languages::shown(&known));
                    let got = language.map_or("none".to_string(), |language| format!("{language:?}"));
                    return Err(format!("expected one of {n} languages ({shown}), got {got}"));
                };
                fields = own;
            }
            let mut tokens = BTreeMap::new();
            for (token, id) in fields {
                let id = id.as_u64().ok_or_else(|| format!("{id} is not an index"))?;
                if let Some(other) = tokens.insert(id, token.clone()) {
                    return Err(format!("index {id} belongs to both {other:?} and {token:?}"));
                }
            }
            match tokens.keys().enumerate().find(|&(wanted, &id)| wanted as u64 != id) {
                Some((wanted, _)) => Err(format!("index {wanted} is missing")),
                None => Ok(tokens.into_values().collect()),
            }
        }
        _ => Err("expected an array or an object".to_string()),
    }
}

/// Appends the tokens of `added_tokens.json`, whose indices continue those of the others.
fn add(tokens: &mut Vec<String>, added: &Value) -> Parsed<()> {
    let fields = added.as_object().ok_or("expected an object of tokens and indices")?;
    let mut new: Vec<(u64, &String)> = Vec::new();
    for (token, id) in fields {
        let id = id.as_u64().ok_or_else(|| format!("{id} is not an index"))?;
        match usize::try_from(id).ok().and_then(|id| tokens.get(id)) {
            Some(known) if known == token => {}
            Some(known) => return Err(format!("index {id} belongs to both {known:?} and {token:?}")),
            None => new.push((id, token)),
        }
    }
    new.sort();
    for (id, token) in new {
        if id != tokens.len() as u64 {
            return Err(format!("index {} is missing", tokens.len()));
        }
        tokens.push(token.clone());
    }
    Ok(())
}

/// Sets the special tokens that Hugging Face's files name, if they exist in `tokens` and `config` does not set them.
fn take_special(config: &mut Config, tokens: &[String], value: &Value) {
    let name = |field: &str| {
        let value = value.get(field)?;
        let name = value.as_str().or_else(|| value.get("content")?.as_str())?;
        tokens.iter().any(|token| token == name).then(|| TokenRef::Name(name.to_string()))
    };
    config.blank = config.blank.take().or_else(|| name("pad_token"));
    config.unknown = config.unknown.take().or_else(|| name("unk_token"));
    config.word_delimiter = config.word_delimiter.take().or_else(|| name("word_delimiter_token"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Parsed<Vocabulary> {
        let (tokens, config) = parse(text, &Config::default())?;
        Vocabulary::with_config(tokens, &config).map_err(|error| error.to_string())
    }

    #[test]
    fn vocabulary_file_formats_agree() {
        for text in [
            r#"{"ʃ": 2, "[PAD]": 0, "a": 1}"#,
            r#" ["[PAD]", "a", "ʃ"] "#,
            "[PAD]\na\nʃ\n",
            "[PAD]\r\na\r\nʃ",
            "a 1\n[PAD] 0\nʃ 2\n",
            "[PAD]\t0\na\t1\nʃ\t2\n",
        ] {
            let vocabulary = parsed(text).unwrap();
            assert_eq!(
                (vocabulary.tokens(), vocabulary.blank()),
                (&["[PAD]", "a", "ʃ"].map(String::from)[..], 0),
                "{text:?}"
            );
            assert_eq!(parsed(&vocabulary.to_json()).unwrap(), vocabulary);
        }
        let fairseq = parsed("| 94802\nE 51860\nT 38431\n").unwrap();
        assert_eq!(fairseq.tokens().join(","), "<s>,<pad>,</s>,<unk>,|,E,T");
        assert_eq!((fairseq.blank(), fairseq.unknown(), fairseq.word_delimiter()), (0, Some(3), Some(4)));
        assert_eq!(parsed("<pad>\n \na\n").unwrap().word_delimiter(), Some(1), "a space may be a token");
    }

    #[test]
    fn invalid_vocabulary_files_are_described() {
        for (text, reason) in [
            ("", "empty"),
            ("[1, 2]", "blank"), // one token, called so
            (r#"["[PAD]", 2]"#, "not a token"),
            (r#"{"a": "b"}"#, "not an index"),
            (r#"{"a": -1}"#, "not an index"),
            (r#"{"a": 0, "b": 2}"#, "index 1 is missing"),
            (r#"{"a": 0, "b": 0}"#, "index 0 belongs to both"),
            (r#"{"eng": {"a": 0}, "deu": {"a": 0}}"#, "one of 2 languages (deu, eng), got none"),
            (r#"{"a": 0"#, "EOF"),
            ("<pad>\na\na\n", "token 1 and as token 2"),
            ("<pad>\na\n\nb\n", "line 3 is empty"),
            ("a\nb\n", "none of the 2 tokens"),
            ("<blk> 0\na 1\nb 3\n", "without gaps"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn vocabularies_of_hugging_face_and_s3prl_folders() {
        let folder = std::env::temp_dir().join(format!("clipwise-vocabulary-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        assert!(matches!(Vocabulary::open(&folder), Err(Error::Labels { .. })));
        write("vocab.json", r#"{"*": 1, "_": 0, "a": 2, "?": 3}"#);
        write(
            "tokenizer_config.json",
            r#"{"pad_token": "_", "word_delimiter_token": {"content": "*"}, "unk_token": null}"#,
        );
        write("special_tokens_map.json", r#"{"pad_token": "a", "unk_token": "?", "bos_token": "<s>"}"#);
        write("added_tokens.json", r#"{"</s>": 5, "<s>": 4, "a": 2}"#);
        let vocabulary = Vocabulary::open(&folder).unwrap();
        assert_eq!((vocabulary.blank(), vocabulary.word_delimiter(), vocabulary.unknown()), (0, Some(1), Some(3)));
        assert_eq!(vocabulary.tokens()[4..], ["<s>", "</s>"]);
        // A special token that is an added one.
        write("vocab.json", r#"{"<pad>": 0, "a": 1}"#);
        write("added_tokens.json", r##"{"#": 2}"##);
        write("tokenizer_config.json", r##"{"pad_token": "#"}"##);
        assert_eq!(Vocabulary::open(&folder).unwrap().blank(), 2);
        write("vocab.json", r#"{"*": 1, "_": 0, "a": 2, "?": 3}"#);
        write("added_tokens.json", r#"{"<s>": 7}"#);
        assert!(Vocabulary::open(&folder).unwrap_err().to_string().contains("index 4 is missing"));

        write("character.txt", " \na\nb\n");
        let s3prl = Vocabulary::open_s3prl(folder.join("character.txt")).unwrap();
        assert_eq!(s3prl.tokens().join(","), "<pad>,<eos>,<unk>, ,a,b");
        assert_eq!((s3prl.blank(), s3prl.unknown(), s3prl.word_delimiter()), (0, Some(2), Some(3)));
        assert!(matches!(Vocabulary::open(folder.join("none.txt")), Err(Error::Io { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
