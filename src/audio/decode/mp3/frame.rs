//! Headers of MPEG audio frames (ISO/IEC 11172-3, 13818-3), and the Xing, LAME and VBRI headers.

use crate::audio::AudioReason;

/// A frame header.
#[derive(Default)]
pub(super) struct Frame {
    is_mpeg1: bool,
    /// 2 or 3.
    pub(super) layer: u8,
    pub(super) sample_rate: u32,
    pub(super) n_channels: usize,
    /// Length of the frame, header included.
    pub(super) n_bytes: usize,
    /// Samples per channel.
    pub(super) n_samples: u64,
}

impl Frame {
    /// Whether two frames have the same layer, rate and channels.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.layer, self.sample_rate, self.n_channels) == (other.layer, other.sample_rate, other.n_channels)
    }

    /// Parses the frame header at the beginning of `bytes`. `None` if there is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Result<Self, AudioReason>> {
        // Bit rates in kbit/s: layer II of MPEG 1, layer III of MPEG 1, both layers of MPEG 2 and 2.5.
        const RATES: [[usize; 15]; 3] = [
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ];
        let &[0xFF, second, third, fourth] = bytes.first_chunk()? else { return None };
        if second & 0xE0 != 0xE0 {
            return None;
        }
        let version = second >> 3 & 3;
        let is_mpeg1 = version == 3;
        let sample_rate = *[44_100_u32, 48_000, 32_000].get(usize::from(third >> 2 & 3))?;
        let sample_rate = match version {
            0 => sample_rate / 4,
            2 => sample_rate / 2,
            3 => sample_rate,
            _ => return None,
        };
        let layer = 4 - (second >> 1 & 3);
        let rates = RATES[if !is_mpeg1 { 2 } else { usize::from(layer == 3) }];
        let kilobits = *rates.get(usize::from(third >> 4))?;
        let unread = |what: &str| Some(Err(AudioReason::Codec(what.into())));
        match layer {
            4 => return None,
            1 => return unread("MP1 (MPEG audio of layer I)"),
            2 if kilobits == 0 => return unread("free-format MP2"),
            _ if kilobits == 0 => return unread("free-format MP3"),
            _ => {}
        }
        let n_samples = if is_mpeg1 || layer == 2 { 1152 } else { 576 };
        let n_bytes = n_samples / 8 * 1000 * kilobits / sample_rate as usize + usize::from(third >> 1 & 1);
        let n_channels = if fourth >> 6 == 3 { 1 } else { 2 };
        Some(Ok(Self { is_mpeg1, layer, sample_rate, n_channels, n_bytes, n_samples: n_samples as u64 }))
    }

    /// Whether `n` similar frames begin at `at`, or as many as fit before the end of `bytes`.
    pub(super) fn are_at(mut at: usize, bytes: &[u8], n: usize, like: Option<&Self>) -> bool {
        let mut first = None;
        for i in 0..n {
            match bytes.get(at..).and_then(Self::read) {
                Some(Ok(frame)) if like.or(first.as_ref()).is_none_or(|like| frame.is_like(like)) => {
                    at += frame.n_bytes;
                    first = first.or(Some(frame));
                }
                _ => return i > 0 && at == bytes.len(),
            }
        }
        true
    }
}

/// The description of a file in its first frame (Xing, LAME or VBRI header).
#[derive(Default)]
pub(super) struct Info {
    pub(super) n_frames: Option<u64>,
    /// Bytes of all frames, including this one.
    pub(super) n_bytes: Option<u64>,
    /// Encoder delay in samples.
    pub(super) delay: Option<u64>,
    /// Encoder padding in samples.
    pub(super) padding: u64,
}

impl Info {
    /// Parses the description in a frame. `None` for a frame with audio.
    pub(super) fn read(frame: &[u8], header: &Frame) -> Option<Self> {
        if header.layer != 3 {
            return None;
        }
        let u32_at = |at: usize| Some(u64::from(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?)));
        if frame.get(36..)?.starts_with(b"VBRI") {
            let (n_bytes, n_frames) = (u32_at(46), u32_at(50));
            return Some(Self { n_frames, n_bytes, ..Self::default() });
        }
        let mut at = match (header.is_mpeg1, header.n_channels) {
            (true, 2) => 36,
            (true, _) | (false, 2) => 21,
            (false, _) => 13,
        };
        let name = frame.get(at..)?;
        if !name.starts_with(b"Xing") && !name.starts_with(b"Info") {
            return None;
        }
        let flags = u32_at(at + 4)?;
        at += 8;
        let mut field = |flag: u64| {
            let is_there = flags & flag != 0;
            at += if is_there { 4 } else { 0 };
            if is_there { u32_at(at - 4) } else { None }
        };
        let (n_frames, n_bytes) = (field(1), field(2));
        // Skip the seek table and the quality.
        at += if flags & 4 != 0 { 100 } else { 0 } + if flags & 8 != 0 { 4 } else { 0 };
        let mut info = Self { n_frames, n_bytes, ..Self::default() };
        // The LAME extension begins with the encoder's name; delay and padding have 12 bits each.
        if let Some([name, .., a, b, c]) = frame.get(at..).and_then(|rest| rest.first_chunk::<24>())
            && name.is_ascii_alphanumeric()
        {
            let both = u64::from(*a) << 16 | u64::from(*b) << 8 | u64::from(*c);
            (info.delay, info.padding) = (Some(both >> 12), both & 0xFFF);
        }
        Some(info)
    }
}
