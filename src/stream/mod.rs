//! Live audio: models on samples as they come, with the results of the whole recording.
//!
//! [`TaggerStream`] tags window by window; [`FrameStream`] carries the state of a recurrent or causal model on, frame by frame.

mod frames;
mod input;
mod tagger;

pub use frames::FrameStream;
pub use tagger::TaggerStream;
