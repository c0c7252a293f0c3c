//! Choosing the device that a model runs on, and the number of CPU threads.
//!
//! [`best`] and [`parse`] return a device; [`choose`] also returns the reason for the choice. There is no silent
//! fallback: [`cuda`] and [`parse`] fail if the requested device is unavailable.
//!
//! All CPU work runs on the *current* rayon pool: the global one, or the one that [`Threads::run`] installs. The
//! library never changes global thread state.

pub use candle_core::Device;

use crate::error::{Error, Result};
use crate::nn::kernels::simd::isa::Isa;

/// A device and the reason for choosing it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Choice {
    /// The device.
    pub device: Device,
    /// The reason in one line, for logs or users, for example `"cpu: this build has no CUDA support"`.
    pub reason: String,
}

/// The best device available to this build: the first CUDA device if there is one, otherwise the CPU.
/// [`choose`]`("auto")` also returns the reason.
///
/// # Errors
/// None at present; the signature allows for devices whose detection can fail.
pub fn best() -> Result<Device> {
    choose("auto").map(|choice| choice.device)
}

/// Parses a device name: `auto` (same as [`best`]), `cpu`, `cuda` (the first CUDA device) or `cuda:N`.
///
/// # Errors
/// [`Error::Device`] for any other name, and the errors of [`cuda`].
pub fn parse(name: &str) -> Result<Device> {
    choose(name).map(|choice| choice.device)
}

/// As [`parse`], with the reason. If `auto` chooses the CPU, the reason says why no GPU is used, with the driver's
/// message if CUDA is built in but could not start.
///
/// # Errors
/// As [`parse`].
pub fn choose(name: &str) -> Result<Choice> {
    let chosen = |device: Device, reason: &str| Choice { device, reason: reason.to_string() };
    let requested = |device: Device| chosen(device, &format!("{name}: as requested"));
    let unknown =
        || Error::Device { device: name.to_string(), reason: "expected `auto`, `cpu`, `cuda` or `cuda:N`".to_string() };
    match name {
        "auto" if !cfg!(feature = "cuda") => Ok(chosen(cpu(), "cpu: this build has no CUDA support")),
        "auto" => match cuda(0) {
            Ok(device) => Ok(chosen(device, "cuda:0: the first CUDA device")),
            Err(Error::Device { reason, .. }) => Ok(chosen(cpu(), &format!("cpu: {reason}"))),
            Err(error) => Err(error),
        },
        "cpu" => Ok(requested(cpu())),
        "cuda" => Ok(requested(cuda(0)?)),
        _ => {
            let ordinal = name.strip_prefix("cuda:").ok_or_else(unknown)?;
            Ok(requested(cuda(ordinal.parse().map_err(|_| unknown())?)?))
        }
    }
}

/// The CPU.
pub fn cpu() -> Device {
    Device::Cpu
}

/// The instruction set of the CPU kernels on this machine: `avx512`, `avx2`, `neon` or `portable`. The environment
/// variable `CLIPWISE_ISA` forces one.
pub fn instruction_set() -> String {
    Isa::best().name()
}

/// The CUDA device with this index, from 0.
///
/// # Errors
/// [`Error::Device`] if the crate was built without the feature `cuda`, or if the driver cannot open the device.
pub fn cuda(ordinal: usize) -> Result<Device> {
    let error = |reason: String| Error::Device { device: format!("cuda:{ordinal}"), reason };
    if !cfg!(feature = "cuda") {
        return Err(error("this build has no CUDA support (cargo feature `cuda`)".to_string()));
    }
    // The binding loads the driver library at run time and panics if it is missing.
    std::panic::catch_unwind(|| Device::new_cuda(ordinal))
        .map_err(|_| error("no CUDA driver on this machine".to_string()))?
        .map_err(|cause| error(cause.to_string()))
}

/// The name of a device in the form that [`parse`] accepts: `cpu`, `cuda:0`.
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_string(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// Limit on threads: above the core count of any machine. A system that runs out of threads may abort the process.
const MAX_THREADS: usize = 1024;

/// A thread pool for the CPU work of a model.
///
/// ```
/// # fn main() -> clipwise::Result<()> {
/// let threads = clipwise::device::Threads::new(2)?;
/// let sum = threads.run(|| 1 + 1); // everything inside uses these two threads only
/// # assert_eq!(sum, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Threads(rayon::ThreadPool);

impl Threads {
    /// Starts `n` threads.
    ///
    /// # Errors
    /// [`Error::Argument`] if `n` is not between 1 and 1024, or if the operating system cannot start the threads.
    pub fn new(n: usize) -> Result<Self> {
        if !(1..=MAX_THREADS).contains(&n) {
            return Err(Error::argument("threads", n, format!("expected 1 to {MAX_THREADS}")));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
        pool.map(Self).map_err(|cause| Error::argument("threads", n, cause.to_string()))
    }

    /// Runs `work` with this pool as the current rayon pool.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.install(work)
    }
}

/// Runs `work` on a thread of the current rayon pool. From another thread, every parallel loop inside would first wake
/// one: a transformer has some hundred loops.
pub(crate) fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_set_has_the_name_that_the_environment_variable_takes() {
        assert!(["avx512", "avx2", "neon", "portable"].contains(&instruction_set().as_str()));
    }

    #[test]
    fn device_names_are_parsed() {
        for known in ["auto", "cpu"] {
            assert!(parse(known).is_ok(), "{known}");
        }
        assert_eq!(name(&parse("cpu").unwrap()), "cpu");
        for unknown in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "metal:0"] {
            assert!(matches!(parse(unknown), Err(Error::Device { .. })), "{unknown}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_the_cuda_feature_auto_is_the_cpu_and_cuda_is_an_error() {
        let error = cuda(0).unwrap_err().to_string();
        assert!(error.contains("cuda:0") && error.contains("feature"), "{error}");
        let choice = choose("auto").unwrap();
        assert!(choice.device.is_cpu() && choice.reason.contains("no CUDA"), "{}", choice.reason);
        assert!(best().unwrap().is_cpu());
    }

    #[test]
    fn pool_has_the_requested_number_of_threads() {
        assert_eq!(Threads::new(3).unwrap().run(rayon::current_num_threads), 3);
        for n in [0, MAX_THREADS + 1, usize::MAX] {
            assert!(matches!(Threads::new(n), Err(Error::Argument { name: "threads", .. })), "{n}");
        }
    }
}
