#!/usr/bin/env python3
"""Golden data of BEATs: the classes of fschmid56/PretrainedSED and of ESPnet with narrow widths.

    python beats.py --sed CHECKOUT --espnet FOLDER [--full]       writes beats.safetensors and beats_labels*.pth beside this file

CHECKOUT is a checkout of fschmid56/PretrainedSED, whose BEATs is microsoft/unilm's; FOLDER holds what PyPI's espnet 202511 installs.
Features are torchaudio's in f64. `beats` has a head, `open` is ESPnet's encoder with its own mean and deviation and the mean over
tokens, `strong` has the heads for frames. `N.states` is every 13th value of the tokens before the first block and after
each; `N.frames` every 7th logit of the frames. Clips longer than a model's window are cut as described in src/models/vit.rs and
beats.rs. beats_labels.pth is a checkpoint with a `label_dict`, beats_labels_gap.pth has one in which a number is missing.
--full: beats_full.safetensors, of the published size, to the current directory.
"""
import argparse
import importlib.util
import os
import sys
import types

import torch
import torch.nn.functional as F

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 74
NARROW = dict(
    embed_dim=24,
    encoder_embed_dim=32,
    encoder_layers=2,
    encoder_ffn_embed_dim=48,
    encoder_attention_heads=4,
    conv_pos=16,
    conv_pos_groups=4,
    num_buckets=32,
    max_distance=60,
    predictor_class=7,
)
LENGTHS = (2800, 9001, 40_000)  # 16, 54 and 248 frames
TARGET_LENGTH = 128
MEAN, STD = 15.41663, 6.55582
OPEN_MEAN, OPEN_STD = 15.66439, 6.38312


def fill(model, prefix=""):
    rc.fill_transformer(model, SEED)
    # One table, listed in the state dict under every block.
    name = f"{prefix}encoder.layers.0.self_attn.relative_attention_bias.weight"
    table = model.state_dict()[name]
    table.copy_(torch.from_numpy(rc.hashed(name, tuple(table.shape), -2.0, 2.0, SEED)))
    return model


def features(n, mean, std):
    return ((rc.fbank(rc.as_float(rc.signal(n, 16000, seed=9)), scale=2.0**15) - mean) / (2 * std)).float()[None]


def states(encoder, patches, norm, projection, x):
    """The input of the first block, and the output of each."""
    kept = []
    hooks = [layer.register_forward_hook(lambda _m, _i, y: kept.append(y[0].transpose(0, 1))) for layer in encoder.layers]
    first = [encoder.layer_norm.register_forward_hook(lambda _m, _i, y: kept.append(y))]
    x = projection(norm(patches(x[:, None]).flatten(2).transpose(1, 2)))
    encoder(x)
    for hook in hooks + first:
        hook.remove()
    return kept


def tag(tensors, name, model, n, x, target_length, head):
    scores, embedding = 0, 0
    for start, weight in rc.windows(x.shape[1], target_length):
        kept = states(model.encoder, model.patch_embedding, model.layer_norm, model.post_extract_proj, x[:, start : start + target_length])
        mean = kept[-1].mean(1)[0]
        scores = scores + weight / x.shape[1] * head(mean).sigmoid()
        embedding = embedding + weight / x.shape[1] * mean
    tensors[f"{name}.{n}.scores"], tensors[f"{name}.{n}.embedding"] = scores.numpy(), embedding.numpy()
    if n == 9001:
        tensors[f"{name}.{n}.states"] = torch.cat([state.flatten() for state in kept]).numpy()[::13]
    print(name, n, float(scores.max()))


