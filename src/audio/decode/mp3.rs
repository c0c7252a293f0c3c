//! MP3 and MP2: a sequence of frames, with tags before, between and after them.
//!
//! The audio has no checksum, and a length is known only if the encoder of an MP3 wrote it into the first frame, which
//! then holds no audio (Xing, LAME, VBRI). The frames are located here and passed to the decoder one by one, so that
//! nothing is skipped silently. In concatenated files each part has a first frame of its own.

mod frame;
pub(super) mod tags;

use std::io::Read;

use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP2, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::{Demux, Sink, decoder_for, malformed};
use crate::audio::AudioReason;
use crate::audio::source::{Failure, read_up_to};
use frame::{Frame, Info};

/// Delay of every MP3 decoder, in samples.
const DECODER_DELAY: u64 = 529;

/// Bytes after a frame that are read before it is decoded, so that the end of the file, and tags there, are detected.
const LOOKAHEAD: usize = 1 << 16;

/// The longest tag after the last frame (some contain cover images), and how often one is searched for.
const MAX_TAG: usize = 1 << 24;
const MAX_SOUGHT: u32 = 8;

/// Number of consecutive similar frames that identify MPEG audio after unknown bytes.
const MIN_FRAMES: usize = 3;

/// Offset of the first frame in a file that begins with other bytes.
pub(super) fn first_frame(bytes: &[u8]) -> Option<usize> {
    let sync = |&at: &usize| bytes[at] == 0xFF && Frame::are_at(at, bytes, MIN_FRAMES, None);
    (0..bytes.len()).find(sync)
}

/// Whether `bytes` begins with a frame header.
pub(super) fn is_frame(bytes: &[u8]) -> bool {
    Frame::read(bytes).is_some()
}

pub(super) struct Mp3 {
    bytes: Box<dyn Read + Send>,
    /// Buffered bytes; frames from `at` on are not decoded yet. Bytes after the last frame of the file are removed.
    window: Vec<u8>,
    at: usize,
    /// Offset of `window` in the file.
    place: u64,
    is_ended: bool,
    decoder: Box<dyn AudioDecoder>,
    first: Frame,
    part: Part,
    /// Whether another part came before this one.
    is_joined: bool,
    /// How often a tag has been searched for.
    n_sought: u32,
}

/// One of several concatenated files.
#[derive(Default)]
struct Part {
    info: Info,
    /// Samples of encoder and decoder delay that are still to be dropped.
    n_delay: u64,
    /// Frames decoded or skipped so far, and their bytes.
    n_frames: u64,
    n_bytes: u64,
    /// Number of samples in the file before this part.
    begins: u64,
}

impl Part {
    /// Samples at the beginning and the end of the declared frames that are not audio.
    fn around(&self) -> (u64, u64) {
        match self.info.delay {
            Some(delay) => (delay + DECODER_DELAY, self.info.padding.saturating_sub(DECODER_DELAY)),
            None => (0, 0),
        }
    }

    /// Number of audio samples in the declared frames.
    fn declared(&self, frame_samples: u64) -> Option<u64> {
        let (delay, padding) = self.around();
        Some(self.info.n_frames?.saturating_mul(frame_samples).saturating_sub(delay + padding))
    }
}

impl Mp3 {
    /// `place` is the offset in the file of the first byte, where a frame is expected.
    pub(super) fn open(bytes: Box<dyn Read + Send>, place: u64, sink: &mut Sink) -> Result<Self, Failure> {
        let mut mp3 = Self {
            bytes,
            window: Vec::new(),
            at: 0,
            place,
            is_ended: false,
            decoder: decoder_for(AudioCodecParameters::new().for_codec(CODEC_ID_MP3))?,
            first: Frame::default(),
            part: Part::default(),
            is_joined: false,
            n_sought: 0,
        };
        mp3.read_on(LOOKAHEAD)?;
        mp3.first = match Frame::read(&mp3.window) {
            Some(first) => first?,
            None => return Err(malformed(format!("expected an MPEG frame at byte {place}"))),
        };
        if mp3.first.layer == 2 {
            mp3.decoder = decoder_for(AudioCodecParameters::new().for_codec(CODEC_ID_MP2))?;
        }
        sink.set_format(mp3.first.sample_rate, mp3.first.n_channels)?;
        let frame = mp3.window.get(..mp3.first.n_bytes);
        if let Some(info) = frame.and_then(|frame| Info::read(frame, &mp3.first)) {
            mp3.begin(info, mp3.first.n_bytes, sink);
        }
        Ok(mp3)
    }

