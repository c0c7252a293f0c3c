#!/usr/bin/env python3
"""Golden data of the other networks of PANNs at narrow widths: every stage of one clip, outputs of the others.

    python panns.py --panns CHECKOUT [NAME ...]        writes panns_NAME.safetensors beside this file

CHECKOUT is a checkout of qiuqiangkong/audioset_tagging_cnn (read at d2f4b8c). Weights are hashed from their names
(refcommon.py); the last norm of a residual block is scaled down, or scores would all be 0 or 1. Of a stage, every n-th value
is stored: n is in the name, after the shape. The metadata has the shapes of the published class's tensors, without those of
norms, which tell nothing that these do not, and the number of its parameters.
"""
import argparse
import json
import os

import torch
import torch.nn as nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 29
EMBEDDING, CLASSES = 20, 11
STAGE_VALUES = 500
LAST_NORM = 0.25
FRONT_END = dict(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000)


def published(models, name):
    m = getattr(models, name)(classes_num=527, **FRONT_END)
    print(name, sum(p.numel() for p in m.parameters() if p.requires_grad), "parameters")
    shapes = {key: list(x.shape) for key, x in m.state_dict().items() if x.dim() > 1 or key == "bn0.weight"}
    return json.dumps(shapes, separators=(",", ":"))


def head(m, channels):
    m.fc1 = nn.Linear(channels, EMBEDDING)
    m.fc_audioset = nn.Linear(EMBEDDING, CLASSES)


def resnet(models, name, block, n_blocks):
    """The published class with narrow layers, made by its own `_make_layer`."""
    m = getattr(models, name)(classes_num=CLASSES, **FRONT_END)
    net = m.resnet
    net.inplanes = 8
    for i, planes in enumerate((4, 8, 12, 16)):
        setattr(net, f"layer{i + 1}", net._make_layer(block, planes, n_blocks[i], stride=1 if i == 0 else 2))
    m.conv_block1 = models.ConvBlock(1, 8)
    m.conv_block_after1 = models.ConvBlock(net.inplanes, 24)
    head(m, 24)
    stages = ["conv_block1", *(f"resnet.layer{i}" for i in range(1, 5)), "conv_block_after1"]
    return m, stages, ("resnet.", "bn3.weight" if name == "ResNet54" else "bn2.weight")


# Samples of a clip: the shortest, one that fills no whole step, 1.237 s.
ON_LOG_MEL = (31 * 320, 77 * 320 + 7, 39584)

# The published class, its narrow twin, the lengths.
NETWORKS = {
    "resnet22": ("ResNet22", lambda models, name: resnet(models, name, models._ResnetBasicBlock, (2, 2, 2, 2)), ON_LOG_MEL),
    "resnet38": ("ResNet38", lambda models, name: resnet(models, name, models._ResnetBasicBlock, (3, 4, 6, 3)), ON_LOG_MEL),
    "resnet54": ("ResNet54", lambda models, name: resnet(models, name, models._ResnetBottleneck, (3, 4, 6, 3)), ON_LOG_MEL),
}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--panns", required=True)
    ap.add_argument("names", nargs="*")
    args = ap.parse_args()
    models = rc.import_panns(args.panns)
    torch.set_grad_enabled(False)
    for name in args.names or NETWORKS:
        full, make, lengths = NETWORKS[name]
        m, stages, (residual, last_norm) = make(models, full)
        rc.fill(m, SEED)
        for key, tensor in m.state_dict().items():
            if key.startswith(residual) and key.endswith(last_norm):
                tensor *= LAST_NORM
        tensors = {}
        for n in lengths:
            x = torch.from_numpy(rc.as_float(rc.signal(n, 32000, seed=3)))[None]
            kept, hooks = {}, []
            if n == lengths[1]:
                for i, stage in enumerate(stages):
                    keep = lambda _m, _i, y, i=i: kept.update({i: y.clone()})
                    hooks.append(m.get_submodule(stage).register_forward_hook(keep))
            tensors.update({f"{n}.{key}": value.numpy() for key, value in m(x).items()})
            for hook in hooks:
                hook.remove()
            for i, y in kept.items():
                step = -(-y.numel() // STAGE_VALUES)
                shape = "x".join(map(str, y.shape))
                tensors[f"{n}.stage{i}.{shape}.{step}"] = y.flatten()[::step].numpy()
            largest = float(tensors[f"{n}.embedding"].max())
            print(name, n, tensors[f"{n}.clipwise_output"].round(3).tolist()[0], "embedding up to", largest)
        about = dict(seed=SEED, versions=rc.versions("torch", "torchlibrosa", "librosa"), published=published(models, full))
        rc.save(os.path.join(HERE, f"panns_{name}.safetensors"), tensors, **about)


if __name__ == "__main__":
    main()
