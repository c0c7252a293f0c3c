//! What the examples for whole collections of recordings share: which files, several at once, where they left off.
#![allow(dead_code, unused_imports)] // each example uses a part

mod clip;
mod done;
mod files;
mod interrupt;
mod jobs;

pub use clip::{ClipArgs, Tagged};
pub use done::Done;
pub use files::FileArgs;
pub use interrupt::{exit_code, interrupted, on_interrupt};
pub use jobs::{JobArgs, Jobs};
