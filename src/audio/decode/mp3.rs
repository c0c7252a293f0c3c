//! MP3: frames one after the other, tags before and after them.
//!
//! There is no checksum over the audio, and a length only where the encoder wrote one into the first frame, which is
//! then silent (Xing, LAME, VBRI). The frames are found here, so nothing is skipped unseen, and given to the decoder one
//! by one.

use std::io::{self, Cursor, Read};

use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::{Demux, Sink, decoder_for, malformed};
use crate::audio::AudioReason;
use crate::audio::source::{Failure, read_up_to};

/// Samples by which every decoder is late.
const DECODER_DELAY: u64 = 529;

/// So many bytes after a frame are looked at before it is decoded, so that the end of the file is seen, and tags there.
const LOOKAHEAD: usize = 1 << 16;

/// The longest tag after the last frame: there are covers in some. And how often one is looked for.
const MAX_TAG: usize = 1 << 24;
const MAX_SOUGHT: u32 = 8;

pub(super) struct Mp3 {
    bytes: Box<dyn Read + Send>,
    /// Bytes of frames not decoded yet, from `at` on; what is after the last frame is cut off.
    window: Vec<u8>,
    at: usize,
    /// Where in the file `window` begins.
    place: usize,
    is_ended: bool,
    decoder: Box<dyn AudioDecoder>,
    first: Frame,
    info: Info,
    delay: Option<u64>,
    /// Frames decoded or skipped, and the bytes of all so far.
    n_frames: u64,
    n_bytes: u64,
    /// How often a tag was looked for.
    n_sought: u32,
}

impl Mp3 {
    /// `place` is where in the file the bytes begin.
    pub(super) fn open(bytes: Box<dyn Read + Send>, place: usize, sink: &mut Sink) -> Result<Self, Failure> {
        let mut params = AudioCodecParameters::new();
        params.for_codec(CODEC_ID_MP3);
        let mut mp3 = Self {
            bytes,
            window: Vec::new(),
            at: 0,
            place,
            is_ended: false,
            decoder: decoder_for(&params)?,
            first: Frame::default(),
            info: Info::default(),
            delay: None,
            n_frames: 0,
            n_bytes: 0,
            n_sought: 0,
        };
        mp3.read_on(LOOKAHEAD)?;
        if mp3.window.is_empty() {
            return Err(malformed("the file ends within or after its ID3 tag"));
        }
        // Some programs fill up the space after a tag.
        while mp3.window[mp3.at..].first() == Some(&0) {
            mp3.at += mp3.window[mp3.at..].iter().take_while(|&&byte| byte == 0).count();
            mp3.read_on(LOOKAHEAD)?;
        }
        mp3.first = match Frame::read(&mp3.window[mp3.at..]) {
            Some(first) => first?,
            None => return Err(malformed(format!("there is no MPEG frame at byte {}", mp3.place + mp3.at))),
        };
        let first = &mp3.first;
        let frame = mp3.window.get(mp3.at..mp3.at + first.n_bytes);
        mp3.info = frame.and_then(|frame| Info::read(frame, first)).unwrap_or_default();
        sink.set_format(first.sample_rate, first.n_channels)?;
        mp3.delay = mp3.info.delay.map(|delay| delay + DECODER_DELAY);
        sink.skip = mp3.delay.unwrap_or(0);
        if mp3.info.n_frames.is_some() {
            sink.hold = mp3.padding() as usize;
        }
        if mp3.info.is_there {
            mp3.at += mp3.first.n_bytes;
            mp3.n_bytes += mp3.first.n_bytes as u64;
        }
        Ok(mp3)
    }

    /// Samples at the end of the frames declared that are not audio.
    fn padding(&self) -> u64 {
        self.delay.map_or(0, |_| self.info.padding.saturating_sub(DECODER_DELAY))
    }

