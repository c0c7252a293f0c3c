//! A matrix of one row a file, as numpy stores it (NEP 1, version 1.0), and the names of its rows.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Length of the header in bytes: enough for any number of rows.
const HEADER: usize = 128;

/// `[n_files, embedding_dim]`, f32. Complete after every row, so that a program which is killed leaves a file to use.
pub struct Npy {
    rows: File,
    names: File,
    n_rows: usize,
    dim: usize,
}

impl Npy {
    /// Creates `path`, and `path` with `.txt` after it for the names.
    pub fn create(path: &Path, dim: usize) -> io::Result<Self> {
        let mut names = path.as_os_str().to_owned();
        names.push(".txt");
        let mut npy = Self { rows: File::create(path)?, names: File::create(names)?, n_rows: 0, dim };
        npy.write_header()?;
        Ok(npy)
    }

    /// Whether a name fits on a line.
    pub fn can_name(name: &str) -> bool {
        !name.contains(['\n', '\r'])
    }

    pub fn write(&mut self, name: &str, row: &[f32]) -> io::Result<()> {
        if row.len() != self.dim || !Self::can_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} with {} values", row.len())));
        }
        self.names.write_all(format!("{name}\n").as_bytes())?;
        let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.rows.seek(SeekFrom::End(0))?;
        self.rows.write_all(&bytes)?;
        self.n_rows += 1;
        self.write_header()
    }

    fn write_header(&mut self) -> io::Result<()> {
        let Self { n_rows, dim, .. } = self;
        let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {dim}), }}");
        let width = HEADER - 11;
        let header = format!("\u{1}\0{}\0{shape:<width$}\n", char::from((HEADER - 10) as u8));
        self.rows.seek(SeekFrom::Start(0))?;
        self.rows.write_all(&[b"\x93NUMPY", header.as_bytes()].concat())
    }
}
