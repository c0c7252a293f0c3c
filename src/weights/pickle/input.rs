//! Reading the arguments of opcodes.

use super::{Step, Value};
use crate::weights::torch_names::{self, Name};

/// The unread bytes of a pickle.
pub(super) struct Input<'a> {
    pub unread: &'a [u8],
    /// Whether a read went beyond the end.
    pub exhausted: bool,
}

impl<'a> Input<'a> {
    pub fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let Some((taken, rest)) = self.unread.split_at_checked(len) else {
            return self.ends("the pickle ends too early");
        };
        self.unread = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let Some((taken, rest)) = self.unread.split_first_chunk() else {
            return self.ends("the pickle ends too early");
        };
        self.unread = rest;
        Ok(*taken)
    }

    pub fn ends<T>(&mut self, reason: &str) -> Step<T> {
        self.exhausted = true;
        Err(reason.to_owned())
    }

    pub fn byte(&mut self) -> Step<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A length stored as a little-endian integer of `N` bytes.
    pub fn length<const N: usize>(&mut self) -> Step<usize> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|e| e.to_string())
    }

    /// Bytes preceded by a length of `N` bytes.
    pub fn counted<const N: usize>(&mut self) -> Step<&'a [u8]> {
        let len = self.length::<N>()?;
        self.take(len)
    }

    pub fn line(&mut self) -> Step<&'a [u8]> {
        let Some(len) = self.unread.iter().position(|&byte| byte == b'\n') else {
            return self.ends("a line is not terminated");
        };
        let line = self.take(len)?;
        self.take(1)?;
        Ok(line)
    }
}

/// An integer in decimal, on a line of its own.
pub(super) fn decimal(digits: &[u8]) -> Value<'static> {
    if digits == torch_names::LEGACY_MAGIC_DECIMAL {
        return Value::Name(Name::LegacyMagic);
    }
    let number = std::str::from_utf8(digits).ok().and_then(|text| text.trim().parse().ok());
    number.map_or(Value::Opaque, Value::Int)
}

/// A little-endian two's-complement integer of any length; values beyond 64 bits are opaque.
pub(super) fn two_complement(bytes: &[u8]) -> Value<'static> {
    if bytes == torch_names::LEGACY_MAGIC {
        return Value::Name(Name::LegacyMagic);
    }
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}
