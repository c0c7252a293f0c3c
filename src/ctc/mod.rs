//! Connectionist temporal classification (CTC): frames of token scores to token sequences.
//!
//! A model gives every frame a score for each token of its [`Vocabulary`], one of which is the *blank*. A path through the
//! frames stands for the tokens that are left once runs of the same token are merged and blanks dropped (Graves et al.,
//! *Connectionist Temporal Classification*, ICML 2006).

pub mod vocabulary;

pub use vocabulary::Vocabulary;
