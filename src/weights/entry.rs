//! The location of a tensor in a file, and the conversion of its bytes to `f32`.

use std::fmt;
use std::sync::Arc;

use bytemuck::cast_slice_mut;
use half::{bf16, f16};
use rayon::prelude::*;

use super::bytes::{Bytes, Fault};
use super::composed::Factor;
use super::eight_bit::EightBit;
use super::four_bit::{FourBit, Pieces};

/// The element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// 64-bit float, rounded to the nearest `f32` when read.
    F64,
    /// 32-bit float, read bit for bit.
    F32,
    /// IEEE half, exact in `f32`.
    F16,
    /// bfloat16, exact in `f32`.
    BF16,
    /// Signed 64-bit integer; exact in `f32` up to ±2²⁴, like the other wide integers.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed byte; multiplied by its scale, if there is one (see the [module](super)).
    I8,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Byte.
    U8,
    /// One byte per element; any value other than 0 is true and is read as 1.
    Bool,
    /// 4-bit codes of bitsandbytes, NF4 or FP4; see the [module](super).
    FourBit,
    /// A type that is listed but cannot be read (complex, 8-bit and narrower floats, quantised integers), with its
    /// name.
    Other(&'static str),
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(name) => f.write_str(name),
            known => write!(f, "{known:?}"),
        }
    }
}

/// A strided view of the bytes of a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Index into the files of a `Weights`.
    pub(super) file: usize,
    /// Byte offset of the first element in that file.
    pub(super) offset: usize,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Strides in elements, one per dimension.
    pub(super) strides: Vec<usize>,
    /// Factor of the elements.
    pub(super) factor: Option<Factor>,
    /// The other parts of a 4-bit tensor.
    pub(super) pieces: Option<Box<Pieces>>,
}

/// A contiguous range of bytes with elements of one type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region {
    pub(super) start: usize,
    /// Length in elements.
    pub(super) len: usize,
    pub(super) dtype: Dtype,
    /// Element size in bytes.
    pub(super) item_size: usize,
}

/// Product of the dimensions; `None` if it overflows, zero dimensions ignored.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    // Ignoring dimensions of 0 rejects [2⁴⁰, 2⁴⁰, 0], so that later products of dimensions cannot overflow.
    let product = shape.iter().filter(|&&dim| dim != 0).try_fold(1usize, |count, &dim| count.checked_mul(dim))?;
    let fits = product <= isize::MAX as usize / 8;
    fits.then_some(if shape.contains(&0) { 0 } else { product })
}

/// Row-major strides of `shape`, in elements.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim].saturating_mul(shape[dim].max(1));
    }
    strides
}

/// Number of elements that are read from a file at a time: few enough for their bytes to stay in the cache until
/// converted.
const PIECE: usize = 1 << 16;
/// Number of bytes of f32 tensors per task of the thread pool.
const PARALLEL: usize = 1 << 20;
/// A strided tensor is read as one range if that makes it at most this many times as large.
const DENSE: usize = 8;

impl Entry {
    /// A view of `region` that starts `skip` elements in. All its elements are checked to lie inside.
    ///
    /// `file_len` limits the number of elements: a view may repeat elements (stride 0), but not arbitrarily often.
    pub(super) fn view(
        region: Region,
        skip: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
        file_len: usize,
    ) -> Result<Self, String> {
        if shape.len() != strides.len() {
            return Err(format!(
                "expected one stride per dimension, got {} strides for {} dimensions",
                strides.len(),
                shape.len()
            ));
        }
        let count = element_count(&shape).ok_or_else(|| format!("shape {shape:?} is too large"))?;
        if count > file_len.saturating_add(1 << 20) {
            return Err(format!("shape {shape:?} has more elements than the file has bytes"));
        }
        let mut offset = region.start;
        if count > 0 {
            let end = shape.iter().zip(&strides).try_fold(skip, |last, (&dim, &stride)| {
                last.checked_add((dim - 1).checked_mul(stride)?) // dim ≥ 1 here
            });
            if end.is_none_or(|last| last >= region.len) {
                return Err(format!(
                    "shape {shape:?}, strides {strides:?} from element {skip} reach outside a storage of {} elements",
                    region.len
                ));
            }
            offset += skip * region.item_size; // skip ≤ last < region.len, which lies inside the file
        }
        Ok(Self { file: 0, offset, dtype: region.dtype, shape, strides, factor: None, pieces: None })
    }

    /// The same entry, with file indices shifted by `n_files`.
    pub(super) fn after(&self, n_files: usize) -> Self {
        let factor = self.factor.as_ref().map(|factor| factor.after(n_files));
        let pieces = self.pieces.as_ref().map(|pieces| Box::new(pieces.after(n_files)));
        Self { file: self.file + n_files, factor, pieces, ..self.clone() }
    }

    pub(super) fn count(&self) -> usize {
        element_count(&self.shape).unwrap_or(0)
    }

    /// Reads the elements in row-major order as `f32`, with their factor applied.
    pub(super) fn decode(&self, files: &[Arc<Bytes>]) -> Result<Vec<f32>, Fault> {
        let mut values = match self.four_bit(files)? {
            Some(codes) => codes.to_vec(),
            None => self.stored(files.get(self.file).ok_or("it has no file")?)?,
        };
        if let Some(factor) = &self.factor {
            factor.multiply(&mut values, &self.shape, files)?;
        }
        Ok(values)
    }

    /// Reads the tensor as 4-bit codes, if it is stored so.
    pub(super) fn four_bit(&self, files: &[Arc<Bytes>]) -> Result<Option<FourBit>, Fault> {
        self.pieces.as_ref().map(|pieces| pieces.read(self, files)).transpose()
    }

