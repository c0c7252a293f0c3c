//! The quantile function of the normal distribution: M. J. Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37
//! (1988). Three rational functions, each given by the coefficients of numerator and denominator, constant first.

#[rustfmt::skip]
const CENTRE: [[f64; 8]; 2] = [
    [3.3871328727963665, 133.14166789178438, 1971.5909503065513, 13731.69376550946,
     45921.95393154987, 67265.7709270087, 33430.57558358813, 2509.0809287301227],
    [1.0, 42.31333070160091, 687.1870074920579, 5394.196021424751,
     21213.794301586597, 39307.89580009271, 28729.085735721943, 5226.495278852854],
];
#[rustfmt::skip]
const FLANK: [[f64; 8]; 2] = [
    [1.4234371107496835, 4.630337846156546, 5.769497221460691, 3.6478483247632045,
     1.2704582524523684, 0.2417807251774506, 0.022723844989269184, 0.0007745450142783414],
    [1.0, 2.053191626637759, 1.6763848301838038, 0.6897673349851,
     0.14810397642748008, 0.015198666563616457, 0.0005475938084995345, 1.0507500716444169e-9],
];
#[rustfmt::skip]
const TAIL: [[f64; 8]; 2] = [
    [6.657904643501103, 5.463784911164114, 1.7848265399172913, 0.29656057182850487,
     0.026532189526576124, 0.0012426609473880784, 2.7115555687434876e-5, 2.0103343992922881e-7],
    [1.0, 0.599832206555888, 0.1369298809227358, 0.014875361290850615,
     0.0007868691311456133, 1.8463183175100548e-5, 1.421511758316446e-7, 2.0442631033899397e-15],
];

/// Φ⁻¹, with a relative error of about 1e-15. −∞ at 0, ∞ at 1, NaN outside `0..=1`.
pub(super) fn inverse_normal_cdf(p: f64) -> f64 {
    let quotient = |[above, below]: [[f64; 8]; 2], x: f64| {
        let polynomial = |coefficients: [f64; 8]| coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
        polynomial(above) / polynomial(below)
    };
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let from_centre = p - 0.5;
    if from_centre.abs() <= 0.425 {
        return from_centre * quotient(CENTRE, 0.425 * 0.425 - from_centre * from_centre);
    }
    let r = (-p.min(1.0 - p).ln()).sqrt();
    let size = match r {
        f64::INFINITY => r, // p is 0 or 1
        _ if r <= 5.0 => quotient(FLANK, r - 1.6),
        _ => quotient(TAIL, r - 5.0),
    };
    size.copysign(from_centre)
}
