"""Writes resample.safetensors: band-limited signals and what soxr and scipy make of them at other rates.

    python tests/golden/resample.py

The signal is a sum of sines of random frequency and phase, all below 0.85 of the lower Nyquist frequency of its pair of
rates, under a squared Hann window, which has next to nothing beyond. Inside the pass band of both resamplers the result
is determined by the mathematics alone, so good resamplers must agree. scipy's polyphase resampler, given a long Kaiser
filter, does so to 1e-7; soxr's best quality errs by up to 7e-5 where the ratio's terms are large. Both are printed.
"""

import math
import os

import numpy as np
import safetensors.numpy
import scipy
import scipy.signal
import soxr

SEED = 20240611
PAIRS = [(44100, 32000), (48000, 32000), (8000, 32000), (22050, 16000), (32000, 44100), (44101, 32000), (50021, 7919)]
N_INPUT = 2000


def signal(parts, t, from_rate):
    """The signal at the times t, in seconds."""
    x = sum(np.sin(2.0 * np.pi * frequency * t + phase) for frequency, phase in parts) / len(parts)
    return x * np.sin(np.pi * (t * from_rate + 0.5) / N_INPUT) ** 4


def by_scipy(x, from_rate, to_rate):
    divisor = math.gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    longer = max(up, down)
    taps = scipy.signal.firwin(2 * 96 * longer + 1, 0.95 / longer, window=("kaiser", 14.0))
    return scipy.signal.resample_poly(x, up, down, window=taps)


def main():
    rng = np.random.default_rng(SEED)
    tensors = {}
    for from_rate, to_rate in PAIRS:
        frequencies = rng.uniform(0.01, 0.85, 12) * 0.5 * min(from_rate, to_rate)
        parts = list(zip(frequencies, rng.uniform(0.0, 2.0 * np.pi, 12)))
        x = signal(parts, np.arange(N_INPUT) / from_rate, from_rate).astype(np.float32)
        name = f"{from_rate}_{to_rate}"
        tensors[f"{name}.input"] = x
        x = x.astype(np.float64)
        outputs = {
            "soxr": soxr.resample(x, from_rate, to_rate, quality="VHQ"),
            "scipy": by_scipy(x, from_rate, to_rate),
        }
        for who, y in outputs.items():
            error = np.abs(y - signal(parts, np.arange(len(y)) / to_rate, from_rate)).max()
            print(f"{name} {who}: {len(y)} samples, largest error {error:.1e}")
            tensors[f"{name}.{who}"] = y.astype(np.float32)
    metadata = {
        "generator": "tests/golden/resample.py",
        "soxr": f"{soxr.__version__}, VHQ",
        "scipy": scipy.__version__,
        "numpy": np.__version__,
        "seed": str(SEED),
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "resample.safetensors")
    safetensors.numpy.save_file(tensors, path, metadata)
    print(path, os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
