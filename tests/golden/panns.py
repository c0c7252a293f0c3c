#!/usr/bin/env python3
"""Golden data of the other networks of PANNs at narrow widths: every stage of one clip, outputs of the others.

    python panns.py --panns CHECKOUT [NAME ...]        writes panns_NAME.safetensors beside this file

CHECKOUT is a checkout of qiuqiangkong/audioset_tagging_cnn (read at d2f4b8c). Weights are hashed from their names
(refcommon.py); the last norm of a residual block is scaled down, because otherwise all scores would be 0 or 1. Of a stage, every
n-th value is stored; n is in the name, after the shape. The metadata has the shapes of the published class's tensors, except those
of norms, which follow from the others, and its number of parameters.
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
STAGE_VALUES = 3000  # all stages of a network together
LAST_NORM = 0.25
FRONT_END = dict(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000)


def published(models, name):
    m = getattr(models, name)(classes_num=527, **dict(FRONT_END, mel_bins=128 if "128" in name else 32 if "32" in name else 64))
    print(name, sum(p.numel() for p in m.parameters() if p.requires_grad), "parameters")
    shapes = {key: list(x.shape) for key, x in m.state_dict().items() if x.dim() > 1 or key == "bn0.weight"}
    return json.dumps(shapes, separators=(",", ":"))


def head(m, channels):
    m.fc1 = nn.Linear(channels, EMBEDDING)
    m.fc_audioset = nn.Linear(EMBEDDING, CLASSES)


def resnet(models, name, block, n_blocks):
    """The published class with narrow layers, built by its own `_make_layer`."""
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


def wavegram(models, name, columns, log_mel):
    mels = 2 * columns
    m = getattr(models, name)(classes_num=CLASSES, **dict(FRONT_END, mel_bins=mels))
    channels = (4, 8, 12, 16, 20, 24)
    m.pre_conv0, m.pre_bn0 = nn.Conv1d(1, 8, 11, stride=5, padding=5, bias=False), nn.BatchNorm1d(8)
    m.pre_block1, m.pre_block2 = models.ConvPreWavBlock(8, 8), models.ConvPreWavBlock(8, 12)
    m.pre_block3 = models.ConvPreWavBlock(12, 2 * columns)
    m.pre_block4 = models.ConvBlock(2, channels[0])
    inputs = 1
    for i, outputs in enumerate(channels):
        setattr(m, f"conv_block{i + 1}", models.ConvBlock(inputs, outputs))
        inputs = outputs * 2 if i == 0 and log_mel else outputs
    head(m, channels[-1])
    first = 1 if log_mel else 2
    return m, [*(f"pre_block{i}" for i in range(1, 5)), *(f"conv_block{i}" for i in range(first, 7))], None


def narrow_by(divisor, module):
    """The same modules with fewer channels."""
    part = lambda n: n if n == 1 else n // divisor
    for name, child in module.named_children():
        if isinstance(child, (nn.Conv1d, nn.Conv2d)):
            sizes = dict(stride=child.stride, padding=child.padding, dilation=child.dilation, groups=part(child.groups))
            child = type(child)(part(child.in_channels), part(child.out_channels), child.kernel_size, bias=False, **sizes)
            setattr(module, name, child)
        elif isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)) and name != "bn0":
            setattr(module, name, type(child)(part(child.num_features)))
        elif not name.endswith("extractor"):
            narrow_by(divisor, child)


def on_wave(models, name, divisor, last_norm, stages):
    m = getattr(models, name)(classes_num=CLASSES, **FRONT_END)
    narrow_by(divisor, m)
    m.bn0 = nn.BatchNorm1d(m.conv0.out_channels)
    head(m, m.fc1.in_features // divisor)
    return m, stages, last_norm


def cnn14(models, name, mels):
    m = getattr(models, name)(classes_num=CLASSES, **dict(FRONT_END, mel_bins=mels))
    narrow_by(16, m)
    head(m, m.fc1.in_features // 16)
    return m, [f"conv_block{i}" for i in range(1, 7)], None


def mobilenet(models, name, divisor):
    m = getattr(models, name)(classes_num=CLASSES, **FRONT_END)
    narrow_by(divisor, m)
    head(m, m.fc1.in_features // divisor)
    return m, [f"features.{i}" for i in range(len(m.features))], None


RES1DNET = ["bn0", *(f"resnet.layer{i}" for i in range(1, 8))]
DAINET = ["bn0", *(f"conv_block{i}" for i in range(1, 5))]

# Clip lengths in samples: the shortest, one that does not fill whole steps, 1.237 s.
ON_LOG_MEL = (31 * 320, 77 * 320 + 7, 39584)

# Equally many rows from log-mel and from the waveform; an even number of frames, with and without equal numbers.
ON_BOTH = (10236, 40 * 320 + 7, 80 * 320 - 4, 81 * 320 + 7)

# The published class, its narrow twin, the clip lengths.
NETWORKS = {
    "resnet22": ("ResNet22", lambda models, name: resnet(models, name, models._ResnetBasicBlock, (2, 2, 2, 2)), ON_LOG_MEL),
    "resnet38": ("ResNet38", lambda models, name: resnet(models, name, models._ResnetBasicBlock, (3, 4, 6, 3)), ON_LOG_MEL),
    "resnet54": ("ResNet54", lambda models, name: resnet(models, name, models._ResnetBottleneck, (3, 4, 6, 3)), ON_LOG_MEL),
    "cnn14-mel32": ("Cnn14_mel32", lambda models, name: cnn14(models, name, 32), ON_LOG_MEL),
    "cnn14-mel128": ("Cnn14_mel128", lambda models, name: cnn14(models, name, 128), ON_LOG_MEL),
    "mobilenetv1": ("MobileNetV1", lambda models, name: mobilenet(models, name, 8), ON_LOG_MEL),
    "mobilenetv2": ("MobileNetV2", lambda models, name: mobilenet(models, name, 8), ON_LOG_MEL),
    "res1dnet31": ("Res1dNet31", lambda models, name: on_wave(models, name, 16, ("resnet.", "bn2.weight"), RES1DNET), (20476, 39584, 61234)),
    "res1dnet51": ("Res1dNet51", lambda models, name: on_wave(models, name, 16, ("resnet.", "bn2.weight"), RES1DNET), (20476, 39584, 61234)),
    "dainet19": ("DaiNet19", lambda models, name: on_wave(models, name, 8, ("conv_block", "bn4.weight"), DAINET), (332, 9999, 39584)),
    "wavegram-cnn14": ("Wavegram_Cnn14", lambda models, name: wavegram(models, name, 32, False), (10236, 39584, 50001)),
    "wavegram-logmel-cnn14": ("Wavegram_Logmel_Cnn14", lambda models, name: wavegram(models, name, 32, True), ON_BOTH),
    "wavegram-logmel128-cnn14": ("Wavegram_Logmel128_Cnn14", lambda models, name: wavegram(models, name, 64, True), ON_BOTH),
}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--panns", required=True)
    ap.add_argument("names", nargs="*")
    args = ap.parse_args()
    models = rc.import_panns(args.panns)
    cat = torch.cat
    # The reference concatenates maps of the wavegram and of log-mel, and fails if one has more rows; such clips are
    # skipped.
    torch.cat = lambda maps, dim: cat([x[:, :, : min(x.shape[2] for x in maps)] for x in maps], dim)
    torch.set_grad_enabled(False)
    for name in args.names or NETWORKS:
        full, make, lengths = NETWORKS[name]
        m, stages, damped = make(models, full)
        rc.fill(m, SEED)
        for key, tensor in m.state_dict().items():
            if damped and key.startswith(damped[0]) and key.endswith(damped[1]):
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
                step = -(-y.numel() * len(stages) // STAGE_VALUES)
                shape = "x".join(map(str, y.shape))
                tensors[f"{n}.stage{i}.{shape}.{step}"] = y.flatten()[::step].numpy()
            largest = float(tensors[f"{n}.embedding"].max())
            print(name, n, tensors[f"{n}.clipwise_output"].round(3).tolist()[0], "embedding up to", largest)
        about = dict(seed=SEED, versions=rc.versions("torch", "torchlibrosa", "librosa"), published=published(models, full))
        rc.save(os.path.join(HERE, f"panns_{name}.safetensors"), tensors, **about)


if __name__ == "__main__":
    main()
