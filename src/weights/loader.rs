//! Reading a model's tensors by name and shape, with a record of what was read.

use std::{
    collections::HashSet,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use candle_core::{DType, Device, Shape, Tensor, Var};

use super::trainable::Mode;
use super::{Init, LoadReport, MissingTensor, Trainable, Weights, WrongShape, keys, report::Nearest};
use crate::error::{Context, check_finite};
use crate::{Error, Result};

/// A place in a checkpoint from which a model reads its tensors, or in a [`Trainable`], which makes them.
///
/// Clones and the places that [`at`](Self::at) gives share one record of what was read. A tensor that is missing or has
/// another shape is recorded and given as zeros, so that loading goes on and [`finish`](Self::finish) reports
/// everything at once.
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
    record: Arc<Mutex<Record>>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Checkpoint(&'a Weights),
    Trainable(&'a Trainable),
}

#[derive(Default)]
struct Record {
    read: HashSet<String>,
    /// Full names, or prefixes where they end in `*`.
    ignored: Vec<String>,
    missing: Vec<(String, Vec<usize>)>,
    wrong_shape: Vec<WrongShape>,
    /// Zeros given so far in place of tensors that do not fit.
    n_zeros: usize,
}

/// So many zeros stand in for tensors at most, 512 MiB: shapes that a damaged checkpoint suggests may be of any size.
const MAX_ZEROS: usize = 1 << 27;

impl<'a> Loader<'a> {
    pub(super) fn new(weights: &'a Weights, device: &Device) -> Self {
        Self::of(Source::Checkpoint(weights), device)
    }

    pub(super) fn of_trainable(trainable: &'a Trainable, device: &Device) -> Self {
        Self::of(Source::Trainable(trainable), device)
    }

    fn of(source: Source<'a>, device: &Device) -> Self {
        Self { source, device: device.clone(), prefix: String::new(), record: Arc::default() }
    }

    /// The state of training that the model's layers share; `None` where the tensors are those of a checkpoint.
    pub(crate) fn mode(&self) -> Option<Mode> {
        match self.source {
            Source::Checkpoint(_) => None,
            Source::Trainable(trainable) => Some(trainable.mode().clone()),
        }
    }

    /// As [`get`](Self::get); a tensor to be trained is made with these initial values.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Tensor> {
        match self.source {
            Source::Checkpoint(_) => self.get(name, shape),
            Source::Trainable(trainable) => {
                Ok(trainable.get(self.full(name), shape.into(), init, false)?.as_tensor().clone())
            }
        }
    }

    /// A tensor of a model in training that gradients do not change; `None` where the tensors are those of a checkpoint.
    pub(crate) fn statistic(&self, name: &str, shape: impl Into<Shape>, value: f32) -> Result<Option<Var>> {
        match self.source {
            Source::Checkpoint(_) => Ok(None),
            Source::Trainable(trainable) => {
                trainable.get(self.full(name), shape.into(), Init::Constant(value), true).map(Some)
            }
        }
    }

    /// The place `name` below this one: names that are read there have `name.` before them.
    pub fn at(&self, name: impl Display) -> Loader<'a> {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// Where tensors are put.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the checkpoint has `name` here. Does not count as reading it. Of what is to be trained, everything is there.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint().is_none_or(|weights| weights.contains(&self.full(name)))
    }

    /// The shape of `name` here, if the checkpoint has it. Does not count as reading it.
    pub fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.checkpoint()?.shape(&self.full(name))
    }

    /// The tensor `name` as f32 on [`device`](Self::device).
    ///
    /// Zeros of `shape` if the checkpoint lacks it or has it in another shape, which `finish` then reports.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the elements are of a type that cannot be read, or one is infinite or not a number;
    /// [`Error::Weights`] with what was found so far once more than 2^27 values are missing; [`Error::Tensor`] if the device
    /// fails.
    pub fn get(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let full = self.full(name);
        if self.checkpoint().is_none() {
            let init = Init::of_shape(shape.dims());
            return self.parameter(name, shape, init);
        }
        if self.fits(&full, shape.dims()) {
            let values = self.finite(&full)?;
            return Tensor::from_vec(values, shape, &self.device).context("moving weights to the device");
        }
        self.count_zeros(shape.dims())?;
        Tensor::zeros(shape, DType::F32, &self.device).context("standing in for a missing tensor")
    }

    /// The elements of `name` in row-major order; zeros as [`get`](Self::get).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_vec(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let full = self.full(name);
        if self.checkpoint().is_none() {
            let values = self.get(name, shape)?.flatten_all().and_then(|values| values.to_vec1());
            return values.context("bringing a parameter to the host");
        }
        if self.fits(&full, shape) {
            return self.finite(&full);
        }
        Ok(vec![0.0; self.count_zeros(shape)?])
    }

    fn checkpoint(&self) -> Option<&'a Weights> {
        match self.source {
            Source::Checkpoint(weights) => Some(weights),
            Source::Trainable(_) => None,
        }
    }

    /// The elements of a tensor that is there.
    fn finite(&self, full: &str) -> Result<Vec<f32>> {
        let Some(weights) = self.checkpoint() else { return Ok(Vec::new()) }; // never: only checkpoints are looked into
        let values = weights.to_vec(full)?;
        match check_finite(&values) {
            Ok(()) => Ok(values),
            Err(_) => Err(weights.unusable(format!("tensor `{full}` holds a value that is infinite or not a number"))),
        }
    }

    /// Counts the zeros that stand in for a tensor of `shape`, and gives their number.
    fn count_zeros(&self, shape: &[usize]) -> Result<usize> {
        let count = shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
        let mut record = self.record();
        let total = count.and_then(|count| record.n_zeros.checked_add(count)).filter(|&total| total <= MAX_ZEROS);
        let (Some(count), Some(total)) = (count, total) else {
            return Err(Error::Weights(Box::new(self.report(&record, "the model", Vec::new()))));
        };
        record.n_zeros = total;
        Ok(count)
    }

    /// Names a tensor that the model knows and does not use, so that it is not unexpected. It need not exist.
    ///
    /// A trailing `*` stands for any ending: `ignore("logmel_extractor.*")`.
    pub fn ignore(&self, name: &str) {
        self.record().ignored.push(self.full(name));
    }

    /// Ends loading: the whole checkpoint, whichever place this is called at, against all that was read. What is to be
    /// trained is always as it should be.
    ///
    /// `model` names the model in the message. The counters of training, `num_batches_tracked` and `n_averaged`, are never
    /// unexpected.
    ///
    /// # Errors
    /// [`Error::Weights`] if any tensor was missing, had the wrong shape, or was neither read nor ignored.
    pub fn finish(&self, model: &str) -> Result<()> {
        let Some(weights) = self.checkpoint() else { return Ok(()) };
        let record = self.record();
        let names = weights.names();
        let unexpected = names.filter(|name| !record.accounts_for(name)).map(str::to_owned).collect();
        let report = self.report(&record, model, unexpected);
        if report.is_empty() { Ok(()) } else { Err(Error::Weights(Box::new(report))) }
    }

    fn report(&self, record: &Record, model: &str, unexpected: Vec<String>) -> LoadReport {
        let weights = self.checkpoint();
        let shape = |name: &String| weights.and_then(|weights| weights.shape(name)).unwrap_or_default();
        let mut nearest = Nearest::new(unexpected.iter().map(|name| (name.as_str(), shape(name))));
        let missing = record.missing.iter().map(|(name, shape)| MissingTensor {
            name: name.clone(),
            shape: shape.clone(),
            nearest: nearest.to(name, shape),
        });
        let missing = missing.collect();
        let (model, path) = (model.to_owned(), weights.and_then(Weights::path).map(Into::into));
        LoadReport { model, path, missing, unexpected, wrong_shape: record.wrong_shape.clone() }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Records that `full` is read; whether the checkpoint has it in `shape`.
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
        // The record is valid after every statement, also one that panicked in between.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn accounts_for(&self, name: &str) -> bool {
        let ignored = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        self.read.contains(name)
            || name.rsplit('.').next().is_some_and(|last| keys::COUNTERS.contains(&last))
            || self.ignored.iter().any(ignored)
    }
}
