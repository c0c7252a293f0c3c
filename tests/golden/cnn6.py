#!/usr/bin/env python3
"""Golden data of Cnn6 and Cnn10: narrow widths with every stage, and the published width with outputs only.

    python cnn6.py --panns CHECKOUT        writes cnn6.safetensors and cnn10.safetensors beside this file

CHECKOUT is a checkout of qiuqiangkong/audioset_tagging_cnn (read at d2f4b8c). Weights are hashed from their names
(refcommon.py), so only outputs are stored.
"""
import argparse
import os

import torch
import torch.nn as nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 23
CHANNELS, EMBEDDING, CLASSES = (4, 8, 12, 24), 20, 11
FRONT_END = dict(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000)
# Clip lengths in samples: the shortest, one that does not fill whole steps, 1.237 s.
LENGTHS = (15 * 320, 33 * 320 + 7, 39584)


def narrow(model, block):
    m = model(classes_num=CLASSES, **FRONT_END)
    widths = (1, *CHANNELS)
    for i in range(4):
        setattr(m, f"conv_block{i + 1}", block(widths[i], widths[i + 1]))
    m.fc1 = nn.Linear(CHANNELS[-1], EMBEDDING)
    m.fc_audioset = nn.Linear(EMBEDDING, CLASSES)
    return m


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--panns", required=True)
    models = rc.import_panns(ap.parse_args().panns)
    torch.set_grad_enabled(False)
    write("cnn6", models.Cnn6, models.ConvBlock5x5)
    write("cnn10", models.Cnn10, models.ConvBlock)


def write(file, model, block):
    tensors = {}
    for name, m in (("narrow", narrow(model, block)), ("full", model(classes_num=527, **FRONT_END))):
        rc.fill(m, SEED)
        for n in LENGTHS:
            x = torch.from_numpy(rc.as_float(rc.signal(n, 32000, seed=3)))[None]
            outputs = {}
            hooks = []
            if name == "narrow" and n == LENGTHS[1]:
                outputs["log_mel"] = m.logmel_extractor(m.spectrogram_extractor(x))[:, 0]
                for i in range(4):
                    keep = lambda _m, _i, y, key=f"block{i + 1}": outputs.update({key: y.clone()})
                    hooks.append(getattr(m, f"conv_block{i + 1}").register_forward_hook(keep))
            outputs.update(m(x))
            tensors.update({f"{name}.{n}.{key}": value.numpy() for key, value in outputs.items()})
            for hook in hooks:
                hook.remove()
            print(file, name, n, float(outputs["clipwise_output"].max()))
    rc.save(os.path.join(HERE, f"{file}.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "torchlibrosa", "librosa"))


if __name__ == "__main__":
    main()
