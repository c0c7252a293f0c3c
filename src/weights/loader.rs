//! Reading a model's tensors by name and shape, and recording what was read.

use std::{
    collections::HashSet,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use candle_core::{DType, Device, Shape, Tensor, Var};
use ndarray::Array2;

use super::four_bit::Matrix;
use super::parameters::TrainingState;
use super::{Init, LoadReport, MissingTensor, Parameters, Precision, Weights, WrongShape, keys, nearest::Nearest};
use crate::check::check_finite;
use crate::error::{Context, Error, Result};

/// Reads a model's tensors, below a prefix, from a checkpoint or from [`Parameters`], which create them.
///
/// Clones, and the loaders that [`at`](Self::at) returns, share one record of what was read. A tensor that is missing
/// or has another shape is recorded and replaced by zeros, so that loading continues and [`finish`](Self::finish)
/// reports all differences at once.
///
/// ```
/// # use candle_core::{Device, Tensor};
/// # use clipwise::{Weights, Result};
/// # let weight = Tensor::zeros((5, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
/// # let weights = Weights::from_tensors([("fc.weight".to_string(), weight)])?;
/// let loader = weights.loader(&Device::Cpu);
/// let weight = loader.at("fc").get("weight", (5, 3))?;
/// loader.finish("a linear model")?;
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone)]
pub struct Loader<'a> {
    source: Source<'a>,
    device: Device,
    prefix: String,
    without_kernels: bool,
    precision: Precision,
    record: Arc<Mutex<Record>>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Checkpoint(&'a Weights),
    Parameters(&'a Parameters),
}

/// The implementation that computes with the weights of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The kernels of this crate, on the CPU.
    Kernels,
    /// The tensor library, on another device.
    Device,
    /// Differentiable operations of the tensor library, on any device. The layers of a model share the state.
    Training(TrainingState),
}

impl Target {
    /// The target for weights that are not trained.
    pub fn on(device: &Device) -> Self {
        if device.is_cpu() { Self::Kernels } else { Self::Device }
    }
}

#[derive(Default)]
struct Record {
    read: HashSet<String>,
    /// Full names, or prefixes if they end in `*`.
    ignored: Vec<String>,
    missing: Vec<(String, Vec<usize>)>,
    wrong_shape: Vec<WrongShape>,
    /// Number of zeros so far that replace tensors which do not fit.
    n_zeros: usize,
    /// Number of values read so far.
    n_values: usize,
    /// Whether a layer has the precision of the checkpoint.
    has_precision: bool,
}

// Limits in proportion to the size of the checkpoint: a few digits in a configuration must not decide how much memory
// is allocated.

/// Limit on missing tensors; loading stops beyond it.
fn max_missing(weights: &Weights) -> usize {
    weights.len().saturating_mul(4).saturating_add(1000)
}

/// Limit on placeholder zeros: twice the number of values of a checkpoint in f32.
fn max_zeros(weights: &Weights) -> usize {
    (weights.n_bytes() / 2).saturating_add(1 << 20)
}

/// Limit on the values read. A tensor may be used twice, but the tensors of a hostile `.pth` may all share the same
/// bytes.
fn max_values(weights: &Weights) -> usize {
    weights.n_bytes().saturating_mul(2).saturating_add(1 << 20)
}

/// Limit on the missing tensors for which the most similar name is searched.
const MAX_NEAREST: usize = 1000;

impl<'a> Loader<'a> {
    pub(super) fn new(weights: &'a Weights, device: &Device) -> Self {
        Self::from_source(Source::Checkpoint(weights), device)
    }

    pub(super) fn of_parameters(parameters: &'a Parameters, device: &Device) -> Self {
        Self::from_source(Source::Parameters(parameters), device)
    }

    fn from_source(source: Source<'a>, device: &Device) -> Self {
        let precision = match source {
            Source::Checkpoint(weights) => weights.precision,
            Source::Parameters(_) => Precision::F32,
        };
        let (device, prefix, record) = (device.clone(), String::new(), Arc::default());
        Self { source, device, prefix, without_kernels: false, precision, record }
    }

