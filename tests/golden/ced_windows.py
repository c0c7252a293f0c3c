#!/usr/bin/env python3
"""Golden data of CEDs on clips longer than their window, by the two reference implementations.

    python ced_windows.py --ced CED --hugging-face HF        writes ced_windows.safetensors beside this file

CED: a checkout of RicherMans/CED (made with commit 60a0f54). HF: one of jimbozhang/hf_transformers_custom_model_ced (commit
1a9cd46). Both run unchanged, on the hashed signal at 16 kHz (seed 11), from the waveform to the scores.

`small`: 2 blocks of width 16 and 11 classes with hashed weights. `tiny`: the values of weights/ced-tiny/model.safetensors; the
front end of RicherMans/CED has that file's window and filters, that of Hugging Face has its own, because it takes none.
`MODEL.ced.N.*` and `MODEL.hf.N.*` are scores and the embedding of N samples. RicherMans/CED does not return the embedding: it is
the mean over windows of the input of its head. For `small.ced.323680`, two windows of which the reference drops the
second, `.window0` and `.window1` are the scores of each.
"""
import argparse
import csv
import os
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED, SIGNAL_SEED = 61, 11
SECONDS = (10.12, 11, 12, 15, 20.24, 21)
TWO_WINDOWS = (2 * 1012 - 1) * 160  # 2024 frames
SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "outputdim": 11}
TINY = {"embed_dim": 192, "depth": 12, "num_heads": 3, "outputdim": 527}


def small_bounds(name, shape):
    """`(low, high)` of a hashed tensor, as in tests/ced.rs."""
    leaf = name.rsplit(".", 1)[-1]
    if name.startswith("init_bn"):
        return {"weight": (0.8, 1.2), "bias": (-0.1, 0.1), "running_mean": (-30.0, -10.0), "running_var": (300.0, 600.0)}[leaf]
    if leaf.endswith("pos_embed"):
        return (-0.5, 0.5)
    if len(shape) == 1:
        return (0.5, 1.5) if leaf == "weight" else (-0.1, 0.1)
    return (-0.5, 0.5)


def small_state(model):
    """Hashed weights; the front end and the counters of batches stay as built."""
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith("front_end") and not name.endswith("num_batches_tracked"):
            shape = tuple(tensor.shape)
            state[name] = torch.from_numpy(rc.hashed(name, shape, *small_bounds(name, shape), SEED))
    return state


def tiny_state():
    """The bundled values: bytes times their scale."""
    stored = load_file(os.path.join(HERE, "../../weights/ced-tiny/model.safetensors"))
    state = {}
    for name, value in stored.items():
        if not name.endswith(".scale"):
            scale = stored.get(f"{name}.scale")
            value = value if scale is None else value.astype(np.float32) * scale
            # Named as in the graph that the file was converted from.
            state[name.replace("init_bn.", "init_bn.1.")] = torch.from_numpy(value)
    return state


def load(model, state):
    """Every tensor except those of the front end and the counters of batches must exist."""
    missing, unexpected = torch.nn.Module.load_state_dict(model, state, strict=False)
    assert not unexpected, unexpected
    assert all(n.startswith("front_end") or n.endswith("num_batches_tracked") for n in missing), missing
    return model.eval()


def richermans(checkout, config, state):
    """The model, and a function from samples to scores and embedding."""
    sys.path.insert(0, checkout)
    from models.audiotransformer import AudioTransformer

    model = AudioTransformer(**config)
    model = load(model, state or small_state(model))
    pooled = []
    model.outputlayer.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))

    def run(x):
        pooled.clear()
        scores = model(torch.from_numpy(x)[None])[0]
        (windows,) = pooled
        return scores, windows.mean(0)

    return model, run


def hugging_face(checkout, config, state):
    sys.path.insert(0, checkout)
    from ced_model import configuration_ced
    from ced_model.configuration_ced import CedConfig
    from ced_model.feature_extraction_ced import CedFeatureExtractor
    from ced_model.modeling_ced import CedForAudioClassification

    # With 527 classes, the configuration would download their names from the hub.
    with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="") as names:
        csv.writer(names).writerows([["index", "mid", "display_name"], *([i, f"/m/{i}", f"class {i}"] for i in range(527))])
        names.flush()
        configuration_ced.cached_file = lambda *_: names.name
        model = CedForAudioClassification(CedConfig(**config))
    renamed = {}
    for name, value in state.items():
        if not name.startswith("front_end"):
            name = name.replace("init_bn.1", "init_bn")
            renamed[name if name.startswith("outputlayer") else f"encoder.{name}"] = value
    load(model, renamed)
    extractor = CedFeatureExtractor(return_attention_mask=False)
    pooled = []
    model.outputlayer.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))

    def run(x):
        pooled.clear()
        scores = model(**extractor(x, sampling_rate=16000)).logits[0]
        return scores, pooled[0][0]

    return run


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ced", required=True)
    ap.add_argument("--hugging-face", required=True)
    a = ap.parse_args()
    torch.set_grad_enabled(False)
    tensors = {}
    lengths = [round(seconds * 16000) for seconds in SECONDS]
    for name, config in (("small", SMALL), ("tiny", TINY)):
        model, ced = richermans(a.ced, config, tiny_state() if name == "tiny" else None)
        hf = hugging_face(a.hugging_face, config, model.state_dict())
        for reference, run in (("ced", ced), ("hf", hf)):
            for n in lengths:
                scores, embedding = run(rc.as_float(rc.signal(n, 16000, SIGNAL_SEED)))
                tensors[f"{name}.{reference}.{n}.scores"] = scores.numpy()
                tensors[f"{name}.{reference}.{n}.embedding"] = embedding.numpy()
                print(name, reference, n, float(scores.max()), int(scores.argmax()))
        if name == "small":
            x = torch.from_numpy(rc.as_float(rc.signal(TWO_WINDOWS, 16000, SIGNAL_SEED)))[None]
            tensors[f"small.ced.{TWO_WINDOWS}.scores"] = model(x)[0].numpy()
            log_mel = model.front_end(x)
            assert log_mel.shape[-1] == 2 * 1012
            for i, window in enumerate(log_mel.split(1012, -1)):
                tensors[f"small.ced.{TWO_WINDOWS}.window{i}"] = model.forward_spectrogram(window)[0].numpy()
    packages = rc.versions("torch", "torchaudio", "transformers", "einops", "numpy")
    rc.save(os.path.join(HERE, "ced_windows.safetensors"), tensors, seed=SEED, signal_seed=SIGNAL_SEED, versions=packages)


if __name__ == "__main__":
    main()
