//! What happens to a phrase before the net hears it, so that it does not learn the synthesisers' voices by heart.

use clipwise::augment::{Random, SpecAugment, add_noise};

use crate::RATE;
use crate::training::Failure;

/// Stripes of up to 60 ms and up to 7 of the 64 mels.
pub const STRIPES: SpecAugment =
    SpecAugment { time_drop_width: 7, time_stripes: 3, freq_drop_width: 8, freq_stripes: 2 };

/// Longer or shorter vocal tract and time (all in one, by ±13 %), silence around, now and then echoes and a narrow band, then
/// noise of some colour, 3 to 45 dB below.
pub fn augmented(samples: &[f32], random: &mut Random) -> Result<Vec<f32>, Failure> {
    let chance = |random: &mut Random, p: f64| random.uniform() < p;
    let mut samples = change_speed(samples, 0.87 + 0.28 * random.uniform());
    let around = (0.4 * f64::from(RATE)) as usize;
    let mut padded = vec![0.0; random.below(around)];
    padded.append(&mut samples);
    padded.resize(padded.len() + random.below(around), 0.0);
    let mut samples = padded;
    if chance(random, 0.4) {
        samples = echoed(&samples, random);
    }
    if chance(random, 0.3) {
        low_pass(&mut samples, 1_500.0 + 4_000.0 * random.uniform());
    }
    if chance(random, 0.3) {
        high_pass(&mut samples, 100.0 + 400.0 * random.uniform());
    }
    if chance(random, 0.9) {
        let mut noise: Vec<f32> = (0..samples.len()).map(|_| random.normal() as f32).collect();
        if chance(random, 0.6) {
            low_pass(&mut noise, 100.0 + 3_000.0 * random.uniform());
        }
        add_noise(&mut samples, &noise, 3.0 + 42.0 * random.uniform())?;
    }
    Ok(samples)
}

/// The clip played `factor` times as fast, by linear interpolation.
fn change_speed(samples: &[f32], factor: f64) -> Vec<f32> {
    let n = (samples.len() as f64 / factor) as usize;
    let value = |i: usize| {
        let place = i as f64 * factor;
        let (left, share) = ((place as usize).min(samples.len() - 1), place.fract() as f32);
        samples[left] * (1.0 - share) + samples[(left + 1).min(samples.len() - 1)] * share
    };
    (0..n.max(1)).map(value).collect()
}

/// The clip spoken `factor` times as fast at the same pitch: windows of 40 ms that overlap by half (Verhelst and Roelands, "An
/// overlap-add technique based on waveform similarity (WSOLA)", ICASSP 1993).
pub fn change_tempo(samples: &[f32], factor: f64) -> Vec<f32> {
    const HOP: usize = RATE as usize / 50;
    const SEEK: usize = HOP / 2;
    let at = |i: usize| samples.get(i).copied().unwrap_or(0.0);
    let n = (samples.len() as f64 / factor) as usize;
    let mut faster = vec![0.0; n.div_ceil(HOP) * HOP + HOP];
    let mut next = 0; // where the window before goes on
    for start in (0..n).step_by(HOP) {
        let ideal = (start as f64 * factor) as usize;
        let likeness = |from: usize| (0..HOP).step_by(2).map(|i| at(from + i) * at(next + i)).sum::<f32>();
        let candidates = (ideal.saturating_sub(SEEK)..=ideal + SEEK).step_by(4);
        let best = candidates.max_by(|&a, &b| likeness(a).total_cmp(&likeness(b))).unwrap_or(ideal);
        for (i, sum) in faster[start..start + 2 * HOP].iter_mut().enumerate() {
            let window = 0.5 - 0.5 * (std::f64::consts::PI * (i as f64 + 0.5) / HOP as f64).cos();
            *sum += at(best + i) * window as f32;
        }
        next = best + HOP;
    }
    faster.truncate(n.max(1));
    faster
}

/// With 60 echoes of a room whose sound falls by 60 dB in 0.1 to 0.6 s.
fn echoed(samples: &[f32], random: &mut Random) -> Vec<f32> {
    let length = f64::from(RATE) * (0.1 + 0.5 * random.uniform());
    let level = 0.1 + 0.3 * random.uniform();
    let mut echoed = samples.to_vec();
    for _ in 0..60 {
        let delay = 0.7 * length * random.uniform();
        let gain = (level * random.normal() * (-6.9 * delay / length).exp()) as f32;
        let delay = 20 + delay as usize;
        for (to, from) in echoed.iter_mut().skip(delay).zip(samples) {
            *to += gain * from;
        }
    }
    echoed
}

/// One pole at a frequency in Hz, twice.
fn low_pass(samples: &mut [f32], frequency: f64) {
    let keep = (-std::f64::consts::TAU * frequency / f64::from(RATE)).exp() as f32;
    for _ in 0..2 {
        let mut last = 0.0;
        for x in samples.iter_mut() {
            last = *x + keep * (last - *x);
            *x = last;
        }
    }
}

fn high_pass(samples: &mut [f32], frequency: f64) {
    let mut low = samples.to_vec();
    low_pass(&mut low, frequency);
    samples.iter_mut().zip(low).for_each(|(x, low)| *x -= low);
}
