//! Trainable tensors, named as in checkpoints.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::{Device, Shape, Tensor, Var};

use super::{Loader, Weights};
use crate::error::{Context, Error, Result};
use crate::random::Random;

/// The parameters of a model in training.
///
/// Layers that are built from its [`loader`](Self::loader) compute with these tensors through differentiable
/// operations: batch norms are not folded, and use the statistics of the batch in training mode. The same model loaded
/// from [`weights`](Self::weights), or from a file written by [`save`](Self::save), folds and packs them for inference.
///
/// A tensor is created when a layer first requests it. Its initial values are PyTorch's defaults for the layer (uniform
/// within `±1 / √fan_in`; 1 and 0 for batch norms), and depend only on the seed and the tensor's name.
/// ```
/// use clipwise::candle_core::{Device, Tensor, DType};
/// use clipwise::models::m5::{Config, M5};
/// use clipwise::weights::Parameters;
///
/// # fn main() -> clipwise::Result<()> {
/// let parameters = Parameters::new(&Device::Cpu, 1);
/// let model = M5::build(&Config::M5, &parameters.loader())?;
/// assert_eq!(parameters.count(), 26_915);
///
/// parameters.set_training(true);
/// let clips = Tensor::ones((2, 1, 8000), DType::F32, &Device::Cpu).unwrap();
/// let logits = model.forward_samples(&clips)?.logits; // a loss on these has gradients for parameters.vars()
///
/// let trained = M5::load(&Config::M5, &parameters.weights()?, &Device::Cpu)?; // for inference
/// # Ok(())
/// # }
/// ```
pub struct Parameters {
    device: Device,
    seed: u64,
    tensors: Mutex<BTreeMap<String, Parameter>>,
    state: TrainingState,
}

struct Parameter {
    var: Var,
    /// Updated by batches instead of gradients.
    is_statistic: bool,
}

/// Initial values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// This value.
    Constant(f32),
    /// Uniform between minus and plus this value.
    Uniform(f64),
    /// Gaussian with mean 0 and this standard deviation.
    Normal(f64),
}

impl Init {
    /// PyTorch's default for convolutions and linear layers with `fan_in` inputs per output.
    pub fn of_fan_in(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in.max(1) as f64).sqrt())
    }

    /// The default for weights of shape `[out, in, …]`.
    pub(super) fn of_shape(shape: &[usize]) -> Self {
        Self::of_fan_in(shape.iter().skip(1).fold(1, |n, &size| n.saturating_mul(size)))
    }
}

/// Limit on the values of all parameters together, 2 GiB: more is a mistake in a configuration.
const MAX_VALUES: usize = 1 << 29;

impl Parameters {
    /// Creates an empty set of parameters. Tensors will be created on `device`.
    pub fn new(device: &Device, seed: u64) -> Self {
        let state = TrainingState(Arc::new((AtomicBool::new(false), Mutex::new(Random::stream(seed, u64::MAX)))));
        Self { device: device.clone(), seed, tensors: Mutex::default(), state }
    }

