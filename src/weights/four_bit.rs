//! 4-bit tensors of bitsandbytes: NF4 and FP4.
//!
//! Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023 (arXiv 2305.14314). A value is an entry of a
//! table of 16, times the largest magnitude of its block. A byte holds two codes, the first in its high half. With
//! double quantisation the magnitudes are bytes themselves: an entry of a table of 256, times the magnitude of their
//! own block, plus an offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::bytes::{Bytes, Fault};
use super::eight_bit::EightBit;
use super::entry::{Dtype, Entry, element_count, row_major};

/// Suffixes of the tensors with quantisation settings.
const STATES: [&str; 2] = [".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"];
/// Limit on the settings in bytes; published ones have a few hundred.
const MAX_STATE: usize = 1 << 16;
/// Number of different codes.
pub(crate) const CODES: usize = 16;

/// The other parts of a 4-bit tensor, beside its codes.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    table: [f32; CODES],
    block: usize,
    magnitudes: Entry,
    nested: Option<Nested>,
}

/// Double quantisation of the magnitudes.
#[derive(Debug, Clone)]
struct Nested {
    table: Entry,
    block: usize,
    magnitudes: Entry,
    offset: f32,
}

/// The quantisation settings as stored.
#[derive(Deserialize)]
struct State {
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

/// A matrix of 4-bit codes in memory: half a byte per value and four bytes per block.
#[derive(Debug, Clone)]
pub(crate) struct FourBit {
    codes: Vec<u8>,
    table: [f32; CODES],
    magnitudes: Vec<f32>,
    block: usize,
    len: usize,
}

/// A row-major matrix in the form that a layer keeps.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    Full(Vec<f32>),
    FourBit(FourBit),
    EightBit(EightBit),
}

impl From<Vec<f32>> for Matrix {
    fn from(values: Vec<f32>) -> Self {
        Self::Full(values)
    }
}

impl Matrix {
    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Full(values) => values.len(),
            Self::FourBit(codes) => codes.len,
            Self::EightBit(codes) => codes.len(),
        }
    }

    /// All values.
    pub fn into_vec(self) -> Vec<f32> {
        match self {
            Self::Full(values) => values,
            Self::FourBit(codes) => codes.to_vec(),
            Self::EightBit(codes) => codes.to_vec(),
        }
    }

    /// Concatenates the rows of several matrices. Keeps codes if they can be joined without requantising.
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return Self::Full(Vec::new()) };
        parts.fold(first, |above, below| match (above, below) {
            (Self::FourBit(above), Self::FourBit(below)) if above.fits(&below) => Self::FourBit(above.join(below)),
            (Self::EightBit(above), Self::EightBit(below)) => Self::EightBit(above.join(below)),
            (above, below) => {
                let mut values = above.into_vec();
                values.extend(below.into_vec());
                Self::Full(values)
            }
        })
    }
}

/// Combines the parts of 4-bit tensors into single entries.
pub(super) fn compose(files: &[Arc<Bytes>], entries: &mut BTreeMap<String, Entry>) -> Result<(), Fault> {
    let named =
        |name: &String| STATES.iter().find_map(|state| Some((name.strip_suffix(state)?.to_owned(), name.clone())));
    for (name, state) in entries.keys().filter_map(named).collect::<Vec<_>>() {
        let entry = tensor(files, entries, &name, &state);
        let entry = entry.map_err(|fault| fault.map(|reason| format!("4-bit tensor `{name}`: {reason}")))?;
        for piece in [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"] {
            entries.remove(&format!("{name}{piece}"));
        }
        entries.remove(&state);
        entries.insert(name, entry);
    }
    Ok(())
}

