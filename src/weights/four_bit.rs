//! Tensors of 4-bit codes as bitsandbytes stores them: NF4 and FP4.
//!
//! Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023 (arXiv 2305.14314). A value is the entry of a table of
//! sixteen, times the largest magnitude of its block. Two codes share a byte, the first one in its high half. These magnitudes
//! may be bytes themselves: the entry of a table of 256, times the magnitude of their own block, plus an offset.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::bytes::{Bytes, Fault};
use super::entry::{Dtype, Entry, element_count, row_major};

/// The names of the settings beside a tensor.
const STATES: [&str; 2] = [".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"];
/// The longest settings that are read, in bytes; published ones have some hundred.
const MAX_STATE: usize = 1 << 16;
/// Different codes.
pub(crate) const CODES: usize = 16;

/// Where the pieces lie beside the codes.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    table: [f32; CODES],
    block: usize,
    magnitudes: Entry,
    nested: Option<Nested>,
}

/// How the magnitudes are stored.
#[derive(Debug, Clone)]
struct Nested {
    table: Entry,
    block: usize,
    magnitudes: Entry,
    offset: f32,
}

/// The settings as they are stored.
#[derive(Deserialize)]
struct State {
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

/// A matrix of 4-bit codes in memory: half a byte per value, and four bytes per block.
#[derive(Debug, Clone)]
pub(crate) struct FourBit {
    codes: Vec<u8>,
    table: [f32; CODES],
    magnitudes: Vec<f32>,
    block: usize,
    len: usize,
}

/// Puts the pieces of 4-bit tensors together.
pub(super) fn compose(files: &[Bytes], entries: &mut BTreeMap<String, Entry>) -> Result<(), Fault> {
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

fn tensor(files: &[Bytes], entries: &BTreeMap<String, Entry>, name: &str, state: &str) -> Result<Entry, Fault> {
    let piece = |leaf: &str| entries.get(&format!("{name}{leaf}")).ok_or_else(|| format!("`{name}{leaf}` is missing"));
    let codes = piece("")?;
    let text = entries.get(state).filter(|text| text.dtype == Dtype::U8 && text.count() <= MAX_STATE);
    let text = text.ok_or("its settings are no text")?.bytes(files)?;
    let state: State = serde_json::from_slice(&text).map_err(|error| format!("its settings: {error}"))?;
    let count = element_count(&state.shape).ok_or_else(|| format!("shape {:?} is too large", state.shape))?;
    let n_bytes = codes.n_bytes().ok_or("its codes are not stored as bytes")?;
    if n_bytes != count.div_ceil(2) || state.shape.len() > MAX_DIMS {
        return Err(format!("{n_bytes} bytes of codes for shape {:?}", state.shape).into());
    }
    let blocks = |values: usize, block: usize| match block {
        0 => Err("blocks of 0 values"),
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
        return Err(format!("`{name}.absmax` has elements of type {}, expected U8", magnitudes.dtype).into());
    }
    let table = expect(".quant_map", CODES)?.decode(files)?;
    let table = table.first_chunk().copied().ok_or("its table is too short")?;
    let pieces = Pieces { table, block: state.blocksize, magnitudes, nested };
    let strides = row_major(&state.shape);
    Ok(Entry { dtype: Dtype::FourBit, shape: state.shape, strides, pieces: Some(Box::new(pieces)), ..codes.clone() })
}

/// The most dimensions of a tensor.
const MAX_DIMS: usize = 16;

impl Pieces {
    /// The tensor whose codes `entry` places.
    pub(super) fn read(&self, entry: &Entry, files: &[Bytes]) -> Result<FourBit, Fault> {
        let mut magnitudes = self.magnitudes.decode(files)?;
        if let Some(nested) = &self.nested {
            let (table, of_blocks) = (nested.table.decode(files)?, nested.magnitudes.decode(files)?);
            for (magnitudes, of_block) in magnitudes.chunks_mut(nested.block).zip(&of_blocks) {
                // A byte is below the table's 256.
                magnitudes.iter_mut().for_each(|x| *x = table[*x as usize] * of_block + nested.offset);
            }
        }
        Ok(FourBit { codes: entry.bytes(files)?, table: self.table, magnitudes, block: self.block, len: entry.count() })
    }
}

impl FourBit {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All of them, row-major.
    pub fn to_vec(&self) -> Result<Vec<f32>, Fault> {
        let mut values = Vec::new();
        values.try_reserve_exact(self.len).map_err(|_| format!("{} values do not fit into memory", self.len))?;
        values.resize(self.len, 0.0);
        self.read(0, &mut values);
        Ok(values)
    }

    /// The values from `start` on, as many as `values` takes; they must exist.
    pub fn read(&self, start: usize, values: &mut [f32]) {
        let (mut place, mut rest) = (start, values);
        while !rest.is_empty() {
            let block = place / self.block;
            let end = (block + 1).saturating_mul(self.block).min(place + rest.len());
            let (values, others) = rest.split_at_mut(end - place);
            let table = self.table.map(|x| x * self.magnitudes[block]);
            let value = |place: usize| table[usize::from(self.codes[place / 2] >> (4 * (1 - place % 2)) & 15)];
            values.iter_mut().enumerate().for_each(|(i, x)| *x = value(place + i));
            (place, rest) = (end, others);
        }
    }

    /// The rows of several matrices below each other, if they can be joined without new codes.
    pub fn join(parts: Vec<Self>) -> Result<Self, Vec<Self>> {
        let [first, ..] = &parts[..] else { return Err(parts) };
        let (table, block) = (first.table, first.block);
        let whole = |part: &Self| part.len.is_multiple_of(block) && part.len.is_multiple_of(2);
        if !parts.iter().all(|part| whole(part) && part.block == block && part.table == table) {
            return Err(parts);
        }
        let (mut codes, mut magnitudes, mut len) = (Vec::new(), Vec::new(), 0);
        for part in parts {
            len += part.len;
            codes.extend(part.codes);
            magnitudes.extend(part.magnitudes);
        }
        Ok(Self { codes, table, magnitudes, block, len })
    }
}
