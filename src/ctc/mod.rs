//! Connectionist temporal classification: from speech to phonemes or letters.
//!
//! Graves et al., "Connectionist Temporal Classification", 2006. A [`CtcModel`] is a speech encoder
//! ([`encoders`](crate::encoders)), perhaps a weighted sum over its layers, and a [`head`] that gives every frame a score for
//! each token and one for "none", the blank.

pub mod head;
pub mod loss;
mod model;

pub use head::{Head, HeadConfig};
pub use loss::{LossConfig, Reduction, ctc_loss};
pub use model::{CtcModel, CtcOutput};