    /// Begins a part whose first frame describes it.
    fn begin(&mut self, info: Info, n_bytes: usize, sink: &mut Sink) {
        self.part = Part { info, begins: sink.n_decoded, n_bytes: n_bytes as u64, ..Part::default() };
        let (delay, padding) = self.part.around();
        self.part.n_delay = delay;
        sink.held_back = if self.part.info.n_frames.is_some() { padding as usize } else { 0 };
        self.decoder.reset();
        self.at += n_bytes;
    }

    /// Reads until `n` bytes are available from `at` on, or to the end of the file.
    fn read_on(&mut self, n: usize) -> Result<(), Failure> {
        if self.is_ended || self.window.len() - self.at >= n {
            return Ok(());
        }
        self.window.drain(..self.at);
        self.place += self.at as u64;
        self.at = 0;
        let n_before = self.window.len();
        self.window.resize(n + LOOKAHEAD, 0);
        let n_read = read_up_to(&mut self.bytes, &mut self.window[n_before..])?;
        self.window.truncate(n_before + n_read);
        if self.window.len() < n + LOOKAHEAD {
            self.is_ended = true;
            let n_after = tags::trailing_bytes(&self.window);
            self.window.truncate(self.window.len() - n_after);
        }
        Ok(())
    }

    /// Skips `n` bytes, or to the end.
    fn skip(&mut self, mut n: u64) -> Result<(), Failure> {
        while n > 0 && self.at < self.window.len() {
            let n_now = n.min((self.window.len() - self.at) as u64);
            self.at += n_now as usize;
            n -= n_now;
            self.read_on(LOOKAHEAD)?;
        }
        Ok(())
    }

    /// Called where no frame begins: whether a tag reaches to the end of the file. If so, it is removed.
    fn is_tag(&mut self) -> Result<bool, Failure> {
        if self.n_sought == MAX_SOUGHT {
            return Ok(false);
        }
        self.n_sought += 1;
        self.read_on(MAX_TAG)?;
        Ok(self.is_ended && self.at >= self.window.len())
    }

    /// Continues at the next two consecutive frames that are similar to the first, and skips what is before them.
    fn resync(&mut self, sink: &mut Sink, detail: String) -> Result<(), Failure> {
        let mut n_lost = 0;
        loop {
            self.read_on(LOOKAHEAD)?;
            let rest = &self.window[self.at..];
            // Search the first half only, so that both frames are within the window.
            let n_sought = if self.is_ended { rest.len() } else { rest.len() / 2 };
            let found = (1..n_sought).find(|&at| Frame::are_at(at, rest, 2, Some(&self.first)));
            let n = found.unwrap_or(n_sought).max(1).min(rest.len());
            self.at += n;
            n_lost += n;
            if found.is_some() || self.is_ended {
                break;
            }
        }
        // Frames damaged in place, or foreign bytes: estimate the number of lost frames from the number of bytes.
        let frame_bytes = match self.part.n_frames {
            0 => self.first.n_bytes as f64,
            n => self.part.n_bytes as f64 / n as f64,
        };
        let n_frames = (n_lost as f64 / frame_bytes).round() as u64;
        self.part.n_frames += n_frames;
        self.part.n_bytes += n_lost as u64;
        sink.skip_over(n_frames * self.first.n_samples, n_frames, detail)
    }

