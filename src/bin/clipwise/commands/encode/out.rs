//! Files with hidden states.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clipwise::candle_core::{self, Device, Tensor};

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
pub struct Out {
    places: Places,
    /// The audio file of each file that was written.
    written: HashMap<PathBuf, PathBuf>,
}

/// The files of hidden states.
#[derive(Clone)]
pub struct Places {
    path: PathBuf,
    kind: Kind,
    is_folder: bool,
}

impl Places {
    /// The file of an audio file whose path below the folder that was named is `relative`.
    pub fn of(&self, relative: &Path) -> PathBuf {
        match self.is_folder {
            true => self.path.join(relative).with_extension(self.kind.extension()),
            false => self.path.clone(),
        }
    }
}

impl Out {
    /// A file for one audio file, whose name tells its kind; else a folder, which is created.
    pub fn new(path: &Path, kind: Kind, files: &FileArgs) -> Result<Self, Failure> {
        let named = [Kind::Safetensors, Kind::Npy]
            .into_iter()
            .find(|kind| path.extension().is_some_and(|extension| extension == kind.extension()));
        let is_folder = !files.is_one_file() || path.is_dir() || named.is_none();
        if is_folder {
            std::fs::create_dir_all(path).map_err(|error| cannot("create", path, error))?;
        }
        let kind = if is_folder { kind } else { named.unwrap_or(kind) };
        Ok(Self { places: Places { path: path.to_path_buf(), kind, is_folder }, written: HashMap::new() })
    }

    pub fn kind(&self) -> Kind {
        self.places.kind
    }

    pub fn places(&self) -> Places {
        self.places.clone()
    }

    /// Writes the file of `audio`, whose path below the folder that was named is `relative`.
    pub fn write(&mut self, relative: &Path, audio: &Path, encoding: &Encoding, times: bool) -> Result<(), Failure> {
        let path = self.places.of(relative);
        if let Some(other) = self.written.get(&path) {
            return Err(format!("would overwrite {}, which is of {}", name(&path), name(other)).into());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| cannot("create", folder, error))?;
        }
        write_whole(&path, |partial| {
            let written = match self.places.kind {
                Kind::Safetensors => {
                    let mut tensors: HashMap<String, Tensor> = encoding.tensors.iter().cloned().collect();
                    if times {
                        let times = (0..encoding.n_frames).map(|frame| frame as f64 * encoding.frame_seconds);
                        tensors.insert("times".to_string(), Tensor::from_iter(times, &Device::Cpu)?);
                    }
                    candle_core::safetensors::save(&tensors, partial)
                }
                Kind::Npy => encoding.tensors[0].1.write_npy(partial),
            };
            written.map_err(|error| cannot("write", &path, error))
        })?;
        self.written.insert(path, audio.into());
        Ok(())
    }
}
