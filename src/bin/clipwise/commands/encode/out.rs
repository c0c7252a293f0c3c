//! Files with hidden states.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clipwise::candle_core::{self, Device, Tensor};

use crate::command_line::Failure;
use crate::model::Encoding;

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
    path: PathBuf,
    kind: Kind,
    is_folder: bool,
}

impl Out {
    /// A file for one audio file, whose name tells its kind; else a folder, which is created.
    pub fn new(path: &Path, kind: Kind, files: &[PathBuf]) -> Result<Self, Failure> {
        let named = [Kind::Safetensors, Kind::Npy]
            .into_iter()
            .find(|kind| path.extension().is_some_and(|extension| extension == kind.extension()));
        let is_folder = files.len() > 1 || path.is_dir() || named.is_none();
        if !is_folder {
            return Ok(Self { path: path.to_path_buf(), kind: named.unwrap_or(kind), is_folder });
        }
        let mut stems: Vec<_> = files.iter().map(|file| file.file_stem()).collect();
        stems.sort();
        if let Some(same) = stems.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = same[0].unwrap_or_default().to_string_lossy();
            return Err(format!("--out: two audio files would both become {name}.{}", kind.extension()).into());
        }
        std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), kind, is_folder })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Writes a file under another name first, so that one of the right name is whole.
    pub fn write(&self, audio: &Path, encoding: &Encoding, times: bool) -> Result<(), Failure> {
        let path = match self.is_folder {
            true => {
                let mut name = audio.file_stem().unwrap_or(audio.as_os_str()).to_os_string();
                name.push(format!(".{}", self.kind.extension()));
                self.path.join(name)
            }
            false => self.path.clone(),
        };
        let mut partial = OsString::from(&path);
        partial.push(".partial");
        match self.kind {
            Kind::Safetensors => {
                let mut tensors: HashMap<String, Tensor> = encoding.tensors.iter().cloned().collect();
                if times {
                    let times = (0..encoding.n_frames).map(|frame| frame as f64 * encoding.frame_seconds);
                    tensors.insert("times".to_string(), Tensor::from_iter(times, &Device::Cpu)?);
                }
                candle_core::safetensors::save(&tensors, &partial)?;
            }
            Kind::Npy => encoding.tensors[0].1.write_npy(&partial)?,
        }
        Ok(std::fs::rename(&partial, &path)?)
    }
}
