//! The usual names of tokens that are no text.

/// Names under which the blank is looked for, best first. Hugging Face's padding token is its CTC blank.
pub const BLANKS: [&str; 9] = ["<blank>", "<blk>", "[BLANK]", "<ctc_blank>", "<pad>", "[PAD]", "<PAD>", "<eps>", ""];
pub const UNKNOWNS: [&str; 4] = ["<unk>", "[UNK]", "<UNK>", "⁇"];
pub const WORD_DELIMITERS: [&str; 5] = ["|", "<space>", "[SPACE]", " ", "▁"];
/// Tokens that never stand in text.
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
/// SentencePiece's mark of a token that begins a word.
pub const WORD_START: char = '▁';
