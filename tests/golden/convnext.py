#!/usr/bin/env python3
"""Golden data of ConvNeXt: narrow widths with every stage and two stems.

    python convnext.py CHECKOUT     writes convnext.safetensors beside this file

CHECKOUT is a checkout of topel/audioset-convnext-inf (read at f8e5632). Weights are hashed from their names (refcommon.py), so
only outputs are stored.
"""
import argparse
import os
import sys
import types

import torch
import torch.nn as nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 47
DEPTHS, DIMS, CLASSES = [1, 1, 2, 1], [8, 16, 24, 40], 11
# Clip lengths in samples: the shortest, one whose maps have odd sizes, 1.237 s.
LENGTHS = (23 * 320, 61 * 320 + 7, 39584)


def fill(model, seed, layer_norms):
    """As refcommon.fill; layer norms like its batch norms, gamma between 0.5 and 1.5."""
    rc.fill(model, seed)
    for prefix, module in model.named_modules():
        for leaf, value in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}"
            if isinstance(module, layer_norms):
                bounds = rc.bounds(name, tuple(value.shape), "bn")
            elif leaf == "gamma":
                bounds = (0.5, 1.5)
            else:
                continue
            value.copy_(torch.from_numpy(rc.hashed(name, tuple(value.shape), *bounds, seed)))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkout")
    args = ap.parse_args()
    sys.path.insert(0, os.path.join(args.checkout, "src"))
    # The augmentations, which do not run here, need torchaudio and more.
    augmentations = types.ModuleType("audioset_convnext_inf.pytorch.augmentations")
    augmentations.__getattr__ = lambda _: None
    sys.modules[augmentations.__name__] = augmentations
    from audioset_convnext_inf.pytorch import convnext

    layer_norms = (nn.LayerNorm, convnext.LayerNorm)
    torch.set_grad_enabled(False)
    tensors = {}
    stems = {"narrow": nn.Conv2d(1, DIMS[0], (4, 4), (4, 4), (4, 0)), "wide": nn.Conv2d(1, DIMS[0], (9, 2), (9, 2), (4, 0))}
    for name, stem in stems.items():
        m = convnext.ConvNeXt(in_chans=1, num_classes=CLASSES, depths=DEPTHS, dims=DIMS).eval()
        m.downsample_layers[0][0] = stem
        fill(m, SEED, layer_norms)
        for n in LENGTHS if name == "narrow" else LENGTHS[2:]:
            x = torch.from_numpy(rc.as_float(rc.signal(n, 32000, seed=3)))[None]
            outputs, hooks = {}, []
            if name == "narrow" and n == LENGTHS[1]:
                outputs["log_mel"] = m.logmel_extractor(m.spectrogram_extractor(x))[:, 0]
                for i in range(4):
                    keep = lambda _m, _i, y, key=f"stage{i}": outputs.update({key: y.permute(0, 2, 3, 1).flatten()[::5].clone()})
                    hooks.append(m.stages[i].register_forward_hook(keep))
            outputs["clipwise_output"] = m(x)["clipwise_output"]
            for hook in hooks:
                hook.remove()
            outputs["embedding"] = m.forward_scene_embeddings(x)
            log_mel = outputs.pop("log_mel", None)
            if log_mel is not None:
                outputs["log_mel"] = log_mel.flatten()[::29]
            tensors.update({f"{name}.{n}.{key}": value.contiguous().numpy() for key, value in outputs.items()})
            print(name, n, float(outputs["clipwise_output"].max()), float(outputs["embedding"].abs().max()))
    rc.save(os.path.join(HERE, "convnext.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "torchlibrosa", "librosa"))


if __name__ == "__main__":
    main()
