//! TensorFlow Lite files: the weights of their layers, without running the graph.
//!
//! A file is a FlatBuffer of the schema `tensorflow/lite/schema/schema.fbs`. Tensor names depend on the converter, so
//! entries are named after the operators of the first subgraph, numbered per kind in the order of the graph. Additions,
//! multiplications and powers are included if one operand is a constant: a scalar, or one value per channel.

use std::collections::BTreeMap;

use super::bytes::{Bytes, Fault};
use super::composed::Factor;
use super::entry::{Dtype, Entry, Region};

/// File identifier at byte 4.
const IDENTIFIER: &[u8] = b"TFL3";
/// Limit on the operators; published graphs have some thousands.
const MAX_OPERATORS: usize = 1 << 16;

/// Field indices in the tables of the schema.
mod field {
    pub mod model {
        pub const OPERATOR_CODES: usize = 1;
        pub const SUBGRAPHS: usize = 2;
        pub const BUFFERS: usize = 4;
    }
    pub mod operator_code {
        pub const DEPRECATED_BUILTIN_CODE: usize = 0;
        pub const BUILTIN_CODE: usize = 3;
    }
    pub mod subgraph {
        pub const TENSORS: usize = 0;
        pub const OPERATORS: usize = 3;
    }
    pub mod operator {
        pub const OPCODE_INDEX: usize = 0;
        pub const INPUTS: usize = 1;
        pub const OUTPUTS: usize = 2;
    }
    pub mod tensor {
        pub const SHAPE: usize = 0;
        pub const TYPE: usize = 1;
        pub const BUFFER: usize = 2;
        pub const QUANTIZATION: usize = 4;
    }
    pub mod quantization {
        pub const SCALE: usize = 2;
        pub const ZERO_POINT: usize = 3;
        pub const QUANTIZED_DIMENSION: usize = 6;
    }
    pub const BUFFER_DATA: usize = 0;
}

/// The role of a tensor in its operator.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    ConvWeight,
    DepthwiseWeight,
    FullyConnectedWeight,
    Bias,
    /// A scalar, or one value per channel.
    Constant,
}

pub(super) fn recognise(head: &[u8]) -> bool {
    head.get(4..8) == Some(IDENTIFIER)
}

pub(super) fn parse(file: &Bytes) -> Result<BTreeMap<String, Entry>, Fault> {
    let bytes = file.to_cow(0..file.len())?;
    list(&bytes).unwrap_or_else(|| Err("damaged TensorFlow Lite file: a reference points outside the file".into()))
}

/// Lists the entries; `None` if a reference points outside the file.
fn list(bytes: &[u8]) -> Option<Result<BTreeMap<String, Entry>, Fault>> {
    let model = Table::root(bytes)?;
    let (codes, buffers) = (model.tables(field::model::OPERATOR_CODES)?, model.tables(field::model::BUFFERS)?);
    let graph = model.tables(field::model::SUBGRAPHS)?.get(0)?;
    let (tensors, operators) = (graph.tables(field::subgraph::TENSORS)?, graph.tables(field::subgraph::OPERATORS)?);
    if operators.len > MAX_OPERATORS {
        return Some(Err(format!("expected at most {MAX_OPERATORS} operators, got {}", operators.len).into()));
    }
    let mut entries = BTreeMap::new();
    let mut dequantised = BTreeMap::new(); // dequantised tensor → stored tensor
    let mut counts = BTreeMap::<&str, usize>::new();
    for index in 0..operators.len {
        let operator = operators.get(index)?;
        let code = codes.get(operator.u32(field::operator::OPCODE_INDEX)?.unwrap_or(0) as usize)?;
        let old = code.u8(field::operator_code::DEPRECATED_BUILTIN_CODE)?.unwrap_or(0);
        let code = code.u32(field::operator_code::BUILTIN_CODE)?.unwrap_or(0).max(old.into());
        let inputs = operator.numbers(field::operator::INPUTS)?;
        // Standard and depthwise convolutions share one numbering.
        let (name, counted, roles): (_, _, &[(usize, Role)]) = match code {
            0 => ("add", "add", &[(0, Role::Constant), (1, Role::Constant)]),
            3 => ("conv", "conv", &[(1, Role::ConvWeight), (2, Role::Bias)]),
            4 => ("depthwise", "conv", &[(1, Role::DepthwiseWeight), (2, Role::Bias)]),
            6 => {
                let output = operator.numbers(field::operator::OUTPUTS)?;
                dequantised.insert(*output.first()?, *inputs.first()?);
                continue;
            }
            9 => ("fully_connected", "fully_connected", &[(1, Role::FullyConnectedWeight), (2, Role::Bias)]),
            18 => ("mul", "mul", &[(0, Role::Constant), (1, Role::Constant)]),
            78 => ("pow", "pow", &[(1, Role::Constant)]),
            _ => continue,
        };
        let number = counts.get(counted).copied().unwrap_or(0);
        let mut is_counted = roles.iter().all(|(_, role)| *role != Role::Constant);
        for &(input, role) in roles {
            // An input of -1 is absent.
            let Some(&id) = inputs.get(input).filter(|&&id| id != u32::MAX) else { continue };
            let tensor = tensors.get(*dequantised.get(&id).unwrap_or(&id) as usize)?;
            let leaf = if matches!(role, Role::Bias) { "bias" } else { "weight" };
            let name = match role {
                Role::Constant => format!("{number:02}.{name}"),
                _ => format!("{number:02}.{name}.{leaf}"),
            };
            match entry(bytes, tensor, buffers, role)? {
                Ok(Some(entry)) => {
                    is_counted = true;
                    entries.insert(name, entry);
                }
                Ok(None) => continue, // computed by the graph, or not a scalar or per-channel constant
                Err(reason) => return Some(Err(format!("`{name}`: {reason}").into())),
            };
        }
        if is_counted {
            counts.insert(counted, number + 1);
        }
    }
    Some(Ok(entries))
}

