//! Connectionist temporal classification (CTC): speech to frames of token scores to token sequences.
//!
//! A model gives every frame a score for each token of its [`Vocabulary`], one of which is the *blank*. A path through the
//! frames stands for the tokens that are left once runs of the same token are merged and blanks dropped (Graves et al.,
//! *Connectionist Temporal Classification*, ICML 2006).
//!
//! - [`CtcModel`]: a speech encoder ([`encoders`](crate::encoders)), perhaps a weighted sum over its layers, and a head.
//! - [`head`]: from hidden states to the scores of tokens; [`TokenTransformer`]: from the codes of a neural codec.

pub mod head;
mod model;
mod token_transformer;
pub mod vocabulary;

pub use head::{Head, HeadConfig};
pub use model::{CtcConfig, CtcModel, CtcOutput};
pub use token_transformer::{TokenTransformer, TokenTransformerConfig};
pub use vocabulary::Vocabulary;
