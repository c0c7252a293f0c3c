//! A matrix of one row per file, as numpy stores it (NEP 1, version 1.0), and the names of its rows.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Record, RecordWriter, with_suffix};
use crate::message::{Failure, cannot, say};

/// Length of the header in bytes: enough for any number of rows.
const HEADER: usize = 128;

/// `[n_files, embedding_dim]`, f32, and a text file with the name of each row. A file that failed has no row.
pub struct Npy {
    path: PathBuf,
    rows: BufWriter<File>,
    names: BufWriter<File>,
    n_rows: usize,
    dim: usize,
}

impl Npy {
    /// Creates `path`, and `path` with `.txt` after it for the names.
    pub fn create(path: &Path, dim: usize) -> Result<Self, Failure> {
        let create = |path: &Path| File::create(path).map_err(|error| cannot("write", path, error));
        let names = BufWriter::new(create(&with_suffix(path, ".txt"))?);
        let mut rows = create(path)?;
        rows.write_all(&header(0, dim)).map_err(|error| cannot("write", path, error))?;
        Ok(Self { path: path.into(), rows: BufWriter::new(rows), names, n_rows: 0, dim })
    }

    fn push(&mut self, name: &str, row: &[f32]) -> io::Result<()> {
        self.names.write_all(format!("{name}\n").as_bytes())?;
        let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.n_rows += 1;
        self.rows.write_all(&bytes)
    }

    fn close(mut self) -> io::Result<()> {
        use std::io::{Seek, SeekFrom};
        self.rows.seek(SeekFrom::Start(0))?;
        self.rows.write_all(&header(self.n_rows, self.dim))?;
        self.rows.flush()?;
        self.names.flush()
    }
}

fn header(n_rows: usize, dim: usize) -> Vec<u8> {
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {dim}), }}");
    let width = HEADER - 11;
    let header = format!("\u{1}\0{}\0{shape:<width$}\n", char::from((HEADER - 10) as u8));
    [b"\x93NUMPY", header.as_bytes()].concat()
}

impl RecordWriter for Npy {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let Some(embedding) = &record.embedding else { return Ok(()) };
        if embedding.len() != self.dim {
            let (file, got) = (&record.file, embedding.len());
            return Err(format!("{file:?}: expected an embedding of {} values, got {got}", self.dim).into());
        }
        if record.file.contains(['\n', '\r']) {
            say(format_args!("error: {:?}: a name with a line break does not fit in a list of names", record.file));
            return Ok(());
        }
        let path = self.path.clone();
        self.push(&record.file, embedding).map_err(|error| cannot("write", &path, error))
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        let path = self.path.clone();
        self.close().map_err(|error| cannot("write", &path, error))
    }
}
