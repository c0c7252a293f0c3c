//! Connectionist temporal classification (CTC): recognition of phonemes or characters in speech.
//!
//! For every frame a model outputs a score per token of its [`Vocabulary`], one of which is the *blank*. A path through
//! the frames represents the tokens that remain after repeated tokens are merged and blanks removed (Graves et al.,
//! *Connectionist Temporal Classification*, ICML 2006).
//!
//! - [`CtcModel`]: a speech encoder ([`encoders`](crate::encoders)), optionally a weighted sum of its layers, and a
//!   head.
//! - [`head`]: maps hidden states to token scores. [`TokenTransformer`]: maps the codes of a neural codec to token
//!   scores.
//! - [`greedy`]: decodes the best path. [`BeamSearch`]: finds the most probable token sequence over all paths,
//!   optionally with a [`LanguageModel`] and hot words. [`GreedyDecoder`] and [`BeamDecoder`] do the same for streams
//!   of frames.
//! - [`align`]: forced alignment of a known text.
//! - [`ctc_loss`]: the training loss.
//!
//! Decoders run on the host, on log-probabilities `[n_frames, n_tokens]` (see [`log_softmax`]), and return a
//! [`Transcript`]: tokens and words with times, based on the [`FrameTimes`] of the clip.

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

/// Limit on the number of frames, which decoders number with 32 bits.
const MAX_FRAMES: usize = u32::MAX as usize;
