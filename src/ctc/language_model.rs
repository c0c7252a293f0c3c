//! Back-off n-gram language models from ARPA files.
//!
//! `P(w | h)` is the file's probability of the n-gram `h w` if it has it, else the back-off weight of `h` (1 if it has none)
//! times `P(w | h′)`, `h′` being `h` without its first word (Katz, 1987; the format is that of the CMU and SRILM tools).
//! Values are those of KenLM.

mod arpa;

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::files;

/// The model's logarithms are to base 10, ours natural.
const LN_10: f64 = std::f64::consts::LN_10;
/// log10 of the probability of an unknown word where the file has no `<unk>`: KenLM's.
const NO_UNKNOWN: f32 = -100.0;

/// An n-gram model over words, letters or phonemes. Cheap to clone.
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

/// The words that the next one depends on: at most the order of the model less one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Context(Vec<u32>);

/// A trie over words: the node of an n-gram is reached by its words from first to last.
#[derive(Debug, Default)]
struct Grams {
    words: HashMap<String, u32>,
    order: usize,
    /// The node below a node for a word; the root is node 0.
    children: HashMap<(u32, u32), u32>,
    nodes: Vec<Gram>,
    unknown: Option<u32>,
}

/// log10 of an n-gram's probability and back-off weight. NaN: only longer n-grams that begin so are in the file.
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
    /// Reads an ARPA file, in UTF-8 with or without a byte-order mark. KenLM's binary format and compressed files are not
    /// read; of a pipe, [`read`](Self::read).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be read or is no regular file, [`Error::Labels`](crate::Error::Labels) with the number of the line if it is no
    /// ARPA file, or a damaged one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = files::open(path, "read")?;
        Self::parse(std::io::BufReader::with_capacity(1 << 20, file), path)
    }

    /// As [`LanguageModel::open`], from a reader. What no ARPA file has ends it early: lines of more than 1 MiB, more than
    /// 1 MiB before `\data\`, more than 1 MiB of empty lines after it, and more n-grams than are announced.
    ///
    /// # Errors
    /// Those of [`LanguageModel::open`].
    pub fn read(reader: impl BufRead) -> Result<Self> {
        Self::parse(reader, Path::new("<stream>"))
    }

    fn parse(reader: impl BufRead, path: &Path) -> Result<Self> {
        arpa::parse(reader, path).map(|grams| Self(Arc::new(grams)))
    }

    /// The length of the longest n-grams.
    pub fn order(&self) -> usize {
        self.0.order
    }

    /// Whether a word is one of the model's.
    pub fn contains(&self, word: &str) -> bool {
        self.0.words.contains_key(word)
    }

    /// The context at the beginning of a sentence: `<s>`, or nothing if the model does not know that.
    pub fn start(&self) -> Context {
        let begin = self.0.words.get("<s>").filter(|_| self.order() > 1);
        Context(begin.copied().into_iter().collect())
    }

    /// The natural logarithm of the probability of `word` after `context`, and the context after it. A word that the model
    /// does not know has the probability of `<unk>`, or 1e-100 if there is none.
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
        // What no n-gram begins with can no longer matter.
        let needless = (0..history.len()).take_while(|&start| grams.node(&history[start..]).is_none()).count();
        history.drain(..needless);
        (f64::from(log10) * LN_10, Context(history))
    }

    /// The back-off weights of a context and of its shorter ones.
    fn back_offs(&self, context: &[u32]) -> f32 {
        let back_off = |start| self.0.node(&context[start..]).map(|node| self.0.nodes[node as usize].back_off);
        (0..context.len()).filter_map(back_off).sum()
    }

    /// The natural logarithm of the probability of the sentence's end after `context`; 0 if the model knows none.
    pub fn score_end(&self, context: &Context) -> f64 {
        if self.contains("</s>") { self.score(context, "</s>").0 } else { 0.0 }
    }

    /// The natural logarithm of a sentence's probability, its beginning and end included.
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