/// The entry of a constant tensor in PyTorch's axis order. The outer `None` means that a reference points outside the
/// file, the inner one that the tensor has no data or is a constant of another shape or type.
fn entry(bytes: &[u8], tensor: Table, buffers: Tables, role: Role) -> Option<Result<Option<Entry>, String>> {
    let buffer = buffers.get(tensor.u32(field::tensor::BUFFER)?.unwrap_or(0) as usize)?;
    let Some((start, n_bytes)) = buffer.vector(field::BUFFER_DATA, 1)?.filter(|&(_, n_bytes)| n_bytes > 0) else {
        return Some(Ok(None));
    };
    let shape: Vec<usize> = tensor.numbers(field::tensor::SHAPE)?.into_iter().map(|dim| dim as usize).collect();
    let kind = tensor.u8(field::tensor::TYPE)?.unwrap_or(0);
    if role == Role::Constant && (shape.len() > 1 || kind != 0) {
        return Some(Ok(None));
    }
    let (dtype, item_size) = match kind {
        0 => (Dtype::F32, 4),
        1 => (Dtype::F16, 2),
        2 => (Dtype::I32, 4),
        9 => (Dtype::I8, 1),
        other => {
            return Some(Err(format!(
                "expected elements of type FLOAT32, FLOAT16, INT32 or INT8, got type {other} of the schema"
            )));
        }
    };
    // The axes of the file, in PyTorch's order.
    let axes: &[usize] = match (role, shape.len()) {
        (Role::ConvWeight, 4) => &[0, 3, 1, 2],      // [out, rows, columns, in]
        (Role::DepthwiseWeight, 4) => &[3, 0, 1, 2], // [1, rows, columns, channels]
        (Role::FullyConnectedWeight, 2) => &[0, 1],
        (Role::Bias | Role::Constant, 1) => &[0],
        (Role::Constant, 0) => &[],
        _ => return Some(Err(format!("unexpected shape {shape:?} for its operator"))),
    };
    let strides = super::entry::row_major(&shape);
    let [shape, strides] = [shape, strides].map(|values| axes.iter().map(|&axis| values[axis]).collect::<Vec<_>>());
    let region = Region { start, len: n_bytes / item_size, dtype, item_size };
    let mut entry = match Entry::view(region, 0, shape, strides, bytes.len()) {
        Ok(entry) => entry,
        Err(reason) => return Some(Err(reason)),
    };
    if let (Dtype::I8, Some(quantization)) = (dtype, tensor.table(field::tensor::QUANTIZATION)?) {
        let scales = quantization.numbers(field::quantization::SCALE)?;
        let zero_points = match quantization.vector(field::quantization::ZERO_POINT, 8)? {
            Some((start, len)) => bytes.get(start..start + 8 * len)?,
            None => &[],
        };
        let axis = quantization.u32(field::quantization::QUANTIZED_DIMENSION)?.unwrap_or(0) as usize;
        let along_first = axes.first() == Some(&axis) && Some(&scales.len()) == entry.shape.first();
        if scales.len() != 1 && !along_first || zero_points.iter().any(|&byte| byte != 0) {
            return Some(Err("expected one scale, or one per output channel, and zero points of 0".to_string()));
        }
        let scales: Vec<f32> = scales.into_iter().map(f32::from_bits).collect();
        entry.factor = Some(match scales[..] {
            [scale] => Factor::Scale(scale),
            _ => Factor::Scales(scales),
        });
    }
    Some(Ok(Some(entry)))
}

