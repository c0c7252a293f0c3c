//! Checkpoints: safetensors, PyTorch's `.pth` and TensorFlow Lite files, read without PyTorch and without executing
//! anything.
//!
//! [`Weights::open`] opens a file and lists its tensors. A model reads them through a [`Loader`], which reports all
//! missing, unexpected and wrongly shaped tensors at once in a [`LoadReport`]. [`Parameters`] takes the place of a
//! checkpoint when a model is trained.
//!
//! # Formats
//! Recognised by content, not by file name:
//! - safetensors: one file, or the index (`model.safetensors.index.json`) of a sharded checkpoint;
//! - files written by `torch.save`: the zip format since PyTorch 1.6, and the legacy format before it;
//! - TensorFlow Lite files: see [below](#tensorflow-lite).
//!
//! All element types are converted to f32; see [`Dtype`]. Files must be little-endian; big-endian files are an error.
//! Damaged and hostile files are errors, in bounded time and memory. Checksums of zip archives are not verified.
//!
//! Files are read, not memory-mapped, so a file that is truncated while it is open is an error and does not crash the
//! process.
//!
//! A `.pth` file contains pickled Python objects. Pickled code is never executed: everything other than dictionaries
//! and tensors (NumPy arrays, samplers, classes) is skipped. From a whole pickled model (`torch.save(model)`) the
//! parameters and buffers are read, without its classes. TorchScript programs are an error.
//!
//! # The state dict of a `.pth`
//! One dictionary of named tensors (state dict) or module is read: the top-level object or one inside it, up to four
//! keys deep. Keys that contain `optim` or `sched` are skipped. The first of these that exists is used:
//! 1. the one under `state_dict`, `model_state_dict`, `model_state`, `model`, `net`, `network`, `params` or `weights`:
//!    the outermost, then in this order;
//! 2. the dictionary with the most tensors, then the outermost;
//! 3. the outermost module.
//!
//! [`Weights::open_part`] selects another one by its key.
//!
//! # Composed tensors
//! A weight with weight norm is listed as one tensor `weight`: `g · v / ‖v‖`, computed in f64 and rounded to f32. Its
//! parts (`weight_g` and `weight_v`, or `parametrizations.weight.original0` and `original1`) are not listed. The norm
//! is taken along the axis on which `g` has more than one value.
//!
//! A tensor `x` of signed bytes with a tensor `x.scale` of one f32 is listed as `x`: `x · scale`, rounded to f32
//! (ONNX's `DequantizeLinear` without zero point). The scale is not listed.
//!
//! 4-bit tensors of bitsandbytes (NF4 and FP4, with any block size, single or double quantisation) are converted to
//! f32, bit for bit as `dequantize_4bit` does before it rounds to the stored type. `x` has its original shape; its
//! parts `x.absmax`, `x.quant_map`, `x.nested_absmax`, `x.nested_quant_map` and `x.quant_state.bitsandbytes__nf4` or
//! `__fp4` are not listed. A part that is missing or has the wrong size is an error for the whole checkpoint.
//!
//! # TensorFlow Lite
//! Weights and biases of convolutions and fully connected layers are read from a `.tflite` file; the graph is not run.
//! They are named after their operators, numbered in the order of the graph (`00.conv.weight`, `01.depthwise.weight`,
//! …, `00.fully_connected.weight`, …), and have PyTorch's axis order. 8-bit weights are converted to `code · scale`.
//! Constants that the graph adds, multiplies or uses as exponents are named `00.add`, `00.mul`, `00.pow`, ….
//!
//! # Names
//! Wrapper prefixes are stripped from tensor names, in every format, until no rule applies:
//! 1. `module.`, `_orig_mod.`, `model.` or `backbone.` is stripped if **all** names have it, except a lone `n_averaged`
//!    (stochastic weight averaging);
//! 2. otherwise `base.` is stripped from the names that have it, if **any** does (a fine-tuned PANNs model has `base.*`
//!    and `fc_transfer.*`), unless two names would become equal.
//!
//! The remaining names may still have a prefix, as in Lightning checkpoints with `model.*` and the tensor of a loss.
//! [`detect`](crate::models::detect), [`ModelConfig`](crate::models::ModelConfig), [`Tagger`](crate::Tagger) and
//! [`CtcModel`](crate::ctc::CtcModel) look for a prefix below which all tensors that identify the model are found, and
//! read the whole model there. Tensors outside the prefix are ignored, which a tagger or CTC model lists among its
//! assumptions; below it, every tensor must belong to the model. Two matching prefixes are an error. The `load`
//! functions of the models do not look for a prefix: pass them [`Weights::at`] of the prefix, which the [`LoadReport`]
//! of a failed attempt suggests.