    /// A loader from which a model is built.
    pub fn loader(&self) -> Loader<'_> {
        Loader::of_parameters(self, &self.device)
    }

    /// Sets whether batch norms use (and learn) the statistics of the batch, and whether dropout is active. Initially
    /// false.
    pub fn set_training(&self, training: bool) {
        self.state.0.0.store(training, Ordering::Relaxed);
    }

    /// The tensors that are trained by gradients, sorted by name: for an optimiser.
    pub fn vars(&self) -> Vec<Var> {
        let tensors = self.tensors();
        tensors.values().filter(|parameter| !parameter.is_statistic).map(|parameter| parameter.var.clone()).collect()
    }

    /// The number of values in [`vars`](Self::vars).
    pub fn count(&self) -> usize {
        self.vars().iter().map(|var| var.elem_count()).sum()
    }

    /// A copy of all tensors, including running statistics, from which a model can be loaded.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn weights(&self) -> Result<Weights> {
        Weights::from_tensors(self.named())
    }

    /// Writes all tensors as a safetensors file. An existing file is replaced only when the new one is complete.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Tensor`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let tensors = self.named().into_iter().collect();
        save_tensors(&tensors, unfinished.as_ref())?;
        std::fs::rename(&unfinished, path).map_err(|cause| Error::Io { action: "write", path: path.into(), cause })
    }

    /// Sets all tensors that a checkpoint has under the same name, to resume training or to fine-tune a model. Returns
    /// the number of tensors set. Tensors of the checkpoint that the model lacks are ignored.
    ///
    /// # Errors
    /// [`Error::Argument`] if a tensor has another shape; otherwise as [`Weights::tensor`].
    pub fn restore(&self, weights: &Weights) -> Result<usize> {
        let mut count = 0;
        for (name, parameter) in self.tensors().iter().filter(|(name, _)| weights.contains(name)) {
            let tensor = weights.tensor(name, &self.device)?;
            if tensor.dims() != parameter.var.dims() {
                let (got, expected) = (tensor.dims(), parameter.var.dims());
                return Err(Error::argument("weights", format!("{name} {got:?}"), format!("expected {expected:?}")));
            }
            parameter.var.set(&tensor).context("setting a parameter")?;
            count += 1;
        }
        Ok(count)
    }

    fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors().iter().map(|(name, parameter)| (name.clone(), parameter.var.as_detached_tensor())).collect()
    }

    pub(super) fn get(&self, name: String, shape: Shape, init: Init, is_statistic: bool) -> Result<Var> {
        let mut tensors = self.tensors();
        if let Some(Parameter { var, .. }) = tensors.get(&name) {
            if var.shape() != &shape {
                let reason = format!("expected {:?}, the shape of the existing parameter `{name}`", var.dims());
                return Err(Error::argument("shape", format!("{shape:?}"), reason));
            }
            return Ok(var.clone());
        }
        let so_far: usize = tensors.values().map(|parameter| parameter.var.elem_count()).sum();
        let n = shape.dims().iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let mut values = Vec::new();
        let fits = |&n: &usize| n <= MAX_VALUES - so_far && values.try_reserve_exact(n).is_ok();
        let Some(n) = n.filter(fits) else {
            let reason = format!("expected at most {MAX_VALUES} values in all parameters, with `{name}`");
            return Err(Error::argument("shape", format!("{shape:?}"), reason));
        };
        match init {
            Init::Constant(value) => values.resize(n, value),
            Init::Uniform(bound) => {
                let mut random = self.random(&name);
                values.extend((0..n).map(|_| (bound * (2.0 * random.uniform() - 1.0)) as f32));
            }
            Init::Normal(deviation) => {
                let mut random = self.random(&name);
                values.extend((0..n).map(|_| (deviation * random.normal()) as f32));
            }
        }
        let var = Tensor::from_vec(values, shape, &self.device).and_then(|tensor| Var::from_tensor(&tensor));
        let var = var.context("creating a parameter")?;
        tensors.insert(name, Parameter { var: var.clone(), is_statistic });
        Ok(var)
    }

    /// The random numbers for a tensor of this name.
    fn random(&self, name: &str) -> Random {
        let of_name = name.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        Random::stream(self.seed, of_name)
    }

    pub(super) fn state(&self) -> &TrainingState {
        &self.state
    }

    fn tensors(&self) -> MutexGuard<'_, BTreeMap<String, Parameter>> {
        // Every statement leaves the map valid.
        self.tensors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameters").field("tensors", &self.tensors().len()).field("state", &self.state).finish()
    }
}

/// Training mode, shared by the layers of a model, and the source of their random numbers.
#[derive(Clone)]
pub(crate) struct TrainingState(Arc<(AtomicBool, Mutex<Random>)>);

impl TrainingState {
    pub fn is_training(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    pub fn with_random<R>(&self, f: impl FnOnce(&mut Random) -> R) -> R {
        f(&mut self.0.1.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for TrainingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_training() { "Training" } else { "Evaluation" })
    }
}
/// Writes a safetensors file with the permissions of any new file. The crate safetensors makes files that only their owner can read.
pub(crate) fn save_tensors(tensors: &HashMap<String, Tensor>, path: &Path) -> Result<()> {
    let error = |cause| Error::Io { action: "write", path: path.to_path_buf(), cause };
    let permissions = File::create(path).and_then(|file| file.metadata()).map_err(error)?.permissions();
    candle_core::safetensors::save(tensors, path).context("writing safetensors")?;
    std::fs::set_permissions(path, permissions).map_err(error)
}
