"""MFCC, Kaldi fbank, deltas, natural-log mel and SeamlessM4T features by librosa, torchaudio and transformers.

Files: `features_mfcc.safetensors`, `features_fbank.safetensors`, `features_delta.safetensors`. Metadata: `cases` (JSON: name to
settings, with the field names of the Rust structs, and `n_samples`), `versions`, `seed`. Clips are `refcommon.signal` at the
sample rate of the settings. Tensors: one per case, `[n_frames, n_features]`, computed in float64 as far as the reference
supports it, stored as f32; `NAME.f32`: the same from f32 samples, where the reference is mostly used that way.
"""
import json
import math
from pathlib import Path

import librosa
import numpy as np
import torch

import refcommon

SEED = 9


def import_torchaudio():
    """torchaudio rejects a torch of another CUDA version even without a GPU; the check reads only this name."""
    cuda, torch.version.cuda = torch.version.cuda, None
    import torchaudio
    import torchaudio.compliance.kaldi

    torch.version.cuda = cuda
    return torchaudio


torchaudio = import_torchaudio()


def in_f64(function, *arguments):
    """torch builds tables (DCT, filters, windows) in its default type."""
    torch.set_default_dtype(torch.float64)
    result = function(*arguments)
    torch.set_default_dtype(torch.float32)
    return result


def clip(count, sample_rate):
    return refcommon.as_float(refcommon.signal(count, sample_rate, SEED))


def write(name, tensors, cases):
    path = Path(__file__).with_name(f"features_{name}.safetensors")
    tensors = {key: np.asarray(value, dtype=np.float32) for key, value in tensors.items()}
    assert all(np.isfinite(value).all() for value in tensors.values())
    refcommon.save(
        path, tensors, cases=json.dumps(cases), seed=SEED,
        versions=refcommon.versions("torch", "torchaudio", "librosa", "transformers", "numpy", "scipy"))


# Kaldi's fbank and MFCC

KALDI = dict(
    sample_rate=16000, n_fft=512, win_length=400, hop_length=160, window="povey", preemphasis=0.97, remove_dc_offset=True,
    snip_edges=True, sample_scale=1.0, power="power", n_mels=23, fmin=20.0, fmax=None, log=True, amin=2.0**-23,
    use_energy=False, raw_energy=True, energy_floor=1.0, htk_compat=False,
)
EIGHT = dict(sample_rate=8000, n_fft=200, win_length=200, hop_length=80, fmin=100.0)
FBANK = {  # clip length, settings
    "default": (2599, KALDI),
    "mels_80": (1800, KALDI | dict(n_mels=80)),
    "ends": (1719, KALDI | dict(n_mels=40, snip_edges=False)),
    "ends_720": (1720, KALDI | dict(snip_edges=False)),
    "shortest": (400, KALDI),
    "shortest_ends": (400, KALDI | dict(snip_edges=False)),
    "sixteen_bit": (2400, KALDI | dict(sample_scale=32768.0, n_mels=40)),
    "ast": (2400, KALDI | dict(window="hann", n_mels=64, htk_compat=True)),
    "energy": (2400, KALDI | dict(use_energy=True)),
    "energy_last": (2400, KALDI | dict(use_energy=True, htk_compat=True, energy_floor=0.0)),
    "energy_windowed": (2400, KALDI | dict(use_energy=True, raw_energy=False, energy_floor=0.01, sample_scale=100.0)),
    "plain": (2000, KALDI | EIGHT | dict(window="hamming", preemphasis=0.0, remove_dc_offset=False, fmax=3800.0)),
    "linear_magnitude": (2000, KALDI | EIGHT | dict(window="blackman", log=False, power="magnitude")),
    "sparse": (2400, KALDI | dict(hop_length=640, snip_edges=False)),
    "rectangular": (2400, KALDI | dict(window="rectangular", preemphasis=1.0)),
    "cd": (4000, KALDI | dict(sample_rate=44100, n_fft=2048, win_length=1102, hop_length=441, n_mels=40)),
}


def kaldi_options(config):
    ms = 1000.0 / config["sample_rate"]
    options = dict(
        sample_frequency=float(config["sample_rate"]), frame_length=(config["win_length"] + 0.5) * ms,
        frame_shift=(config["hop_length"] + 0.5) * ms, window_type={"hann": "hanning"}.get(config["window"], config["window"]),
        preemphasis_coefficient=config["preemphasis"], low_freq=config["fmin"], high_freq=config["fmax"] or 0.0,
        num_mel_bins=config["n_mels"], round_to_power_of_two=config["n_fft"] != config["win_length"], dither=0.0)
    same = ("remove_dc_offset", "snip_edges", "use_energy", "raw_energy", "energy_floor", "htk_compat")
    return options | {key: config[key] for key in same}