fn tensor(files: &[Arc<Bytes>], entries: &BTreeMap<String, Entry>, name: &str, state: &str) -> Result<Entry, Fault> {
    let piece = |leaf: &str| entries.get(&format!("{name}{leaf}")).ok_or_else(|| format!("`{name}{leaf}` is missing"));
    let codes = piece("")?;
    let text = entries.get(state).filter(|text| text.dtype == Dtype::U8 && text.count() <= MAX_STATE);
    let text = text.ok_or("expected its settings as text of U8")?.bytes(files)?;
    let state: State = serde_json::from_slice(&text).map_err(|error| format!("invalid settings: {error}"))?;
    let count = element_count(&state.shape).ok_or_else(|| format!("shape {:?} is too large", state.shape))?;
    let n_bytes = codes.n_bytes().ok_or("its codes are not stored as bytes")?;
    if n_bytes != count.div_ceil(2) || state.shape.len() > MAX_DIMS {
        return Err(format!("expected codes for shape {:?}, got {n_bytes} bytes", state.shape).into());
    }
    let blocks = |values: usize, block: usize| match block {
        0 => Err("expected blocks of at least 1 value"),
        _ => Ok(values.div_ceil(block)),
    };
    let expect = |leaf: &str, count: usize| {
        let piece = piece(leaf)?;
        match piece.count() {
            got if got == count => Ok(piece.clone()),
            got => Err(format!("expected {count} values of `{name}{leaf}`, got {got}")),
        }
    };
    let n_blocks = blocks(count, state.blocksize)?;
    let nested = match entries.contains_key(&format!("{name}.nested_absmax")) {
        false => None,
        true => {
            let settings = state.nested_blocksize.zip(state.nested_offset);
            let (block, offset) = settings.ok_or("its settings lack nested_blocksize or nested_offset")?;
            let magnitudes = expect(".nested_absmax", blocks(n_blocks, block)?)?;
            Some(Nested { table: expect(".nested_quant_map", 256)?, block, magnitudes, offset: offset as f32 })
        }
    };
    let magnitudes = expect(".absmax", n_blocks)?;
    if nested.is_some() && magnitudes.dtype != Dtype::U8 {
        return Err(format!("expected `{name}.absmax` of type U8, got {}", magnitudes.dtype).into());
    }
    let table = expect(".quant_map", CODES)?.decode(files)?;
    let table = table.first_chunk().copied().ok_or("its table is too short")?;
    let pieces = Pieces { table, block: state.blocksize, magnitudes, nested };
    let strides = row_major(&state.shape);
    Ok(Entry { dtype: Dtype::FourBit, shape: state.shape, strides, pieces: Some(Box::new(pieces)), ..codes.clone() })
}

/// Limit on the dimensions of a tensor.
const MAX_DIMS: usize = 16;

impl Pieces {
    /// The same parts, with file indices shifted by `n_files`.
    pub(super) fn after(&self, n_files: usize) -> Self {
        let nested = self.nested.as_ref().map(|nested| Nested {
            table: nested.table.after(n_files),
            magnitudes: nested.magnitudes.after(n_files),
            ..*nested
        });
        Self { magnitudes: self.magnitudes.after(n_files), nested, ..*self }
    }

    /// Reads the tensor whose codes are at `entry`.
    pub(super) fn read(&self, entry: &Entry, files: &[Arc<Bytes>]) -> Result<FourBit, Fault> {
        let mut magnitudes = self.magnitudes.decode(files)?;
        if let Some(nested) = &self.nested {
            let (table, of_blocks) = (nested.table.decode(files)?, nested.magnitudes.decode(files)?);
            for (magnitudes, of_block) in magnitudes.chunks_mut(nested.block).zip(&of_blocks) {
                // In bounds: a byte indexes a table of 256.
                magnitudes.iter_mut().for_each(|x| *x = table[*x as usize] * of_block + nested.offset);
            }
        }
        Ok(FourBit { codes: entry.bytes(files)?, table: self.table, magnitudes, block: self.block, len: entry.count() })
    }
}

impl FourBit {
    /// Dequantises all values, row-major.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        self.read(0, &mut values);
        values
    }

    /// Whether all values are finite.
    pub fn is_finite(&self) -> bool {
        let largest = |values: &[f32]| {
            values.iter().fold(0.0, |largest: f32, x| if x.abs() <= largest { largest } else { x.abs() })
        };
        self.len == 0 || (largest(&self.table) * largest(&self.magnitudes)).is_finite()
    }

    /// Dequantises the values from `start` on into `values`. They must exist.
    pub fn read(&self, start: usize, values: &mut [f32]) {
        let (mut place, mut rest) = (start, values);
        while !rest.is_empty() {
            let block = place / self.block;
            let end = (block + 1).saturating_mul(self.block).min(place + rest.len());
            let (values, others) = rest.split_at_mut(end - place);
            let table = self.table.map(|x| x * self.magnitudes[block]);
            let (high, low) = (|byte: u8| table[usize::from(byte >> 4)], |byte: u8| table[usize::from(byte & 15)]);
            // An odd start begins with the low half of a byte.
            let (half, values) = values.split_at_mut(place % 2);
            half.iter_mut().for_each(|x| *x = low(self.codes[place / 2]));
            let bytes = &self.codes[place.div_ceil(2)..];
            let (pairs, last) = values.as_chunks_mut();
            for ([first, second], &byte) in pairs.iter_mut().zip(bytes) {
                (*first, *second) = (high(byte), low(byte));
            }
            if let [last] = last {
                *last = high(bytes[pairs.len()]);
            }
            (place, rest) = (end, others);
        }
    }

    /// Whether the blocks of `below` can be appended without requantising.
    fn fits(&self, below: &Self) -> bool {
        let whole = self.len.is_multiple_of(self.block) && self.len.is_multiple_of(2);
        whole && (self.block, self.table) == (below.block, below.table)
    }

    fn join(mut self, below: Self) -> Self {
        self.codes.extend(below.codes);
        self.magnitudes.extend(below.magnitudes);
        Self { len: self.len + below.len, ..self }
    }
}
