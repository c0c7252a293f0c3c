//! Back-off n-gram language models from ARPA files.
//!
//! `P(w | h)` is the probability of the n-gram `h w` if the file has it, otherwise the back-off weight of `h` (1 if it
//! has none) times `P(w | h′)`, where `h′` is `h` without its first word (Katz, 1987; the format is that of the CMU and
//! SRILM tools). Values equal those of KenLM.

mod arpa;

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::files;

/// Converts the model's base-10 logarithms to natural ones.
const LN_10: f64 = std::f64::consts::LN_10;
/// log10 of the probability of an unknown word if the file has no `<unk>`, as in KenLM.
const NO_UNKNOWN: f32 = -100.0;

/// An n-gram language model over words, characters or phonemes. Cheap to clone.
///
/// ```
/// use clipwise::ctc::LanguageModel;
///
/// # fn main() -> clipwise::Result<()> {
/// let arpa = "\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-0.5\t<unk>\n-1.0\ta\n-99\t<s>\t-0.25\n\n\\2-grams:\n-0.3\ta a\n\n\\end\\\n";
/// let model = LanguageModel::read(arpa.as_bytes())?;
/// let (ln_probability, _) = model.score(&model.start(), "a");
/// assert!((ln_probability - -1.25 * std::f64::consts::LN_10).abs() < 1e-6); // -1.0, and -0.25 for backing off from <s>
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LanguageModel(Arc<Grams>);

/// The words that the next word depends on: at most the order of the model minus one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Context(Vec<u32>);

/// A trie: the node of an n-gram is reached by its words, from first to last.
#[derive(Debug, Default)]
struct Grams {
    words: HashMap<String, u32>,
    order: usize,
    /// The child of a node for a word. The root is node 0.
    children: HashMap<(u32, u32), u32>,
    nodes: Vec<Gram>,
    unknown: Option<u32>,
}

/// log10 of an n-gram's probability and back-off weight. NaN if the file has only longer n-grams with this beginning.
#[derive(Debug, Clone, Copy)]
struct Gram {
    probability: f32,
    back_off: f32,
}

impl Grams {
    fn node(&self, words: &[u32]) -> Option<u32> {
        words.iter().try_fold(0, |node, &word| self.children.get(&(node, word)).copied())
    }
}

impl LanguageModel {
    /// Reads an ARPA file, in UTF-8 with or without a byte-order mark. KenLM's binary format and compressed files are
    /// not supported. For pipes, use [`read`](Self::read).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read or is not a regular file;
    /// [`Error::Labels`](crate::Error::Labels), with the line number, if it is not an ARPA file or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = files::open(path, "read")?;
        Self::parse(std::io::BufReader::with_capacity(1 << 20, file), path)
    }

    /// As [`LanguageModel::open`], from a reader. Reading stops with an error at input that no ARPA file has: lines of
    /// more than 1 MiB, more than 1 MiB before `\data\`, more than 1 MiB of empty lines after it, and more n-grams than
    /// announced.
    ///
    /// # Errors
    /// As [`LanguageModel::open`].
    pub fn read(reader: impl BufRead) -> Result<Self> {
        Self::parse(reader, Path::new("<stream>"))
    }

    fn parse(reader: impl BufRead, path: &Path) -> Result<Self> {
        arpa::parse(reader, path).map(|grams| Self(Arc::new(grams)))
    }

    /// The order of the model: the length of its longest n-grams.
    pub fn order(&self) -> usize {
        self.0.order
    }

    /// Whether the model knows a word.
    pub fn contains(&self, word: &str) -> bool {
        self.0.words.contains_key(word)
    }

    /// The context at the beginning of a sentence: `<s>`, or empty if the model does not have it.
    pub fn start(&self) -> Context {
        let begin = self.0.words.get("<s>").filter(|_| self.order() > 1);
        Context(begin.copied().into_iter().collect())
    }

    /// The natural log-probability of `word` after `context`, and the context after it. An unknown word has the
    /// probability of `<unk>`, or 1e-100 if there is none.
    pub fn score(&self, context: &Context, word: &str) -> (f64, Context) {
        let (grams, known) = (&*self.0, self.0.words.get(word).copied().or(self.0.unknown));
        let Some(word) = known else {
            return (f64::from(NO_UNKNOWN + self.back_offs(&context.0)) * LN_10, Context::default());
        };
        let mut log10 = 0.0;
        for start in 0..=context.0.len() {
            let history = &context.0[start..];
            let Some(node) = grams.node(history) else { continue };
            let found = grams.children.get(&(node, word)).map(|&child| grams.nodes[child as usize].probability);
            if let Some(probability) = found.filter(|probability| !probability.is_nan()) {
                log10 += probability;
                break;
            }
            log10 += grams.nodes[node as usize].back_off;
        }
        let mut history: Vec<u32> = context.0.iter().copied().chain([word]).collect();
        history.drain(..history.len().saturating_sub(self.order() - 1));
        // Drop the words with which no n-gram begins.
        let needless = (0..history.len()).take_while(|&start| grams.node(&history[start..]).is_none()).count();
        history.drain(..needless);
        (f64::from(log10) * LN_10, Context(history))
    }

    /// The sum of the back-off weights of a context and of its suffixes.
    fn back_offs(&self, context: &[u32]) -> f32 {
        let back_off = |start| self.0.node(&context[start..]).map(|node| self.0.nodes[node as usize].back_off);
        (0..context.len()).filter_map(back_off).sum()
    }

    /// The natural log-probability of the end of the sentence after `context`; 0 if the model has no `</s>`.
    pub fn score_end(&self, context: &Context) -> f64 {
        if self.contains("</s>") { self.score(context, "</s>").0 } else { 0.0 }
    }

    /// The natural log-probability of a sentence, including its beginning and end.
    pub fn score_sentence<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> f64 {
        let (mut sum, mut context) = (0.0, self.start());
        for word in words {
            let (score, next) = self.score(&context, word);
            sum += score;
            context = next;
        }
        sum + self.score_end(&context)
    }
}
