#!/usr/bin/env python3
"""Golden data of Whisper-AT: the encoder and the head of YuanGongND/whisper-at with narrow widths.

    python whisper_at.py --whisper-at CHECKOUT [--full]       writes whisper_at.safetensors beside this file

CHECKOUT is one of YuanGongND/whisper-at; only the classes are taken from its model.py. The spectrogram is that of
`WhisperFeatureExtractor` of transformers, in f64. `N.frames` are the logits of windows of 10 s, those that begin before the clip
ends; `N.embedding` is what the last layers are given, the mean over windows weighted by the part of each that is the clip's.
`low` is the variant with a projection. For a clip of one window, `N.mel` is every 101st value of the spectrogram of 30 s, `N.states` every
101st of the tokens before the first block and after each, `N.pooled`, `N.time` and `N.layers` are every 5th of what the head is
given, of its states after the mean over time and before that over the layers. --full: whisper_at_full.safetensors on Whisper tiny here.
"""
import argparse
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor
from typing import Iterable, Optional

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 76
LENGTHS = (159, 30_000, 200_000, 500_000)  # 1, 1, 2 and 4 windows


def reference(checkout):
    """The classes of the encoder and of the head."""
    path = os.path.join(checkout, "package/whisper-at/whisper_at/model.py")
    parts = ["LayerNorm", "Linear", "Conv1d", "sinusoids", "MultiHeadAttention", "ResidualAttentionBlock", "AudioEncoder", "ATModel"]
    scope = dict(torch=torch, nn=nn, F=F, Tensor=Tensor, Optional=Optional, Iterable=Iterable, np=np, math=math)
    return rc.definitions(path, parts, **scope)[-2:]


class WhisperAt(nn.Module):
    def __init__(self, classes, dim, heads, layers, n_classes, mode):
        super().__init__()
        encoder, head = classes
        self.encoder = encoder(80, 1500, dim, heads, layers)
        self.at_model = head(label_dim=n_classes, n_layer=layers, rep_dim=dim, mode=mode)

    def tag(self, samples):
        """Logits, embeddings and stages of the windows of at most 30 s, however much of it there is."""
        x = np.zeros(480_000)
        x[: len(samples)] = samples
        mel = WhisperFeatureExtractor()._np_extract_fbank_features(x[None], "cpu")[0]
        states, given = [], {}
        blocks = self.encoder.blocks
        hooks = [blocks[0].register_forward_pre_hook(lambda _m, i: states.append(i[0]))]
        hooks += [block.register_forward_hook(lambda _m, _i, o: states.append(o)) for block in blocks]
        for name in ("layer_tr", "mlp_layer"):
            keep = lambda _m, i, o, name=name: given.update({name: (i[0], o)})
            hooks.append(getattr(self.at_model, name).register_forward_hook(keep))
        _, layers = self.encoder(torch.from_numpy(mel).float()[None])
        logits = self.at_model(layers)
        for hook in hooks:
            hook.remove()
        every = lambda n, x: torch.cat([part.flatten() for part in x]).numpy()[::n]
        stages = {"mel": every(101, [torch.from_numpy(mel).float().T]), "states": every(101, states), "pooled": every(5, [layers])}
        stages |= {"time": every(5, given["layer_tr"][:1]), "layers": every(5, given["layer_tr"][1:])}
        return logits, given["mlp_layer"][0], stages


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--whisper-at", required=True)
    ap.add_argument("--full", action="store_true")
    a = ap.parse_args()
    torch.set_grad_enabled(False)
    classes = reference(a.whisper_at)
    models = {"own": (32, 2, 3, 7, "tl_tr_1_8"), "low": (32, 2, 3, 7, "tl_down_tr_16_1_8")}
    if a.full:
        models = {"full": (384, 6, 4, 527, "tl_tr_1_8")}
    tensors = {}
    for name, sizes in models.items():
        model = rc.fill_transformer(WhisperAt(classes, *sizes), SEED)
        for n in (19_792, 160_000) if a.full else LENGTHS:
            x = rc.as_float(rc.signal(n, 16000, seed=9))
            n_frames = max(1, n // 160)
            n_windows = -(-n_frames // 1000)
            pieces = [model.tag(x[start : start + 480_000]) for start in range(0, n, 480_000)]
            logits, embeddings = (torch.cat([piece[i] for piece in pieces])[:n_windows] for i in range(2))
            weights = torch.tensor([min(1000, n_frames - 1000 * window) / n_frames for window in range(n_windows)])[:, None]
            tensors[f"{name}.{n}.frames"] = logits.numpy()
            tensors[f"{name}.{n}.scores"] = (weights * logits.sigmoid()).sum(0).numpy()
            tensors[f"{name}.{n}.embedding"] = (weights * embeddings).sum(0).numpy()
            if n == LENGTHS[1]:
                # The encoders are the same.
                kept = (stage for stage in pieces[0][2] if name != "low" or stage in ("time", "layers"))
                tensors |= {f"{name}.{n}.{stage}": pieces[0][2][stage] for stage in kept}
            print(name, n, logits.shape, float(logits.max()))
    where = "whisper_at_full.safetensors" if a.full else os.path.join(HERE, "whisper_at.safetensors")
    rc.save(where, tensors, seed=SEED, versions=rc.versions("torch", "transformers"))


if __name__ == "__main__":
    main()
