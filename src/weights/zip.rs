//! The directory of a zip archive with uncompressed members.
//!
//! Written from the specification (PKWARE APPNOTE 6.3.10: 4.3.7 local header, 4.3.12 central directory, 4.3.14–4.3.16
//! end records, 4.5.3 zip64). PyTorch stores members without compression, so a member is a byte range of the file and
//! nothing needs to be inflated. Checksums are not verified, because that would require reading the whole file.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use super::bytes::{Bytes, Fault};

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DIRECTORY_HEADER: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
/// Length of the end record, without its comment.
const END_LEN: usize = 22;
/// Length of a directory header, without name, extra fields and comment.
const DIRECTORY_HEADER_LEN: usize = 46;
const LOCAL_HEADER_LEN: usize = 30;
const END_64_LOCATOR_LEN: usize = 20;
/// Length of the 64-bit end record up to the offset of the directory, its last field that is needed.
const END_64_LEN: usize = 56;

pub(super) struct Archive<'a> {
    file: &'a Bytes,
    members: BTreeMap<String, Member>,
}

#[derive(Clone, Copy)]
struct Member {
    header: u64,
    len: u64,
    /// Neither compressed nor encrypted.
    stored: bool,
}

/// Whether a file that begins with `head` is an archive.
pub(super) fn recognise(head: &[u8]) -> bool {
    u32_at(head, 0) == Some(LOCAL_HEADER)
}

impl<'a> Archive<'a> {
    pub(super) fn open(file: &'a Bytes) -> Result<Self, Fault> {
        let place = directory(file)?;
        let place = place.ok_or("damaged zip archive: no end record (the download may be incomplete)")?;
        let damaged = || Fault::from("damaged zip directory");
        if place.end > file.len() {
            return Err(damaged());
        }
        let directory = file.to_cow(place)?;
        let (mut rest, mut members) = (&*directory, BTreeMap::new());
        while !rest.is_empty() {
            let (name, member, after) = directory_header(rest).ok_or_else(damaged)?;
            if members.insert(name.to_owned(), member).is_some() {
                return Err(format!("the zip archive has two members `{name}`").into());
            }
            rest = after;
        }
        Ok(Self { file, members })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The byte range of a member in the file; `None` if there is no such member.
    pub(super) fn find(&self, name: &str) -> Result<Option<Range<usize>>, Fault> {
        let Some(member) = self.members.get(name) else { return Ok(None) };
        if !member.stored {
            let reason = format!(
                "zip member `{name}` is compressed or encrypted, unlike those of torch.save: repack the archive \
                 without compression"
            );
            return Err(reason.into());
        }
        let of_member = |reason| format!("zip member `{name}`: {reason}");
        self.range(member).map(Some).map_err(|fault| fault.map(of_member))
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>, Fault> {
        self.find(name)?.map(|range| self.file.to_cow(range)).transpose()
    }

    fn range(&self, member: &Member) -> Result<Range<usize>, Fault> {
        let header = usize::try_from(member.header).unwrap_or(usize::MAX);
        let fields: [u8; LOCAL_HEADER_LEN] = self.file.array(header)?;
        let lengths = [u16_at(&fields, 26), u16_at(&fields, 28)].map(|len| len.map(usize::from));
        let ([Some(name_len), Some(extra_len)], Some(LOCAL_HEADER)) = (lengths, u32_at(&fields, 0)) else {
            return Err("expected a local header where the directory points to".into());
        };
        let start = header + LOCAL_HEADER_LEN + name_len + extra_len;
        let end = usize::try_from(member.len).ok().and_then(|len| start.checked_add(len));
        match end.filter(|&end| end <= self.file.len()) {
            Some(end) => Ok(start..end),
            None => Err("it extends beyond the end of the file".into()),
        }
    }
}

/// The range of the central directory, which may lie outside a damaged file; `None` if there is no valid end record.
fn directory(file: &Bytes) -> Result<Option<Range<usize>>, Fault> {
    // A comment of up to 65535 bytes, whose length is stated, may follow the end record. The locator is before it.
    let from = file.len().saturating_sub(END_64_LOCATOR_LEN + END_LEN + usize::from(u16::MAX));
    let tail = file.to_cow(from..file.len())?;
    let Some(last) = tail.len().checked_sub(END_LEN) else { return Ok(None) };
    let ends_here = |at: &usize| {
        u32_at(&tail, *at) == Some(END)
            && u16_at(&tail, *at + 20).is_some_and(|comment| at + usize::from(comment) == last)
    };
    let Some(end) = (last.saturating_sub(u16::MAX.into())..=last).rev().find(ends_here) else { return Ok(None) };
    let locator = end.checked_sub(END_64_LOCATOR_LEN).filter(|&at| u32_at(&tail, at) == Some(END_64_LOCATOR));
    let (len, start) = match locator.and_then(|locator| u64_at(&tail, locator + 8)) {
        Some(place) => {
            let record: [u8; END_64_LEN] = file.array(usize::try_from(place).unwrap_or(usize::MAX))?;
            if u32_at(&record, 0) != Some(END_64) {
                return Ok(None);
            }
            (u64_at(&record, 40), u64_at(&record, 48))
        }
        None => (u32_at(&tail, end + 12).map(u64::from), u32_at(&tail, end + 16).map(u64::from)),
    };
    let place = || {
        let start = usize::try_from(start?).ok()?;
        Some(start..start.checked_add(usize::try_from(len?).ok()?)?)
    };
    Ok(place())
}

/// The name and location of a member, and the bytes after its header.
fn directory_header(bytes: &[u8]) -> Option<(&str, Member, &[u8])> {
    if u32_at(bytes, 0)? != DIRECTORY_HEADER {
        return None;
    }
    let (flags, method) = (u16_at(bytes, 8)?, u16_at(bytes, 10)?);
    let mut sizes = [u32_at(bytes, 24)?, u32_at(bytes, 20)?, u32_at(bytes, 42)?].map(u64::from);
    let lengths = [u16_at(bytes, 28)?, u16_at(bytes, 30)?, u16_at(bytes, 32)?].map(usize::from);
    let (name, rest) = bytes.get(DIRECTORY_HEADER_LEN..)?.split_at_checked(lengths[0])?;
    let (extra, rest) = rest.split_at_checked(lengths[1])?;
    let rest = rest.get(lengths[2]..)?;
    // Fields that are all ones have their values in the zip64 extra field, in this order.
    let mut zip64 = zip64_field(extra).unwrap_or_default();
    for size in sizes.iter_mut().filter(|size| **size == u64::from(u32::MAX)) {
        let (value, after) = zip64.split_first_chunk()?;
        (*size, zip64) = (u64::from_le_bytes(*value), after);
    }
    let [len, stored_len, header] = sizes;
    let stored = method == 0 && flags & 1 == 0 && len == stored_len;
    Some((std::str::from_utf8(name).ok()?, Member { header, len, stored }, rest))
}

fn zip64_field(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (id, len) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let (field, rest) = extra.get(4..)?.split_at_checked(len)?;
        if id == 1 {
            return Some(field);
        }
        extra = rest;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}
