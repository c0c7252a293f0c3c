//! Destination of decoded packets: mixes the channels, counts samples, and skips damage.

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::packet::Packet;

use super::input::SourceStatus;
use super::{check_format, detail};
use crate::audio::mixer::Mixer;
use crate::audio::source::Failure;
use crate::audio::{AudioReason, Channels, Note, ReadOptions, Skipped};

/// Limit on the samples per channel that a byte of a file may decode to, beyond [`MAX_EXPANDED`]. Digital silence in
/// FLAC reaches about 400; a crafted file could reach 10000.
const MAX_EXPANSION: u64 = 1024;

/// 256 MiB of samples.
const MAX_EXPANDED: u64 = 1 << 26;

/// Limit on the silence that replaces missing audio, in samples: 6 minutes at 44.1 kHz.
const MAX_GAP: u64 = 1 << 24;

/// Limit on the number of gaps that are listed.
const MAX_SKIPPED: usize = 1000;

/// Mixes decoded buffers to one channel and counts samples. Numbers of samples are per channel.
pub(super) struct Sink {
    channels: Channels,
    pub(super) skip_damage: bool,
    /// Decoded samples that have not been returned.
    ready: Vec<f32>,
    /// Samples at the end of `ready` that may turn out to be encoder padding.
    pub(super) held_back: usize,
    /// Encoder delay in samples: dropped before the audio.
    pub(super) encoder_delay: u64,
    /// Number of audio samples after the encoder delay; what follows is encoder padding.
    pub(super) max_samples: Option<u64>,
    /// Samples decoded, including encoder delay and padding.
    pub(super) n_decoded: u64,
    /// Sample rate and channel mixer, once the format is known.
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

    /// Sample rate and number of channels, once they are known.
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

    /// Number of samples that can be returned.
    pub(super) fn n_ready(&self) -> usize {
        self.ready.len().saturating_sub(self.held_back)
    }

    /// Appends the samples that can be returned.
    pub(super) fn give(&mut self, output: &mut Vec<f32>) {
        let n = self.n_ready();
        output.extend(self.ready.drain(..n));
    }

    /// Releases the samples that were held back.
    pub(super) fn release(&mut self) {
        self.held_back = 0;
    }

    pub(super) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Decodes a packet. If that fails, the packet is recorded as damage of `n_samples` samples.
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

    /// Decodes a packet. Returns a description of the damage if it cannot be decoded.
    pub(super) fn decode_or(
        &mut self,
        decoder: &mut dyn AudioDecoder,
        packet: &Packet,
    ) -> Result<Option<String>, Failure> {
        match decoder.decode(packet) {
            Ok(buffer) => self.take(&buffer).map(|()| None),
            // Once packets of this stream have been decoded, "unsupported" means damage.
            Err(Symphonia::Unsupported(what)) if self.n_decoded == 0 || !self.skip_damage => {
                Err(AudioReason::Codec(what.into()).into())
            }
            Err(error) => Ok(Some(detail(&error))),
        }
    }

    /// The error for a packet that is damaged or missing.
    pub(super) fn damaged(&self, detail: impl Into<String>) -> Failure {
        AudioReason::Damaged { index: self.n_output(), detail: detail.into() }.into()
    }

    /// Replaces damage by silence. An error unless `skip_damage` is set.
    pub(super) fn skip_over(&mut self, n_samples: u64, n_packets: u64, detail: String) -> Result<(), Failure> {
        let n = self.ready.len();
        self.skip_over_at(n, n_samples, n_packets, detail)
    }

    /// As [`skip_over`](Self::skip_over), with the silence inserted at index `at` of the samples that are ready.
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
            let detail =
                format!("{detail}; {n_samples} samples are missing, more than the {MAX_GAP} that can be skipped");
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

    /// Number of samples so far, without the encoder delay.
    pub(super) fn n_output(&self) -> u64 {
        self.n_decoded.saturating_sub(self.encoder_delay)
    }

    /// Sets sample rate and number of channels. An error if they change.
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

    /// Counts `n` more samples. Returns the range of those that are audio.
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

    /// Number of samples that are ready, including those held back.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    /// Removes the last `n` samples (encoder padding).
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
