//! Tensors to be trained, under the names that checkpoints have.

use std::{
    collections::BTreeMap,
    fmt,
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

/// A model's parameters while they are trained.
///
/// A model that is built from its [`loader`](Self::loader) has layers which compute with these very tensors through
/// differentiable operations: batch norms are not folded, and use the batch's own statistics in training mode. The same
/// model loaded from [`weights`](Self::weights), or from what [`save`](Self::save) wrote, folds and packs them for inference.
///
/// A tensor comes into being when a layer first asks for it, with the initial values that PyTorch gives such a layer
/// (uniform within `±1 / √fan_in`; batch norms 1 and 0); they depend on the seed and the tensor's name only.
///
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
    /// Follows the batches instead of the gradients.
    is_statistic: bool,
}

/// Initial values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// All the same.
    Constant(f32),
    /// Uniform within plus and minus this.
    Uniform(f64),
    /// Gaussian with mean 0 and this standard deviation.
    Normal(f64),
}

impl Init {
    /// PyTorch's default for convolutions and linear layers whose outputs have `fan_in` inputs each.
    pub fn of_fan_in(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in.max(1) as f64).sqrt())
    }

    /// By the shape of a tensor of weights, `[out, in, …]`.
    pub(super) fn of_shape(shape: &[usize]) -> Self {
        Self::of_fan_in(shape.iter().skip(1).fold(1, |n, &size| n.saturating_mul(size)))
    }
}

/// The most values of all parameters together, 2 GiB: more is a mistake in a configuration.
const MAX_VALUES: usize = 1 << 29;

impl Parameters {
    /// Nothing yet; tensors will be made on `device`.
    pub fn new(device: &Device, seed: u64) -> Self {
        let state = TrainingState(Arc::new((AtomicBool::new(false), Mutex::new(Random::stream(seed, u64::MAX)))));
        Self { device: device.clone(), seed, tensors: Mutex::default(), state }
    }

    /// Where models find their tensors.
    pub fn loader(&self) -> Loader<'_> {
        Loader::of_parameters(self, &self.device)
    }

    /// Whether batch norms use the statistics of the batch (and learn from them) and dropout drops. At first, no.
    pub fn set_training(&self, training: bool) {
        self.state.0.0.store(training, Ordering::Relaxed);
    }

    /// The tensors that gradients change, in the order of their names: for an optimiser.
    pub fn vars(&self) -> Vec<Var> {
        let tensors = self.tensors();
        tensors.values().filter(|parameter| !parameter.is_statistic).map(|parameter| parameter.var.clone()).collect()
    }

    /// The number of values in [`vars`](Self::vars).
    pub fn count(&self) -> usize {
        self.vars().iter().map(|var| var.elem_count()).sum()
    }

    /// A copy of everything, running statistics included: what a model is loaded from.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn weights(&self) -> Result<Weights> {
        Weights::from_tensors(self.named())
    }

    /// Writes everything as safetensors. Another file stands in its place only once it is complete.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be replaced, [`Error::Tensor`] if it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let tensors = self.named().into_iter().collect();
        candle_core::safetensors::save(&tensors, &unfinished).context("writing safetensors")?;
        std::fs::rename(&unfinished, path).map_err(|cause| Error::Io { action: "write", path: path.into(), cause })
    }

    /// Sets every tensor that a checkpoint has under the same name: to go on with training, or to begin with what another
    /// model knows. Gives the number of tensors that were set; those of the checkpoint that the model lacks are left out.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor of another shape, else as [`Weights::tensor`].
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
                let reason = format!("{name} is a parameter of shape {:?} already", var.shape());
                return Err(Error::argument("shape", format!("{shape:?}"), reason));
            }
            return Ok(var.clone());
        }
        let so_far: usize = tensors.values().map(|parameter| parameter.var.elem_count()).sum();
        let n = shape.dims().iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let mut values = Vec::new();
        let fits = |&n: &usize| n <= MAX_VALUES - so_far && values.try_reserve_exact(n).is_ok();
        let Some(n) = n.filter(fits) else {
            let reason = format!("{name} and the parameters before it: expected at most {MAX_VALUES} values together");
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
        let var = var.context("making a parameter")?;
        tensors.insert(name, Parameter { var: var.clone(), is_statistic });
        Ok(var)
    }

    /// The numbers for a tensor of this name.
    fn random(&self, name: &str) -> Random {
        let of_name = name.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        Random::stream(self.seed, of_name)
    }

    pub(super) fn state(&self) -> &TrainingState {
        &self.state
    }

    fn tensors(&self) -> MutexGuard<'_, BTreeMap<String, Parameter>> {
        // The map is valid after every statement.
        self.tensors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameters").field("tensors", &self.tensors().len()).field("state", &self.state).finish()
    }
}

/// Whether a model is in training, shared by its layers, and where their random numbers come from.
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
