//! Logarithms of power, fast enough to be negligible beside the Fourier transform.

use std::f64::consts::{LN_10, SQRT_2};

use serde::{Deserialize, Serialize};

/// The logarithm of a mel spectrum `x`. `amin` and `reference` are settings of the front end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogScale {
    /// `10 log10(max(x, amin)) - 10 log10(max(amin, reference))`: decibels, as librosa's `power_to_db`.
    #[default]
    Decibel,
    /// `ln(max(x, amin)) - ln(max(amin, reference))`.
    Natural,
    /// `ln(x + amin) - ln(max(amin, reference))`: no clipping; silence becomes `ln(amin)` (with `reference` up to
    /// `amin`).
    NaturalOffset,
}

impl LogScale {
    /// One decibel in units of this scale.
    pub(super) fn per_decibel(self) -> f64 {
        match self {
            Self::Decibel => 1.0,
            Self::Natural | Self::NaturalOffset => LN_10 / 10.0,
        }
    }

    /// Writes the logarithm of each value. `offset` is `10 log10(max(amin, reference))`. `power` is overwritten.
    #[inline(always)]
    pub(super) fn apply(self, power: &mut [f64], amin: f64, offset: f64, out: &mut [f32]) {
        if self == Self::NaturalOffset {
            power.iter_mut().for_each(|x| *x += amin);
        }
        match self {
            Self::Decibel => power_to_db(power, amin, offset, out),
            Self::Natural | Self::NaturalOffset => power_to_ln(power, amin, offset, out),
        }
    }
}

/// Writes `10 log10(max(power, amin)) - offset` for each value. `amin` must be a positive normal number.
///
/// The error is below 1e-8 dB before rounding to f32. One loop without branches or calls, so that the compiler
/// vectorises it.
#[inline(always)]
fn power_to_db(power: &[f64], amin: f64, offset: f64, out: &mut [f32]) {
    for (out, &power) in out.iter_mut().zip(power) {
        *out = (10.0 * log10(power.max(amin)) - offset) as f32;
    }
}

/// Writes `ln(max(power, amin)) - offset ln(10) / 10` for each value; otherwise as [`power_to_db`].
#[inline(always)]
fn power_to_ln(power: &[f64], amin: f64, offset: f64, out: &mut [f32]) {
    for (out, &power) in out.iter_mut().zip(power) {
        *out = ((log10(power.max(amin)) - offset / 10.0) * LN_10) as f32;
    }
}

/// `log10(x)` of a positive normal `x`, within 1e-9.
///
/// `x = 2^e m` with `m` in √½..√2; then `ln m = 2 atanh(s)`, `s = (m - 1) / (m + 1)`, `|s| < 0.172`, by its power
/// series.
#[inline(always)]
fn log10(x: f64) -> f64 {
    // Adding the distance from √½ to 1 before cutting off the mantissa rounds x to the nearest power of two.
    const ONE: u64 = 1.0f64.to_bits();
    const HALF_ROOT: u64 = (SQRT_2 / 2.0).to_bits();
    const EXPONENT_IN_MANTISSA: f64 = (1u64 << 52) as f64;
    let shifted = x.to_bits() + (ONE - HALF_ROOT);
    // Puts `e + 1023` into the low bits of 2^52: an integer-to-float conversion without the instruction that SSE2
    // lacks.
    let e = f64::from_bits((shifted >> 52) | EXPONENT_IN_MANTISSA.to_bits()) - (EXPONENT_IN_MANTISSA + 1023.0);
    let m = f64::from_bits((shifted & ((1 << 52) - 1)) + HALF_ROOT);
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0)))));
    e * std::f64::consts::LOG10_2 + s * series * (2.0 * std::f64::consts::LOG10_E)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library() {
        let mut x: f64 = 1.2e-45;
        while x < 1e80 {
            for x in [x, x.next_up(), x.next_down()] {
                assert!((log10(x) - x.log10()).abs() < 1e-9, "log10({x:e}) = {}", log10(x));
            }
            x *= 1.000_3;
        }
        for e in -140..250 {
            let x = 2f64.powi(e);
            for x in [x, x * SQRT_2, (x * SQRT_2).next_down(), (x * SQRT_2).next_up(), x.next_down()] {
                assert!((log10(x) - x.log10()).abs() < 1e-9, "log10({x:e}) = {}", log10(x));
            }
        }
    }
}
