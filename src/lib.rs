//! Audio tagging.

pub mod audio;
pub mod error;
pub mod frontend;
pub mod weights;

pub use audio::{Waveform, WaveformBatch};
pub use error::{Error, Result};
pub use weights::Weights;
