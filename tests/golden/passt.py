#!/usr/bin/env python3
"""Golden data of PaSST: kkoutini/passt_hear21 with narrow widths.

    python passt.py --passt CHECKOUT [--full]       writes passt.safetensors beside this file

CHECKOUT is a checkout of kkoutini/passt_hear21. Both the spectrogram, in f64, and the network are the reference's. Clips longer than
the model's window are cut as described in src/models/vit.rs. `N.states` is every 13th value of the tokens before the first block and
after each. `s16` has patches that do not overlap. --full: passt_full.safetensors, of the published size, to the current directory.
"""
import argparse
import os
import sys
import types

import torch

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 75
LENGTHS = (4801, 20_000, 60_000)  # 16, 63 and 188 frames


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--passt", required=True)
    ap.add_argument("--full", action="store_true")
    a = ap.parse_args()
    # timm is only used for downloads.
    sys.modules["timm"], sys.modules["timm.models"] = types.ModuleType("timm"), types.ModuleType("timm.models")
    sys.modules["timm.models._hub"] = types.ModuleType("timm.models._hub")
    sys.modules["timm.models._hub"].download_cached_file = None
    sys.path.insert(0, a.passt)
    from hear21passt.models import passt, preprocess

    torch.set_grad_enabled(False)
    passt.first_RUN = False
    mel = preprocess.AugmentMelSTFT(freqm=0, timem=0, fmin_aug_range=10, fmax_aug_range=2000).double().eval()
    stft = torch.stft
    # Its call expects a real-valued result, which torch no longer returns.
    torch.stft = lambda *args, return_complex, **options: torch.view_as_real(stft(*args, return_complex=True, **options))
    banks = preprocess.torchaudio.compliance.kaldi.get_mel_banks
    preprocess.torchaudio.compliance.kaldi.get_mel_banks = lambda *args, **options: [x.double() for x in banks(*args, **options)]
    narrow = dict(embed_dim=32, depth=2, num_heads=2, num_classes=7, img_size=(128, 100), distilled=True)
    models = {"s10": dict(narrow, stride=10), "s16": dict(narrow, stride=16)}
    if a.full:
        models = {"full": dict(embed_dim=768, depth=12, num_heads=12, img_size=(128, 998), distilled=True, stride=10)}
    tensors = {}
    for name, sizes in models.items():
        model = rc.fill_transformer(passt.PaSST(**sizes), SEED)
        longest = 1000 if a.full else 100
        for n in (39_584, 320_000) if a.full else LENGTHS:
            x = torch.from_numpy(rc.as_float(rc.signal(n, 32000, seed=9))).double()[None]
            spectrogram = mel(x).float()
            scores, embedding, n_frames = 0, 0, spectrogram.shape[-1]
            for start, weight in rc.windows(n_frames, longest):
                window = spectrogram[:, None, :, start : start + longest]
                kept = []
                hooks = [block.register_forward_hook(lambda _m, i, y: kept.append((i[0], y))) for block in model.blocks]
                logits, features = model(window)
                for hook in hooks:
                    hook.remove()
                scores = scores + weight / n_frames * logits[0].sigmoid()
                embedding = embedding + weight / n_frames * features[0]
            tensors[f"{name}.{n}.scores"], tensors[f"{name}.{n}.embedding"] = scores.numpy(), embedding.numpy()
            if n == 20_000:
                states = [kept[0][0]] + [y for _, y in kept]
                tensors[f"{name}.{n}.states"] = torch.cat([state.flatten() for state in states]).numpy()[::13]
                tensors[f"{name}.{n}.log_mel"] = spectrogram.flatten().numpy()[::61]
            print(name, n, spectrogram.shape, float(scores.max()))
    where = "passt_full.safetensors" if a.full else os.path.join(HERE, "passt.safetensors")
    rc.save(where, tensors, seed=SEED, versions=rc.versions("torch", "torchaudio"))


if __name__ == "__main__":
    main()