    /// Reads a matrix of `rows` rows as 8-bit codes, if it is stored so.
    pub(super) fn eight_bit(&self, rows: usize, files: &[Arc<Bytes>]) -> Result<Option<EightBit>, Fault> {
        let scales = match &self.factor {
            Some(Factor::Scale(scale)) => vec![*scale; rows],
            Some(Factor::Scales(scales)) if scales.len() == rows => scales.clone(),
            _ => return Ok(None),
        };
        if self.dtype != Dtype::I8 || !self.is_contiguous() {
            return Ok(None);
        }
        Ok(Some(EightBit::new(self.bytes(files)?.into_iter().map(u8::cast_signed).collect(), scales)))
    }

    /// The number of bytes of its elements, if they are contiguous and of whole bytes.
    pub(super) fn n_bytes(&self) -> Option<usize> {
        let size = match self.dtype {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
            Dtype::FourBit => return Some(self.count().div_ceil(2)),
            Dtype::Other(_) => return None,
        };
        self.is_contiguous().then(|| self.count() * size)
    }

    /// Reads its elements as stored.
    pub(super) fn bytes(&self, files: &[Arc<Bytes>]) -> Result<Vec<u8>, Fault> {
        let n_bytes = self.n_bytes().ok_or("its elements are not stored as bytes")?;
        let file = files.get(self.file).ok_or("it has no file")?;
        Ok(file.to_cow(self.offset..self.offset + n_bytes)?.into_owned()) // inside the file
    }

    /// Reads the elements as f32, without their factor.
    fn stored(&self, file: &Bytes) -> Result<Vec<f32>, Fault> {
        match self.dtype {
            Dtype::F64 => self.elements(file, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 if self.is_contiguous() && cfg!(target_endian = "little") => {
                let mut values = vec![0.0; self.count()];
                let pieces = cast_slice_mut::<f32, u8>(&mut values).par_chunks_mut(PARALLEL);
                pieces.enumerate().try_for_each(|(i, piece)| file.read_into(self.offset + i * PARALLEL, piece))?;
                Ok(values)
            }
            Dtype::F32 => self.elements(file, f32::from_le_bytes),
            Dtype::F16 => self.elements(file, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.elements(file, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::I64 => self.elements(file, |b| i64::from_le_bytes(b) as f32),
            Dtype::I32 => self.elements(file, |b| i32::from_le_bytes(b) as f32),
            Dtype::I16 => self.elements(file, |b| i16::from_le_bytes(b).into()),
            Dtype::I8 => self.elements(file, |b| i8::from_le_bytes(b).into()),
            Dtype::U64 => self.elements(file, |b| u64::from_le_bytes(b) as f32),
            Dtype::U32 => self.elements(file, |b| u32::from_le_bytes(b) as f32),
            Dtype::U16 => self.elements(file, |b| u16::from_le_bytes(b).into()),
            Dtype::U8 => self.elements(file, |[b]| b.into()),
            Dtype::Bool => self.elements(file, |[b]| f32::from(b != 0)),
            Dtype::FourBit => Err("4-bit codes without quantisation settings".into()),
            Dtype::Other(name) => Err(format!("elements of type {name} cannot be read").into()),
        }
    }

    fn elements<const N: usize>(&self, file: &Bytes, convert: impl Fn([u8; N]) -> f32) -> Result<Vec<f32>, Fault> {
        let count = self.count();
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| format!("{count} values do not fit into memory"))?;
        let mut buffer = Vec::new();
        if self.is_contiguous() {
            while values.len() < count {
                let start = self.offset + values.len() * N; // inside the file, as the view was checked
                let n = PIECE.min(count - values.len());
                let items = file.get(start..start + n * N, &mut buffer)?.as_chunks::<N>().0;
                values.extend(items.iter().map(|&item| convert(item)));
            }
            return Ok(values);
        }
        // From the first element to the last.
        let extent = 1 + self.shape.iter().zip(&self.strides).map(|(dim, stride)| (dim - 1) * stride).sum::<usize>();
        if extent / DENSE <= count {
            let items = file.get(self.offset..self.offset + extent * N, &mut buffer)?.as_chunks::<N>().0;
            self.for_each_place(|place| {
                values.push(convert(items[place])); // every place is below the extent
                Ok(())
            })?;
        } else {
            self.for_each_place(|place| {
                let start = self.offset + place * N;
                values.extend(file.get(start..start + N, &mut buffer)?.first_chunk().map(|&item| convert(item)));
                Ok(())
            })?;
        }
        Ok(values)
    }

    fn is_contiguous(&self) -> bool {
        self.strides == row_major(&self.shape) || self.count() <= 1
    }

    /// Calls `visit` with the offset of every element, in elements from the first one, in row-major order. The tensor
    /// must not be empty.
    fn for_each_place(&self, mut visit: impl FnMut(usize) -> Result<(), Fault>) -> Result<(), Fault> {
        let (Some((&row_len, outer_shape)), Some((&row_stride, outer_strides))) =
            (self.shape.split_last(), self.strides.split_last())
        else {
            return visit(0);
        };
        // Walk the rows of the last dimension; `index` counts the outer dimensions like an odometer.
        let mut index = vec![0; outer_shape.len()];
        let mut row_start = 0;
        for _ in 0..outer_shape.iter().product() {
            for i in 0..row_len {
                visit(row_start + i * row_stride)?;
            }
            for dim in (0..outer_shape.len()).rev() {
                index[dim] += 1;
                row_start += outer_strides[dim];
                if index[dim] < outer_shape[dim] {
                    break;
                }
                row_start -= outer_shape[dim] * outer_strides[dim];
                index[dim] = 0;
            }
        }
        Ok(())
    }
}