mod bytes;
mod composed;
mod entry;
pub(crate) mod folder;
mod format;
mod four_bit;
mod keys;
mod loader;
mod nearest;
mod parameters;
mod pickle;
pub(crate) mod place;
mod precision;
mod pth;
mod safetensors;
mod state_dict;
mod tflite;
mod torch_names;
mod zip;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use self::safetensors::Index;
use self::{
    bytes::{Bytes, Fault},
    composed::compose,
    entry::Entry,
    format::{Parsed, is_index, parse},
};
pub use self::{
    entry::Dtype,
    format::Format,
    loader::Loader,
    parameters::{Init, Parameters},
    precision::Precision,
};
pub(crate) use self::{
    four_bit::{FourBit, Matrix},
    loader::Target,
    parameters::{TrainingState, save_tensors},
};
use crate::error::{Error, Result};
#[doc(inline)]
pub use crate::error::{LoadReport, MissingTensor, WrongShape};

/// The named tensors of a checkpoint. They stay in the file until they are read.
///
/// ```no_run
/// # use candle_core::Device;
/// let weights = clipwise::Weights::open("Cnn14_mAP=0.431.pth")?;
/// for name in weights.names() {
///     println!("{name} {:?}", weights.shape(name));
/// }
/// let bias = weights.tensor("fc_audioset.bias", &Device::Cpu)?;
/// # Ok::<(), clipwise::Error>(())
/// ```
pub struct Weights {
    path: Option<PathBuf>,
    /// The prefix that [`at`](Self::at) removed from the names, with its dot.
    prefix: String,
    format: Format,
    files: Vec<Arc<Bytes>>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    keep_four_bit: bool,
    precision: Precision,
}