    /// Checks that a part is complete, and drops the encoder padding.
    fn end_part(&mut self, sink: &mut Sink, is_cut: bool) -> Result<(), Failure> {
        let part = &self.part;
        if let Some(n_declared) = part.info.n_frames {
            // Some encoders count the describing frame as well; then the number of bytes matches exactly.
            let counts_itself = part.n_frames + 1 == n_declared && !is_cut && part.info.n_bytes == Some(part.n_bytes);
            if part.n_frames < n_declared && !counts_itself {
                let declared = part.declared(self.first.n_samples).unwrap_or(0);
                let found = (sink.n_output() - part.begins).min(declared);
                let (declared, found) = (declared + part.begins, found + part.begins);
                return Err(AudioReason::Truncated { declared, found }.into());
            }
            // More frames than declared: files were concatenated without a new first frame. Then the padding is
            // somewhere within.
            if part.n_frames <= n_declared {
                sink.drop_last(sink.held_back);
            }
        }
        sink.held_back = 0;
        Ok(())
    }

    fn end(&mut self, sink: &mut Sink, cut: Option<u64>) -> Result<bool, Failure> {
        self.end_part(sink, cut.is_some())?;
        if let Some(place) = cut {
            let detail = format!("the file ends within the MPEG frame at byte {place}");
            return Err(AudioReason::EndsEarly { found: sink.n_output(), detail }.into());
        }
        Ok(false)
    }

    /// Whether the next frame begins a new part. If so, begins it.
    fn joins(&mut self, frame: &Frame, sink: &mut Sink) -> Result<bool, Failure> {
        let data = self.window[self.at..].get(..frame.n_bytes);
        let Some(info) = data.and_then(|data| Info::read(data, frame)) else { return Ok(false) };
        match self.end_part(sink, false) {
            Err(Failure::Audio(reason)) if sink.skip_damage => sink.skip_over(0, 0, reason.to_string())?,
            result => result?,
        }
        self.is_joined = true;
        self.begin(info, frame.n_bytes, sink);
        Ok(true)
    }
}

impl Demux for Mp3 {
    fn advance(&mut self, sink: &mut Sink) -> Result<bool, Failure> {
        self.read_on(LOOKAHEAD)?;
        let rest = &self.window[self.at..];
        let place = self.place + self.at as u64;
        if rest.is_empty() {
            return self.end(sink, None);
        }
        let n_tag = tags::leading_bytes(rest);
        if n_tag > 0 {
            self.skip(n_tag)?;
            return Ok(true);
        }
        let frame = match Frame::read(rest) {
            Some(Err(_)) if sink.skip_damage && self.part.n_frames > 0 => None,
            // A single header that differs from its neighbours is damaged.
            Some(Ok(frame)) if sink.skip_damage && self.part.n_frames > 0 && !frame.is_like(&self.first) => {
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
            let detail = format!("expected an MPEG frame at byte {place}");
            if !sink.skip_damage {
                return Err(sink.damaged(detail));
            }
            self.resync(sink, detail)?;
            return Ok(true);
        };
        if frame.layer != self.first.layer {
            let detail = format!("expected MPEG audio of layer {}, got layer {}", self.first.layer, frame.layer);
            return Err(sink.damaged(detail));
        }
        sink.set_format(frame.sample_rate, frame.n_channels)?;
        if self.joins(&frame, sink)? {
            return Ok(true);
        }
        let Some(data) = self.window[self.at..].get(..frame.n_bytes) else {
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
        let n_early = self.part.n_delay.min(sink.n_decoded - n_before);
        sink.drop_at(sink.len() - (sink.n_decoded - n_before) as usize, n_early as usize);
        self.part.n_delay -= n_early;
        self.part.n_frames += 1;
        self.part.n_bytes += frame.n_bytes as u64;
        self.at += frame.n_bytes;
        Ok(true)
    }

    fn declared(&self) -> Option<u64> {
        if self.is_joined { None } else { self.part.declared(self.first.n_samples) }
    }
}