def kaldi_fbank(x, config):
    return torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(x)[None] * config["sample_scale"], use_log_fbank=config["log"],
        use_power=config["power"] == "power", **kaldi_options(config)).numpy()


def make_fbank():
    tensors, cases = {}, {}
    for name, (count, config) in FBANK.items():
        x = clip(count, config["sample_rate"])
        tensors[name] = in_f64(kaldi_fbank, x.astype(np.float64), config)
        f32 = kaldi_fbank(x, config)
        print(f"fbank {name:16} {tensors[name].shape} torchaudio's f32 off by {np.abs(f32 - tensors[name]).max():.1e}")
        if name in ("default", "sixteen_bit", "ends_720"):
            tensors[f"{name}.f32"] = f32
        cases[name] = {"n_samples": count, "config": config}
    extractor = __import__("transformers").SeamlessM4TFeatureExtractor()
    clips = [clip(count, 16000) for count in (2800, 1871)]  # 16 and 10 frames
    odd = clip(1680, 16000)  # 9 frames
    for name, batch in (("seamless", clips + [odd]), ("seamless_odd", [odd])):
        out = extractor(batch, sampling_rate=16000, return_tensors="np")
        tensors[f"{name}.input_features"] = out["input_features"]
        tensors[f"{name}.attention_mask"] = out["attention_mask"]
    raw = extractor(odd, sampling_rate=16000, return_tensors="np", do_normalize_per_mel_bins=False)
    tensors["seamless_raw.input_features"] = raw["input_features"]
    write("fbank", tensors, cases)


# MFCC and natural-log mel

LIBROSA = dict(
    sample_rate=22050, n_fft=2048, win_length=2048, hop_length=512, window="hann", periodic=True, center=True,
    pad_mode="constant", power="power", n_mels=128, fmin=0.0, fmax=None, mel_scale="slaney", mel_norm="slaney",
    log="decibel", reference=1.0, amin=1e-10, top_db=80.0,
)
SPEECH = LIBROSA | dict(sample_rate=16000, n_fft=512, win_length=400, hop_length=160, n_mels=80)
TORCHAUDIO = LIBROSA | dict(
    sample_rate=16000, n_fft=400, win_length=400, hop_length=200, pad_mode="reflect", mel_scale="htk", mel_norm="none")
MFCC = {  # clip length, mel settings, n_mfcc, lifter
    "librosa": (10000, LIBROSA, 20, None),
    "librosa_16k": (6000, LIBROSA | dict(sample_rate=16000), 12, None),
    "librosa_speech": (2400, SPEECH, 13, None),
    "librosa_lifter": (2400, SPEECH, 13, {"librosa": 22.0}),
    "librosa_all": (2400, SPEECH | dict(n_mels=40), 40, None),
    "torchaudio": (2400, TORCHAUDIO, 40, None),
    "torchaudio_ln": (2400, TORCHAUDIO | dict(log="natural_offset", amin=1e-6, top_db=None), 40, None),
    "torchaudio_23": (2400, TORCHAUDIO | dict(hop_length=160, n_mels=23, center=False), 13, None),
}
KALDI_MFCC = {  # clip length, fbank settings, num_ceps, lifter
    "kaldi": (2599, KALDI, 13, 22.0),
    "kaldi_energy": (2400, KALDI | dict(use_energy=True, energy_floor=0.0), 13, 22.0),
    "kaldi_htk": (2400, KALDI | dict(htk_compat=True), 13, 22.0),
    "kaldi_htk_energy": (2400, KALDI | dict(htk_compat=True, use_energy=True, n_mels=26), 12, 22.0),
    "kaldi_no_lifter": (2400, KALDI | dict(n_mels=40, snip_edges=False, sample_scale=32768.0), 40, 0.0),
}
LOG_MEL = {
    "crnn": (8000, LIBROSA | dict(win_length=882, hop_length=441, n_mels=64, log="natural_offset", amin=2.2e-16, top_db=None)),
    "natural": (2400, SPEECH | dict(log="natural", amin=1e-5, top_db=60.0)),
}


def librosa_mel(x, config):
    return librosa.feature.melspectrogram(
        y=x.astype(np.float64), sr=config["sample_rate"], n_fft=config["n_fft"], win_length=config["win_length"],
        hop_length=config["hop_length"], window=config["window"], center=config["center"], pad_mode=config["pad_mode"],
        n_mels=config["n_mels"], fmin=config["fmin"], fmax=config["fmax"], htk=config["mel_scale"] == "htk",
        norm={"none": None}.get(config["mel_norm"], "slaney"))


