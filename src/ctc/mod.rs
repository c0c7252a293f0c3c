//! Connectionist temporal classification (CTC): from speech to phonemes or letters.
//!
//! A model gives every frame a score for each token of its [`Vocabulary`], one of which is the *blank*. A path through the
//! frames stands for the tokens that are left once runs of the same token are merged and blanks dropped (Graves et al.,
//! *Connectionist Temporal Classification*, ICML 2006).
//!
//! - [`CtcModel`]: a speech encoder ([`encoders`](crate::encoders)), perhaps a weighted sum over its layers, and a head.
//! - [`head`]: from hidden states to the scores of tokens; [`TokenTransformer`]: from the codes of a neural codec.
//! - [`greedy`]: the best path. [`BeamSearch`]: the most probable tokens over all paths, with a [`LanguageModel`] and hot
//!   words if wanted. Both take frames in pieces too: [`GreedyDecoder`], [`BeamDecoder`].
//! - [`align`]: when the tokens of a known text are spoken.
//! - [`ctc_loss`]: what a model is trained with.
//!
//! Decoders work on the host, on log-probabilities `[n_frames, n_tokens]` ([`log_softmax`] makes them from logits), and
//! give a [`Transcript`]: tokens and words with times, by the [`FrameTimes`] of the clip.

mod align;
pub mod beam;
mod frames;
mod greedy;
pub mod head;
mod hot_words;
pub mod language_model;
mod languages;
pub mod loss;
mod model;
mod options;
mod times;
mod token_transformer;
mod transcript;
pub mod vocabulary;

pub use align::{Alignment, align};
pub use beam::{BeamDecoder, BeamSearch};
pub use frames::{clips, log_softmax};
pub use greedy::{GreedyDecoder, collapse, greedy, greedy_batch};
pub use head::{Head, HeadConfig, RecurrentConfig};
pub use language_model::LanguageModel;
pub use loss::{LossConfig, Reduction, ctc_loss};
pub use model::{CtcConfig, CtcModel, CtcOutput};
pub use options::OpenOptions;
pub use times::FrameTimes;
pub use token_transformer::{TokenTransformer, TokenTransformerConfig};
pub use transcript::{Token, Transcript, Word};
pub use vocabulary::Vocabulary;

/// More frames than a decoder numbers.
const MAX_FRAMES: usize = u32::MAX as usize;
