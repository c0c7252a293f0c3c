//! MP3: frames one after the other, tags before and after them.
//!
//! There is no checksum over the audio, and a length only where the encoder wrote one into the first frame, which is
//! then silent (Xing, LAME, VBRI). The frames are found here, so nothing is skipped on the way, and given to the
//! decoder one by one.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::{Sink, decoder_for, malformed};
use crate::audio::AudioReason;
use crate::audio::source::Failure;

/// Samples by which every decoder is late.
const DECODER_DELAY: u64 = 529;

pub(super) fn decode(bytes: &[u8], sink: &mut Sink) -> Result<(), Failure> {
    let end = bytes.len() - trailing_bytes(bytes);
    let mut at = id3_bytes(bytes);
    if at >= end {
        return Err(malformed("the file ends within or after its ID3 tag"));
    }
    // Some programs fill up the space after a tag.
    at += bytes[at..end].iter().take_while(|&&byte| byte == 0).count();
    let audio = &bytes[at..end];

    let first = match Frame::read(audio) {
        Some(first) => first?,
        None => return Err(malformed(format!("there is no MPEG frame at byte {at}"))),
    };
    let info = audio.get(..first.n_bytes).and_then(|frame| Info::read(frame, &first)).unwrap_or_default();
    sink.set_format(first.sample_rate, first.n_channels)?;
    let delay = info.delay.map(|delay| delay + DECODER_DELAY);
    sink.skip = delay.unwrap_or(0);
    let mut params = AudioCodecParameters::new();
    params.for_codec(CODEC_ID_MP3).with_sample_rate(first.sample_rate);
    let mut decoder = decoder_for(&params)?;

    let (mut offset, mut n_frames, mut cut) = (if info.is_there { first.n_bytes } else { 0 }, 0_u64, None);
    while offset < audio.len() {
        let place = at + offset;
        let frame = match Frame::read(&audio[offset..]) {
            Some(frame) => frame?,
            None if audio.len() - offset < 4 => {
                cut = Some(place);
                break;
            }
            None => {
                let detail = format!("there is no MPEG frame at byte {place}");
                return Err(AudioReason::Damaged { index: sink.n_kept(), detail }.into());
            }
        };
        sink.set_format(frame.sample_rate, frame.n_channels)?;
        let Some(data) = audio.get(offset..offset + frame.n_bytes) else {
            cut = Some(place);
            break;
        };
        let n_before = sink.n_decoded;
        let packet = Packet::new(0, Timestamp::ZERO, Duration::from(frame.n_samples), data);
        sink.decode(decoder.as_mut(), &packet)?;
        if sink.n_decoded - n_before != frame.n_samples {
            return Err(malformed(format!("the MPEG frame at byte {place} is damaged")));
        }
        n_frames += 1;
        offset += frame.n_bytes;
    }

    // What is not audio at both ends of the frames declared.
    let around = delay.map_or(0, |delay| delay + info.padding.saturating_sub(DECODER_DELAY));
    if let Some(declared) = info.n_frames {
        // Some encoders count the frame with the count; then the bytes that they state are all there.
        let counts_itself = n_frames + 1 == declared && cut.is_none() && info.n_bytes == Some(audio.len() as u64);
        if n_frames < declared && !counts_itself {
            let declared = (declared * first.n_samples).saturating_sub(around);
            return Err(AudioReason::Truncated { declared, found: sink.n_kept().min(declared) }.into());
        }
        // More frames: files were joined. Then the padding lies somewhere within.
        if n_frames <= declared {
            sink.keep((n_frames * first.n_samples).saturating_sub(around));
        }
    }
    if let Some(place) = cut {
        let detail = format!("the file ends within the MPEG frame at byte {place}");
        return Err(AudioReason::EndsEarly { found: sink.n_kept(), detail }.into());
    }
    Ok(())
}

/// The length of the ID3v2 tags that `bytes` begin with, as they state it.
pub(super) fn id3_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&[b'I', b'D', b'3', _, _, flags, a, b, c, d]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let n = [a, b, c, d].iter().fold(0, |n, &byte| n << 7 | usize::from(byte & 0x7F));
        at += 10 + n + if flags & 0x10 != 0 { 10 } else { 0 };
    }
    at
}

/// The length of the ID3v1 tag that `bytes` end in.
pub(super) fn id3v1_bytes(bytes: &[u8]) -> usize {
    let is_there = bytes.len() >= 128 && bytes[bytes.len() - 128..].starts_with(b"TAG");
    if is_there { 128 } else { 0 }
}

