#!/usr/bin/env python3
"""Golden data of SpeechTokenizer, by the package speechtokenizer with narrow widths.

    python speech_tokenizer.py        writes speech_tokenizer.safetensors and speech_tokenizer.pt beside this file

NAME.N are the encoder's hidden states [n_frames, dim] of the clip of N samples, in f64; NAME.N.codes its codes [n_q, n_frames],
which the package computes equally in f32 and in f64. Weights are hashed from their names (refcommon.py): gains of weight norm and
alpha 0.5 to 1.5, vectors of codebooks +- 0.5, biases +- 0.1, matrices +- sqrt(3 / inputs). speech_tokenizer.pt is the state dict of
`file`, including decoder and buffers, as saved by the package.
"""
import math
import os
import sys
import types

import torch

import refcommon as rc

# The package imports its trainer, which needs many more packages.
sys.modules["speechtokenizer.trainer"] = types.ModuleType("speechtokenizer.trainer")
sys.modules["speechtokenizer.trainer"].SpeechTokenizerTrainer = None
from speechtokenizer import SpeechTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 41
LENGTHS = (1, 2, 9, 64, 333, 2001)
COMMON = dict(semantic_dimension=5, sample_rate=16000)
CONFIGS = {
    "elu": dict(
        COMMON, n_filters=4, strides=[4, 2], dimension=12, bidirectional=True, dilation_base=2, residual_kernel_size=3,
        n_residual_layers=1, lstm_layers=2, activation="ELU", codebook_size=32, n_q=4),
    "snake": dict(
        COMMON, n_filters=6, strides=[5, 3, 2], dimension=10, bidirectional=False, dilation_base=3, residual_kernel_size=4,
        n_residual_layers=2, lstm_layers=1, activation="Snake", codebook_size=20, n_q=3),
    "wide": dict(
        COMMON, n_filters=16, strides=[8, 5], dimension=16, bidirectional=False, dilation_base=2, residual_kernel_size=3,
        n_residual_layers=3, lstm_layers=0, activation="ELU", codebook_size=50, n_q=8),
    "file": dict(
        COMMON, n_filters=2, strides=[3], dimension=6, bidirectional=True, dilation_base=2, residual_kernel_size=3,
        n_residual_layers=1, lstm_layers=1, activation="ELU", codebook_size=8, n_q=2),
}


def fill(model):
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith(("weight_g", "alpha")):
            low, high = 0.5, 1.5
        elif name.endswith("embed"):
            low, high = -0.5, 0.5
        elif len(shape) == 1:
            low, high = -0.1, 0.1
        else:
            high = math.sqrt(3.0 / math.prod(shape[1:]))
            low = -high
        tensor.copy_(torch.from_numpy(rc.hashed(name, shape, low, high, SEED)))
    return model.eval()


def main():
    torch.set_grad_enabled(False)
    tensors = {}
    for name, config in CONFIGS.items():
        model = fill(SpeechTokenizer(config))
        if name == "file":
            torch.save(model.state_dict(), os.path.join(HERE, "speech_tokenizer.pt"))
        for n in LENGTHS:
            x = torch.from_numpy(rc.as_float(rc.signal(n, 16000, seed=6)))[None, None]
            codes = model.float().encode(x)[:, 0]
            states = model.double().encoder(x.double())
            assert torch.equal(codes, model.quantizer.encode(states)[:, 0]), (name, n)
            tensors[f"{name}.{n}"] = states[0].T.float().numpy()
            tensors[f"{name}.{n}.codes"] = codes.numpy().astype("int32")
            print(name, n, tuple(states.shape), float(states.abs().max()), [len(set(row)) for row in codes.tolist()])
    rc.save(
        os.path.join(HERE, "speech_tokenizer.safetensors"), tensors, configs=CONFIGS, lengths=LENGTHS, seed=SEED,
        versions=rc.versions("torch", "speechtokenizer"))


if __name__ == "__main__":
    main()
