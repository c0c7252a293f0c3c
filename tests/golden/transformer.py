#!/usr/bin/env python3
"""Golden data of the transformer block: torch.nn.TransformerEncoderLayer, norm first and last, with and without padding.

    python transformer.py        writes transformer.safetensors beside this file
"""
import os

import numpy as np
import torch
from torch import nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 5
WIDTH, HEADS, FEED_FORWARD, BATCH, TOKENS = 24, 3, 40, 3, 70
LENGTHS = [70, 1, 33]


def main():
    torch.set_grad_enabled(False)
    tensors = {}
    for place, norm_first in (("before", True), ("after", False)):
        block = nn.TransformerEncoderLayer(WIDTH, HEADS, FEED_FORWARD, activation="gelu", batch_first=True, norm_first=norm_first)
        for name, tensor in block.state_dict().items():
            low, high = (0.5, 1.5) if "norm" in name and name.endswith("weight") else (-0.3, 0.3)
            tensor.copy_(torch.from_numpy(rc.hashed(name, tuple(tensor.shape), low, high, SEED)))
        block.train()  # eval mode's fused path treats padding differently; dropout is off
        for module in block.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        block.self_attn.dropout = 0.0
        x = torch.from_numpy(rc.hashed("x", (BATCH, TOKENS, WIDTH), -2.0, 2.0, SEED))
        beyond = torch.arange(TOKENS)[None] >= torch.tensor(LENGTHS)[:, None]
        tensors[place] = block(x).numpy()
        masked = block(x, src_key_padding_mask=beyond).numpy()
        tensors[f"{place}.lengths"] = np.where(beyond.numpy()[..., None], 0.0, masked).astype(np.float32)
    rc.save(os.path.join(HERE, "transformer.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