/// The length of what may follow the last frame: an ID3v1, APE or Lyrics3 tag, zeros.
fn trailing_bytes(bytes: &[u8]) -> usize {
    let mut rest = &bytes[..bytes.len() - id3v1_bytes(bytes)];
    // An APE tag ends in 32 bytes with its length, which does not count the 32 bytes that may begin it.
    if let Some(footer) = rest.len().checked_sub(32).map(|at| &rest[at..])
        && footer.starts_with(b"APETAGEX")
    {
        let n = u32::from_le_bytes([footer[12], footer[13], footer[14], footer[15]]) as usize;
        let n = n + if footer[23] & 0x80 != 0 { 32 } else { 0 };
        rest = &rest[..rest.len().saturating_sub(n)];
    }
    // A Lyrics3 tag ends in its length as six digits and a word.
    if let Some(length) = rest.strip_suffix(b"LYRICS200").and_then(|rest| rest.last_chunk::<6>())
        && let Some(n) = std::str::from_utf8(length).ok().and_then(|digits| digits.parse::<usize>().ok())
    {
        rest = &rest[..rest.len().saturating_sub(n + 15)];
    }
    // A frame may end in zeros as well, but hardly in as many as there are in a shortest frame.
    let n_zeros = rest.iter().rev().take_while(|&&byte| byte == 0).count();
    if n_zeros >= 1024 { bytes.len() - rest.len() + last_frame_gap(rest, n_zeros) } else { bytes.len() - rest.len() }
}

/// How many of the zeros at the end of `bytes` come after the last frame.
fn last_frame_gap(bytes: &[u8], n_zeros: usize) -> usize {
    let mut at = id3_bytes(bytes).min(bytes.len());
    at += bytes[at..].iter().take_while(|&&byte| byte == 0).count();
    while let Some(Ok(frame)) = bytes.get(at..).and_then(Frame::read) {
        at += frame.n_bytes;
    }
    if at + n_zeros >= bytes.len() { bytes.len().saturating_sub(at) } else { 0 }
}

/// A frame's header.
struct Frame {
    is_mpeg1: bool,
    sample_rate: u32,
    n_channels: usize,
    /// Length with the header.
    n_bytes: usize,
    /// Samples per channel.
    n_samples: u64,
}

impl Frame {
    /// The frame that `bytes` begin with, `None` if they begin with something else.
    fn read(bytes: &[u8]) -> Option<Result<Self, Failure>> {
        // kbit/s of layer III, in MPEG 1 and in MPEG 2 and 2.5.
        const RATES: [[usize; 15]; 2] = [
            [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ];
        let &[0xFF, second, third, fourth] = bytes.first_chunk()? else { return None };
        if second & 0xE0 != 0xE0 {
            return None;
        }
        let version = second >> 3 & 3;
        let is_mpeg1 = version == 3;
        let kilobits = *RATES[usize::from(!is_mpeg1)].get(usize::from(third >> 4))?;
        let sample_rate = *[44_100_u32, 48_000, 32_000].get(usize::from(third >> 2 & 3))?;
        let sample_rate = match version {
            0 => sample_rate / 4,
            2 => sample_rate / 2,
            3 => sample_rate,
            _ => return None,
        };
        let unread = |what: &str| Some(Err(AudioReason::Codec(what.into()).into()));
        match second >> 1 & 3 {
            0 => return None,
            1 if kilobits == 0 => return unread("MP3 of a free bit rate"),
            1 => {}
            2 => return unread("MPEG audio of layer II"),
            _ => return unread("MPEG audio of layer I"),
        }
        let n_samples = if is_mpeg1 { 1152 } else { 576 };
        let n_bytes = n_samples / 8 * 1000 * kilobits / sample_rate as usize + usize::from(third >> 1 & 1);
        let n_channels = if fourth >> 6 == 3 { 1 } else { 2 };
        Some(Ok(Self { is_mpeg1, sample_rate, n_channels, n_bytes, n_samples: n_samples as u64 }))
    }
}

/// What an encoder says about the whole in the first frame.
#[derive(Default)]
struct Info {
    is_there: bool,
    n_frames: Option<u64>,
    /// Bytes of all frames, this one among them.
    n_bytes: Option<u64>,
    /// Samples that the encoder put before the audio.
    delay: Option<u64>,
    /// Samples that it put after it.
    padding: u64,
}

impl Info {
    fn read(frame: &[u8], header: &Frame) -> Option<Self> {
        let u32_at = |at: usize| Some(u64::from(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?)));
        if frame.get(36..)?.starts_with(b"VBRI") {
            let (n_bytes, n_frames) = (u32_at(46), u32_at(50));
            return Some(Self { is_there: true, n_frames, n_bytes, ..Self::default() });
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
        let mut info = Self { is_there: true, n_frames, n_bytes, ..Self::default() };
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
