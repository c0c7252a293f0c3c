"""Writes sounds/CLASS/N.wav: bells, speech and rain, five clips of a second each. 8 kHz, one channel, µ-law.

    python examples/audio/make_sounds.py

Needs what make.py needs. Nobody was recorded.
"""

import os
import struct
import subprocess
import tempfile

import numpy as np
import scipy.io.wavfile
import scipy.signal

import make

RATE = 8000
TEXTS = [
    "Good morning, is anybody there?",
    "The train to the coast leaves at nine.",
    "Please close the window, it is cold.",
    "We found the keys under the table.",
    "Call me again when you are home.",
]
rng = np.random.default_rng(7)


def speech(i):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "speech.wav")
        voice = ["en-us", "en-us+f3", "en-gb", "en-gb+m3", "en-us+f2"][i]
        subprocess.run(["espeak-ng", "-v", voice, "-s", "160", "-w", path, TEXTS[i]], check=True)
        rate, x = scipy.io.wavfile.read(path)
    x = scipy.signal.resample_poly(x / 32768.0, RATE, rate)
    return x[1600:][:RATE]


def bell(i):
    x = make.room(make.bell(1.6))
    x = scipy.signal.resample_poly(x, RATE, make.RATE)
    # Other bells are larger or smaller.
    x = scipy.signal.resample(x, int(len(x) * [0.85, 0.93, 1.0, 1.1, 1.2][i]))
    return x[800 + 400 * i :][:RATE]


def rain(i):
    noise = scipy.signal.lfilter([1.0, -0.6], [1.0], rng.standard_normal(RATE))
    drops = np.zeros(RATE)
    for at in rng.integers(0, RATE - 200, 150 + 60 * i):
        t = np.arange(160) / RATE
        drops[at : at + 160] += rng.uniform(0.5, 3.0) * np.exp(-t / 0.003) * np.sin(2 * np.pi * rng.uniform(800, 3000) * t)
    return 0.4 * noise + drops


def mu_law(x):
    magnitude = np.clip(np.abs(np.round(x * 32767)), 0, 32635).astype(np.int64) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int64) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    sign = np.where(x < 0, 128, 0)
    return (~(sign | (exponent << 4) | mantissa) & 255).astype(np.uint8).tobytes()


def write(path, x):
    data = mu_law(0.8 * x / np.abs(x).max())
    form = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 7, 1, RATE, RATE, 1, 8, 0)
    fact = struct.pack("<4sII", b"fact", 4, len(data))
    body = b"WAVE" + form + fact + struct.pack("<4sI", b"data", len(data)) + data
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<4sI", b"RIFF", len(body)) + body)


def main():
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sounds")
    for sound in (bell, speech, rain):
        for i in range(5):
            write(os.path.join(folder, sound.__name__, f"{i + 1}.wav"), sound(i))


if __name__ == "__main__":
    main()
