//! Files written by `torch.save`: the zip format since PyTorch 1.6, and the legacy format before it.

use std::collections::{BTreeMap, HashMap};

use super::{
    bytes::{Bytes, Fault},
    entry::{Entry, Region},
    pickle::{Machine, Node, Storage, Value},
    state_dict,
    torch_names::{MAX_KEY, Name, StoredTensor},
    zip::Archive,
};

type Entries = BTreeMap<String, Entry>;
/// The tensors, and other information in the checkpoint.
type Contents = (Entries, BTreeMap<String, String>);

/// The version of the legacy format; there was only one.
const LEGACY_VERSION: i64 = 1001;
/// Length of the field with the element count before each legacy storage.
const COUNT_FIELD: usize = 8;

/// Number of bytes of a legacy file that are parsed at first. In published files they contain all pickles.
const FIRST_LOOK: usize = 1 << 16;

/// Lists the tensors of a zip checkpoint, or of the part under a key.
pub(super) fn parse_zip(file: &Bytes, part: Option<&str>) -> Result<Contents, Fault> {
    let archive = Archive::open(file)?;
    let root = archive.names().filter_map(|name| name.strip_suffix("data.pkl"));
    // All members are in one folder, named after the original file.
    let root = root
        .min_by_key(|root| root.len())
        .ok_or("expected a PyTorch checkpoint, got a zip archive without data.pkl")?;
    let member = |name: &str| format!("{root}{name}");
    let (constants, code) = (member("constants.pkl"), member("code/"));
    if archive.names().any(|name| name == constants || name.starts_with(&code)) {
        return Err("TorchScript programs are not supported: save the model's state_dict() with torch.save".into());
    }
    if archive.read(&member("byteorder"))?.is_some_and(|order| *order != *b"little") {
        return Err(big_endian());
    }
    let pickle = archive.read(&member("data.pkl"))?.ok_or("expected data.pkl")?;
    let (machine, value, _) = Machine::run(&pickle)?;
    let tensors = state_dict::find(&machine, value, part)?;
    let entries = entries(file.len(), tensors, |storage| {
        let name = member(&format!("data/{}", String::from_utf8_lossy(storage.key)));
        let range = archive.find(&name)?.ok_or_else(|| format!("there is no storage {name}"))?;
        Ok((range.start, range.len()))
    })?;
    Ok((entries, state_dict::metadata(&machine, value)))
}

/// Whether a file begins with the magic number of the legacy format, in any pickle protocol.
pub(super) fn recognise_legacy(head: &[u8]) -> bool {
    let start = &head[..head.len().min(64)];
    matches!(Machine::run(start), Ok((_, Value::Name(Name::LegacyMagic), _)))
}

/// Lists the tensors of a legacy checkpoint. It consists of pickles of the magic number, the version, the system, the
/// object and the keys of its storages, followed by each storage as element count and elements.
pub(super) fn parse_legacy(file: &Bytes, part: Option<&str>) -> Result<Contents, Fault> {
    let (mut buffer, mut len) = (Vec::new(), FIRST_LOOK);
    loop {
        match parse_pickles(file, file.head(len, &mut buffer)?, part) {
            Err(Fault::CutShort(_)) if len < file.len() => len *= 4, // less than four times the file's length
            parsed => return parsed,
        }
    }
}

