#!/usr/bin/env python3
"""Golden data of the front end: `python frontend.py` writes frontend_CONFIG.safetensors beside this file.

The reference is librosa in float64. torchlibrosa, which the PANNs models contain, is float32 throughout and slightly less
accurate; its outputs are stored too, with their error, where it supports the configuration.

Metadata: `config` (JSON with the field names of `LogMelConfig`), `refused` (clip lengths that are too short, JSON),
`torchlibrosa_error` (largest error of torchlibrosa in dB, by case, JSON), `versions`, `seed`.

Tensors of the configuration: `window` [n_fft] | `mel.first`, `mel.length` [n_mels], `mel.weights`: the filters without
their zeros | `empty`: the filters that are all zero | `kernel.bins` [k], `kernel.real`, `kernel.imag` [k, n_fft]:
torchlibrosa's DFT kernels (one configuration).

Tensors of each case KIND.N, where KIND names a signal and N its length: `log_mel` [n_frames, n_mels] in dB |
`frames` [f], `power` [f, n_bins], `complex` [f, n_bins, 2]: a few frames of the spectrum, real and imaginary part
| `log_mel_torchlibrosa` (some).
"""
import json
import warnings
from pathlib import Path

import librosa
import numpy as np
import torch
from scipy.signal import get_window
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

import refcommon

SEED = 9
PANNS = dict(
    sample_rate=32000, n_fft=1024, win_length=1024, hop_length=320, window="hann", periodic=True, center=True,
    pad_mode="reflect", power="power", n_mels=64, fmin=50.0, fmax=14000.0, mel_scale="slaney", mel_norm="slaney",
    reference=1.0, amin=1e-10, top_db=None,
)


def sizes(sample_rate, n_fft, hop_length, n_mels, **more):
    win_length = more.pop("win_length", n_fft)
    named = dict(sample_rate=sample_rate, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels, win_length=win_length)
    return PANNS | dict(fmin=0.0, fmax=None) | named | more


CONFIGS = {
    "panns_32k": PANNS,
    "panns_16k": sizes(16000, 512, 160, 64, fmin=50.0, fmax=8000.0),
    "panns_8k": sizes(8000, 256, 80, 64, fmin=50.0, fmax=4000.0),
    "panns_48k": sizes(48000, 2048, 320, 64, fmin=50.0, fmax=14000.0),
    "mels_128": sizes(32000, 1024, 320, 128, fmin=50.0, fmax=14000.0),
    "librosa_default": sizes(22050, 2048, 512, 128, pad_mode="constant"),
    "not_centred": sizes(16000, 400, 160, 40, center=False, fmin=20.0, fmax=7600.0),
    "hamming_short": sizes(16000, 512, 160, 80, win_length=400, window="hamming"),
    "blackman_odd_hop": sizes(44100, 1024, 441, 96, window="blackman", pad_mode="constant", fmin=30.0, fmax=16000.0),
    "fft_1200": sizes(48000, 1200, 480, 64, win_length=960, fmin=60.0, fmax=7800.0),
    "fft_251_prime": sizes(16000, 251, 100, 26),
    "fft_1023_odd": sizes(22050, 1023, 256, 40, win_length=1000, pad_mode="edge"),
    "htk_no_norm": sizes(16000, 400, 160, 128, mel_scale="htk", mel_norm="none", fmax=8000.0),
    "htk_slaney_symmetric": sizes(16000, 512, 200, 40, mel_scale="htk", periodic=False, fmin=20.0),
    "slaney_no_norm_povey": sizes(16000, 512, 160, 64, win_length=400, window="povey", periodic=False, mel_norm="none"),
    "magnitude_reference": sizes(16000, 512, 128, 64, power="magnitude", reference=0.02, amin=1e-5, pad_mode="edge"),
    "fmax_beyond": sizes(16000, 512, 256, 40, fmin=50.0, fmax=14000.0),
    "top_db_80": sizes(22050, 512, 256, 64, top_db=80.0, pad_mode="constant", window="rectangular"),
}


