//! safetensors: one file, or the index of a sharded checkpoint.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use safetensors::{Dtype as StoredDtype, tensor::Metadata};

use super::bytes::{Bytes, Fault};
use super::entry::{Dtype, Entry, Region, row_major};
use crate::files;

/// Limit on the header in bytes; the largest published ones have a few million.
const MAX_HEADER: u64 = 1 << 25;
/// Length of the field with the header's length.
const LENGTH_FIELD: usize = 8;

/// The entries of a file and its metadata.
pub(super) type Parsed = (BTreeMap<String, Entry>, BTreeMap<String, String>);

/// Whether a file that begins with `head` is a safetensors file: a length, followed by a JSON object.
pub(super) fn recognise(head: &[u8]) -> bool {
    head.get(LENGTH_FIELD) == Some(&b'{')
}

pub(super) fn parse(file: &Bytes) -> Result<Parsed, Fault> {
    let len = u64::from_le_bytes(file.array(0)?);
    if len > MAX_HEADER {
        return Err(format!("expected a safetensors header of at most {MAX_HEADER} bytes, got {len}").into());
    }
    let data_start = LENGTH_FIELD + len as usize; // at most 2²⁵
    if data_start > file.len() {
        return Err(
            format!("the safetensors header states its length as {len} bytes, the file has {}", file.len()).into()
        );
    }
    let json = file.to_cow(LENGTH_FIELD..data_start)?;
    let header: Metadata = serde_json::from_slice(&json).map_err(|e| format!("damaged safetensors header: {e}"))?;
    drop(json);
    let (due, got) = (header.data_len(), file.len() - data_start);
    if due != got {
        return Err(format!("expected {due} bytes of tensors after the safetensors header, got {got}").into());
    }
    let mut entries = BTreeMap::new();
    for (name, info) in header.tensors() {
        let (start, end) = info.data_offsets;
        let (dtype, item_size) = element_type(info.dtype);
        let shape = info.shape.clone();
        // Types narrower than a byte are listed but cannot be read; the header's consistency check covers their extent.
        let len = (end - start).checked_div(item_size).unwrap_or(usize::MAX);
        let region = Region { start: data_start + start, len, dtype, item_size };
        let strides = row_major(&shape);
        let entry = Entry::view(region, 0, shape, strides, file.len().saturating_mul(8))
            .map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        entries.insert(name, entry);
    }
    Ok((entries, header.metadata().clone().unwrap_or_default().into_iter().collect()))
}

/// The element type and its size in bytes; 0 for types of fractional bytes.
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

/// `model.safetensors.index.json`: maps tensors to files in the same folder.
#[derive(serde::Deserialize)]
pub(super) struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Limit on the size of an index, in bytes.
const MAX_INDEX: usize = 1 << 26;

impl Index {
    /// Whether `head` begins a JSON object.
    pub(super) fn recognise(head: &[u8]) -> bool {
        files::without_mark(head).trim_ascii_start().first() == Some(&b'{')
    }

    /// # Errors
    /// If the file is not JSON, has no `weight_map`, or names a shard that is not a plain file name (which could point
    /// outside the folder).
    pub(super) fn parse(file: &Bytes) -> Result<Self, Fault> {
        if file.len() > MAX_INDEX {
            return Err(
                format!("expected an index of at most {MAX_INDEX} bytes, got {} bytes of JSON", file.len()).into()
            );
        }
        let json = file.to_cow(0..file.len())?;
        let index: Self = serde_json::from_slice(files::without_mark(&json))
            .map_err(|e| format!("this JSON is not the index of a sharded safetensors checkpoint: {e}"))?;
        for &shard in index.shards().keys() {
            let mut parts = Path::new(shard).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == shard);
            if !plain || shard.contains(['/', '\\', ':', '\0']) {
                return Err(format!("shard {shard:?} is not a plain file name").into());
            }
        }
        Ok(index)
    }

    /// The names of the tensors in each shard, by the shard's file name.
    pub(super) fn shards(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut shards = BTreeMap::<&str, Vec<&str>>::new();
        for (name, shard) in &self.weight_map {
            shards.entry(shard).or_default().push(name);
        }
        shards
    }
}
