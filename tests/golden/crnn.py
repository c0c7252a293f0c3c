#!/usr/bin/env python3
"""Golden data of the CRNN of Datadriven-GPVAD with narrow widths: every stage, two clips.

    python crnn.py        writes crnn.safetensors beside this file

The module is written from the published description and the names in the checkpoint. A test with real files compares the outputs
published with the checkpoint, which shows that it is the same function. Weights are hashed (refcommon.py).
"""
import os

import torch
from torch import nn
from torch.nn.functional import interpolate

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 41
CHANNELS, HIDDEN, CLASSES = (3, 5, 6, 5, 7), 9, 4
BATCH, FRAMES, MELS = 2, 23, 64


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.block = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.LeakyReLU(0.1))

    def forward(self, x):
        return self.block(x)


class Crnn(nn.Module):
    def __init__(self):
        super().__init__()
        a, b, c, d, e = CHANNELS
        self.features = nn.Sequential(
            Block(1, a), nn.LPPool2d(4, (2, 4)), Block(a, b), Block(b, c), nn.LPPool2d(4, (2, 4)), Block(c, d), Block(d, e),
            nn.LPPool2d(4, (1, 4)))
        self.gru = nn.GRU(e, HIDDEN, bidirectional=True, batch_first=True)
        self.outputlayer = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x):
        stages, n_frames = {}, x.shape[2]
        for i, module in enumerate(self.features):
            x = module(x)
            stages[{1: "block0", 2: "block1", 4: "block2", 5: "block3", 7: "block4"}.get(i)] = x
        stages.pop(None)
        x, _ = self.gru(x.transpose(1, 2).flatten(2))
        stages["gru"] = x
        frames = torch.sigmoid(self.outputlayer(x)).clamp(1e-7, 1.0)
        stages["frames"] = frames
        frames = interpolate(frames.transpose(1, 2), n_frames, mode="linear", align_corners=False).transpose(1, 2)
        stages["framewise_output"] = frames
        stages["clipwise_output"] = ((frames**2).sum(1) / frames.sum(1)).clamp(1e-7, 1.0)
        return stages


def main():
    torch.set_grad_enabled(False)
    model = rc.fill(Crnn(), SEED)
    x = torch.from_numpy(rc.hashed("log_mel", (BATCH, 1, FRAMES, MELS), -20.0, 5.0, SEED))
    stages = {key: value.numpy() for key, value in model(x).items()}
    rc.save(os.path.join(HERE, "crnn.safetensors"), stages, seed=SEED, versions=rc.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
