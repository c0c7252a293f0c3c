//! The usual names of special tokens.

/// Names of the blank, in order of preference. Hugging Face's padding token is its CTC blank.
pub const BLANKS: [&str; 9] = ["<blank>", "<blk>", "[BLANK]", "<ctc_blank>", "<pad>", "[PAD]", "<PAD>", "<eps>", ""];
pub const UNKNOWNS: [&str; 4] = ["<unk>", "[UNK]", "<UNK>", "⁇"];
pub const WORD_DELIMITERS: [&str; 5] = ["|", "<space>", "[SPACE]", " ", "▁"];
/// Tokens that never occur in text.
pub const SPECIAL_TOKENS: [&str; 15] = [
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<sos>",
    "<sos/eos>",
    "<pad>",
    "[PAD]",
    "<PAD>",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "<mask>",
    "[BOS]",
    "[EOS]",
];
/// SentencePiece's mark of tokens that begin a word.
pub const WORD_START: char = '▁';
