"""Writes resample.safetensors and resample_hq.safetensors.

    python tests/golden/resample.py

resample: band-limited signals, and the output of soxr and scipy at other rates. The signal is a sum of sines of random
frequency and phase, all below 0.85 of the lower Nyquist frequency of its pair of rates, under a squared Hann window, which
has almost no energy beyond. Inside the pass band of both resamplers the result is determined mathematically, so good
resamplers must agree. scipy's polyphase resampler, given a long Kaiser filter, does so to 1e-7; soxr's best quality
is off by up to 7e-5 where the ratio's terms are large. Both are printed.

resample_hq: soxr's quality "HQ", the default of librosa.load, for more pairs. `FROM_TO.gain` is its gain in dB for tones at
`frequency`, relative to the lower Nyquist frequency; the tones last for 6000 samples of the lower rate, under a squared Hann
window. `FROM_TO.output` is its output for `FROM_TO.input`, noise up to 0.9 of the lower Nyquist frequency.
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
HQ_PAIRS = [
    (44100, 16000), (48000, 16000), (44101, 16000), (22050, 16000), (8000, 16000), (16000, 32000), (44100, 32000),
    (48000, 32000), (32000, 16000), (96000, 32000), (44100, 22050), (11025, 16000), (32000, 22050), (32000, 44100),
    (44100, 48000), (16000, 15999),
]  # fmt: skip
HQ_FREQUENCIES = np.arange(360, 400) / 400
HQ_TONE = 6000
HQ_NOISE = 400


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


def hq_gain(relative, from_rate, to_rate):
    """The complex gain of soxr HQ for a tone."""
    lower = min(from_rate, to_rate)

    def window(t):  # in seconds
        return np.sin(np.pi * np.clip(t * lower / HQ_TONE, 0.0, 1.0)) ** 4

    def turns(t):
        return np.exp(1j * np.pi * relative * lower * t)

    t = np.arange(HQ_TONE * from_rate // lower) / from_rate
    x = window(t) * turns(t)
    y = soxr.resample(np.stack([x.real, x.imag], axis=1), from_rate, to_rate, quality="HQ") @ [1.0, 1.0j]
    t = np.arange(len(y)) / to_rate
    return np.sum(y * window(t) / turns(t)) / np.sum(window(t) ** 2)


def hq_noise(rng, from_rate, to_rate):
    """Noise up to 0.9 of the lower Nyquist frequency, f32."""
    lower = min(from_rate, to_rate)
    n = HQ_NOISE * from_rate // lower
    length = 2 * (160 * from_rate // lower) + 1
    taps = scipy.signal.firwin(length, 0.88 * lower / from_rate, window=("kaiser", 9.0))
    x = np.convolve(rng.uniform(-1.0, 1.0, n + length - 1), taps, mode="valid")
    return (x * np.hanning(n + 2)[1:-1] / np.abs(x).max()).astype(np.float32)


def save(name, tensors, soxr_quality):
    metadata = {
        "generator": "tests/golden/resample.py",
        "soxr": f"{soxr.__version__}, {soxr_quality}",
        "scipy": scipy.__version__,
        "numpy": np.__version__,
        "seed": str(SEED),
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    safetensors.numpy.save_file(tensors, path, metadata)
    print(path, os.path.getsize(path), "bytes")


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
    save("resample.safetensors", tensors, "VHQ")

    tensors = {"frequency": HQ_FREQUENCIES}
    for from_rate, to_rate in HQ_PAIRS:
        gains = np.array([hq_gain(frequency, from_rate, to_rate) for frequency in HQ_FREQUENCIES])
        decibels = 20.0 * np.log10(np.abs(gains))
        phase = np.abs(np.angle(gains))[decibels > -40.0].max()
        x = hq_noise(rng, from_rate, to_rate)
        name = f"{from_rate}_{to_rate}"
        tensors[f"{name}.gain"] = decibels.astype(np.float32)
        tensors[f"{name}.input"] = x
        tensors[f"{name}.output"] = soxr.resample(x, from_rate, to_rate, quality="HQ")
        at = [f"{d:.2f}" for d in decibels[[15, 20, 25, 30, 35]]]
        print(f"{name} HQ: {', '.join(at)} dB at {HQ_FREQUENCIES[[15, 20, 25, 30, 35]]}; phase at most {phase:.1e}")
    save("resample_hq.safetensors", tensors, "HQ")


if __name__ == "__main__":
    main()