    /// Reads until `n` bytes are there from `at` on, or the file is at its end.
    fn read_on(&mut self, n: usize) -> Result<(), Failure> {
        if self.is_ended || self.window.len() - self.at >= n {
            return Ok(());
        }
        self.window.drain(..self.at);
        self.place += self.at;
        self.at = 0;
        let n_before = self.window.len();
        self.window.resize(n + LOOKAHEAD, 0);
        let n_read = read_up_to(&mut self.bytes, &mut self.window[n_before..])?;
        self.window.truncate(n_before + n_read);
        if self.window.len() < n + LOOKAHEAD {
            self.is_ended = true;
            let n_after = trailing_bytes(&self.window);
            self.window.truncate(self.window.len() - n_after);
        }
        Ok(())
    }

    /// At bytes that are no frame: whether they are a tag at the end of the file, which is then cut off.
    fn is_tag(&mut self) -> Result<bool, Failure> {
        if self.n_sought == MAX_SOUGHT {
            return Ok(false);
        }
        self.n_sought += 1;
        self.read_on(MAX_TAG)?;
        Ok(self.is_ended && self.at >= self.window.len())
    }

    /// Goes on to the next two frames in a row that are like the first, and skips what is before them.
    fn resync(&mut self, sink: &mut Sink, detail: String) -> Result<(), Failure> {
        let mut n_lost = 0;
        loop {
            self.read_on(LOOKAHEAD)?;
            let rest = &self.window[self.at..];
            let alike = |at: usize| match rest.get(at..).and_then(Frame::read) {
                Some(Ok(frame)) if frame.is_like(&self.first) => Some(at + frame.n_bytes),
                _ => None,
            };
            let is_frame = |at: usize| alike(at).is_some_and(|next| next == rest.len() || alike(next).is_some());
            // The last frame that can be seen as a whole may be one byte before the middle.
            let n_sought = if self.is_ended { rest.len() } else { rest.len() / 2 };
            let found = (1..n_sought).find(|&at| is_frame(at));
            let n = found.unwrap_or(n_sought).max(1).min(rest.len());
            self.at += n;
            n_lost += n;
            if found.is_some() || self.is_ended {
                break;
            }
        }
        // Frames damaged in place, or bytes that do not belong there: told by their number.
        let frame_bytes = match self.n_frames {
            0 => self.first.n_bytes as f64,
            n => self.n_bytes as f64 / n as f64,
        };
        let n_frames = (n_lost as f64 / frame_bytes).round() as u64;
        self.n_frames += n_frames;
        self.n_bytes += n_lost as u64;
        sink.skip_over(n_frames * self.first.n_samples, n_frames, detail)
    }

    fn end(&mut self, sink: &mut Sink, cut: Option<usize>) -> Result<bool, Failure> {
        if let Some(declared) = self.info.n_frames {
            // Some encoders count the frame with the count; then the bytes that they state are all there.
            let counts_itself =
                self.n_frames + 1 == declared && cut.is_none() && self.info.n_bytes == Some(self.n_bytes);
            if self.n_frames < declared && !counts_itself {
                // What is not audio at both ends of the frames declared.
                let around = self.delay.map_or(0, |delay| delay + self.padding());
                let declared = (declared * self.first.n_samples).saturating_sub(around);
                return Err(AudioReason::Truncated { declared, found: sink.n_kept().min(declared) }.into());
            }
            // More frames: files were joined. Then the padding lies somewhere within.
            if self.n_frames <= declared {
                sink.drop_last(sink.hold);
            }
        }
        if let Some(place) = cut {
            let detail = format!("the file ends within the MPEG frame at byte {place}");
            return Err(AudioReason::EndsEarly { found: sink.n_kept(), detail }.into());
        }
        Ok(false)
    }
}

