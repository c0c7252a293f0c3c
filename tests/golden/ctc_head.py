#!/usr/bin/env python3
"""Golden data of CTC heads, the token transformer and the weighted sum of layers, by PyTorch.

    python ctc_head.py        writes ctc_head.safetensors and ctc_s3prl.pth beside this file

Weights and inputs are hashed. NAME.logits are those of the heads at their published sizes for two clips of 3 frames. The token
transformer gets two clips of 7 and 4 tokens; the second is masked beyond its end, and its 3 last rows are omitted. `sum` and
`sum.normalized` are sums of 25 layers by s3prl's `Featurizer`; `….alpha` the gradients of `Σ c · sum` for hashed c. `mlp.NAME` are
the gradients of `Σ c · logits` of a small two-layer head, `tokens.NAME` those of a small token transformer. `gru.0`, `gru.1` and
`lstm.0` … are the logits of small heads with recurrent layers for packed clips of 7 and 4 frames, `gru.NAME` and `lstm.NAME` the
gradients of `Σ c · logits` over their frames. ctc_s3prl.pth has the layout of files that s3prl saves after training: several models
by key, with `Featurizer` holding the weights of the sum.
"""
import argparse
import os

import numpy as np
import torch
from torch import nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 9


def hashed(name, *shape, bound=1.0):
    return torch.from_numpy(rc.hashed(name, shape, -bound, bound, SEED))


class Recurrent(nn.Module):
    def __init__(self, cell, dim, hidden, layers, bidirectional, head):
        super().__init__()
        self.rnn = cell(dim, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.lm_head = head

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.lm_head(states)


class Tokens(nn.Module):
    def __init__(self, codes, width, heads, ffn, layers, longest, n_tokens):
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        self.pos_encoding = nn.Parameter(torch.zeros(1, longest, width))
        layer = nn.TransformerEncoderLayer(width, heads, ffn, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.lm_head = nn.Linear(width, n_tokens)

    def forward(self, tokens, beyond=None):
        x = self.embedding(tokens) + self.pos_encoding[:, : tokens.shape[1]]
        return self.lm_head(self.transformer(x, src_key_padding_mask=beyond))


def fill(model):
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if ".norm" in name:
            low, high = rc.bounds(name, shape, "bn")
        elif name in ("embedding.weight", "pos_encoding") or name.startswith("rnn."):
            low, high = -0.5, 0.5
        elif name.endswith("bias"):
            low, high = -0.05, 0.05
        else:
            low, high = rc.bounds(name, shape, "linear")
        tensor.copy_(torch.from_numpy(rc.hashed(name, shape, low, high, SEED)))
    return model.eval()


def count(model):
    return sum(p.numel() for p in model.parameters())


def main():
    torch.manual_seed(0)
    tensors = {}
    heads = {
        "w2v_bert": (1024, nn.Linear(1024, 43), 44_075),
        "whisper_small": (768, nn.Sequential(nn.Dropout(0.1), nn.Linear(768, 43)), 33_067),
        "qwen2_audio": (1280, nn.Sequential(nn.Linear(1280, 512), nn.GELU(), nn.Dropout(0.1), nn.Linear(512, 43)), 677_931),
    }
    with torch.no_grad():
        for name, (dim, head, parameters) in heads.items():
            assert count(head) == parameters
            fill(head)
            tensors[f"{name}.logits"] = head.double()(hashed("hidden", 2, 3, dim).double()).float().numpy()
        model = Tokens(1024, 256, 4, 1024, 2, 2048, 43)
        assert count(model) == 2_377_003
        tokens = torch.from_numpy((rc.uniform01("tokens", 14, SEED) * 1024).astype(np.int64).reshape(2, 7))
        beyond = torch.arange(7)[None] >= torch.tensor([7, 4])[:, None]
        logits = fill(model).double()(tokens, beyond).float().numpy()
        tensors["tokens.0"], tensors["tokens.1"] = logits[0], logits[1, :4]

    layers = hashed("layers", 25, 2, 3, 8, bound=3.0).double()
    for name, normalize in [("sum", False), ("sum.normalized", True)]:
        alpha = hashed("alpha", 25, bound=2.0).double().requires_grad_()
        stacked = nn.functional.layer_norm(layers, (8,)) if normalize else layers
        total = (torch.softmax(alpha, 0)[:, None] * stacked.reshape(25, -1)).sum(0).reshape(2, 3, 8)
        (hashed("c", 2, 3, 8) * total).sum().backward()
        tensors[name], tensors[f"{name}.alpha"] = total.detach().float().numpy(), alpha.grad.float().numpy()

    head = fill(nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Dropout(0.1), nn.Linear(5, 4))).double()
    (hashed("c", 2, 3, 4) * head(hashed("hidden", 2, 3, 6).double())).sum().backward()
    for name, parameter in head.named_parameters():
        tensors[f"mlp.{name}"] = parameter.grad.float().numpy()

    for name, model in {
        "gru": Recurrent(nn.GRU, 6, 5, 2, True, nn.Linear(10, 4)),
        "lstm": Recurrent(nn.LSTM, 6, 5, 1, False, nn.Sequential(nn.Linear(5, 3), nn.GELU(), nn.Dropout(0.1), nn.Linear(3, 4))),
    }.items():
        with torch.no_grad():
            fill(model).double()
        logits = model(hashed("states", 2, 7, 6).double(), torch.tensor([7, 4]))
        for row, length in enumerate([7, 4]):
            tensors[f"{name}.{row}"] = logits[row, :length].detach().float().numpy()
        c = hashed("c", 2, 7, 4).double()
        ((c[0] * logits[0]).sum() + (c[1, :4] * logits[1, :4]).sum()).backward()
        for parameter, tensor in model.named_parameters():
            tensors[f"{name}.{parameter}"] = tensor.grad.float().numpy()

    model = fill(Tokens(11, 8, 2, 12, 1, 9, 4)).double()
    tokens = torch.from_numpy((rc.uniform01("tokens", 10, SEED) * 11).astype(np.int64).reshape(2, 5))
    (hashed("c", 2, 5, 4) * model(tokens)).sum().backward()
    for name, parameter in model.named_parameters():
        tensors[f"tokens.{name}"] = parameter.grad.float().numpy()
    rc.save(os.path.join(HERE, "ctc_head.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "numpy"))

    optimizer = torch.optim.Adam(model.parameters())
    parts = {
        "Optimizer": optimizer.state_dict(),
        "Args": argparse.Namespace(upstream="wav2vec2", layer_drop="original"),
        "Config": {"runner": {"total_steps": 3}},
        "Step": 3,
        "Downstream": model.float().state_dict(),
        "Featurizer": {"weights": hashed("alpha", 25, bound=2.0)},
    }
    torch.save(parts, os.path.join(HERE, "ctc_s3prl.pth"))


if __name__ == "__main__":
    main()