/// As [`parse_legacy`], with the first bytes of the file in `head`, which should contain all pickles.
fn parse_pickles(file: &Bytes, head: &[u8], part: Option<&str>) -> Result<Contents, Fault> {
    let (_, _, rest) = Machine::run(head)?;
    let (_, version, rest) = Machine::run(rest)?;
    if !matches!(version, Value::Int(LEGACY_VERSION)) {
        return Err(format!("expected version {LEGACY_VERSION} of PyTorch's legacy format, got {version:?}").into());
    }
    let (system, about, rest) = Machine::run(rest)?;
    let is_big = |item: &(Value, Value)| matches!(item, (Value::Text(b"little_endian"), Value::Bool(false)));
    if system.items(about).unwrap_or_default().iter().any(is_big) {
        return Err(big_endian());
    }
    let (machine, value, rest) = Machine::run(rest)?;
    let (keys, list, rest) = Machine::run(rest)?;
    let keys = keys.sequence(list).ok_or("expected a list of storages")?;
    let places = legacy_storages(&machine, keys, file, head.len() - rest.len())?;
    let tensors = state_dict::find(&machine, value, part)?;
    let entries = entries(file.len(), tensors, |storage| {
        let place = places.get(storage.key).copied();
        Ok(place.ok_or_else(|| format!("there is no storage {}", String::from_utf8_lossy(storage.key)))?)
    })?;
    Ok((entries, state_dict::metadata(&machine, value)))
}

/// Start and length in bytes of each storage, by key. The first storage begins at byte `start` of the file.
fn legacy_storages<'a>(
    machine: &Machine<'a>,
    keys: &[Value<'a>],
    file: &Bytes,
    mut start: usize,
) -> Result<HashMap<&'a [u8], (usize, usize)>, Fault> {
    let mut item_sizes = HashMap::new();
    for node in &machine.nodes {
        if let Node::Storage(Storage { element, key, .. }) = node
            && *item_sizes.entry(*key).or_insert(element.size()) != element.size()
        {
            return Err(format!("storage {} has elements of two sizes", String::from_utf8_lossy(key)).into());
        }
    }
    let mut places = HashMap::new();
    for key in keys {
        let Value::Text(key) = key else { return Err("expected text as the key of a storage".into()) };
        if key.len() > MAX_KEY {
            return Err("the key of a storage is too long".into());
        }
        let item_size = item_sizes.get(key).ok_or("the element type of a storage is unknown")?;
        let damaged = || Fault::from(format!("storage {} is truncated", String::from_utf8_lossy(key)));
        let left = (file.len() - start).checked_sub(COUNT_FIELD).ok_or_else(damaged)?; // start is within the file
        let count = i64::from_le_bytes(file.array(start)?);
        let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(*item_size));
        let len = len.filter(|&len| len <= left).ok_or_else(damaged)?;
        places.insert(*key, (start + COUNT_FIELD, len));
        start += COUNT_FIELD + len;
    }
    Ok(places)
}

/// Makes entries for `tensors`. `place` gives the start and length of a storage in bytes.
fn entries(
    file_len: usize,
    tensors: BTreeMap<String, &StoredTensor>,
    place: impl Fn(&Storage) -> Result<(usize, usize), Fault>,
) -> Result<Entries, Fault> {
    let entry = |tensor: &StoredTensor| {
        let (start, len) = place(&tensor.storage)?;
        let (claimed, item_size) = (tensor.storage.len, tensor.storage.element.size());
        if tensor
            .storage
            .skip
            .checked_add(claimed)
            .and_then(|end| end.checked_mul(item_size))
            .is_none_or(|end| end > len)
        {
            return Err(format!("a storage of {claimed} elements has only {len} bytes").into());
        }
        let (start, len) = (start + tensor.storage.skip * item_size, claimed * item_size);
        let item_size = tensor.element.size();
        let region = Region { start, len: len / item_size, dtype: tensor.element.dtype(), item_size };
        Entry::view(region, tensor.skip, tensor.shape.clone(), tensor.strides.clone(), file_len).map_err(Fault::from)
    };
    let place = |(name, tensor): (String, &StoredTensor)| match entry(tensor) {
        Ok(entry) => Ok((name, entry)),
        Err(fault) => Err(fault.map(|reason| format!("tensor `{name}`: {reason}"))),
    };
    tensors.into_iter().map(place).collect()
}

fn big_endian() -> Fault {
    "expected a little-endian file, got one from a big-endian machine".into()
}
