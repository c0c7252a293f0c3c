//! Audio tagging.

pub mod audio;
pub mod device;
pub mod error;
pub mod frontend;
pub mod labels;
pub mod nn;
pub mod output;
pub mod weights;

pub use audio::{Waveform, WaveformBatch};
pub use device::Device;
pub use error::{Error, Result};
pub use labels::{Label, LabelSet};
pub use output::{Embedding, Tag, Tagging, TaggingOutput};
pub use weights::Weights;
