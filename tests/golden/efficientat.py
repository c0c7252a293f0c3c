#!/usr/bin/env python3
"""Golden data of EfficientAT's MobileNets, DyMN and the frame-wise MobileNets: narrow widths, every head and stage, the front ends.

    python efficientat.py --efficientat CHECKOUT --sed CHECKOUT [--real FOLDER]

writes efficientat.safetensors beside this file, and with FOLDER efficientat_mn04.safetensors: the scores of its
`real/efficientat-mn04/mn04_as_mAP_432.pt` for the recordings at 32 kHz in its `audio`. The CHECKOUTs are of fschmid56/EfficientAT and
fschmid56/PretrainedSED. Weights are hashed from their names (refcommon.py), so only outputs are stored.
"""
import argparse
import contextlib
import io
import os
import sys
import wave

import numpy as np
import torch

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED, CLASSES, WIDTH = 29, 11, 0.1
# Clip lengths in samples: the shortest, one that does not fill whole steps, 1.237 s.
LENGTHS = (514, 33 * 320 + 7, 39584)
EVERY = 11  # step between the stored values of a stage
RECORDINGS = ("R9_ZSCveAHg_7s", "sample-music", "sample-speech", "sample-typing")


def enter(checkout):
    """Makes Python import the packages of a checkout; both checkouts name theirs `models`."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("models", "helpers", "config")]:
        del sys.modules[name]
    sys.path.insert(0, checkout)
    os.chdir(checkout)  # it reads a label file


def quietly(make, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the whole model
        return make(*args, **kwargs)


def clip(n, rate):
    return torch.from_numpy(rc.as_float(rc.signal(n, rate, seed=3)))[None]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--efficientat", required=True)
    ap.add_argument("--sed", required=True)
    ap.add_argument("--real")
    args = ap.parse_args()
    torch.set_grad_enabled(False)
    tensors = {}

    enter(os.path.abspath(args.efficientat))
    from models.mn.model import get_model
    from models.preprocess import AugmentMelSTFT

    mel = quietly(AugmentMelSTFT, freqm=0, timem=0).eval()
    tensors["mel.32000"] = mel(clip(LENGTHS[1], 32000))[0].T.flatten()[::EVERY].numpy()
    variants = {
        "mlp": dict(head_type="mlp"),
        "convolutional": dict(head_type="fully_convolutional", strides=(2, 2, 1, 1)),
        "attention": dict(head_type="multihead_attention_pooling", multihead_attention_heads=3),
    }
    for name, settings in variants.items():
        model = rc.fill(quietly(get_model, num_classes=CLASSES, width_mult=WIDTH, **settings), SEED)
        if name == "attention":
            weights = rc.hashed("classifier.head_weight", (1, 3, 1), 0.1, 0.6, SEED)
            model.classifier.head_weight.copy_(torch.from_numpy(weights))
        for n in LENGTHS:
            x = mel(clip(n, 32000))[:, None]
            logits, embedding = model(x)
            tensors |= {f"{name}.{n}.logits": logits.numpy(), f"{name}.{n}.embedding": embedding.numpy()}
            if n == LENGTHS[1] and name == "mlp":
                _, maps = model._forward_impl(x, return_fmaps=True)
                for i, y in enumerate(maps):
                    tensors[f"stage.{i}"] = y.flatten()[::EVERY].numpy()
            print(name, n, logits.abs().max().item(), embedding.abs().max().item())

    from models.dymn.dy_block import DynamicConv
    from models.dymn.model import get_model as get_dymn

    for name, settings in {"dynamic": {}, "mixed": dict(use_dy_blocks="replace_se")}.items():
        model = quietly(get_dymn, num_classes=CLASSES, width_mult=WIDTH, T_max=1.0, **settings)
        rc.fill(model, SEED)
        for place, conv in model.named_modules():
            if isinstance(conv, DynamicConv):
                high = 0.8 if "depth" in place else 0.4
                values = rc.hashed(f"{place}.weight", tuple(conv.weight.shape), -high, high, SEED)
                conv.weight.copy_(torch.from_numpy(values))
        for n in LENGTHS[:2] if name == "dynamic" else LENGTHS[1:2]:
            x = mel(clip(n, 32000))[:, None]
            logits, embedding = model(x)
            tensors |= {f"{name}.{n}.logits": logits.numpy(), f"{name}.{n}.embedding": embedding.numpy()}
            print(name, n, logits.abs().max().item(), embedding.abs().max().item())
        if name == "dynamic":
            _, maps = model(x, return_fmaps=True)
            for i, y in enumerate(maps):
                tensors[f"dynamic.stage.{i}"] = y.flatten()[:: 3 * EVERY].numpy()

    if args.real:
        folder, scores = os.path.abspath(args.real), {}
        model = quietly(get_model, width_mult=0.4)
        model.load_state_dict(torch.load(os.path.join(folder, "real/efficientat-mn04/mn04_as_mAP_432.pt")))
        for name in RECORDINGS:
            with wave.open(os.path.join(folder, "audio", f"{name}.wav")) as file:
                pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
                assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (32000, 2, 1), name
            logits, _ = model.eval()(mel(torch.from_numpy(rc.as_float(pcm))[None])[:, None])
            scores[name] = torch.sigmoid(logits)[0].numpy()
            print(name, scores[name].max(), scores[name].argmax())
        path = os.path.join(HERE, "efficientat_mn04.safetensors")
        rc.save(path, scores, versions=rc.versions("torch", "torchaudio"))

    enter(os.path.abspath(args.sed))
    from models.frame_mn.Frame_MN_wrapper import FrameMNWrapper
    from models.prediction_wrapper import PredictionsWrapper

    wrapper = quietly(FrameMNWrapper, WIDTH)
    for n in LENGTHS:
        x = wrapper.eval().mel_forward(clip(n, 16000))
        if n == LENGTHS[1]:
            tensors["mel.16000"] = x[0, 0].T.flatten()[::EVERY].numpy()
        # The actual number of steps, so that none is interpolated.
        steps = wrapper(x).shape[1]
        model = PredictionsWrapper(wrapper, embed_dim=96, n_classes_strong=CLASSES, seq_len=steps)
        strong, _ = rc.fill(model, SEED)(x)
        tensors[f"frames.{n}"] = strong[0].T.contiguous().numpy()
        print("frames", n, strong.shape, strong.abs().max().item())
    versions = rc.versions("torch", "torchvision", "torchaudio")
    rc.save(os.path.join(HERE, "efficientat.safetensors"), tensors, seed=SEED, versions=versions)


if __name__ == "__main__":
    main()