impl Demux for Mp3 {
    fn advance(&mut self, sink: &mut Sink) -> Result<bool, Failure> {
        self.read_on(LOOKAHEAD)?;
        let rest = &self.window[self.at..];
        let place = self.place + self.at;
        if rest.is_empty() {
            return self.end(sink, None);
        }
        let frame = match Frame::read(rest) {
            Some(Err(_)) if sink.skip_damage && self.n_frames > 0 => None,
            // A header that alone says something else is damaged.
            Some(Ok(frame)) if sink.skip_damage && self.n_frames > 0 && !frame.is_like(&self.first) => {
                let next = rest.get(frame.n_bytes..).and_then(Frame::read);
                matches!(next, Some(Ok(next)) if next.is_like(&frame)).then_some(frame)
            }
            Some(frame) => Some(frame?),
            None if rest.len() < 4 => return self.end(sink, Some(place)),
            None => None,
        };
        let Some(frame) = frame else {
            if self.is_tag()? {
                return self.end(sink, None);
            }
            let detail = format!("there is no MPEG frame at byte {place}");
            if !sink.skip_damage {
                return Err(sink.damaged(detail));
            }
            self.resync(sink, detail)?;
            return Ok(true);
        };
        sink.set_format(frame.sample_rate, frame.n_channels)?;
        let Some(data) = rest.get(..frame.n_bytes) else {
            return self.end(sink, Some(place));
        };
        let n_before = sink.n_decoded;
        let packet = Packet::new(0, Timestamp::ZERO, Duration::from(frame.n_samples), data);
        sink.decode(self.decoder.as_mut(), &packet, frame.n_samples)?;
        let n_missing = frame.n_samples.saturating_sub(sink.n_decoded - n_before);
        if n_missing > 0 {
            let detail = format!("the MPEG frame at byte {place} is damaged");
            if !sink.skip_damage {
                return Err(malformed(detail));
            }
            sink.skip_over(n_missing, 1, detail)?;
        }
        self.n_frames += 1;
        self.n_bytes += frame.n_bytes as u64;
        self.at += frame.n_bytes;
        Ok(true)
    }

    fn declared(&self) -> Option<u64> {
        let around = self.delay.map_or(0, |delay| delay + self.padding());
        Some((self.info.n_frames? * self.first.n_samples).saturating_sub(around))
    }
}

/// The first bytes of a stream, and all of it.
type Started = (Vec<u8>, Box<dyn Read + Send>);

/// Steps over ID3v2 tags. Their length, and what is after them.
pub(super) fn after_id3(mut bytes: Box<dyn Read + Send>) -> io::Result<(usize, Started)> {
    let mut n_tags = 0;
    loop {
        let mut start = vec![0; 10];
        let n = read_up_to(&mut bytes, &mut start)?;
        start.truncate(n);
        let n_tag = id3_bytes(&start);
        if n_tag == 0 {
            return Ok((n_tags, (start.clone(), Box::new(Cursor::new(start).chain(bytes)))));
        }
        io::copy(&mut (&mut bytes).take((n_tag - 10) as u64), &mut io::sink())?;
        n_tags += n_tag;
    }
}

/// The length of the ID3v2 tag that `bytes` begin with, as it is stated; 0 if there is none.
fn id3_bytes(bytes: &[u8]) -> usize {
    let Some(&[b'I', b'D', b'3', _, _, flags, a, b, c, d]) = bytes.first_chunk() else { return 0 };
    let n = [a, b, c, d].iter().fold(0, |n, &byte| n << 7 | usize::from(byte & 0x7F));
    10 + n + if flags & 0x10 != 0 { 10 } else { 0 }
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
    let mut at = bytes.iter().take_while(|&&byte| byte == 0).count();
    while let Some(Ok(frame)) = bytes.get(at..).and_then(Frame::read) {
        at += frame.n_bytes;
    }
    if at + n_zeros >= bytes.len() { bytes.len().saturating_sub(at) } else { 0 }
}

/// A frame's header.
#[derive(Default)]
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
    /// Whether two frames have the same rate and channels.
    fn is_like(&self, other: &Self) -> bool {
        (self.sample_rate, self.n_channels) == (other.sample_rate, other.n_channels)
    }

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
