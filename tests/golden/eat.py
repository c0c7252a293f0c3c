#!/usr/bin/env python3
"""Golden data of EAT: the blocks, patches and positions of cwx-worst-one/EAT with narrow widths, assembled as in its Hugging
Face class.

    python eat.py --eat CHECKOUT [--full]       writes eat.safetensors beside this file

CHECKOUT is a checkout of cwx-worst-one/EAT; only classes are taken from its files, because their imports need fairseq. Weights are
hashed under the names of the Hugging Face layout. `fairseq.*` has the epsilon of the last norm of that layout. Features are
torchaudio's in f64. Clips longer than the model's window are cut as described in src/models/vit.rs. `N.states` is every 13th value of
the tokens before the first block and after each. --full: eat_full.safetensors of EAT base, to the current directory.
"""
import argparse
import os
import sys
import types

import torch
import torch.nn.functional as F
from torch import nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 73
NARROW = dict(width=32, depth=2, heads=2, classes=7, columns=12, length=64)
BASE = dict(width=768, depth=12, heads=12, classes=527, columns=768, length=1024)
LENGTHS = (400, 9001, 24_000)  # 1, 54 and 148 frames
MEAN, STD = -4.268, 4.569


class Mlp(nn.Module):
    """As in timm."""

    def __init__(self, in_features, hidden_features, act_layer, drop):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(in_features, hidden_features), act_layer(), nn.Linear(hidden_features, in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Eat(nn.Module):
    def __init__(self, checkout, width, depth, heads, classes, columns, length):
        super().__init__()
        timm = types.ModuleType("timm.models.vision_transformer")
        timm.Mlp, timm.DropPath = Mlp, nn.Identity
        sys.modules |= {"timm": types.ModuleType("timm"), "timm.models": types.ModuleType("timm.models"), timm.__name__: timm}
        models = os.path.join(checkout, "models")
        scope = dict(torch=torch, nn=nn, F=F, to_2tuple=lambda x: x if isinstance(x, tuple) else (x, x))
        names = ["AltAttention", "AltBlock", "FixedPositionalEncoder"]
        _, block, positions = rc.definitions(os.path.join(models, "modules.py"), names, **scope)
        (patches,) = rc.definitions(os.path.join(models, "mae.py"), ["PatchEmbed_new"], **scope)
        norm = lambda n: nn.LayerNorm(n, eps=1e-6)
        self.length = length
        self.local_encoder = patches((1024, 128), 16, 1, width, 16)
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.fixed_positional_encoder = positions(nn.Parameter(torch.zeros(1, columns * 8, width)))
        self.pre_norm = norm(width)
        self.blocks = nn.ModuleList(
            block(width, heads, qkv_bias=True, norm_layer=norm, layer_norm_first=False, ffn_targets=True) for _ in range(depth)
        )
        self.fc_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def encode(self, x):
        x = self.local_encoder(x)
        x = x + self.fixed_positional_encoder(x, None)[:, : x.size(1)]
        x = self.pre_norm(torch.cat((self.extra_tokens.expand(len(x), -1, -1), x), dim=1))
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1])[0])
        return states


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--eat", required=True)
    ap.add_argument("--full", action="store_true")
    a = ap.parse_args()
    torch.set_grad_enabled(False)
    model = rc.fill_transformer(Eat(a.eat, **(BASE if a.full else NARROW)), SEED)
    tensors = {}
    for name, eps in (("full", 1e-5),) if a.full else (("hf", 1e-5), ("fairseq", 1e-6)):
        model.fc_norm.eps = eps
        for n in (19_792, 160_000) if a.full else LENGTHS:
            x = rc.as_float(rc.signal(n, 16000, seed=9))
            fbank = rc.fbank(x - x.mean(), window_type="hanning", htk_compat=True, use_energy=False, dither=0.0, frame_shift=10)
            scores, embedding = 0, 0
            for start, weight in rc.windows(len(fbank), model.length):
                window = fbank[start : start + model.length]
                window = F.pad(window, (0, 0, 0, model.length - len(window)))
                states = model.encode(((window - MEAN) / (2 * STD)).float()[None, None])
                token = states[-1][0, 0]
                scores = scores + weight / len(fbank) * model.head(model.fc_norm(token)).sigmoid()
                embedding = embedding + weight / len(fbank) * token
            tensors[f"{name}.{n}.scores"] = scores.float().numpy()
            tensors[f"{name}.{n}.embedding"] = embedding.float().numpy()
            if name == "hf" and n == 9001:
                tensors[f"{name}.{n}.states"] = torch.cat([state.flatten() for state in states]).numpy()[::13]
            print(name, n, float(scores.max()))
    where = "eat_full.safetensors" if a.full else os.path.join(HERE, "eat.safetensors")
    rc.save(where, tensors, seed=SEED, versions=rc.versions("torch", "torchaudio"))


if __name__ == "__main__":
    main()
