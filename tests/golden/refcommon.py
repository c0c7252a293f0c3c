"""Code shared by the scripts that make golden data: hashed numbers, a test signal, saving.

Weights and signals come from a counter-based hash instead of a library's generator, so that a Rust test can rebuild them
bit for bit and only the expected outputs have to be stored. All integers are 64 bits wide and wrap around:

    state = fnv1a64(name) ^ seed
    z     = state + (i + 1) * 0x9E3779B97F4A7C15        i is the index into the flattened tensor
    z     = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z     = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z     =  z ^ (z >> 31)
    u     = (z >> 40) * 2^-24                           f64, in 0..1
    value = f32(low + (high - low) * u)                 computed in f64

`bounds` gives the `(low, high)` of each kind of layer.
"""
import importlib
import importlib.util
import json
import math
import os
import platform
import sys
import types
from importlib import metadata

import numpy as np


def fnv1a64(name):
    """The 64-bit FNV-1a hash of a string's UTF-8 bytes."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def uniform01(name, count, seed):
    """`count` numbers in 0..1, f64, multiples of 2^-24."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = z + np.uint64(fnv1a64(name) ^ seed % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)) * 2.0**-24


def hashed(name, shape, low, high, seed):
    """A tensor of numbers in low..high, f32."""
    u = uniform01(name, math.prod(shape), seed)
    return (low + (high - low) * u).astype(np.float32).reshape(shape)


def bounds(name, shape, kind):
    """`(low, high)` of a tensor. `kind` is that of the layer that owns it: conv, linear or bn."""
    leaf = name.rsplit(".", 1)[-1]
    if kind == "bn":
        on_decibels = name.split(".")[0] == "bn0"  # PANNs' first batch norm, over log-mel bands
        return {
            "weight": (0.8, 1.2),
            "bias": (-0.1, 0.1),
            "running_mean": (-45.0, -35.0) if on_decibels else (-0.1, 0.1),
            "running_var": (200.0, 300.0) if on_decibels else (0.5, 1.5),
        }[leaf]
    if leaf == "bias":
        return (-0.05, 0.05)
    if kind not in ("conv", "linear"):
        raise ValueError(f"no bounds for {kind}")
    bound = math.sqrt((6.0 if kind == "conv" else 3.0) / math.prod(shape[1:]))
    return (-bound, bound)


def fill(model, seed):
    """Hashes the weights of every convolution, linear, batch norm and recurrent layer of a torch model, each under its
    name in the state dict; front ends (`*extractor*`) stay as built. Recurrent layers get +-1/sqrt(hidden_size).
    Returns the model, in eval mode."""
    import torch
    from torch import nn

    def kind_of(module):
        if isinstance(module, nn.RNNBase):
            return "rnn"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return "bn"
        if isinstance(module, nn.modules.conv._ConvNd):
            return "conv"
        return "linear" if isinstance(module, nn.Linear) else None

    for prefix, module in model.named_modules():
        kind = kind_of(module)
        if kind is None or "extractor" in prefix:
            continue
        for leaf, tensor in module.state_dict().items():
            if leaf == "num_batches_tracked":
                continue
            name = f"{prefix}.{leaf}" if prefix else leaf
            shape = tuple(tensor.shape)
            if kind == "rnn":
                high = 1.0 / math.sqrt(module.hidden_size)
                low = -high
            else:
                low, high = bounds(name, shape, kind)
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(hashed(name, shape, low, high, seed)))
    return model.eval()


def transformer_bounds(name, shape):
    """`(low, high)` of a transformer's tensor, by its name and shape."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_mean":
        return (-30.0, -10.0)
    if leaf == "running_var":
        return (300.0, 600.0)
    if leaf in ("original0", "weight_g"):
        return (0.5, 1.5)
    if len(shape) == 1:
        return (0.8, 1.2) if leaf == "weight" else (-0.1, 0.1)
    if leaf == "weight" or leaf in ("original1", "weight_v"):
        bound = 2.0 if "relative" in name else math.sqrt(3.0 / math.prod(shape[1:]))
        return (-bound, bound)
    return (0.8, 1.2) if "grep" in name else (-0.5, 0.5)


def fill_transformer(model, seed, rename=lambda name: name):
    """Hashes all parameters and running statistics of a torch model, each under its name in the state dict or another name."""
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            name = rename(name)
            values = hashed(name, tuple(tensor.shape), *transformer_bounds(name, tuple(tensor.shape)), seed)
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(values))
    return model.eval()


def fbank(samples, scale=1.0, dtype="float64", **options):
    """torchaudio's Kaldi fbank, `[n_frames, n_mels]`, in f64 by default."""
    import torch
    from torchaudio.compliance import kaldi

    x = torch.from_numpy(samples).to(getattr(torch, dtype))[None] * scale
    return kaldi.fbank(x, sample_frequency=16000, num_mel_bins=128, **options)


def definitions(path, names, **scope):
    """Classes and functions of a file, without its imports; `scope` has the names that they use."""
    import ast

    with open(path) as file:
        tree = ast.parse(file.read())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    exec(compile(tree, path, "exec"), scope)
    return [scope[name] for name in names]


def windows(n_frames, longest):
    """Start and weight of the windows of a long clip (src/models/vit.rs)."""
    starts = range(0, n_frames, longest)
    return [(min(start, max(0, n_frames - longest)), min(longest, n_frames - start)) for start in starts]


def signal(count, sample_rate, seed=1):
    """`count` samples, int16: triangle tones, noise bursts, near-silence, a click. Exact arithmetic only, no sine."""
    t = np.arange(count, dtype=np.float64)
    tones = np.zeros(count)
    for k, hz in enumerate((110.0, 440.0, 2500.0, 9000.0)):
        phase = (t * hz / sample_rate) % 1.0
        tones += (0.12 / (k + 1)) * (4.0 * np.abs(phase - 0.5) - 1.0)
    noise = 2.0 * uniform01("noise", count, seed) - 1.0
    quarter = np.floor(t * 4.0 / sample_rate).astype(np.int64) % 4  # of a second
    loudness = np.array([0.5, 0.05, 0.0, 0.2])[quarter]
    x = tones * np.array([1.0, 1.0, 0.0, 1.0])[quarter] + loudness * noise
    if count > 10:
        x[count // 3] = 0.99
    return np.clip(np.round(x * 32767.0), -32768, 32767).astype(np.int16)  # rounds half to even


def as_float(pcm):
    """int16 to f32 in -1..1."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def import_panns(checkout=None):
    """The module `models` of a PANNs checkout, or of the package panns-inference if none is given."""
    if checkout:
        sources = os.path.join(checkout, "pytorch")
        sys.path.insert(0, sources if os.path.isdir(sources) else checkout)
        return importlib.import_module("models")
    # The package downloads a label file when imported, so only its folder is registered.
    package = types.ModuleType("panns_inference")
    package.__path__ = list(importlib.util.find_spec("panns_inference").submodule_search_locations)
    sys.modules["panns_inference"] = package
    return importlib.import_module("panns_inference.models")


def versions(*packages):
    """Versions of Python and of installed packages as JSON, for a file's metadata."""
    return json.dumps({"python": platform.python_version()} | {name: metadata.version(name) for name in packages})


def save(path, tensors, **about):
    """Writes a safetensors file; `about` becomes its metadata, as strings."""
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, {k: str(v) for k, v in about.items()})
    os.chmod(path, 0o644)
    size = os.path.getsize(path)
    print(os.path.basename(path), size, "bytes")
    assert size <= 200_000, "too large for golden data"
