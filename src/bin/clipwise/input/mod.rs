//! What is read: files, folders, patterns and lists; audio; what an earlier run has done.

mod clip;
mod done;
mod files;
mod read;

pub use clip::{ClipArgs, Tagged};
pub use done::{Done, Expected, key};
pub use files::{FileArgs, Item, is_audio, skipped_note};
pub use read::{ReadArgs, STREAM};
