//! The bodies of the fuzz targets. Each takes any bytes and must return: no panic, no abort, bounded time and memory, and
//! the properties that it asserts. `tests/fuzz_seeds.rs` of the crate runs them on the seeds.

mod audio;
mod files;
mod structured;
mod weights;

pub use audio::{audio, ogg};
pub use files::{folder, text};
pub use structured::structured;
pub use weights::weights;

/// Panics of the dependency that decodes compressed audio are caught by the crate and become errors; the hook that
/// libfuzzer-sys installs would end the process before. Other panics still do, since libfuzzer-sys catches them last.
#[allow(dead_code)] // only the fuzz targets call it
pub fn let_decoders_panic() {
    drop(std::panic::take_hook()); // that of libfuzzer-sys
    let report = std::panic::take_hook(); // the default
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|at| at.file().contains("symphonia") || at.file().contains("opus-pure")) {
            report(info);
        }
    }));
}
