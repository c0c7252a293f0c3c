//! Tagging live audio, with the same results as for the whole recording.
//!
//! [`TaggerStream`] tags window by window. [`FrameStream`] runs recurrent and causal models frame by frame, carrying
//! their state on.

mod frames;
mod input;
mod tagger;

pub use frames::FrameStream;
pub use tagger::TaggerStream;
