//! Live audio: models on samples as they come, with the results of the whole recording.
//!
//! [`TaggerStream`] tags window by window; [`RnnStream`] carries the state of a recurrent model on, frame by frame.

mod input;
mod recurrent;
mod tagger;

pub use recurrent::RnnStream;
pub use tagger::TaggerStream;
