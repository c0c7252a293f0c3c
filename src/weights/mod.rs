//! Checkpoints: safetensors and PyTorch's `.pth`, read without PyTorch and without running anything.
//!
//! [`Weights::open`] opens a file and lists its tensors; a model then reads them through a [`Loader`], which reports
//! all that is missing, unexpected or wrongly shaped at once as a [`LoadReport`]. A [`Parameters`] stands in for a
//! checkpoint where a model is to be trained.
//!
//! # Formats
//! Recognised by content, whatever the file's name:
//! - safetensors, one file or the index (`model.safetensors.index.json`) of a sharded checkpoint;
//! - what `torch.save` writes: the zip format since PyTorch 1.6 and the format before it;
//! - TensorFlow Lite files: see [below](#tensorflow-lite).
//!
//! All element types are given as f32; see [`Dtype`]. Bytes are little-endian; big-endian files are refused. A damaged
//! or hostile file is an error, in bounded time and memory. Checksums of zip archives are not verified.
//!
//! Files are read, not mapped into memory: one that is truncated while it is open is an error, not the end of the process.
//!
//! A `.pth` file holds pickled Python objects. No code of a pickle is ever run: what is not a dictionary or a tensor
//! (NumPy arrays, samplers, classes) is stepped over. Of a whole pickled model (`torch.save(model)`) the parameters and
//! buffers are read, without its classes; TorchScript programs are refused.
//!
//! # Which tensors of a `.pth`
//! One dictionary of named tensors (the state dict) or module is taken: the file's object itself or one inside it, up to
//! four keys deep, where keys with `optim` or `sched` in them are not followed. The first of these that exists:
//! 1. that under `state_dict`, `model_state_dict`, `model_state`, `model`, `net`, `network`, `params` or `weights`; the
//!    least deep, then in this order;
//! 2. the dictionary with the most tensors, then the outermost;
//! 3. the outermost module.
//!
//! [`Weights::open_part`] takes another one by its key.
//!
//! # Tensors in pieces
//! A weight under weight norm reads as one tensor `weight`, `g · v / ‖v‖` in f64, rounded to f32. Its pieces, `weight_g` and
//! `weight_v` or `parametrizations.weight.original0` and `1`, are not listed by themselves. The axis of the norm is that along
//! which `g` has more than one value.
//!
//! A tensor `x` of signed bytes beside a tensor `x.scale` of one f32 reads as `x · scale`, the product rounded to f32 (ONNX's
//! `DequantizeLinear` without zero point); the scale is not listed by itself.
//!
//! 4-bit tensors of bitsandbytes (NF4 and FP4, with blocks of any length, single or double quantisation) read as their values in
//! f32, bit for bit as `dequantize_4bit` gives them before it rounds to the stored type. `x` has its original shape; its pieces
//! `x.absmax`, `x.quant_map`, `x.nested_absmax`, `x.nested_quant_map` and `x.quant_state.bitsandbytes__nf4` or `__fp4` are not
//! listed by themselves. A piece that is missing or of another size makes the whole checkpoint an error.
//!
//! # TensorFlow Lite
//! Of a `.tflite` file the weights and biases of convolutions and fully connected layers are read; the graph is not run. They are
//! named by their operators in the order of the graph, `00.conv.weight`, `01.depthwise.weight`, … and
//! `00.fully_connected.weight`, …, and have PyTorch's order of axes. 8-bit weights read as their values, `code · scale`. Constants
//! that the graph adds, multiplies or takes as powers are `00.add`, `00.mul`, `00.pow`, ….
//!
//! # Names
//! Wrappers are stripped from tensor names, in every format. Until nothing applies any more:
//! 1. `module.`, `_orig_mod.`, `model.` or `backbone.` is taken off where **all** names carry it, a lone
//!    `n_averaged` (stochastic weight averaging) aside;
//! 2. else `base.` is taken off the names that carry it, if **any** does (a fine-tuned PANNs model has `base.*` beside
//!    `fc_transfer.*`), unless two names would become the same.
//!
//! What is left may still stand below a prefix, as where Lightning saves `model.*` beside the tensor of a loss. Whoever looks for
//! a model finds it there: [`detect`](crate::models::detect), [`ModelConfig`](crate::models::ModelConfig),
//! [`Tagger`](crate::Tagger) and [`CtcModel`](crate::ctc::CtcModel) take the one prefix, whatever it is, below which all tensors
//! stand that tell the model, and read all of the model there. Tensors elsewhere in the checkpoint are left out, which is among
//! the assumptions that a tagger or a CTC model names; below the prefix every tensor must be the model's. Two prefixes that fit are
//! an error. The models' own `load` functions take names as they are: give them [`Weights::at`] of the prefix, which the
//! [`LoadReport`] of a failed attempt tells.

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
};
pub(crate) use self::{
    four_bit::{FourBit, Matrix},
    loader::Target,
    parameters::TrainingState,
};
use crate::error::{Error, Result};
#[doc(inline)]
pub use crate::error::{LoadReport, MissingTensor, WrongShape};

