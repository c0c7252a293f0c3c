//! The directory of a zip archive, for members that are stored uncompressed.
//!
//! From the format's definition (PKWARE APPNOTE 6.3.10: 4.3.7 local header, 4.3.12 central directory, 4.3.14–4.3.16 end
//! records, 4.5.3 zip64). PyTorch stores every member as it is, so a member is a slice of the file and nothing is ever
//! inflated. Checksums are not verified: that would read the whole file.

use std::{collections::BTreeMap, ops::Range};

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DIRECTORY_HEADER: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
/// Length of the end record without its comment.
const END_LEN: usize = 22;
/// Length of a directory header without name, extra fields and comment.
const DIRECTORY_HEADER_LEN: usize = 46;
const LOCAL_HEADER_LEN: usize = 30;
const END_64_LOCATOR_LEN: usize = 20;

pub(super) struct Archive<'a> {
    file: &'a [u8],
    members: BTreeMap<&'a str, Member>,
}

#[derive(Clone, Copy)]
struct Member {
    header: u64,
    len: u64,
    /// As it is, unencrypted.
    stored: bool,
}

pub(super) fn recognise(file: &[u8]) -> bool {
    u32_at(file, 0) == Some(LOCAL_HEADER)
}

impl<'a> Archive<'a> {
    pub(super) fn open(file: &'a [u8]) -> Result<Self, String> {
        let (start, len) =
            directory(file).ok_or("damaged zip archive: no end record, as where a download was cut short")?;
        let damaged = || "damaged zip directory".to_owned();
        let mut rest = file.get(start..).and_then(|rest| rest.get(..len)).ok_or_else(damaged)?;
        let mut members = BTreeMap::new();
        while !rest.is_empty() {
            let (name, member, after) = directory_header(rest).ok_or_else(damaged)?;
            if members.insert(name, member).is_some() {
                return Err(format!("zip archive with two members `{name}`"));
            }
            rest = after;
        }
        Ok(Self { file, members })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.members.keys().copied()
    }

    /// Where in the file a member's bytes lie; `None` if there is no such member.
    pub(super) fn find(&self, name: &str) -> Option<Result<Range<usize>, String>> {
        let member = self.members.get(name)?;
        if !member.stored {
            return Some(Err(format!(
                "zip member `{name}` is compressed or encrypted, which torch.save never does; unpack the archive and \
                 store its files"
            )));
        }
        Some(self.range(member).ok_or_else(|| format!("zip member `{name}` lies outside the file")))
    }

    pub(super) fn read(&self, name: &str) -> Option<Result<&'a [u8], String>> {
        Some(self.find(name)?.map(|range| self.file.get(range).unwrap_or_default()))
    }

    fn range(&self, member: &Member) -> Option<Range<usize>> {
        let header = usize::try_from(member.header).ok()?;
        let fields = self.file.get(header..)?.get(..LOCAL_HEADER_LEN)?;
        if u32_at(fields, 0)? != LOCAL_HEADER {
            return None;
        }
        let (name_len, extra_len) = (usize::from(u16_at(fields, 26)?), usize::from(u16_at(fields, 28)?));
        let start = header + LOCAL_HEADER_LEN + name_len + extra_len;
        let end = start.checked_add(usize::try_from(member.len).ok()?)?;
        (end <= self.file.len()).then_some(start..end)
    }
}

/// Start and length of the central directory.
fn directory(file: &[u8]) -> Option<(usize, usize)> {
    // The end record is followed by a comment of up to 65535 bytes, whose length it states.
    let last = file.len().checked_sub(END_LEN)?;
    let ends_here = |at: &usize| {
        u32_at(file, *at) == Some(END)
            && u16_at(file, *at + 20).is_some_and(|comment| at + usize::from(comment) == last)
    };
    let end = (last.saturating_sub(u16::MAX.into())..=last).rev().find(ends_here)?;
    let (mut len, mut start) = (u64::from(u32_at(file, end + 12)?), u64::from(u32_at(file, end + 16)?));
    if let Some(locator) = end.checked_sub(END_64_LOCATOR_LEN).filter(|&at| u32_at(file, at) == Some(END_64_LOCATOR)) {
        let end_64 = usize::try_from(u64_at(file, locator + 8)?).ok()?;
        if u32_at(file, end_64)? != END_64 {
            return None;
        }
        (len, start) = (u64_at(file, end_64.checked_add(40)?)?, u64_at(file, end_64.checked_add(48)?)?);
    }
    Some((start.try_into().ok()?, len.try_into().ok()?))
}

/// A member's name and place, and what follows its header.
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
    // Fields that are all ones stand in the zip64 extra field instead, in this order.
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
