//! Where decoded packets go: one channel is made of them, they are counted, and damage is skipped.

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::packet::Packet;

use super::input::SourceStatus;
use super::{check_format, detail};
use crate::audio::mixer::Mixer;
use crate::audio::source::Failure;
use crate::audio::{AudioReason, Channels, Note, ReadOptions, Skipped};

/// Samples per channel that a byte of a file may become, where they are more than [`MAX_EXPANDED`]. Digital silence in
/// FLAC makes some 400; a crafted file could make 10000 a byte.
const MAX_EXPANSION: u64 = 1024;

/// 256 MiB of samples.
const MAX_EXPANDED: u64 = 1 << 26;

/// The longest silence in place of what is missing, in samples: 6 minutes at 44.1 kHz.
const MAX_GAP: u64 = 1 << 24;

/// The most places that are listed.
const MAX_SKIPPED: usize = 1000;

/// Takes decoded buffers, makes one channel of them, and counts. Counts are per channel.
pub(super) struct Sink {
    channels: Channels,
    pub(super) skip_damage: bool,
    /// Decoded, and not given out.
    ready: Vec<f32>,
    /// Samples at the end of `ready` that may turn out to be the encoder's padding.
    pub(super) held_back: usize,
    /// Samples that come before the audio: the delay of the encoder.
    pub(super) encoder_delay: u64,
    /// The most samples after those that are audio: what follows is the encoder's padding.
    pub(super) max_samples: Option<u64>,
    /// Samples decoded, with the encoder delay and what lies beyond `max_samples`.
    pub(super) n_decoded: u64,
    /// The rate, once it is known, and what mixes the channels.
    mixer: Option<(u32, Mixer)>,
    status: SourceStatus,
    interleaved: Vec<f32>,
    skipped: Vec<Skipped>,
    notes: Vec<Note>,
}