/// A table of a FlatBuffer. Reads outside the file return `None`.
#[derive(Clone, Copy)]
struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Offsets of its fields, relative to `at`.
    fields: &'a [u8],
}

/// A vector of tables.
#[derive(Clone, Copy)]
struct Tables<'a> {
    bytes: &'a [u8],
    start: usize,
    len: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The target of the offset at `at`.
fn follow(bytes: &[u8], at: usize) -> Option<usize> {
    at.checked_add(u32_at(bytes, at)? as usize).filter(|&at| at < bytes.len())
}

impl<'a> Table<'a> {
    fn root(bytes: &'a [u8]) -> Option<Self> {
        Self::new(bytes, follow(bytes, 0)?)
    }

    /// The table at `at`. It begins with the distance back to its vtable: length of the vtable, length of the table,
    /// field offsets.
    fn new(bytes: &'a [u8], at: usize) -> Option<Self> {
        let back = u32_at(bytes, at)? as i32;
        let list = usize::try_from(at as i64 - i64::from(back)).ok()?;
        let len = u16::from_le_bytes(*bytes.get(list..)?.first_chunk()?) as usize;
        Some(Self { bytes, at, fields: bytes.get(list..list + len)?.get(4..)? })
    }

    /// The position of a field; `Some(None)` if it has its default value.
    fn field(&self, index: usize) -> Option<Option<usize>> {
        let Some(place) = self.fields.get(2 * index..2 * index + 2) else { return Some(None) };
        let place = u16::from_le_bytes(*place.first_chunk()?) as usize;
        Some((place > 0).then_some(self.at + place))
    }

    fn u8(&self, index: usize) -> Option<Option<u8>> {
        self.field(index)?.map(|at| self.bytes.get(at).copied()).map_or(Some(None), |byte| byte.map(Some))
    }

    fn u32(&self, index: usize) -> Option<Option<u32>> {
        self.field(index)?.map(|at| u32_at(self.bytes, at)).map_or(Some(None), |number| number.map(Some))
    }

    fn table(&self, index: usize) -> Option<Option<Self>> {
        let table = self.field(index)?.map(|at| Self::new(self.bytes, follow(self.bytes, at)?));
        table.map_or(Some(None), |table| table.map(Some))
    }

    /// Start and length of a vector of items of `item_size` bytes, checked to lie in the file.
    fn vector(&self, index: usize, item_size: usize) -> Option<Option<(usize, usize)>> {
        let Some(at) = self.field(index)? else { return Some(None) };
        let at = follow(self.bytes, at)?;
        let (start, len) = (at + 4, u32_at(self.bytes, at)? as usize);
        (len.checked_mul(item_size)?.checked_add(start)? <= self.bytes.len()).then_some(Some((start, len)))
    }

    /// A vector of 32-bit numbers; empty by default.
    fn numbers(&self, index: usize) -> Option<Vec<u32>> {
        let Some((start, len)) = self.vector(index, 4)? else { return Some(Vec::new()) };
        (0..len).map(|i| u32_at(self.bytes, start + 4 * i)).collect()
    }

    /// A vector of tables; empty by default.
    fn tables(&self, index: usize) -> Option<Tables<'a>> {
        let (start, len) = self.vector(index, 4)?.unwrap_or_default();
        Some(Tables { bytes: self.bytes, start, len })
    }
}

impl<'a> Tables<'a> {
    fn get(&self, index: usize) -> Option<Table<'a>> {
        (index < self.len).then_some(())?;
        Table::new(self.bytes, follow(self.bytes, self.start + 4 * index)?)
    }
}
