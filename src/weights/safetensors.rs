//! safetensors: one file, or the index of a sharded checkpoint.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use safetensors::{Dtype as StoredDtype, SafeTensors};

use super::entry::{Dtype, Entry, Region, row_major};

/// Longest header that is read, in bytes; the largest published ones have a few million.
const MAX_HEADER: u64 = 1 << 25;
/// Length field before the header.
const LENGTH_FIELD: usize = 8;

/// Entries of a file, and its free-text metadata.
pub(super) type Parsed = (BTreeMap<String, Entry>, BTreeMap<String, String>);

/// Whether `file` starts as a safetensors file does: a length, then a JSON object.
pub(super) fn recognise(file: &[u8]) -> bool {
    file.get(LENGTH_FIELD) == Some(&b'{')
}

fn header_len(file: &[u8]) -> Option<u64> {
    file.first_chunk().map(|len| u64::from_le_bytes(*len))
}

pub(super) fn parse(file: &[u8]) -> Result<Parsed, String> {
    if let Some(len) = header_len(file).filter(|&len| len > MAX_HEADER) {
        return Err(format!("safetensors header claims {len} bytes, more than {MAX_HEADER}"));
    }
    let (header_len, header) =
        SafeTensors::read_metadata(file).map_err(|e| format!("damaged safetensors header: {e}"))?;
    let data_start = LENGTH_FIELD + header_len;
    let mut entries = BTreeMap::new();
    for (name, info) in header.tensors() {
        let (start, end) = info.data_offsets;
        let (dtype, item_size) = element_type(info.dtype);
        let shape = info.shape.clone();
        // Types narrower than a byte are listed only; their extent was checked with the header.
        let len = (end - start).checked_div(item_size).unwrap_or(usize::MAX);
        let region = Region { start: data_start + start, len, dtype, item_size };
        let strides = row_major(&shape);
        let entry = Entry::view(region, 0, shape, strides, file.len().saturating_mul(8))
            .map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        entries.insert(name, entry);
    }
    Ok((entries, header.metadata().clone().unwrap_or_default().into_iter().collect()))
}

/// The element type and its size in bytes, 0 for types that are not whole bytes.
fn element_type(stored: StoredDtype) -> (Dtype, usize) {
    let dtype = match stored {
        StoredDtype::F64 => Dtype::F64,
        StoredDtype::F32 => Dtype::F32,
        StoredDtype::F16 => Dtype::F16,
        StoredDtype::BF16 => Dtype::BF16,
        StoredDtype::I64 => Dtype::I64,
        StoredDtype::I32 => Dtype::I32,
        StoredDtype::I16 => Dtype::I16,
        StoredDtype::I8 => Dtype::I8,
        StoredDtype::U64 => Dtype::U64,
        StoredDtype::U32 => Dtype::U32,
        StoredDtype::U16 => Dtype::U16,
        StoredDtype::U8 => Dtype::U8,
        StoredDtype::BOOL => Dtype::Bool,
        StoredDtype::C64 => Dtype::Other("C64"),
        StoredDtype::F8_E4M3 => Dtype::Other("F8_E4M3"),
        StoredDtype::F8_E5M2 => Dtype::Other("F8_E5M2"),
        StoredDtype::F8_E8M0 => Dtype::Other("F8_E8M0"),
        StoredDtype::F8_E4M3FNUZ => Dtype::Other("F8_E4M3FNUZ"),
        StoredDtype::F8_E5M2FNUZ => Dtype::Other("F8_E5M2FNUZ"),
        StoredDtype::F6_E2M3 => Dtype::Other("F6_E2M3"),
        StoredDtype::F6_E3M2 => Dtype::Other("F6_E3M2"),
        StoredDtype::F4 => Dtype::Other("F4"),
        _ => Dtype::Other("an unknown type"),
    };
    let bits = stored.bitsize();
    (dtype, if bits.is_multiple_of(8) { bits / 8 } else { 0 })
}

/// `model.safetensors.index.json`: which file of the same folder holds which tensor.
#[derive(serde::Deserialize)]
pub(super) struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Whether `file` starts as a JSON object does.
    pub(super) fn recognise(file: &[u8]) -> bool {
        file.trim_ascii_start().first() == Some(&b'{')
    }

    /// # Errors
    /// Not JSON, no `weight_map`, or a shard that is not a plain file name: an index cannot point outside its folder.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        let index: Self = serde_json::from_slice(file)
            .map_err(|e| format!("JSON, but not the index of a sharded safetensors checkpoint: {e}"))?;
        for &shard in index.shards().keys() {
            let mut parts = Path::new(shard).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == shard);
            if !plain || shard.contains(['/', '\\', ':', '\0']) {
                return Err(format!("shard {shard:?} is not a plain file name"));
            }
        }
        Ok(index)
    }

    /// Names of the tensors that each shard holds, by the shard's file name.
    pub(super) fn shards(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut shards = BTreeMap::<&str, Vec<&str>>::new();
        for (name, shard) in &self.weight_map {
            shards.entry(shard).or_default().push(name);
        }
        shards
    }
}
