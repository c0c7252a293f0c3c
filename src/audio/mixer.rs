//! From interleaved channels to one, with an eye on the levels.

use super::{AudioReason, Channels, Note};

/// Float samples beyond this look like integers: 40 dB above full scale.
const MAX_PEAK: f32 = 100.0;

/// Channels cancel if their mean has less than this part of the power that unrelated channels leave in it.
const CANCELLED: f64 = 0.1;

/// Makes one channel of several, sample by sample.
pub(super) struct Mixer {
    channels: Channels,
    n_channels: usize,
    peak: f32,
    /// Sums of squares: of the mean, and the mean of those of the channels.
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

    /// Appends one channel made of interleaved `samples`, a whole number per channel, each worth `scale` times `value`.
    /// They follow `n_before` samples per channel.
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
            // In f64 the sum of integers is exact, and the sum of finite 32-bit floats is finite.
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

    /// What the levels so far tell.
    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.peak > MAX_PEAK {
            let full_scale = [15, 23].map(|bits| 2_f32.powi(bits)).into_iter().find(|&full| self.peak <= full);
            notes.push(Note::IntegerScale { peak: self.peak, full_scale: full_scale.unwrap_or(2_f32.powi(31)) });
        }
        let is_mean = self.channels == Channels::Mean && self.n_channels > 1;
        if is_mean && self.mixed_power < CANCELLED * self.channel_power / self.n_channels as f64 {
            // At most the range of an f32's square, so that the number stays one.
            let ratio = self.channel_power / self.mixed_power.max(self.channel_power * 1e-20);
            notes.push(Note::ChannelsCancel { decibels: (10.0 * ratio.log10()) as f32 });
        }
        notes
    }
}
