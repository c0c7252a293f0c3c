//! Ctrl-C, and SIGTERM, which a cluster sends before it kills.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The exit status of a program that was interrupted, as shells give it.
const STATUS: u8 = 130;

/// Makes [`interrupted`] true after the first signal. The second one ends the program at once.
pub fn on_interrupt() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, STATUS.into(), Arc::clone(&INTERRUPTED))?;
        flag::register(signal, Arc::clone(&INTERRUPTED))?;
    }
    Ok(())
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The code of an interruption, if there was one.
pub fn exit_code(code: ExitCode) -> ExitCode {
    if interrupted() { ExitCode::from(STATUS) } else { code }
}
