#!/usr/bin/env python3
"""Golden data of Dasheng: the encoder of XiaoMi/dasheng with narrow widths.

    python dasheng.py --dasheng CHECKOUT [--full]       writes dasheng.safetensors beside this file

CHECKOUT is one of XiaoMi/dasheng. `N.embedding` is the mean over tokens, `N.scores` what a head with the names of its README
(`classifier`) makes of it, `N.logits` before the sigmoid. `N.log_mel` is every 7th value of the spectrogram, `N.states` every 7th of
the tokens before the first block and after each. The narrow model sees 96 frames at once, so the longest clip has two windows.
--full: dasheng_full.safetensors of the base model here.
"""
import argparse
import os
import sys
import types

import torch

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 72
NARROW = dict(embed_dim=32, depth=2, num_heads=2, target_length=96)
BASE = dict(embed_dim=768, depth=12, num_heads=12, target_length=1008)
LENGTHS = (480, 9001, 24_000)  # 4, 57 and 151 frames


class Classifier(torch.nn.Module):
    def __init__(self, encoder, n_classes):
        super().__init__()
        self.dashengmodel = encoder
        width = encoder.embed_dim
        self.classifier = torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.Linear(width, n_classes))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--dasheng", required=True)
    ap.add_argument("--full", action="store_true")
    a = ap.parse_args()
    # The package asks for its own installed version when it is imported, so only its folder is made known.
    sys.modules["dasheng"] = types.ModuleType("dasheng")
    sys.modules["dasheng"].__path__ = [os.path.join(a.dasheng, "dasheng")]
    from dasheng.pretrained.pretrained import Dasheng

    torch.set_grad_enabled(False)
    model = Classifier(Dasheng(**(BASE if a.full else NARROW)), 527 if a.full else 7)
    window, filters = model.dashengmodel.front_end[0].spectrogram.window.clone(), model.dashengmodel.front_end[0].mel_scale.fb.clone()
    rc.fill_transformer(model, SEED)
    model.dashengmodel.front_end[0].spectrogram.window.copy_(window)
    model.dashengmodel.front_end[0].mel_scale.fb.copy_(filters)
    kept = []
    model.dashengmodel.blocks[0].register_forward_pre_hook(lambda _m, x: kept.append(x[0]))
    for block in model.dashengmodel.blocks:
        block.register_forward_hook(lambda _m, _x, y: kept.append(y))
    tensors = {}
    for n in (19_792, 160_000) if a.full else LENGTHS:
        x = torch.from_numpy(rc.as_float(rc.signal(n, 16000, seed=9)))[None]
        kept.clear()
        tokens = model.dashengmodel(x)
        name = f"{'full' if a.full else 'narrow'}.{n}"
        tensors[f"{name}.embedding"] = tokens.mean(1)[0].numpy()
        logits = model.classifier(tokens.mean(1))[0]
        tensors[f"{name}.logits"], tensors[f"{name}.scores"] = logits.numpy(), logits.sigmoid().numpy()
        if n == LENGTHS[1]:
            log_mel = model.dashengmodel.front_end(x)[0].T
            tensors[f"{name}.log_mel"] = log_mel.flatten().numpy()[::7]
            tensors[f"{name}.states"] = torch.cat([state.flatten() for state in kept]).numpy()[::7]
        print(name, tokens.shape, float(tensors[f"{name}.scores"].max()))
    where = "dasheng_full.safetensors" if a.full else os.path.join(HERE, "dasheng.safetensors")
    rc.save(where, tensors, seed=SEED, versions=rc.versions("torch", "torchaudio"))


if __name__ == "__main__":
    main()
