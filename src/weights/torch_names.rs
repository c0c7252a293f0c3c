//! The names of classes and functions in PyTorch's pickles.
//!
//! Based on the behaviour of `torch.serialization` and of the `_rebuild_*` functions in `torch._utils`.

use super::{
    entry::Dtype,
    pickle::{Machine, Storage, Value},
};

/// 0x1950a86a20f9469cfc6c, the first pickle of the legacy format (before PyTorch 1.6).
pub(super) const LEGACY_MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// The same number in decimal, as in pickle protocols 0 and 1.
pub(super) const LEGACY_MAGIC_DECIMAL: &[u8] = b"119547037146038801333356";
/// Limit on the length of a storage's key in bytes; keys are decimal numbers.
pub(super) const MAX_KEY: usize = 64;
/// Limit on the number of dimensions, the same as PyTorch's.
const MAX_DIMS: usize = 64;

/// Index into [`ELEMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element(u8);

/// Storage class, `torch.dtype`, element type, and size in bytes.
const ELEMENTS: [(&str, &str, Dtype, usize); 26] = [
    ("FloatStorage", "float32", Dtype::F32, 4),
    ("DoubleStorage", "float64", Dtype::F64, 8),
    ("HalfStorage", "float16", Dtype::F16, 2),
    ("BFloat16Storage", "bfloat16", Dtype::BF16, 2),
    ("LongStorage", "int64", Dtype::I64, 8),
    ("IntStorage", "int32", Dtype::I32, 4),
    ("ShortStorage", "int16", Dtype::I16, 2),
    ("CharStorage", "int8", Dtype::I8, 1),
    ("ByteStorage", "uint8", Dtype::U8, 1),
    ("BoolStorage", "bool", Dtype::Bool, 1),
    ("", "uint16", Dtype::U16, 2),
    ("", "uint32", Dtype::U32, 4),
    ("", "uint64", Dtype::U64, 8),
    ("ComplexFloatStorage", "complex64", Dtype::Other("complex64"), 8),
    ("ComplexDoubleStorage", "complex128", Dtype::Other("complex128"), 16),
    ("QInt8Storage", "qint8", Dtype::Other("qint8"), 1),
    ("QUInt8Storage", "quint8", Dtype::Other("quint8"), 1),
    ("QInt32Storage", "qint32", Dtype::Other("qint32"), 4),
    ("QUInt4x2Storage", "quint4x2", Dtype::Other("quint4x2"), 1),
    ("QUInt2x4Storage", "quint2x4", Dtype::Other("quint2x4"), 1),
    ("", "float8_e4m3fn", Dtype::Other("float8_e4m3fn"), 1),
    ("", "float8_e5m2", Dtype::Other("float8_e5m2"), 1),
    ("", "float8_e4m3fnuz", Dtype::Other("float8_e4m3fnuz"), 1),
    ("", "float8_e5m2fnuz", Dtype::Other("float8_e5m2fnuz"), 1),
    ("", "float8_e8m0fnu", Dtype::Other("float8_e8m0fnu"), 1),
    ("UntypedStorage", "", Dtype::Other("untyped bytes"), 1),
];

impl Element {
    pub(super) fn dtype(self) -> Dtype {
        ELEMENTS[usize::from(self.0)].2
    }

    /// Size in bytes.
    pub(super) fn size(self) -> usize {
        ELEMENTS[usize::from(self.0)].3
    }

    fn find(name: &[u8], column: impl Fn(&(&'static str, &'static str, Dtype, usize)) -> &'static str) -> Option<Self> {
        let is_name = |row| !column(row).is_empty() && column(row).as_bytes() == name;
        ELEMENTS.iter().position(is_name).and_then(|index| u8::try_from(index).ok()).map(Self)
    }
}

/// A class or function named in a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    OrderedDict,
    Set,
    Size,
    RebuildTensor,
    RebuildTensorV3,
    RebuildParameter,
    RebuildFromType,
    StorageClass(Element),
    Dtype(Element),
    /// Not a name: the magic number of the legacy format.
    LegacyMagic,
    /// Everything else.
    Unknown,
}

impl Name {
    pub(super) fn find(module: &[u8], name: &[u8]) -> Self {
        match (module, name) {
            (b"collections", b"OrderedDict") => Self::OrderedDict,
            (b"builtins" | b"__builtin__", b"set") => Self::Set,
            (b"torch", b"Size") => Self::Size,
            (b"torch._utils", b"_rebuild_tensor" | b"_rebuild_tensor_v2") => Self::RebuildTensor,
            (b"torch._utils", b"_rebuild_tensor_v3") => Self::RebuildTensorV3,
            (b"torch._utils", b"_rebuild_parameter" | b"_rebuild_parameter_with_state") => Self::RebuildParameter,
            (b"torch._tensor", b"_rebuild_from_type_v2") => Self::RebuildFromType,
            (b"torch" | b"torch.cuda" | b"torch.storage", _) => Element::find(name, |row| row.0)
                .map(Self::StorageClass)
                .or_else(|| Element::find(name, |row| row.1).map(Self::Dtype))
                .unwrap_or(Self::Unknown),
            _ => Self::Unknown,
        }
    }
}