def espnet_class(folder):
    """ESPnet's module, without its other imports."""

    def stub(name, **members):
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module

    stub("espnet2.asr.encoder.abs_encoder", AbsEncoder=torch.nn.Module)
    stub("espnet2.asr.specaug.specaug", SpecAug=None)
    stub("espnet.nets.pytorch_backend.nets_utils", make_pad_mask=None, roll_tensor=None)
    path = os.path.join(folder, "espnet2/asr/encoder/beats_encoder.py")
    spec = importlib.util.spec_from_file_location("beats_encoder", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BeatsEncoder


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--sed", required=True)
    ap.add_argument("--espnet", required=True)
    ap.add_argument("--full", action="store_true")
    a = ap.parse_args()
    sys.path.insert(0, a.sed)
    from models.beats.BEATs import BEATs, BEATsConfig
    from models.beats.BEATs_wrapper import BEATsWrapper
    from models.prediction_wrapper import PredictionsWrapper

    torch.set_grad_enabled(False)
    tensors = {}
    if a.full:
        model = fill(BEATs(BEATsConfig(dict(finetuned_model=True))).eval())
        for n in (19_792, 160_000):
            x = features(n, MEAN, STD)
            scores, _ = model.extract_features(x[:, None], do_preprocess=False)
            tag(tensors, "full", model, n, x, 10_000, model.predictor)
            print("its own head: off by", float((scores[0] - torch.from_numpy(tensors[f"full.{n}.scores"])).abs().max()))
        rc.save("beats_full.safetensors", tensors, seed=SEED)
        return

    model = fill(BEATs(BEATsConfig(dict(NARROW, finetuned_model=True))).eval())
    for n in LENGTHS:
        x = features(n, MEAN, STD)
        tag(tensors, "beats", model, n, x, TARGET_LENGTH, model.predictor)
        if n != LENGTHS[-1]:
            scores, _ = model.extract_features(x[:, None], do_preprocess=False)
            assert torch.allclose(scores[0], torch.from_numpy(tensors[f"beats.{n}.scores"]), atol=2e-6)
    labels = {0: "/m/0bt9lr", 1: "/m/09x0r", 2: "my own"}
    kept = {"cfg": {"depth": 2}, "model": {"predictor.weight": torch.zeros(3, 2)}, "label_dict": labels}
    torch.save(kept, os.path.join(HERE, "beats_labels.pth"))
    kept["label_dict"] = {0: "one", 2: "three"}
    torch.save(kept, os.path.join(HERE, "beats_labels_gap.pth"))

    encoder = espnet_class(a.espnet)(1, beats_config=dict(NARROW, deep_norm=True, relative_position_embedding=True, gru_rel_pos=True))
    fill(encoder.eval())
    head = torch.nn.Linear(32, 7)
    rc.fill_transformer(head, SEED, rename=lambda name: f"decoder.linear_out.{name}")
    for n in LENGTHS[1:]:
        tag(tensors, "open", encoder, n, features(n, OPEN_MEAN, OPEN_STD), 10_000, head)
        x = torch.from_numpy(rc.as_float(rc.signal(n, 16000, seed=9)))[None]
        encoder.fbank_mean, encoder.fbank_std = OPEN_MEAN, OPEN_STD
        tokens, _ = encoder.extract_features(x)
        print("in f32: off by", float((tokens.mean(1)[0] - torch.from_numpy(tensors[f"open.{n}.embedding"])).abs().max()))

    base = BEATsWrapper()
    base.beats = BEATs(BEATsConfig(NARROW))
    strong = PredictionsWrapper(base, n_classes_strong=5, embed_dim=32).eval()
    fill(strong, "model.beats.")
    silence = float((torch.tensor(2.0**-23).double().log() - MEAN) / (2 * STD))
    for n in (160_000, 250_000):
        x, logits = features(n, MEAN, STD), []
        for start in range(0, x.shape[1], 1000):
            window = x[:, start : start + 998]
            window = F.pad(window, (0, 0, 0, 998 - window.shape[1]), value=silence)
            logits.append(strong(window.transpose(1, 2)[:, None])[0][0].T)
        logits = torch.cat(logits)[: -(-n // 640)]
        tensors[f"strong.{n}.frames"] = logits.flatten().numpy()[::7]
        tensors[f"strong.{n}.scores"] = logits.sigmoid().max(0).values.numpy()
        print("strong", n, logits.shape, float(logits.max()))
    rc.save(os.path.join(HERE, "beats.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "torchaudio"))


if __name__ == "__main__":
    main()