/// The named tensors of a checkpoint, left in the file until they are read.
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
    /// Where in the file the tensors stand: what [`at`](Self::at) took off their names, with its dot.
    prefix: String,
    format: Format,
    files: Vec<Arc<Bytes>>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    keep_four_bit: bool,
}

impl Weights {
    /// Opens a checkpoint and lists its tensors: takes milliseconds, whatever the size. The file stays open, and a tensor's
    /// bytes are read when the tensor is.
    ///
    /// Nothing is mapped into memory, so a file that is truncated meanwhile is an error when a tensor is read that is no
    /// longer there. One that is overwritten in place gives a mixture of old and new tensors: replace checkpoints by renaming
    /// a complete file, or use [`read`](Self::read).
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened or read, [`Error::Checkpoint`] if it is not a checkpoint, is damaged, or is of
    /// a kind that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(path.as_ref(), None, Bytes::open)
    }

    /// Opens the checkpoint of a folder: `model.safetensors`, the index of its shards (`model.safetensors.index.json`), or
    /// `pytorch_model.bin`; the first of these that is there.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Checkpoint`] if the folder has none of them.
    pub fn open_folder(folder: impl AsRef<Path>) -> Result<Self> {
        folder::open_weights(folder.as_ref())
    }

    /// As [`open`](Self::open), of a `.pth` that holds several models: the dictionary of tensors or the module that stands under
    /// `key`, such as `Featurizer` in checkpoints of s3prl.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is nothing of that kind under `key`.
    pub fn open_part(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        Self::from_file(path.as_ref(), Some(key), Bytes::open)
    }

    /// As [`open`](Self::open), with the whole file read into memory: what happens to it later does not matter.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(path.as_ref(), None, Bytes::read)
    }

    /// A checkpoint that is in memory already, such as from `include_bytes!`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], as [`open`](Self::open); also for the index of a sharded checkpoint.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let bytes = Bytes::Held(bytes.into());
        let parsed = parse(&bytes, None).map_err(|fault| fault.into_error(None))?;
        Self::assemble(None, vec![bytes], parsed)
    }

    /// Copies `tensors` to the host as f32. Of two with the same name the last counts; names lose their wrappers too.
    ///
    /// # Errors
    /// [`Error::Tensor`] if one cannot be converted or copied.
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
                    unusable(Some(&shard_path), format!("lacks tensor `{name}`, which the index places there"))
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
        Ok(Self { path, prefix: String::new(), format, files, entries, metadata, keep_four_bit: false })
    }

    /// The same checkpoint, whose 4-bit tensors stay 4-bit in memory: fully connected layers on the CPU that are loaded from it
    /// keep the codes, and make the values of some outputs at a time while they compute. The results are the same.
    ///
    /// A weight takes 0.56 bytes instead of 4 with blocks of 64. To make the values takes about as long as the products of 200 rows
    /// with them: the audio tower of Qwen2-Audio in 0.42 GB instead of 2.75 takes 1.4 times as long for 10 s of speech, and many
    /// times as long for a single row.
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

    /// The tensors below `place.`, under their names without it: of a checkpoint that holds more than a model, the model. All if
    /// `place` is empty. Nothing is read; both share the open file.
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
        }
    }

    /// These tensors with those of `other`, which replace tensors of the same name: the adapters of a language, a head that was
    /// trained. Nothing is read; all share the open files.
    pub fn overlaid(mut self, other: &Self) -> Self {
        let n_files = self.files.len();
        self.files.extend(other.files.iter().cloned());
        let moved = |(name, entry): (&String, &Entry)| (name.clone(), entry.after(n_files));
        self.entries.extend(other.entries.iter().map(moved));
        self
    }

    /// The places, for [`at`](Self::at), below which a model has all tensors that one of `signatures` names, which is not
    /// empty. In the order of their length, so that the whole checkpoint comes first if it is among them.
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

    /// The place below which most of the `missing` tensors, and at least half of them, are there in their shapes. Looks for it
    /// with the first of them.
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

    /// The bytes of all files.
    fn n_bytes(&self) -> usize {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.len()))
    }

    /// The tensors that [`at`](Self::at) leaves out, but for the counters of training.
    pub(crate) fn outside<'a>(&'a self, place: &'a str) -> impl Iterator<Item = &'a str> {
        let is_below =
            move |name: &str| place.is_empty() || name.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'));
        self.names().filter(move |name| !is_below(name) && !keys::is_counter(name))
    }

    /// The file that was opened; the index of a sharded checkpoint. `None` for bytes and tensors.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Where in the checkpoint the tensors stand, as given to [`at`](Self::at); empty for all of it.
    pub fn place(&self) -> &str {
        self.prefix.strip_suffix('.').unwrap_or_default()
    }

    /// What the checkpoint was read from.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The tensors' names, sorted, wrappers stripped.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether there is a tensor `name`, or one below that place.
    fn has(&self, name: &str) -> bool {
        let below = format!("{name}.");
        let next = self.entries.range(below.clone()..).next();
        self.contains(name) || next.is_some_and(|(name, _)| name.starts_with(&below))
    }

    /// The shape of tensor `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The type that the elements of tensor `name` are stored in.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name).map(|entry| entry.dtype)
    }

    /// Free text that a safetensors file carries; of several shards the last one's counts. Of a `.pth` the classes that it has under
    /// `label_dict` (BEATs), one per line.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Keeps the tensors whose names `keep` accepts: for checkpoints that hold more than the model.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.entries.retain(|name, _| keep(name));
    }

    /// Renames every tensor.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if two tensors would have the same name; nothing is renamed then.
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

    /// The elements of tensor `name` as f32, in row-major order.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor, its element type is [`Dtype::Other`], or the file has become shorter;
    /// [`Error::Io`] if the file cannot be read.
    pub fn to_vec(&self, name: &str) -> Result<Vec<f32>> {
        self.with_entry(name, |entry| entry.decode(&self.files))
    }

    /// The codes of tensor `name`, if they are to be kept as they are.
    fn four_bit(&self, name: &str) -> Result<Option<FourBit>> {
        if self.keep_four_bit { self.with_entry(name, |entry| entry.four_bit(&self.files)) } else { Ok(None) }
    }

    fn with_entry<T>(&self, name: &str, read: impl FnOnce(&Entry) -> Result<T, Fault>) -> Result<T> {
        let entry = self.entries.get(name).ok_or_else(|| self.unusable(format!("there is no tensor `{name}`")))?;
        let in_tensor = |reason| format!("tensor `{name}`: {reason}");
        read(entry).map_err(|fault| fault.map(in_tensor).into_error(self.path()))
    }

    /// Tensor `name` as f32 on `device`.
    ///
    /// # Errors
    /// As [`to_vec`](Self::to_vec); [`Error::Tensor`] if the device fails.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let values = self.to_vec(name)?;
        let shape = self.shape(name).unwrap_or_default();
        Tensor::from_vec(values, shape, device)
            .map_err(|cause| Error::Tensor { context: "moving weights to the device", cause })
    }

    /// Begins to read a model's tensors onto `device`.
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
