//! Checkpoints: safetensors and PyTorch's `.pth`, read without PyTorch and without running anything.
//!
//! [`Weights::open`] maps a file and lists its tensors; a model then reads them through a [`Loader`], which reports
//! all that is missing, unexpected or wrongly shaped at once as a [`LoadReport`]. A [`Trainable`] stands in for a
//! checkpoint where a model is to be trained.
//!
//! # Formats
//! Recognised by content, whatever the file's name:
//! - safetensors, one file or the index (`model.safetensors.index.json`) of a sharded checkpoint;
//! - what `torch.save` writes: the zip format since PyTorch 1.6 and the format before it.
//!
//! All element types are given as f32; see [`Dtype`]. Bytes are little-endian; big-endian files are refused. A damaged
//! or hostile file is an error, in bounded time and memory. Checksums of zip archives are not verified.
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
//! # Quantised tensors
//! A tensor `x` of signed bytes beside a tensor `x.scale` of one f32 reads as `x · scale`, the product rounded to f32 (ONNX's
//! `DequantizeLinear` without zero point); the scale is not listed by itself.
//!
//! # Names
//! Wrappers are stripped from tensor names, in every format. Until nothing applies any more:
//! 1. `module.`, `_orig_mod.`, `model.` or `backbone.` is taken off where **all** names carry it, a lone
//!    `n_averaged` (stochastic weight averaging) aside;
//! 2. else `base.` is taken off the names that carry it, if **any** does (a fine-tuned PANNs model has `base.*` beside
//!    `fc_transfer.*`), unless two names would become the same.

mod bytes;
mod entry;
mod keys;
mod loader;
mod pickle;
mod pth;
mod report;
mod safetensors;
mod state_dict;
mod torch_names;
mod trainable;
mod zip;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};

use self::safetensors::Index;
pub(crate) use self::trainable::Mode;
use self::{
    bytes::{Access, Bytes},
    entry::Entry,
};
pub use self::{
    entry::Dtype,
    loader::Loader,
    report::{LoadReport, MissingTensor, WrongShape},
    trainable::{Init, Trainable},
};
use crate::{Error, Result};

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
    format: Format,
    files: Vec<Bytes>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// What a checkpoint was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A safetensors file.
    Safetensors,
    /// Several safetensors files and their index.
    SafetensorsSharded,
    /// `torch.save` since PyTorch 1.6.
    PthZip,
    /// `torch.save` before PyTorch 1.6.
    PthLegacy,
    /// Tensors in memory.
    Memory,
}

/// What a file's content gave.
struct Parsed {
    format: Format,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Opens a checkpoint by mapping it into memory: takes milliseconds, whatever the size.
    ///
    /// The file must not be changed while it is open; one that is truncated meanwhile can end the process. Use
    /// [`read`](Self::read) where that may happen.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened, [`Error::Checkpoint`] if it is not a checkpoint, is damaged, or is of a
    /// kind that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::with_access(path.as_ref(), None, Access::Map)
    }

    /// As [`open`](Self::open), of a `.pth` that holds several models: the dictionary of tensors or the module that stands under
    /// `key`, such as `Featurizer` in checkpoints of s3prl.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is nothing of that kind under `key`.
    pub fn open_part(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        Self::with_access(path.as_ref(), Some(key), Access::Map)
    }

    /// As [`open`](Self::open), with the whole file read into memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::with_access(path.as_ref(), None, Access::Read)
    }

    /// A checkpoint that is in memory already, such as from `include_bytes!`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], as [`open`](Self::open); also for the index of a sharded checkpoint.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let bytes = Bytes::Held(bytes.into());
        let parsed = parse(&bytes, None).map_err(|reason| unusable(None, reason))?;
        Ok(Self::assemble(None, vec![bytes], parsed))
    }

    /// Copies `tensors` to the host as f32. Of two with the same name the last counts; names lose their wrappers too.
    ///
    /// # Errors
    /// [`Error::Tensor`] if one cannot be converted or copied.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        let (mut bytes, mut entries) = (Vec::new(), BTreeMap::new());
        for (name, tensor) in tensors {
            let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
            let values = values.map_err(|source| Error::Tensor { context: "copying a tensor to the host", source })?;
            let shape = tensor.dims().to_vec();
            let strides = entry::row_major(&shape);
            let (offset, dtype) = (bytes.len(), Dtype::F32);
            entries.insert(name, Entry { file: 0, offset, dtype, shape, strides, scale: None });
            bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
        }
        let parsed = Parsed { format: Format::Memory, entries, metadata: BTreeMap::new() };
        Ok(Self::assemble(None, vec![bytes.into()], parsed))
    }

    fn with_access(path: &Path, part: Option<&str>, access: Access) -> Result<Self> {
        let bytes = Bytes::open(path, access)?;
        if part.is_none() && Index::recognise(&bytes) && !safetensors::recognise(&bytes) {
            return Self::sharded(path, &bytes, access);
        }
        let parsed = parse(&bytes, part).map_err(|reason| unusable(Some(path), reason))?;
        Ok(Self::assemble(Some(path), vec![bytes], parsed))
    }

    fn sharded(path: &Path, index: &[u8], access: Access) -> Result<Self> {
        let index = Index::parse(index).map_err(|reason| unusable(Some(path), reason))?;
        let (mut files, mut entries, mut metadata) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (file, (shard, names)) in index.shards().into_iter().enumerate() {
            let shard_path = path.with_file_name(shard);
            let bytes = Bytes::open(&shard_path, access)?;
            let (mut held, shard_metadata) =
                safetensors::parse(&bytes).map_err(|reason| unusable(Some(&shard_path), reason))?;
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
        Ok(Self::assemble(Some(path), files, parsed))
    }

    fn assemble(path: Option<&Path>, files: Vec<Bytes>, parsed: Parsed) -> Self {
        let mut entries = keys::strip(parsed.entries);
        attach_scales(&files, &mut entries);
        Self { path: path.map(Path::to_owned), format: parsed.format, files, entries, metadata: parsed.metadata }
    }

    /// The file that was opened; the index of a sharded checkpoint. `None` for bytes and tensors.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
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

    /// The shape of tensor `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The type that the elements of tensor `name` are stored in.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name).map(|entry| entry.dtype)
    }

    /// Free text that a safetensors file carries; empty for other formats. Of several shards the last one's counts.
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
    /// [`Error::Checkpoint`] if there is no such tensor or its element type is [`Dtype::Other`].
    pub fn to_vec(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entries.get(name).ok_or_else(|| self.unusable(format!("there is no tensor `{name}`")))?;
        let file = self.files.get(entry.file).ok_or_else(|| self.unusable(format!("tensor `{name}` has no file")))?;
        entry.decode(file).map_err(|reason| self.unusable(format!("tensor `{name}`: {reason}")))
    }

    /// Tensor `name` as f32 on `device`.
    ///
    /// # Errors
    /// As [`to_vec`](Self::to_vec); [`Error::Tensor`] if the device fails.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let values = self.to_vec(name)?;
        let shape = self.shape(name).unwrap_or_default();
        Tensor::from_vec(values, shape, device)
            .map_err(|source| Error::Tensor { context: "moving weights to the device", source })
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