def librosa_mfcc(x, config, n_mfcc, lifter):
    log_mel = librosa.power_to_db(
        librosa_mel(x, config), ref=config["reference"], amin=config["amin"], top_db=config["top_db"])
    return librosa.feature.mfcc(S=log_mel, n_mfcc=n_mfcc, lifter=(lifter or {}).get("librosa", 0)).T


def torchaudio_mfcc(x, config, n_mfcc):
    transform = torchaudio.transforms.MFCC(
        config["sample_rate"], n_mfcc=n_mfcc, log_mels=config["log"] == "natural_offset",
        melkwargs={key: config[key] for key in ("n_fft", "hop_length", "n_mels", "center")})
    return transform.to(torch.from_numpy(x).dtype)(torch.from_numpy(x)).numpy().T


def kaldi_mfcc(x, config, n_mfcc, lifter):
    return torchaudio.compliance.kaldi.mfcc(
        torch.from_numpy(x)[None] * config["sample_scale"], num_ceps=n_mfcc, cepstral_lifter=lifter,
        **kaldi_options(config)).numpy()


def make_mfcc():
    tensors, cases = {}, {}
    for name, (count, config, n_mfcc, lifter) in MFCC.items():
        x = clip(count, config["sample_rate"])
        if name.startswith("librosa"):
            tensors[name] = librosa_mfcc(x, config, n_mfcc, lifter)
        else:
            tensors[name] = in_f64(torchaudio_mfcc, x.astype(np.float64), config, n_mfcc)
            print("mfcc", name, "torchaudio's f32 off by", np.abs(torchaudio_mfcc(x, config, n_mfcc) - tensors[name]).max())
        cases[name] = {
            "n_samples": count, "config": {"mel": {"log_mel": config}, "n_mfcc": n_mfcc, "lifter": lifter or "none"}}
    for name, (count, config, n_mfcc, lifter) in KALDI_MFCC.items():
        x = clip(count, config["sample_rate"])
        tensors[name] = in_f64(kaldi_mfcc, x.astype(np.float64), config, n_mfcc, lifter)
        f32 = kaldi_mfcc(x, config, n_mfcc, lifter)
        print("mfcc", name, "torchaudio's f32 off by", np.abs(f32 - tensors[name]).max())
        lifter = {"kaldi": lifter} if lifter else "none"
        cases[name] = {"n_samples": count, "config": {"mel": {"fbank": config}, "n_mfcc": n_mfcc, "lifter": lifter}}
    for name, (count, config) in LOG_MEL.items():
        mel = librosa_mel(clip(count, config["sample_rate"]), config)
        log_mel = np.log(mel + config["amin"] if config["log"] == "natural_offset" else np.maximum(mel, config["amin"]))
        if config["top_db"] is not None:
            log_mel = np.maximum(log_mel, log_mel.max() - config["top_db"] * math.log(10) / 10)
        tensors[name] = log_mel.T
        cases[name] = {"n_samples": count, "config": config}
    write("mfcc", tensors, cases)


# Deltas

def repeat(function, order, x):
    for _ in range(order):
        x = function(x)
    return x


def make_delta():
    tensors = {"features": refcommon.hashed("features", (17, 2), -5.0, 5.0, SEED)}
    x = tensors["features"].astype(np.float64)
    cases = {}
    edges = {"interp": None, "nearest": "replicate", "mirror": "reflect", "constant": "constant", "wrap": "circular"}

    def add(method, edge, width, order, n_frames, values):
        name = f"{method}.{edge}.{width}.{order}.{n_frames}"
        tensors[name] = values
        cases[name] = {"n_frames": n_frames, "order": order, "config": {"method": method, "edge": edge, "width": width}}

    for edge, mode in edges.items():
        for width in (3, 5, 9):
            for order in (1, 2):
                for n_frames in (17, 9) if edge == "interp" else (17, 4, 1):
                    y = librosa.feature.delta(x[:n_frames], width=width, order=order, axis=0, mode=edge)
                    add("savitzky_golay", edge, width, order, n_frames, y)
                if mode is None:
                    continue
                rows = torch.from_numpy(x.T.copy())
                delta = lambda rows: torchaudio.functional.compute_deltas(rows, width, mode)  # noqa: E731
                add("regression", edge, width, order, 17, repeat(delta, order, rows).numpy().T)
    # Kaldi computes deltas of frames beyond the ends from repeated features, not from deltas.
    for width in (3, 5, 9):
        far = 4 * width
        rows = torch.from_numpy(np.pad(x, ((far, far), (0, 0)), mode="edge").T.copy())
        delta = lambda rows: torchaudio.functional.compute_deltas(rows, width)  # noqa: E731
        for order in (1, 2):
            add("kaldi", "nearest", width, order, 17, repeat(delta, order, rows).numpy().T[far:-far])
    write("delta", tensors, cases)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    make_fbank()
    make_mfcc()
    make_delta()