impl Weights {
    /// Opens a checkpoint and lists its tensors. This takes milliseconds, whatever the size. The file stays open, and
    /// tensors are read from it on demand.
    ///
    /// If the file is truncated while it is open, reading a tensor beyond the new end is an error. If it is overwritten
    /// in place, old and new tensors may be mixed: replace checkpoints by renaming a complete file, or use
    /// [`read`](Self::read).
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened or read; [`Error::Checkpoint`] if it is not a checkpoint, is damaged,
    /// or has an unsupported format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(path.as_ref(), None, Bytes::open)
    }

    /// Opens the checkpoint in a folder: the first that exists of `model.safetensors`, the index of its shards
    /// (`model.safetensors.index.json`) and `pytorch_model.bin`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Checkpoint`] if the folder has none of them.
    pub fn open_folder(folder: impl AsRef<Path>) -> Result<Self> {
        folder::open_weights(folder.as_ref())
    }

    /// As [`open`](Self::open), for a `.pth` with several models: selects the dictionary of tensors or the module under
    /// `key`, for example `Featurizer` in checkpoints of s3prl.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Checkpoint`] if there is no such dictionary or module under `key`.
    pub fn open_part(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        Self::from_file(path.as_ref(), Some(key), Bytes::open)
    }

    /// As [`open`](Self::open), but reads the whole file into memory, so that later changes to the file have no effect.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(path.as_ref(), None, Bytes::read)
    }

    /// Opens a checkpoint in memory, for example from `include_bytes!`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] as for [`open`](Self::open), and for the index of a sharded checkpoint.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let bytes = Bytes::Held(bytes.into());
        let parsed = parse(&bytes, None).map_err(|fault| fault.into_error(None))?;
        Self::assemble(None, vec![bytes], parsed)
    }

    /// Copies tensors to the host as f32. Of several tensors with the same name the last is used. Wrapper prefixes are
    /// stripped.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor cannot be converted or copied.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        let (mut bytes, mut entries) = (Vec::new(), BTreeMap::new());
        for (name, tensor) in tensors {
            let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
            let values = values.map_err(|cause| Error::Tensor { context: "copying a tensor to the host", cause })?;
            let shape = tensor.dims().to_vec();
            let strides = entry::row_major(&shape);
            let (offset, dtype) = (bytes.len(), Dtype::F32);
            entries.insert(name, Entry { file: 0, offset, dtype, shape, strides, factor: None, pieces: None });
            bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
        }
        let parsed = Parsed { format: Format::Memory, entries, metadata: BTreeMap::new() };
        Self::assemble(None, vec![bytes.into()], parsed)
    }

    fn from_file(path: &Path, part: Option<&str>, open: fn(&Path) -> Result<Bytes>) -> Result<Self> {
        let bytes = open(path)?;
        let unusable = |fault: Fault| fault.into_error(Some(path));
        if part.is_none() && is_index(&bytes).map_err(unusable)? {
            return Self::sharded(path, &bytes, open);
        }
        let parsed = parse(&bytes, part).map_err(unusable)?;
        Self::assemble(Some(path), vec![bytes], parsed)
    }

    fn sharded(path: &Path, index: &Bytes, open: fn(&Path) -> Result<Bytes>) -> Result<Self> {
        let index = Index::parse(index).map_err(|fault| fault.into_error(Some(path)))?;
        let (mut files, mut entries, mut metadata) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (file, (shard, names)) in index.shards().into_iter().enumerate() {
            let shard_path = path.with_file_name(shard);
            let bytes = open(&shard_path)?;
            let (mut held, shard_metadata) =
                safetensors::parse(&bytes).map_err(|fault| fault.into_error(Some(&shard_path)))?;
            for name in names {
                let entry = held.remove(name).ok_or_else(|| {
                    unusable(Some(&shard_path), format!("lacks tensor `{name}`, which the index assigns to it"))
                })?;
                entries.insert(name.to_owned(), Entry { file, ..entry });
            }
            files.push(bytes);
            metadata.extend(shard_metadata);
        }
        let parsed = Parsed { format: Format::SafetensorsSharded, entries, metadata };
        Self::assemble(Some(path), files, parsed)
    }

    fn assemble(path: Option<&Path>, files: Vec<Bytes>, mut parsed: Parsed) -> Result<Self> {
        let files: Vec<Arc<Bytes>> = files.into_iter().map(Arc::new).collect();
        let mut entries = keys::strip(std::mem::take(&mut parsed.entries));
        compose(&files, &mut entries).map_err(|fault| fault.into_error(path))?;
        let path = path.map(Path::to_owned);
        let Parsed { format, metadata, .. } = parsed;
        Ok(Self {
            path,
            prefix: String::new(),
            format,
            files,
            entries,
            metadata,
            keep_four_bit: false,
            precision: Precision::F32,
        })
    }

    /// Keeps 4-bit tensors as 4-bit codes in memory. Fully connected layers on the CPU then dequantise some outputs at
    /// a time while they compute. The results are the same.
    ///
    /// A weight takes 0.56 bytes instead of 4, with blocks of 64. Dequantising takes about as long as the matrix
    /// product with 200 rows: the audio tower of Qwen2-Audio needs 0.42 GB instead of 2.75 and takes 1.4 times as long
    /// for 10 s of speech, and many times as long for a single row.
    ///
    /// ```no_run
    /// use clipwise::encoders::{Qwen2AudioEncoder, qwen2_audio::Config};
    /// use clipwise::{Weights, device};
    ///
    /// # fn main() -> clipwise::Result<()> {
    /// let weights = Weights::open("qwen2-audio-7b-nf4/model.safetensors.index.json")?.keep_four_bit();
    /// let encoder = Qwen2AudioEncoder::load(&Config::BASE, &weights, &device::cpu())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn keep_four_bit(self) -> Self {
        Self { keep_four_bit: true, ..self }
    }

    /// Sets the precision of models that are loaded from here, on the CPU. Default: [`Precision::F32`].
    ///
    /// ```no_run
    /// use clipwise::encoders::{Encoder, EncoderConfig};
    /// use clipwise::{Precision, Weights, device};
    ///
    /// # fn main() -> clipwise::Result<()> {
    /// let weights = Weights::open("whisper-tiny.en/model.safetensors")?.with_precision(Precision::Int8);
    /// let encoder = Encoder::load(&EncoderConfig::from_weights(&weights)?, &weights, &device::cpu())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The tensors below the prefix `place.`, with the prefix removed from their names: selects a model in a checkpoint
    /// that holds more than one. An empty `place` selects all tensors. Nothing is read; the open file is shared.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use clipwise::Weights;
    /// # let ones = |n: usize| Tensor::ones(n, DType::F32, &Device::Cpu).unwrap();
    /// let weights = Weights::from_tensors([("net.fc.bias".to_string(), ones(3)), ("loss.weight".to_string(), ones(1))])?;
    /// assert_eq!(weights.at("net").names().collect::<Vec<_>>(), ["fc.bias"]);
    /// # Ok::<(), clipwise::Error>(())
    /// ```
    pub fn at(&self, place: &str) -> Self {
        let prefix = if place.is_empty() { String::new() } else { format!("{place}.") };
        let below = |(name, entry): (&String, &Entry)| {
            let name = name.strip_prefix(&prefix).filter(|name| !name.is_empty())?;
            Some((name.to_owned(), entry.clone()))
        };
        Self {
            path: self.path.clone(),
            prefix: format!("{}{prefix}", self.prefix),
            format: self.format,
            files: self.files.clone(),
            entries: self.entries.iter().filter_map(below).collect(),
            metadata: self.metadata.clone(),
            keep_four_bit: self.keep_four_bit,
            precision: self.precision,
        }
    }

    /// These tensors and those of `other`, which replace tensors of the same name: for language adapters, or a
    /// separately trained head. Nothing is read; the open files are shared.
    pub fn overlaid(mut self, other: &Self) -> Self {
        let n_files = self.files.len();
        self.files.extend(other.files.iter().cloned());
        let moved = |(name, entry): (&String, &Entry)| (name.clone(), entry.after(n_files));
        self.entries.extend(other.entries.iter().map(moved));
        self
    }

    /// The prefixes, for [`at`](Self::at), below which all tensors of one of the `signatures` exist. Sorted by length,
    /// so that the empty prefix comes first. Signatures must not be empty.
    pub(crate) fn places(&self, signatures: &[&[&str]]) -> Vec<String> {
        let mut places = BTreeSet::new();
        for signature in signatures {
            let Some((first, others)) = signature.split_first() else { continue };
            for prefix in self.entries.keys().filter_map(|name| name.strip_suffix(first)) {
                let Some(place) = prefix.strip_suffix('.').or(prefix.is_empty().then_some("")) else { continue };
                if others.iter().all(|other| self.entries.contains_key(&format!("{prefix}{other}"))) {
                    places.insert((place.len(), place.to_owned()));
                }
            }
        }
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// The prefix below which most of the `missing` tensors, and at least half of them, exist with the right shape.
    /// Candidates are derived from the first few.
    fn place_of(&self, missing: &[(String, Vec<usize>)]) -> Option<String> {
        let candidates = missing.iter().take(8).flat_map(|(name, _)| self.places(&[&[name]]).into_iter().take(8));
        let count = |place: String| {
            let is_there =
                |(name, shape): &&(String, Vec<usize>)| self.shape(&format!("{place}.{name}")) == Some(shape);
            (missing.iter().filter(is_there).count(), place)
        };
        let (n_there, place) =
            candidates.filter(|place| !place.is_empty()).map(count).max_by_key(|(count, _)| *count)?;
        (2 * n_there >= missing.len()).then_some(place)
    }

    /// Total size of all files, in bytes.
    fn n_bytes(&self) -> usize {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.len()))
    }

    /// The names of the tensors outside a prefix, without training counters.
    pub(crate) fn outside<'a>(&'a self, place: &'a str) -> impl Iterator<Item = &'a str> {
        let is_below =
            move |name: &str| place.is_empty() || name.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'));
        self.names().filter(move |name| !is_below(name) && !keys::is_counter(name))
    }

    /// The path that was opened; for a sharded checkpoint, that of its index. `None` for bytes and tensors.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The prefix that was selected with [`at`](Self::at); empty for none.
    pub fn place(&self) -> &str {
        self.prefix.strip_suffix('.').unwrap_or_default()
    }

    /// The format of the checkpoint.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The names of the tensors, sorted, with wrapper prefixes stripped.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether there is a tensor `name`, or one below the prefix `name.`.
    fn has(&self, name: &str) -> bool {
        let below = format!("{name}.");
        let next = self.entries.range(below.clone()..).next();
        self.contains(name) || next.is_some_and(|(name, _)| name.starts_with(&below))
    }

    /// The shape of tensor `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The element type in which tensor `name` is stored.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name).map(|entry| entry.dtype)
    }

    /// Free-form text from the header of a safetensors file (the last one, if there are several shards). For a `.pth`,
    /// the class names that BEATs stores under `label_dict`, one per line.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Removes all tensors whose names `keep` rejects, for checkpoints that hold more than the model.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.entries.retain(|name, _| keep(name));
    }

    /// Renames every tensor.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if two tensors would get the same name; in that case nothing is renamed.
    pub fn rename(&mut self, rename: impl Fn(&str) -> String) -> Result<()> {
        let mut renamed = BTreeMap::new();
        for (name, entry) in &self.entries {
            let new_name = rename(name);
            if renamed.insert(new_name.clone(), entry.clone()).is_some() {
                return Err(self.unusable(format!("two tensors would be named `{new_name}`")));
            }
        }
        self.entries = renamed;
        Ok(())
    }

    /// Reads tensor `name` as f32, in row-major order.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor, if its element type is [`Dtype::Other`], or if the file has
    /// been truncated; [`Error::Io`] if the file cannot be read.
    pub fn to_vec(&self, name: &str) -> Result<Vec<f32>> {
        self.with_entry(name, |entry| entry.decode(&self.files))
    }

    /// Reads the codes of a 4-bit tensor, if 4-bit tensors are kept.
    fn four_bit(&self, name: &str) -> Result<Option<FourBit>> {
        if self.keep_four_bit { self.with_entry(name, |entry| entry.four_bit(&self.files)) } else { Ok(None) }
    }

    fn with_entry<T>(&self, name: &str, read: impl FnOnce(&Entry) -> Result<T, Fault>) -> Result<T> {
        let entry = self.entries.get(name).ok_or_else(|| self.unusable(format!("there is no tensor `{name}`")))?;
        let in_tensor = |reason| format!("tensor `{name}`: {reason}");
        read(entry).map_err(|fault| fault.map(in_tensor).into_error(self.path()))
    }

    /// Reads tensor `name` as f32 onto `device`.
    ///
    /// # Errors
    /// As [`to_vec`](Self::to_vec); [`Error::Tensor`] if the tensor cannot be copied to the device.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let values = self.to_vec(name)?;
        let shape = self.shape(name).unwrap_or_default();
        Tensor::from_vec(values, shape, device)
            .map_err(|cause| Error::Tensor { context: "copying weights to the device", cause })
    }

    /// Creates a loader that reads a model's tensors onto `device`.
    pub fn loader<'a>(&'a self, device: &Device) -> Loader<'a> {
        Loader::new(self, device)
    }

    fn unusable(&self, reason: String) -> Error {
        unusable(self.path(), reason)
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, format, entries, .. } = self;
        f.debug_struct("Weights").field("path", path).field("format", format).field("tensors", &entries.len()).finish()
    }
}

fn unusable(path: Option<&Path>, reason: String) -> Error {
    Error::Checkpoint { path: path.unwrap_or(Path::new("<bytes>")).to_owned(), reason }
}
