//! Files with hidden states.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clipwise::candle_core::{Device, Tensor};

use super::model::Encoding;
use crate::input::FileArgs;
use crate::message::{Failure, cannot, name};
use crate::output::write_whole;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// All tensors, by name
    Safetensors,
    /// One hidden state, [n_frames, dim]
    Npy,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npy => "npy",
        }
    }
}

/// Where hidden states are written.
#[derive(Clone)]
pub struct Out {
    path: PathBuf,
    kind: Kind,
    is_folder: bool,
}

impl Out {
    /// A file for one audio file, whose name tells its kind; else a folder, which is created.
    pub fn new(path: &Path, kind: Option<Kind>, files: &FileArgs) -> Result<Self, Failure> {
        let named = [Kind::Safetensors, Kind::Npy]
            .into_iter()
            .find(|kind| path.extension().is_some_and(|extension| extension == kind.extension()));
        let is_folder = path.is_dir() || named.is_none();
        match named {
            Some(_) if !is_folder && !files.is_one_file() => {
                return Err(format!("--out {}: expected a folder for several audio files", name(path)).into());
            }
            Some(named) if !is_folder && kind.is_some_and(|kind| kind != named) => {
                return Err("--format is for a folder: the ending of the name after --out tells the kind".into());
            }
            _ if is_folder => std::fs::create_dir_all(path).map_err(|error| cannot("create", path, error))?,
            _ => {}
        }
        let kind = named.filter(|_| !is_folder).or(kind).unwrap_or(Kind::Safetensors);
        Ok(Self { path: path.to_path_buf(), kind, is_folder })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The file of an audio file whose path below the folder that was named is `relative`.
    pub fn place(&self, relative: &Path) -> PathBuf {
        match self.is_folder {
            true => self.path.join(relative).with_extension(self.kind.extension()),
            false => self.path.clone(),
        }
    }

    pub fn write(&self, relative: &Path, encoding: &Encoding, times: bool) -> Result<(), Failure> {
        let path = self.place(relative);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| cannot("create", folder, error))?;
        }
        write_whole(&path, |partial| {
            let cannot_write = |error: &dyn std::fmt::Display| cannot("write", &path, error);
            match self.kind {
                Kind::Safetensors => {
                    let mut tensors: HashMap<String, Tensor> = encoding.tensors.iter().cloned().collect();
                    if times {
                        let times = (0..encoding.n_frames).map(|frame| frame as f64 * encoding.frame_seconds);
                        tensors.insert("times".to_string(), Tensor::from_iter(times, &Device::Cpu)?);
                    }
                    let bytes = safetensors::serialize(&tensors, None).map_err(|error| cannot_write(&error))?;
                    std::fs::write(partial, bytes).map_err(|error| cannot_write(&error))
                }
                Kind::Npy => encoding.tensors[0].1.write_npy(partial).map_err(|error| cannot_write(&error)),
            }
        })
    }
}
