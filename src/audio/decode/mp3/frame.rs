//! Headers of MPEG audio frames (ISO/IEC 11172-3, 13818-3), and the frame in which an MP3 encoder describes the whole.

use crate::audio::AudioReason;

/// A frame's header.
#[derive(Default)]
pub(super) struct Frame {
    is_mpeg1: bool,
    /// 2 or 3.
    pub(super) layer: u8,
    pub(super) sample_rate: u32,
    pub(super) n_channels: usize,
    /// Length with the header.
    pub(super) n_bytes: usize,
    /// Samples per channel.
    pub(super) n_samples: u64,
}

impl Frame {
    /// Whether two frames have the same layer, rate and channels.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.layer, self.sample_rate, self.n_channels) == (other.layer, other.sample_rate, other.n_channels)
    }

    /// The frame that `bytes` begin with, `None` if they begin with something else.
    pub(super) fn read(bytes: &[u8]) -> Option<Result<Self, AudioReason>> {
        // kbit/s: of layer II and III in MPEG 1, of both in MPEG 2 and 2.5.
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
            2 if kilobits == 0 => return unread("MP2 of a free bit rate"),
            _ if kilobits == 0 => return unread("MP3 of a free bit rate"),
            _ => {}
        }
        let n_samples = if is_mpeg1 || layer == 2 { 1152 } else { 576 };
        let n_bytes = n_samples / 8 * 1000 * kilobits / sample_rate as usize + usize::from(third >> 1 & 1);
        let n_channels = if fourth >> 6 == 3 { 1 } else { 2 };
        Some(Ok(Self { is_mpeg1, layer, sample_rate, n_channels, n_bytes, n_samples: n_samples as u64 }))
    }

    /// Whether `n` frames alike begin at `at` of `bytes`, or as many as there are to the end.
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

/// What an encoder says about the whole in the first frame.
#[derive(Default)]
pub(super) struct Info {
    pub(super) n_frames: Option<u64>,
    /// Bytes of all frames, this one among them.
    pub(super) n_bytes: Option<u64>,
    /// Samples that the encoder put before the audio.
    pub(super) delay: Option<u64>,
    /// Samples that it put after it.
    pub(super) padding: u64,
}

impl Info {
    /// What stands in a frame, if it is such a one; then it holds no audio.
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
        // A table for seeking, and a quality.
        at += if flags & 4 != 0 { 100 } else { 0 } + if flags & 8 != 0 { 4 } else { 0 };
        let mut info = Self { n_frames, n_bytes, ..Self::default() };
        // LAME's part begins with the encoder's name; delay and padding are 12 bits each.
        if let Some([name, .., a, b, c]) = frame.get(at..).and_then(|rest| rest.first_chunk::<24>())
            && name.is_ascii_alphanumeric()
        {
            let both = u64::from(*a) << 16 | u64::from(*b) << 8 | u64::from(*c);
            (info.delay, info.padding) = (Some(both >> 12), both & 0xFFF);
        }
        Some(info)
    }
}
