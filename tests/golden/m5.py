#!/usr/bin/env python3
"""Golden data of the M5 family in PyTorch, every layer (of M18 those before poolings): outputs only, weights are hashed (refcommon.py).

    python m5.py        writes m5.safetensors beside this file

The M5 of the PyTorch tutorial has its own widths, the paper's networks a sixteenth of theirs. `train` is AdamW on a narrow M5 with
batch statistics: the loss before each of two steps, and the weights after them.
"""
import os

import torch
import torch.nn.functional as F
from torch import nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 17
CLASSES = 7
PAPER = {  # first channels, stages of (channels, layers), residual, whether the last stage is pooled
    "m3": (16, [(16, 1)], False, True),
    "m5-paper": (8, [(8, 1), (16, 1), (32, 1)], False, True),
    "m11": (4, [(4, 2), (8, 2), (16, 3), (32, 2)], False, False),
    "m18": (4, [(4, 4), (8, 4), (16, 4), (32, 4)], False, False),
    "m34-res": (3, [(3, 3), (6, 4), (12, 6), (24, 3)], True, False),
}


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(inputs, outputs, 3, padding=1), nn.BatchNorm1d(outputs)
        self.conv2, self.bn2 = nn.Conv1d(outputs, outputs, 3, padding=1), nn.BatchNorm1d(outputs)
        self.bn3, self.repeats = nn.BatchNorm1d(outputs), outputs // inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.bn3(y + x.repeat_interleave(self.repeats, dim=1)))


class Net(nn.Module):
    def __init__(self, first, stages, residual, pool_last, classes, stride=4, padded=True):
        super().__init__()
        self.conv1 = nn.Conv1d(1, first, 80, stride=stride, padding=(80 - stride) // 2 if padded else 0)
        self.bn1 = nn.BatchNorm1d(first)
        self.pooled, channels = [True], first
        for i, (width, layers) in enumerate(stages):
            for layer in range(layers):
                n = len(self.pooled)
                if residual:
                    setattr(self, f"block{n}", Block(channels, width))
                else:
                    setattr(self, f"conv{n + 1}", nn.Conv1d(channels, width, 3, padding=int(padded)))
                    setattr(self, f"bn{n + 1}", nn.BatchNorm1d(width))
                self.pooled.append(layer == layers - 1 and (pool_last or i < len(stages) - 1))
                channels = width
        self.residual, self.fc1 = residual, nn.Linear(channels, classes)

    def forward(self, x):
        out = {}
        for i, pooled in enumerate(self.pooled):
            if i > 0 and self.residual:
                x = getattr(self, f"block{i}")(x)
            else:
                x = F.relu(getattr(self, f"bn{i + 1}")(getattr(self, f"conv{i + 1}")(x)))
            x = F.max_pool1d(x, 4) if pooled else x
            if pooled or self.residual or len(self.pooled) < 12 or i % 4 == 0:
                out[f"layer{i + 1}"] = x
        out["embedding"] = F.avg_pool1d(x, x.shape[-1])[..., 0]
        out["logits"] = self.fc1(out["embedding"])
        out["clipwise_output"] = F.log_softmax(out["logits"], dim=-1).exp()
        return out


def tutorial(channels, classes):
    return Net(channels, [(channels, 1), (2 * channels, 1), (2 * channels, 1)], False, True, classes, stride=16, padded=False)


def clips(batch, n):
    return torch.stack([torch.from_numpy(rc.as_float(rc.signal(n, 8000, seed=i + 1))) for i in range(batch)])[:, None]


def train():
    """Two steps of AdamW, with a learning rate and an epsilon of 0.01."""
    net = rc.fill(tutorial(4, 3), SEED).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, eps=1e-2)  # keeps steps small whose gradient is only rounding
    x, labels, out = clips(4, 7000), torch.tensor([0, 2, 1, 2]), {}
    for step in range(2):
        loss = F.nll_loss(torch.log_softmax(net(x)["logits"], -1), labels)
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            out |= {f"train.gradient.{name}": value.grad.numpy().copy() for name, value in net.named_parameters()}
        optimiser.step()
        out[f"train.loss{step}"] = loss.detach().numpy().reshape(1)
    out |= {f"train.{name}": value.numpy() for name, value in net.state_dict().items() if value.ndim > 0}
    return out


def main():
    net = rc.fill(tutorial(32, 35), SEED)
    assert sum(value.numel() for value in net.parameters()) == 26_915
    cases = {"m5": (net, (6848, 8000)), "narrow": (rc.fill(tutorial(4, 3), SEED), (7000,))}
    for name, arguments in PAPER.items():
        cases[name] = (rc.fill(Net(*arguments, CLASSES), SEED), (2000,))
    tensors = train()
    with torch.no_grad():
        for name, (net, lengths) in cases.items():
            for n in lengths:
                out = net(clips(1, n))
                print(name, n, float(out["embedding"].abs().max()), out["clipwise_output"].max().item())
                keep = {"embedding", "logits", "clipwise_output"} | (set(out) if n != 8000 else set())
                tensors |= {f"{name}.{n}.{key}": out[key].numpy() for key in keep}
    rc.save(os.path.join(HERE, "m5.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
