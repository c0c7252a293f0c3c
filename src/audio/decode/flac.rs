//! FLAC: frames with checksums and numbers, taken apart by `symphonia`.

use std::io::{self, Read};
use std::sync::Mutex;

use super::input::InOrder;
use super::{Demux, Next, Packets, Sink, decoder, malformed, mp3, probe};
use crate::audio::AudioReason;
use crate::audio::source::Failure;

pub(super) struct Flac {
    packets: Packets,
    declared: Option<u64>,
}

impl Flac {
    /// Opens a stream, which may be followed by an ID3v1 tag.
    pub(super) fn open(bytes: Box<dyn Read + Send>, sink: &mut Sink) -> Result<Self, Failure> {
        let bytes = Box::new(WithoutTag { bytes, pending: Vec::new(), at: 0, is_ended: false });
        let reader = probe(Box::new(InOrder(Mutex::new(bytes))), "flac")?;
        let track = reader.tracks().first().cloned().ok_or_else(|| malformed("there is no audio track"))?;
        let decoder = decoder(&track)?;
        let params = track.codec_params.as_ref().and_then(|params| params.audio());
        if let Some((rate, channels)) = params.and_then(|p| Some((p.sample_rate?, p.channels.as_ref()?.count()))) {
            sink.set_format(rate, channels)?;
        }
        Ok(Self { packets: Packets { reader, decoder, track_id: track.id }, declared: track.num_frames })
    }
}

impl Demux for Flac {
    fn advance(&mut self, sink: &mut Sink) -> Result<bool, Failure> {
        if let Next::Packet(packet) = self.packets.next(sink, |_| Ok(()))? {
            // The reader steps over what it cannot make out.
            let begins = u64::try_from(packet.pts.get()).unwrap_or(0);
            if begins != sink.n_decoded {
                let detail = format!("the next whole frame begins at sample {begins}");
                sink.skip_over(begins.saturating_sub(sink.n_decoded), 1, detail)?;
            }
            if begins == sink.n_decoded {
                self.packets.decode(&packet, packet.dur.get(), sink)?;
            }
            return Ok(true);
        }
        let found = sink.n_decoded;
        match self.declared {
            Some(declared) if found < declared => return Err(AudioReason::Truncated { declared, found }.into()),
            Some(declared) if found > declared => {
                return Err(malformed(format!(
                    "the header declares {declared} samples per channel, {found} are there"
                )));
            }
            _ => {}
        }
        if self.packets.decoder.finalize().verify_ok == Some(false) && sink.skipped().is_empty() {
            return Err(malformed("the samples do not have the MD5 sum that the header states"));
        }
        Ok(false)
    }

    fn declared(&self) -> Option<u64> {
        self.declared
    }
}

/// Leaves out an ID3v1 tag at the end.
struct WithoutTag {
    bytes: Box<dyn Read + Send>,
    /// What was read, given out up to `at`.
    pending: Vec<u8>,
    at: usize,
    is_ended: bool,
}

impl Read for WithoutTag {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // As long as a tag.
        const HELD: usize = 128;
        while !self.is_ended && self.pending.len() - self.at <= HELD {
            self.pending.drain(..self.at);
            self.at = 0;
            let n_before = self.pending.len();
            self.pending.resize(n_before + (1 << 15), 0);
            let n = self.bytes.read(&mut self.pending[n_before..]);
            self.pending.truncate(n_before + n.as_ref().map_or(0, |&n| n));
            if n? == 0 {
                self.is_ended = true;
                self.pending.truncate(n_before - mp3::id3v1_bytes(&self.pending));
            }
        }
        let held = if self.is_ended { 0 } else { HELD };
        let n = (self.pending.len() - self.at - held).min(buffer.len());
        buffer[..n].copy_from_slice(&self.pending[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
