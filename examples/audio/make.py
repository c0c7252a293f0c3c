"""Writes telephone.wav: somebody speaks while a telephone rings. Six seconds, 16 kHz, one channel, 16 bits.

    python examples/audio/make.py

Needs the program espeak-ng, numpy and scipy.
"""

import os
import subprocess
import tempfile

import numpy as np
import scipy.io.wavfile
import scipy.signal

RATE = 16000
SECONDS = 6.0
TEXT = "Hold on, somebody is calling. I will answer the telephone, and then we can go on."
rng = np.random.default_rng(1876)


def speech():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "speech.wav")
        subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-p", "45", "-w", path, TEXT], check=True)
        rate, x = scipy.io.wavfile.read(path)
    return scipy.signal.resample_poly(x / 32768.0, RATE, rate)


def bell(seconds):
    """An electromechanical bell: a clapper strikes two gongs in turn, 20 times a second in all."""
    n = round(seconds * RATE)
    out = np.zeros(n + RATE)
    t = np.arange(RATE) / RATE
    for i in range(int(seconds * 20)):
        pitch = [1050.0, 1310.0][i % 2]
        partials = [(1.0, 1.0, 0.20), (2.41, 0.7, 0.12), (3.9, 0.45, 0.07), (5.3, 0.2, 0.04)]
        strike = sum(
            level * np.exp(-t / decay) * np.sin(2 * np.pi * pitch * ratio * t + rng.uniform(0, 6.28))
            for ratio, level, decay in partials
            if pitch * ratio < 0.45 * RATE
        )
        strike += 0.3 * np.exp(-t / 0.002) * rng.standard_normal(len(t))
        at = round((i / 20 + rng.normal(0, 0.001)) * RATE)
        out[max(at, 0) : max(at, 0) + RATE] += strike[: len(out) - max(at, 0)] * rng.uniform(0.85, 1.0)
    return out


def room(x):
    """The same in a small room."""
    t = np.arange(round(0.25 * RATE)) / RATE
    response = rng.standard_normal(len(t)) * np.exp(-t / 0.05) * 0.04
    response[0] = 1.0
    return scipy.signal.fftconvolve(x, response)


def main():
    n = round(SECONDS * RATE)
    out = np.zeros(2 * n)
    voice = speech()
    voice = room(voice / np.abs(voice).max())
    at = round(0.3 * RATE)
    out[at : at + len(voice)] += 0.5 * voice
    for start in (0.9, 4.1):
        ring = bell(1.6)
        ring = room(ring / np.abs(ring).max())
        at = round(start * RATE)
        out[at : at + len(ring)] += 0.17 * ring
    out = out[:n] + 0.001 * rng.standard_normal(n)
    out[-800:] *= np.linspace(1, 0, 800)
    out *= 0.9 / np.abs(out).max()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "telephone.wav")
    scipy.io.wavfile.write(path, RATE, np.round(32767 * out).astype(np.int16))


if __name__ == "__main__":
    main()