def clip(kind, count, sample_rate):
    t = np.arange(count)
    if kind == "mixed":
        return refcommon.as_float(refcommon.signal(count, sample_rate, SEED))
    if kind == "faint":  # the same, about 72 dB lower
        return clip("mixed", count, sample_rate) * np.float32(2.0**-12)
    if kind == "tone":  # a triangle of period 32: almost nothing between its harmonics
        return (1.0 - np.abs(t % 32 - 16) / 8.0).astype(np.float32)
    if kind == "click":
        return (t == count // 3).astype(np.float32)
    return np.zeros(count, np.float32)  # silence


def long_clip(config):
    return config["sample_rate"] * 5 // 8 + 7  # reaches into the silent quarter of the signal


def cases(config):
    n_fft, hop = config["n_fft"], config["hop_length"]
    edges = {1, hop - 1, hop, hop + 1, n_fft // 2, n_fft // 2 + 1, n_fft - 1, n_fft, n_fft + hop - 1, n_fft + hop}
    yield from (("mixed", count) for count in sorted(edges))
    yield "mixed", long_clip(config)
    yield from ((kind, n_fft + 5 * hop) for kind in ("silence", "faint", "tone", "click"))


def too_short(config, count):
    if not config["center"]:
        return count < config["n_fft"]
    return config["pad_mode"] == "reflect" and count <= config["n_fft"] // 2  # torch rejects this, and so do we


def window_of(config):
    if config["window"] == "povey":
        return torch.hann_window(config["win_length"], periodic=config["periodic"], dtype=torch.float64).numpy() ** 0.85
    name = {"rectangular": "boxcar"}.get(config["window"], config["window"])
    return get_window(name, config["win_length"], fftbins=config["periodic"])


def filters_of(config):
    return librosa.filters.mel(
        sr=config["sample_rate"], n_fft=config["n_fft"], n_mels=config["n_mels"], fmin=config["fmin"],
        fmax=config["fmax"], htk=config["mel_scale"] == "htk", norm={"none": None}.get(config["mel_norm"], "slaney"))


def truth(config, x):
    """Spectrum and log-mel by librosa in float64, time first.

    The clip is padded here, as a whole. librosa (0.11) pads parts of it; if the last part is a sample shorter than a
    reflection needs, one sample at the edge of the window differs: up to 7e-6 of a bin's power.
    """
    x = x.astype(np.float64)
    if config["center"]:
        x = np.pad(x, config["n_fft"] // 2, mode=config["pad_mode"])
    spectrum = librosa.stft(
        x, n_fft=config["n_fft"], hop_length=config["hop_length"], win_length=config["win_length"],
        window=window_of(config), center=False, dtype=np.complex128)
    mel = filters_of(config).astype(np.float64) @ np.abs(spectrum) ** (2 if config["power"] == "power" else 1)
    log_mel = librosa.power_to_db(mel, ref=config["reference"], amin=config["amin"], top_db=config["top_db"])
    return spectrum.T, log_mel.T


def torchlibrosa_of(config):
    """torchlibrosa's waveform -> log-mel, or None if it does not support the configuration."""
    expected = dict(periodic=True, power="power", mel_scale="slaney", mel_norm="slaney")
    if any(config[key] != value for key, value in expected.items()) or config["pad_mode"] == "edge":
        return None
    spectrogram = Spectrogram(
        n_fft=config["n_fft"], hop_length=config["hop_length"], win_length=config["win_length"],
        window={"rectangular": "boxcar"}.get(config["window"], config["window"]), center=config["center"],
        pad_mode=config["pad_mode"])
    log_mel = LogmelFilterBank(
        sr=config["sample_rate"], n_fft=config["n_fft"], n_mels=config["n_mels"], fmin=config["fmin"],
        fmax=config["fmax"], ref=config["reference"], amin=config["amin"], top_db=config["top_db"])
    return torch.nn.Sequential(spectrogram, log_mel)


def describe(config):
    before = (config["n_fft"] - config["win_length"]) // 2
    after = config["n_fft"] - config["win_length"] - before
    dense = filters_of(config)
    runs = [np.flatnonzero(row) for row in dense]
    return {
        "window": np.pad(window_of(config), (before, after)).astype(np.float32),
        "mel.first": np.array([run[0] if len(run) else 0 for run in runs]),
        "mel.length": np.array([run[-1] + 1 - run[0] if len(run) else 0 for run in runs]),
        "mel.weights": np.concatenate([row[run[0] : run[-1] + 1] for row, run in zip(dense, runs) if len(run)]),
        "empty": np.array([m for m, run in enumerate(runs) if len(run) == 0], dtype=np.int64),
    }


def make(name, config):
    tensors, refused, errors = describe(config), [], {}
    rival = torchlibrosa_of(config)
    if name == "panns_8k":
        bins = np.array([0, 1, 37, 128])
        tensors["kernel.bins"] = bins
        tensors["kernel.real"] = rival[0].stft.conv_real.weight.numpy()[bins, 0]
        tensors["kernel.imag"] = rival[0].stft.conv_imag.weight.numpy()[bins, 0]
    middle = config["n_fft"] // 2
    with_power = {1, middle, middle + 1, config["n_fft"] + config["hop_length"], long_clip(config)}
    for kind, count in cases(config):
        if too_short(config, count):
            refused.append(count)
            continue
        x = clip(kind, count, config["sample_rate"])
        spectrum, log_mel = truth(config, x)
        case = f"{kind}.{count}"
        tensors[f"{case}.log_mel"] = log_mel.astype(np.float32)
        frames = np.array(sorted({0, len(spectrum) - 1}))
        if count in with_power or kind in ("tone", "click"):
            tensors[f"{case}.frames"] = frames
            tensors[f"{case}.power"] = (np.abs(spectrum[frames]) ** 2).astype(np.float32)
        if kind == "mixed" and count == config["n_fft"]:
            tensors[f"{case}.frames"] = frames
            tensors[f"{case}.complex"] = np.stack([spectrum[frames].real, spectrum[frames].imag], -1).astype(np.float32)
        if rival is not None:
            output = rival(torch.from_numpy(x)[None])[0, 0].numpy()
            if kind == "tone" or count == long_clip(config):
                tensors[f"{case}.log_mel_torchlibrosa"] = output
            errors[case] = float(np.abs(output - log_mel).max())
    path = Path(__file__).with_name(f"frontend_{name}.safetensors")
    refcommon.save(
        path, tensors, config=json.dumps(config), refused=json.dumps(refused), torchlibrosa_error=json.dumps(errors),
        versions=refcommon.versions("torch", "torchlibrosa", "librosa", "numpy", "scipy"), seed=SEED)
    print(f"{name:22} {path.stat().st_size / 1000:6.0f} kB  empty {tensors['empty']}  refused {refused}")
    print("    torchlibrosa off by", {case: float(f"{e:.1e}") for case, e in errors.items()})


def main():
    warnings.filterwarnings("ignore")
    torch.set_grad_enabled(False)
    for name, config in CONFIGS.items():
        make(name, config)


if __name__ == "__main__":
    main()
