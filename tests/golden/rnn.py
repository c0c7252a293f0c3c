#!/usr/bin/env python3
"""Golden data of the recurrent layers and their classifier: torch.nn.GRU, LSTM, packed sequences, gradients.

    python rnn.py        writes rnn.safetensors beside this file

Cases are named CELL.LAYERS.DIRECTIONS.WHAT; weights and inputs are hashed (refcommon.py).
"""
import os

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 31
INPUTS, HIDDEN, BATCH, FRAMES = 5, 7, 4, 11
LENGTHS = [4, 11, 1, 11]
CLASSES, ATTENTION = 3, 6
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


def tensor(name, shape, high):
    return torch.from_numpy(rc.hashed(name, shape, -high, high, SEED))


def run(rnn, x, lengths, state=None):
    """Frames, h and c as a dictionary."""
    if lengths is None:
        y, state = rnn(x, state)
    else:
        packed, state = rnn(pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False), state)
        y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    out = {"frames": y}
    out.update(zip("hc", state if isinstance(state, tuple) else (state,)))
    return out


class Classifier(nn.Module):
    def __init__(self, cell, directions):
        super().__init__()
        self.rnn = CELLS[cell](INPUTS, HIDDEN, 2, batch_first=True, bidirectional=directions == 2)
        width = HIDDEN * directions
        self.attention = nn.Sequential(nn.Linear(width, ATTENTION), nn.Tanh(), nn.Linear(ATTENTION, 1))
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x, lengths, pooling):
        out = run(self.rnn, x, lengths)
        y, beyond = out["frames"], torch.arange(x.shape[1])[None] >= torch.tensor(lengths)[:, None]  # [B, T]
        if pooling == "last":
            directions = 2 if self.rnn.bidirectional else 1
            h = torch.cat(list(out["h"][-directions:]), dim=-1)
        elif pooling == "mean":
            h = y.sum(1) / torch.tensor(lengths)[:, None]
        elif pooling == "max":
            h = y.masked_fill(beyond[..., None], -torch.inf).amax(1)
        else:
            scores = self.attention(y)[..., 0].masked_fill(beyond, -torch.inf)
            h = (scores.softmax(1)[..., None] * y).sum(1)
        return h, self.fc(h)


def main():
    tensors = {}

    def keep(case, values):
        tensors.update({f"{case}.{key}": value.detach().numpy() for key, value in values.items()})

    x = tensor("x", (BATCH, FRAMES, INPUTS), 2.0)
    for cell, build in CELLS.items():
        for layers in (1, 3):
            for directions in (1, 2):
                case = f"{cell}.{layers}.{directions}"
                rnn = rc.fill(build(INPUTS, HIDDEN, layers, batch_first=True, bidirectional=directions == 2), SEED)
                keep(f"{case}.plain", run(rnn, x, None))
                keep(f"{case}.lengths", run(rnn, x, LENGTHS))
                if layers == 3:
                    state = [tensor(name, (layers * directions, BATCH, HIDDEN), 1.0) for name in "hc"]
                    state = tuple(state) if cell == "lstm" else state[0]
                    keep(f"{case}.state", run(rnn, x, LENGTHS, state))
        rnn = rc.fill(build(INPUTS, HIDDEN, 2, bias=False, batch_first=True, bidirectional=True), SEED)
        keep(f"{cell}.2.2.no_bias", run(rnn, x, LENGTHS))
        # Gradients of a weighted sum of all frames.
        rnn = rc.fill(build(INPUTS, HIDDEN, 2, batch_first=True, bidirectional=True), SEED)
        y = run(rnn, x, LENGTHS)["frames"]
        (y * tensor("gradient", tuple(y.shape), 1.0)).sum().backward()
        keep(f"{cell}.2.2.gradient", {name: p.grad for name, p in rnn.named_parameters() if "_l0" in name})
        for directions in (1, 2):
            model = rc.fill(Classifier(cell, directions), SEED)
            for pooling in ("last", "mean", "max", "attention"):
                embedding, logits = model(x, LENGTHS, pooling)
                keep(f"classifier.{cell}.{directions}.{pooling}", {"embedding": embedding, "logits": logits})
    rc.save(os.path.join(HERE, "rnn.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
