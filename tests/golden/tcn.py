#!/usr/bin/env python3
"""Golden data of the temporal convolutional network: locuslab/TCN's own class with hashed weights.

    python tcn.py FOLDER     the checkout of locuslab/TCN; writes tcn.safetensors beside this file

Weights are under weight norm, as there: both pieces are hashed (refcommon.py).
"""
import os
import sys

import torch
from torch import nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 37
INPUTS, CHANNELS, KERNEL, BATCH, FRAMES, CLASSES = 5, [6, 6, 9], 3, 3, 40, 4
LENGTHS = [40, 1, 23]


def main():
    sys.path.insert(0, sys.argv[1])
    from TCN.tcn import TemporalConvNet

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.tcn = TemporalConvNet(INPUTS, CHANNELS, kernel_size=KERNEL, dropout=0.2)
            self.linear = nn.Linear(CHANNELS[-1], CLASSES)

    model = Classifier().eval()
    state = {}
    for name, value in model.state_dict().items():
        # conv1 and net.0 are one convolution.
        name = name.replace(".net.0.", ".conv1.").replace(".net.4.", ".conv2.")
        state[name] = torch.from_numpy(rc.hashed(name, tuple(value.shape), *((0.5, 1.5) if name.endswith("weight_g") else (-0.6, 0.6)), SEED))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(state[name.replace(".net.0.", ".conv1.").replace(".net.4.", ".conv2.")])
    x = torch.from_numpy(rc.hashed("x", (BATCH, FRAMES, INPUTS), -2.0, 2.0, SEED))
    tensors, y = {}, x.transpose(1, 2)
    with torch.no_grad():
        for i, level in enumerate(model.tcn.network):
            y = level(y)
            tensors[f"level{i}"] = y.transpose(1, 2)
        for length in LENGTHS:
            tensors[f"last.{length}"] = model.linear(model.tcn(x[:, :length].transpose(1, 2))[:, :, -1])
        tensors["mean"] = model.linear(y.mean(2))
    # Gradients of a weighted sum of all frames with plain convolutions of the folded weights.
    for name in list(model.state_dict()):
        if name.endswith("weight_v"):
            place = name[: -len(".weight_v")]
            if ".net." not in place:
                torch.nn.utils.remove_weight_norm(model.get_submodule(place))
    y = model.tcn(x.transpose(1, 2)).transpose(1, 2)
    (y * torch.from_numpy(rc.hashed("gradient", tuple(y.shape), -1.0, 1.0, SEED))).sum().backward()
    for name, parameter in model.tcn.named_parameters():
        if ".net." not in name:
            tensors[f"gradient.tcn.{name}"] = parameter.grad
    tensors = {name: value.detach().numpy() for name, value in tensors.items()}
    rc.save(os.path.join(HERE, "tcn.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
