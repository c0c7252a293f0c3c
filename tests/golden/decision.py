#!/usr/bin/env python3
"""Golden data of the decision-level CNN14s and of results per frame: the reference classes with narrow widths.

    python decision.py --panns CHECKOUT        writes decision.safetensors beside this file

CHECKOUT is a checkout of qiuqiangkong/audioset_tagging_cnn (read at d2f4b8c). Weights are hashed from their names
(refcommon.py). `cnn14.*` and `leenet*.*` are results per frame, which the reference does not compute: its own layers applied to
the maximum plus the mean of each step of the last map and its neighbours, of which there are two, or one at the ends.
"""
import argparse
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20
CHANNELS = (4, 8, 8, 12, 16, 24)
EMBEDDING, CLASSES = 20, 11
FRONT_END = dict(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000)
LENGTHS = (31 * 320, 137 * 320 + 7)  # one segment; four segments and ten frames
RAW_LENGTHS = (700, 60001)


def narrow(models, arch):
    m = getattr(models, arch)(classes_num=CLASSES, **FRONT_END)
    widths = (1, *CHANNELS)
    for i in range(6):
        setattr(m, f"conv_block{i + 1}", models.ConvBlock(widths[i], widths[i + 1]))
    m.fc1 = nn.Linear(CHANNELS[-1], EMBEDDING)
    if arch.endswith("Att"):
        m.att_block = models.AttBlock(EMBEDDING, CLASSES, activation="sigmoid")
    else:
        m.fc_audioset = nn.Linear(EMBEDDING, CLASSES)
    return rc.fill(m, SEED)


def signal(n):
    return torch.from_numpy(rc.as_float(rc.signal(n, 32000, seed=5)))[None]


def around(x):
    mean = F.avg_pool1d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    return (F.max_pool1d(x, kernel_size=3, stride=1, padding=1) + mean).transpose(1, 2)


def heads(m, x):
    return torch.sigmoid(m.fc_audioset(torch.relu(m.fc1(around(x)))))


def last_input(m, module, x):
    """The input that the forward pass of m gives to a module."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _m, i: seen.append(i[0].clone()))
    m(x)
    hook.remove()
    return seen[0]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--panns", required=True)
    models = rc.import_panns(ap.parse_args().panns)
    torch.set_grad_enabled(False)
    tensors = {}
    for way in ("Max", "Avg", "Att"):
        m = narrow(models, f"Cnn14_DecisionLevel{way}")
        for n in LENGTHS:
            for key, value in m(signal(n)).items():
                tensors[f"{way.lower()}.{n}.{key}"] = value.numpy()
            # The reference has no embedding; ours is the mean over segments of the input of its last layer.
            if way == "Att":
                segments = last_input(m, m.att_block, signal(n)).transpose(1, 2)
            else:
                segments = last_input(m, m.fc_audioset, signal(n))
            tensors[f"{way.lower()}.{n}.embedding"] = segments.mean(1).numpy()
    m = narrow(models, "Cnn14")
    for n in LENGTHS:
        steps = {}
        forward = m.conv_block6.forward
        m.conv_block6.forward = lambda *a, **k: steps.setdefault("map", forward(*a, **k))
        m(signal(n))
        m.conv_block6.forward = forward
        segments = heads(m, steps["map"].mean(3))
        n_frames = n // 320 + 1
        frames = segments.repeat_interleave(32, 1)
        frames = torch.cat([frames, frames[:, -1:].repeat(1, n_frames - frames.shape[1], 1)], 1)
        tensors[f"cnn14.{n}.framewise_output"] = frames.numpy()
    for arch in ("LeeNet11", "LeeNet24"):
        m = rc.fill(getattr(models, arch)(classes_num=CLASSES, **FRONT_END), SEED)
        for n in RAW_LENGTHS:
            steps = {}
            forward = m.conv_block9.forward
            m.conv_block9.forward = lambda *a, **k: steps.setdefault("map", forward(*a, **k))
            m(signal(n))
            m.conv_block9.forward = forward
            tensors[f"{arch.lower()}.{n}.framewise_output"] = heads(m, steps["map"]).numpy()
    for key, value in tensors.items():
        print(key, value.shape, float(value.max()), float(value.std()))
    rc.save(os.path.join(HERE, "decision.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "torchlibrosa", "librosa"))


if __name__ == "__main__":
    main()