/// A strided view of a storage.
#[derive(Debug, Clone)]
pub(super) struct StoredTensor<'a> {
    pub(super) storage: Storage<'a>,
    /// Element type of the view. Differs from the storage's for untyped storages only.
    pub(super) element: Element,
    /// Index of the first element in the storage.
    pub(super) skip: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// The result of a call.
pub(super) enum Call<'a> {
    Value(Value<'a>),
    Tensor(StoredTensor<'a>),
    /// A dictionary: alternating keys and values.
    Pairs(Vec<Value<'a>>),
    Unknown,
}

/// The result of calling `callee`, as far as tensors depend on it.
///
/// # Errors
/// If a tensor or wrapper has arguments that PyTorch does not write.
pub(super) fn call<'a>(machine: &Machine<'a>, callee: Value<'a>, arguments: Value<'a>) -> Result<Call<'a>, String> {
    let (Value::Name(name), Some(arguments)) = (callee, machine.sequence(arguments)) else {
        return Ok(Call::Unknown);
    };
    match name {
        Name::OrderedDict => Ok(Call::Pairs(pairs(machine, arguments))),
        Name::Set | Name::Size | Name::RebuildParameter => {
            Ok(arguments.first().map_or(Call::Unknown, |&wrapped| Call::Value(wrapped)))
        }
        Name::RebuildTensor => tensor(machine, arguments, None),
        Name::RebuildTensorV3 => tensor(machine, arguments, arguments.get(6).copied()),
        Name::RebuildFromType => match *arguments {
            // (function, subclass, its arguments, attributes); the function is not another of these.
            [function @ Value::Name(inner), _, inner_arguments, _] if inner != Name::RebuildFromType => {
                call(machine, function, inner_arguments)
            }
            _ => Ok(Call::Unknown),
        },
        Name::StorageClass(_) | Name::Dtype(_) | Name::LegacyMagic | Name::Unknown => Ok(Call::Unknown),
    }
}

/// Alternating keys and values of `OrderedDict([[key, value], …])`, as Python 2 pickles it.
fn pairs<'a>(machine: &Machine<'a>, arguments: &[Value<'a>]) -> Vec<Value<'a>> {
    let listed = arguments.first().and_then(|&list| machine.sequence(list)).unwrap_or_default();
    let pair = |&pair: &Value<'a>| machine.sequence(pair).and_then(|pair| <[_; 2]>::try_from(pair).ok());
    listed.iter().filter_map(pair).flatten().collect()
}

/// A tensor from the arguments `(storage, offset, size, stride, …)`.
fn tensor<'a>(machine: &Machine<'a>, arguments: &[Value<'a>], dtype: Option<Value<'a>>) -> Result<Call<'a>, String> {
    let [storage, skip, shape, strides, ..] = *arguments else {
        return Err("expected storage, offset, shape and strides of a tensor".to_owned());
    };
    let Some(super::pickle::Node::Storage(storage)) = machine.node(storage) else {
        return Ok(Call::Unknown);
    };
    let element = match dtype {
        None => storage.element,
        Some(Value::Name(Name::Dtype(element))) => element,
        Some(_) => return Ok(Call::Unknown),
    };
    let (shape, strides) = (sizes(machine, shape)?, sizes(machine, strides)?);
    Ok(Call::Tensor(StoredTensor { storage: *storage, element, skip: size(skip)?, shape, strides }))
}

fn size(value: Value) -> Result<usize, String> {
    match value {
        Value::Int(value) => {
            usize::try_from(value).map_err(|_| format!("expected a size, stride or offset of a tensor, got {value}"))
        }
        _ => Err("expected a number as size, stride or offset of a tensor".to_owned()),
    }
}

fn sizes(machine: &Machine, value: Value) -> Result<Vec<usize>, String> {
    let values = machine.sequence(value).ok_or("expected a tuple as shape or strides of a tensor")?;
    if values.len() > MAX_DIMS {
        return Err(format!("expected a tensor of at most {MAX_DIMS} dimensions, got {}", values.len()));
    }
    values.iter().copied().map(size).collect()
}

/// The storage with a persistent id: `('storage', class, key, device, length)`, in the legacy format followed by `None`
/// or `(key of the view, first element, length of the view)`. `None` for other ids.
pub(super) fn storage<'a>(machine: &Machine<'a>, id: Value<'a>) -> Result<Option<Storage<'a>>, String> {
    let Some([Value::Text(b"storage"), class, Value::Text(key), _, len, view @ ..]) = machine.sequence(id) else {
        return Ok(None);
    };
    let Value::Name(Name::StorageClass(element)) = *class else {
        return Ok(None);
    };
    if key.len() > MAX_KEY {
        return Err("the key of a storage is too long".to_owned());
    }
    // A view has a length of its own; `len` is then that of the whole storage.
    let (skip, len) = match view.first().and_then(|&view| machine.sequence(view)) {
        Some([_, skip, len]) => (size(*skip)?, size(*len)?),
        _ => (0, size(*len)?),
    };
    Ok(Some(Storage { element, key, len, skip }))
}
