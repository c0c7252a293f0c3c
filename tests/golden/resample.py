"""Writes resample.safetensors: a band-limited signal and what soxr makes of it at other rates.

    python tests/golden/resample.py

The signal is a sum of sines of random frequency and phase, all below 0.85 of the lower Nyquist frequency of its pair of
rates, under a Hann fade at both ends. Inside the pass band of both resamplers the result is determined by the
mathematics alone, so two good resamplers must agree.
"""

import os

import numpy as np
import safetensors.numpy
import soxr

SEED = 20240611
PAIRS = [(44100, 32000), (48000, 32000), (8000, 32000), (22050, 16000), (32000, 44100), (44101, 32000), (50021, 7919)]
N_INPUT = 3000


def signal(rng, from_rate, to_rate):
    n = N_INPUT
    nyquist = 0.5 * min(from_rate, to_rate)
    t = np.arange(n) / from_rate
    frequencies = rng.uniform(0.01, 0.85, 12) * nyquist
    phases = rng.uniform(0.0, 2.0 * np.pi, 12)
    x = np.sin(2.0 * np.pi * frequencies[:, None] * t + phases[:, None]).sum(0) / 12.0
    fade = n // 10
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(fade) / fade)
    x[:fade] *= ramp
    x[-fade:] *= ramp[::-1]
    return x.astype(np.float32)


def main():
    rng = np.random.default_rng(SEED)
    tensors = {}
    for from_rate, to_rate in PAIRS:
        x = signal(rng, from_rate, to_rate)
        y = soxr.resample(x.astype(np.float64), from_rate, to_rate, quality="VHQ")
        tensors[f"{from_rate}_{to_rate}.input"] = x
        tensors[f"{from_rate}_{to_rate}.output"] = y.astype(np.float32)
    metadata = {
        "generator": "tests/golden/resample.py",
        "soxr": soxr.__version__,
        "numpy": np.__version__,
        "quality": "VHQ",
        "seed": str(SEED),
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "resample.safetensors")
    safetensors.numpy.save_file(tensors, path, metadata)
    print(path, os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