impl Sink {
    pub(super) fn new(options: &ReadOptions, status: SourceStatus) -> Self {
        Self {
            channels: options.channels,
            skip_damage: options.skip_damage,
            ready: Vec::new(),
            held_back: 0,
            encoder_delay: 0,
            max_samples: None,
            n_decoded: 0,
            mixer: None,
            status,
            interleaved: Vec::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Rate and number of channels, once they are known.
    pub(super) fn format(&self) -> Option<(u32, usize)> {
        self.mixer.as_ref().map(|(rate, mixer)| (*rate, mixer.n_channels()))
    }

    /// Adds a note.
    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let levels = self.mixer.as_ref().map(|(_, mixer)| mixer.notes());
        self.notes.iter().cloned().chain(levels.into_iter().flatten()).collect()
    }

    /// How many samples can be given out.
    pub(super) fn n_ready(&self) -> usize {
        self.ready.len().saturating_sub(self.held_back)
    }

    /// Appends them.
    pub(super) fn give(&mut self, output: &mut Vec<f32>) {
        let n = self.n_ready();
        output.extend(self.ready.drain(..n));
    }

    /// Ends the waiting for padding.
    pub(super) fn release(&mut self) {
        self.held_back = 0;
    }

    pub(super) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Decodes a packet and takes what it holds. One that cannot be decoded is `n_samples` of damage.
    pub(super) fn decode(
        &mut self,
        decoder: &mut dyn AudioDecoder,
        packet: &Packet,
        n_samples: u64,
    ) -> Result<(), Failure> {
        match self.decode_or(decoder, packet)? {
            Some(detail) => {
                decoder.reset();
                self.skip_over(n_samples, 1, detail)
            }
            None => Ok(()),
        }
    }

    /// Decodes a packet and takes what it holds. What is wrong with one that cannot be decoded.
    pub(super) fn decode_or(
        &mut self,
        decoder: &mut dyn AudioDecoder,
        packet: &Packet,
    ) -> Result<Option<String>, Failure> {
        match decoder.decode(packet) {
            Ok(buffer) => self.take(&buffer).map(|()| None),
            // After packets that were understood it is damage.
            Err(Symphonia::Unsupported(what)) if self.n_decoded == 0 || !self.skip_damage => {
                Err(AudioReason::Codec(what.into()).into())
            }
            Err(error) => Ok(Some(detail(&error))),
        }
    }

    /// The error for a packet that cannot be read or decoded.
    pub(super) fn damaged(&self, detail: impl Into<String>) -> Failure {
        AudioReason::Damaged { index: self.n_output(), detail: detail.into() }.into()
    }

    /// Puts silence in place of damage, if damage is to be skipped.
    pub(super) fn skip_over(&mut self, n_samples: u64, n_packets: u64, detail: String) -> Result<(), Failure> {
        let n = self.ready.len();
        self.skip_over_at(n, n_samples, n_packets, detail)
    }

    /// As [`skip_over`](Self::skip_over), before the samples from `at` on of those that are ready.
    pub(super) fn skip_over_at(
        &mut self,
        at: usize,
        n_samples: u64,
        n_packets: u64,
        detail: String,
    ) -> Result<(), Failure> {
        let index = self.n_output() - (self.ready.len() - at) as u64;
        if !self.skip_damage {
            return Err(AudioReason::Damaged { index, detail }.into());
        }
        if n_samples > MAX_GAP {
            let detail = format!("{detail}; {n_samples} samples are missing, of which at most {MAX_GAP} are skipped");
            return Err(AudioReason::Damaged { index, detail }.into());
        }
        let kept = self.account(n_samples as usize)?;
        let n = kept.len();
        if n > 0 {
            self.ready.splice(at..at, std::iter::repeat_n(0.0, n));
        }
        let n_places = self.skipped.len();
        if let Some(last) = self.skipped.last_mut().filter(|last| last.index + last.n_samples == index) {
            last.n_samples += n as u64;
            last.n_packets += n_packets;
        } else if n_places < MAX_SKIPPED {
            let seconds = self.format().map_or(0.0, |(rate, _)| index as f64 / f64::from(rate));
            self.skipped.push(Skipped { index, seconds, n_samples: n as u64, n_packets, detail });
        }
        Ok(())
    }

    /// Samples so far, without those that are skipped as the encoder's delay.
    pub(super) fn n_output(&self) -> u64 {
        self.n_decoded.saturating_sub(self.encoder_delay)
    }

    /// States rate and channels, which must stay as they are.
    pub(super) fn set_format(&mut self, rate: u32, n_channels: usize) -> Result<(), Failure> {
        match self.format() {
            Some(format) if format == (rate, n_channels) => return Ok(()),
            Some(before) => {
                let name = |(rate, n_channels)| format!("{rate} Hz, {n_channels} channels");
                let (before, after) = (name(before), name((rate, n_channels)));
                return Err(AudioReason::FormatChange { index: self.n_output(), before, after }.into());
            }
            None => {}
        }
        check_format(Some(rate), Some(n_channels))?;
        self.mixer = Some((rate, Mixer::new(self.channels, n_channels)?));
        Ok(())
    }

    fn take(&mut self, buffer: &GenericAudioBufferRef<'_>) -> Result<(), Failure> {
        if buffer.frames() == 0 {
            return Ok(());
        }
        let n_channels = buffer.num_planes();
        self.set_format(buffer.spec().rate(), n_channels)?;
        buffer.copy_to_vec_interleaved(&mut self.interleaved);
        let index = self.n_output();
        let kept = self.account(buffer.frames())?;
        let Some((_, mixer)) = &mut self.mixer else { return Ok(()) }; // never: the format is set
        let samples = &self.interleaved[kept.start * n_channels..kept.end * n_channels];
        Ok(mixer.mix(index, samples, 1.0, f64::from, &mut self.ready)?)
    }

    /// Counts `n` samples more; which of them are audio.
    fn account(&mut self, n: usize) -> Result<std::ops::Range<usize>, Failure> {
        let n_before = self.n_decoded;
        self.n_decoded += n as u64;
        let start = self.encoder_delay.saturating_sub(n_before).min(n as u64) as usize;
        let end = self.max_samples.map_or(u64::MAX, |limit| self.encoder_delay.saturating_add(limit));
        let end = (end.saturating_sub(n_before).min(n as u64) as usize).max(start);
        let n_bytes = self.status.n_bytes();
        let limit = MAX_EXPANDED.max(n_bytes.saturating_mul(MAX_EXPANSION));
        if self.n_output() > limit && end > start {
            return Err(AudioReason::ExpandsTooMuch { n_bytes, limit }.into());
        }
        Ok(start..end)
    }

    /// How many samples wait to be given out, those held back among them.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    /// Takes the last `n` samples back, which are the encoder's padding.
    pub(super) fn drop_last(&mut self, n: usize) {
        let n = n.min(self.ready.len());
        self.ready.truncate(self.ready.len() - n);
        self.n_decoded -= n as u64;
    }

    /// Removes `n` samples, beginning at `at`.
    pub(super) fn drop_at(&mut self, at: usize, n: usize) {
        let n = n.min(self.ready.len() - at);
        self.ready.drain(at..at + n);
        self.n_decoded -= n as u64;
    }
}
