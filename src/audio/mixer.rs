//! Mixing interleaved channels to one, and detection of suspicious levels.

use super::{AudioReason, Channels, Note};

/// Float samples above this (40 dB above full scale) are taken for integers.
const MAX_PEAK: f32 = 100.0;

/// Channels cancel if the power of their mean is below this fraction of that of uncorrelated channels.
const CANCELLED: f64 = 0.1;

/// Mixes several channels to one.
pub(super) struct Mixer {
    channels: Channels,
    n_channels: usize,
    peak: f32,
    /// Sums of squares: of the mixed channel, and of the input channels (averaged over channels).
    mixed_power: f64,
    channel_power: f64,
}

impl Mixer {
    pub(super) fn new(channels: Channels, n_channels: usize) -> Result<Self, AudioReason> {
        match channels {
            Channels::One(channel) if channel >= n_channels => {
                Err(AudioReason::NoSuchChannel { channel, count: u16::try_from(n_channels).unwrap_or(u16::MAX) })
            }
            _ => Ok(Self { channels, n_channels, peak: 0.0, mixed_power: 0.0, channel_power: 0.0 }),
        }
    }

    pub(super) fn n_channels(&self) -> usize {
        self.n_channels
    }

    /// Mixes interleaved `samples` and appends the result. A sample is worth `scale · value(sample)`. `n_before`
    /// samples per channel came before.
    pub(super) fn mix<T: Copy>(
        &mut self,
        n_before: u64,
        samples: &[T],
        scale: f64,
        value: impl Fn(T) -> f64,
        output: &mut Vec<f32>,
    ) -> Result<(), AudioReason> {
        output.reserve(samples.len() / self.n_channels);
        let n_already = output.len();
        let (first, end) = match self.channels {
            Channels::Mean => (0, self.n_channels),
            Channels::One(channel) => (channel, channel + 1),
        };
        let n_mixed = (end - first) as f64;
        let (mut mixed_power, mut channel_power) = (0.0, 0.0);
        for (i, frame) in samples.chunks_exact(self.n_channels).enumerate() {
            // In f64 a sum of integers is exact, and a sum of finite f32 values is finite.
            let (mut sum, mut power) = (0.0, 0.0);
            for &sample in &frame[first..end] {
                let x = value(sample);
                sum += x;
                power += x * x;
            }
            let mixed = (sum * (scale / n_mixed)) as f32;
            if !mixed.is_finite() {
                let at = frame[first..end].iter().position(|&x| !(value(x) as f32).is_finite()).unwrap_or(0);
                let (index, channel) = (n_before + i as u64, first + at);
                return Err(AudioReason::NonFinite { index, channel, value: value(frame[channel]) as f32 });
            }
            mixed_power += f64::from(mixed) * f64::from(mixed);
            channel_power += power;
            output.push(mixed);
        }
        self.mixed_power += mixed_power;
        self.channel_power += channel_power * scale * scale / n_mixed;
        self.peak = output[n_already..].iter().fold(self.peak, |peak, x| peak.max(x.abs()));
        Ok(())
    }

    /// Notes about the levels so far.
    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.peak > MAX_PEAK {
            let full_scale = [15, 23].map(|bits| 2_f32.powi(bits)).into_iter().find(|&full| self.peak <= full);
            notes.push(Note::IntegerScale { peak: self.peak, full_scale: full_scale.unwrap_or(2_f32.powi(31)) });
        }
        let is_mean = self.channels == Channels::Mean && self.n_channels > 1;
        if is_mean && self.mixed_power < CANCELLED * self.channel_power / self.n_channels as f64 {
            // Bounded, so that the ratio stays finite as f32.
            let ratio = self.channel_power / self.mixed_power.max(self.channel_power * 1e-20);
            notes.push(Note::ChannelsCancel { decibels: (10.0 * ratio.log10()) as f32 });
        }
        notes
    }
}