    /// Makes layers compute with the tensor library only, as they do on a GPU. On the CPU this is slower; it is for
    /// checking that both implementations agree on machines without a GPU.
    pub fn without_kernels(self) -> Self {
        Self { without_kernels: true, ..self }
    }

    /// Loads layers in f32 whatever the [`Precision`] of the checkpoint: for layers that lose accuracy otherwise, such
    /// as those that compute the final scores.
    pub fn in_f32(self) -> Self {
        Self { precision: Precision::F32, ..self }
    }

    /// The precision for a layer that is loaded here.
    #[allow(dead_code)] // for the layers
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Records that a layer has the precision of the checkpoint.
    #[allow(dead_code)] // for the layers
    pub(crate) fn mark_precision(&self) {
        self.record().has_precision = true;
    }

    /// The implementation that computes with the tensors read from here.
    pub(crate) fn target(&self) -> Target {
        match self.source {
            Source::Checkpoint(_) if self.without_kernels => Target::Device,
            Source::Checkpoint(_) => Target::on(&self.device),
            Source::Parameters(parameters) => Target::Training(parameters.state().clone()),
        }
    }

    /// As [`get`](Self::get); in training, the parameter is created with these initial values.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Tensor> {
        match self.source {
            Source::Checkpoint(_) => self.get(name, shape),
            Source::Parameters(parameters) => {
                Ok(parameters.get(self.full(name), shape.into(), init, false)?.as_tensor().clone())
            }
        }
    }

    /// As [`parameter`](Self::parameter), for a running statistic, which is updated by batches instead of gradients.
    pub(crate) fn statistic(&self, name: &str, shape: impl Into<Shape>, value: f32) -> Result<Var> {
        match self.source {
            Source::Checkpoint(_) => Var::from_tensor(&self.get(name, shape)?).context("copying a running statistic"),
            Source::Parameters(parameters) => {
                parameters.get(self.full(name), shape.into(), Init::Constant(value), true)
            }
        }
    }

    /// A loader below the prefix `name.`.
    pub fn at(&self, name: impl Display) -> Loader<'a> {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The device that tensors are read onto.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The first of `names` under which the checkpoint has a tensor, or tensors below it: for tensors that go by
    /// several names. If there is none, and in training, the first of `names`.
    ///
    /// Does not count as reading. `names` must not be empty.
    pub fn first_of<'n>(&self, names: &[&'n str]) -> &'n str {
        let is_here = |name: &&&str| self.checkpoint().is_some_and(|weights| weights.has(&self.full(name)));
        names.iter().find(is_here).or(names.first()).copied().unwrap_or_default()
    }

    /// Whether the checkpoint lacks the tensor `name`, for optional tensors. Always false in training, where tensors
    /// are created on request.
    pub fn lacks(&self, name: &str) -> bool {
        self.checkpoint().is_some_and(|weights| !weights.contains(&self.full(name)))
    }

    /// The shape of `name` in the checkpoint, if it exists. Does not count as reading.
    pub fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.checkpoint()?.shape(&self.full(name))
    }

    /// Reads the tensor `name` as f32 onto [`device`](Self::device).
    ///
    /// If the checkpoint lacks the tensor or has it in another shape, the result is zeros of `shape`, and
    /// [`finish`](Self::finish) reports the difference.
    ///
    /// # Errors
    /// [`Error::Argument`] if the checkpoint has a [`Precision`] other than f32 and this is not the CPU;
    /// [`Error::Checkpoint`] as for [`Weights::to_vec`], if an element is NaN or infinite, or if more values are read
    /// than the file can hold; [`Error::Weights`], with the differences so far, if most tensors are missing (more than
    /// 1,000 plus 4 per tensor of the checkpoint, or more than 2^20 values plus one per two bytes); [`Error::Tensor`]
    /// if the tensor cannot be copied to the device.
    pub fn get(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let full = self.full(name);
        if self.checkpoint().is_none() {
            let init = Init::of_shape(shape.dims());
            return self.parameter(name, shape, init);
        }
        if self.fits(&full, shape.dims()) {
            let values = self.finite(&full)?;
            return Tensor::from_vec(values, shape, &self.device).context("copying weights to the device");
        }
        self.count_zeros(shape.dims())?;
        Tensor::zeros(shape, DType::F32, &self.device).context("allocating zeros for a missing tensor")
    }

    /// Reads the elements of `name` in row-major order; zeros as in [`get`](Self::get).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_vec(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let full = self.full(name);
        if self.checkpoint().is_none() {
            let values = self.get(name, shape)?.flatten_all().and_then(|values| values.to_vec1());
            return values.context("copying a parameter to the host");
        }
        if self.fits(&full, shape) {
            return self.finite(&full);
        }
        Ok(vec![0.0; self.count_zeros(shape)?])
    }

    /// Reads the matrix `name` as an array; otherwise as [`get_vec`](Self::get_vec).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn get_array(&self, name: &str, shape: [usize; 2]) -> Result<Array2<f32>> {
        let values = self.get_vec(name, &shape)?;
        let array = Array2::from_shape_vec(shape, values);
        array.map_err(|error| Error::argument("shape", format!("{shape:?}"), error.to_string()))
    }

    /// Reads the matrix `name` for a layer that can compute with 4-bit codes; otherwise as [`get_vec`](Self::get_vec).
    pub(crate) fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        let full = self.full(name);
        if let (Some(weights), Target::Kernels) = (self.checkpoint(), self.target())
            && weights.shape(&full) == Some(&shape)
            && let Some(codes) = weights.four_bit(&full)?
        {
            self.fits(&full, &shape);
            self.count_values(weights, &full)?;
            return if codes.is_finite() { Ok(Matrix::FourBit(codes)) } else { Err(not_finite(weights, &full)) };
        }
        Ok(Matrix::Full(self.get_vec(name, &shape)?))
    }

    fn checkpoint(&self) -> Option<&'a Weights> {
        match self.source {
            Source::Checkpoint(weights) => Some(weights),
            Source::Parameters(_) => None,
        }
    }

    /// Reads the elements of an existing tensor.
    fn finite(&self, full: &str) -> Result<Vec<f32>> {
        let Some(weights) = self.checkpoint() else { return Ok(Vec::new()) }; // unreachable: called for checkpoints only
        self.count_values(weights, full)?;
        let values = weights.to_vec(full)?;
        check_finite(&values).map_err(|_| not_finite(weights, full))?;
        Ok(values)
    }

    /// Counts the values of a tensor that is read, and checks the limit.
    fn count_values(&self, weights: &Weights, full: &str) -> Result<()> {
        if weights.precision != Precision::F32 && !matches!(self.target(), Target::Kernels) {
            let reason = "expected f32: other precisions need the kernels of this crate, which run on the CPU";
            return Err(Error::argument("precision", weights.precision, reason));
        }
        let n_values = count(weights.shape(full).unwrap_or_default()).unwrap_or(usize::MAX);
        let so_far = {
            let n_read = &mut self.record().n_values;
            *n_read = n_read.saturating_add(n_values);
            *n_read
        };
        if so_far > max_values(weights) {
            let (n_bytes, most) = (weights.n_bytes(), max_values(weights));
            let reason =
                format!("expected at most {most} values from {n_bytes} bytes, got {so_far}: tensors share bytes");
            return Err(weights.unusable(reason));
        }
        Ok(())
    }

    /// Counts the zeros that replace a tensor of `shape`, and checks the limit. Returns their number.
    fn count_zeros(&self, shape: &[usize]) -> Result<usize> {
        let Some(weights) = self.checkpoint() else { return Ok(0) }; // unreachable: in training, tensors are created
        let mut record = self.record();
        let n_zeros = count(shape).unwrap_or(usize::MAX);
        let so_far = record.n_zeros.saturating_add(n_zeros);
        if so_far > max_zeros(weights) || record.missing.len() > max_missing(weights) {
            let report = LoadReport { stopped: true, ..self.report(&record, "the model") };
            return Err(Error::Weights(Box::new(report)));
        }
        record.n_zeros = so_far;
        Ok(n_zeros)
    }

    /// Marks a tensor as known but unused, so that it is not reported as unexpected. It need not exist.
    ///
    /// A trailing `*` matches any ending: `ignore("logmel_extractor.*")`.
    pub fn ignore(&self, name: &str) {
        self.record().ignored.push(self.full(name));
    }

    /// Ends loading: compares the tensors that were read with the whole checkpoint, whatever prefix this loader has.
    /// Always succeeds in training.
    ///
    /// `model` names the model in the message. Training counters (`num_batches_tracked`, `n_averaged`) are never
    /// reported as unexpected.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing, has the wrong shape, or was neither read nor ignored;
    /// [`Error::Argument`] if the checkpoint has a [`Precision`] other than f32 and no layer of the model has it.
    pub fn finish(&self, model: &str) -> Result<()> {
        let Some(weights) = self.checkpoint() else { return Ok(()) };
        let record = self.record();
        let mut report = self.report(&record, model);
        report.unexpected = self.unread(&record).map(str::to_owned).collect();
        if !report.is_empty() {
            return Err(Error::Weights(Box::new(report)));
        }
        if weights.precision != Precision::F32 && !record.has_precision {
            let reason = format!("expected f32: no layer of {model} has another precision");
            return Err(Error::argument("precision", weights.precision, reason));
        }
        Ok(())
    }

    /// The tensors of the checkpoint that have been neither read nor ignored.
    fn unread<'r>(&self, record: &'r Record) -> impl Iterator<Item = &'r str>
    where
        'a: 'r,
    {
        let names = self.checkpoint().map(Weights::names).into_iter().flatten();
        names.filter(|name| !record.accounts_for(name))
    }

    /// The differences so far, without unexpected tensors.
    fn report(&self, record: &Record, model: &str) -> LoadReport {
        let weights = self.checkpoint();
        let shape = |name: &str| weights.and_then(|weights| weights.shape(name)).unwrap_or_default();
        let mut nearest = Nearest::new(self.unread(record).map(|name| (name, shape(name))));
        let missing = record.missing.iter().enumerate().map(|(i, (name, shape))| MissingTensor {
            name: name.clone(),
            shape: shape.clone(),
            nearest: if i < MAX_NEAREST { nearest.to(name, shape) } else { None },
        });
        LoadReport {
            model: model.to_owned(),
            path: weights.and_then(Weights::path).map(Into::into),
            place: weights.map(Weights::place).unwrap_or_default().to_owned(),
            missing: missing.collect(),
            unexpected: Vec::new(),
            wrong_shape: record.wrong_shape.clone(),
            found_below: weights
                .and_then(|weights| weights.place_of(&record.missing[..record.missing.len().min(MAX_NEAREST)])),
            stopped: false,
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Records that `full` is read. Returns whether the checkpoint has it with this shape.
    fn fits(&self, full: &str, shape: &[usize]) -> bool {
        let mut record = self.record();
        let first_time = record.read.insert(full.to_owned());
        match self.checkpoint().and_then(|weights| weights.shape(full)) {
            Some(got) if got == shape => return true,
            Some(got) if first_time => {
                let wrong = WrongShape { name: full.to_owned(), expected: shape.to_vec(), got: got.to_vec() };
                record.wrong_shape.push(wrong);
            }
            None if first_time => record.missing.push((full.to_owned(), shape.to_vec())),
            _ => {}
        }
        false
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Every statement leaves the record valid, so a panic elsewhere cannot have corrupted it.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_finite(weights: &Weights, full: &str) -> Error {
    weights.unusable(format!("tensor `{full}` has a NaN or infinite value"))
}

/// The number of values of a shape; `None` if it overflows.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))
}

impl Record {
    fn accounts_for(&self, name: &str) -> bool {
        let ignored = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        self.read.contains(name) || keys::is_counter(name) || self.ignored.iter().any(ignored)
    }
}