/// Gives 8-bit tensors the scales that stand beside them.
fn attach_scales(files: &[Bytes], entries: &mut BTreeMap<String, Entry>) {
    let is_quantised = |entry: &Entry| entry.dtype == Dtype::I8;
    let names: Vec<String> =
        entries.iter().filter(|(_, entry)| is_quantised(entry)).map(|(name, _)| name.clone()).collect();
    for name in names {
        let scale_name = format!("{name}.scale");
        let scale = entries.get(&scale_name).filter(|entry| entry.dtype == Dtype::F32 && entry.count() == 1);
        let scale = scale.and_then(|entry| entry.decode(files.get(entry.file)?).ok()?.first().copied());
        if let (Some(scale), Some(entry)) = (scale, entries.get_mut(&name)) {
            entry.scale = Some(scale);
            entries.remove(&scale_name);
        }
    }
}

fn unusable(path: Option<&Path>, reason: String) -> Error {
    Error::Checkpoint { path: path.unwrap_or(Path::new("<bytes>")).to_owned(), reason }
}

/// Lists the tensors of one file, or of one part of it.
fn parse(file: &[u8], part: Option<&str>) -> Result<Parsed, String> {
    let (format, (entries, metadata)) = if zip::recognise(file) {
        (Format::PthZip, (pth::parse_zip(file, part)?, BTreeMap::new()))
    } else if pth::recognise_legacy(file) {
        (Format::PthLegacy, (pth::parse_legacy(file, part)?, BTreeMap::new()))
    } else if let Some(part) = part {
        return Err(format!("not a checkpoint of PyTorch, which alone may have a part `{part}`"));
    } else if safetensors::recognise(file) {
        (Format::Safetensors, safetensors::parse(file)?)
    } else {
        return Err(format!("{}; safetensors and PyTorch checkpoints are read", what_else(file)));
    };
    Ok(Parsed { format, entries, metadata })
}

/// What a file is that is no checkpoint, as far as its first bytes tell.
fn what_else(file: &[u8]) -> &'static str {
    let starts = |with: &[u8]| file.starts_with(with);
    let html = |tag: &[u8]| file.trim_ascii_start().get(..tag.len()).is_some_and(|s| s.eq_ignore_ascii_case(tag));
    match file {
        [] => "an empty file",
        _ if starts(b"version https://git-lfs") => "a Git LFS pointer, not the file it stands for",
        _ if html(b"<!doctype html") || html(b"<html") => "a web page, as where a download failed",
        _ if Index::recognise(file) => "JSON; the index of a sharded checkpoint is opened by its path",
        _ if starts(b"\x89HDF\r\n") => "an HDF5 file (Keras)",
        _ if starts(b"GGUF") => "a GGUF file",
        _ if starts(b"\x93NUMPY") => "a NumPy array",
        _ if starts(b"\x1f\x8b") => "a gzip archive",
        _ if file.get(257..262) == Some(b"ustar") => "a tar archive, as PyTorch before 0.1.10 wrote",
        [0x80, 0..=5, ..] => "a pickle, but not one that torch.save wrote",
        _ => "not a checkpoint of a known kind",
    }
}
