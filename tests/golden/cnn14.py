#!/usr/bin/env python3
"""Golden data of CNN14: the reference classes with narrow widths, every stage.

    python cnn14.py        writes cnn14_NAME.safetensors beside this file

Needs the packages of requirements.txt. The model is `Cnn14` of the package panns-inference with its blocks and linear
layers replaced by narrower ones of the same classes. Weights are hashed from their names (refcommon.py), so only the seeds
of the inputs and the outputs are stored. Clip lengths are in the metadata.
"""
import functools
import os

import torch
import torch.nn as nn

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20
CHANNELS = (4, 8, 8, 12, 16, 24)
EMBEDDING, CLASSES = 20, 11
FRONT_ENDS = {
    32000: dict(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000),
    16000: dict(sample_rate=16000, window_size=512, hop_size=160, mel_bins=64, fmin=50, fmax=8000),
    8000: dict(sample_rate=8000, window_size=256, hop_size=80, mel_bins=64, fmin=50, fmax=4000),
    48000: dict(sample_rate=48000, window_size=2048, hop_size=320, mel_bins=64, fmin=50, fmax=14000),
}
# name: sample rate, pool type, samples per clip, number of clips
CASES = {
    "32k_avg": (32000, "avg", 65 * 320 + 7, 2),
    "32k_max": (32000, "max", 33 * 320, 1),
    "32k_avg_max": (32000, "avg+max", 33 * 320, 1),
    "32k_shortest": (32000, "avg", 31 * 320, 1),
    "16k_avg": (16000, "avg", 40 * 160 + 1, 1),
    "8k_avg": (8000, "avg", 40 * 80 + 79, 1),
    "48k_avg": (48000, "avg", 40 * 320, 1),
}


def narrow(models, rate, pool_type):
    m = models.Cnn14(classes_num=CLASSES, **FRONT_ENDS[rate])
    widths = (1, *CHANNELS)
    for i in range(6):
        block = models.ConvBlock(widths[i], widths[i + 1])
        if i < 5:  # the last block is not pooled
            block.forward = functools.partial(pooled_as, block.forward, pool_type)
        setattr(m, f"conv_block{i + 1}", block)
    m.fc1 = nn.Linear(CHANNELS[-1], EMBEDDING)
    m.fc_audioset = nn.Linear(EMBEDDING, CLASSES)
    return rc.fill(m, SEED)


def pooled_as(forward, wanted, x, pool_size, pool_type):
    return forward(x, pool_size=pool_size, pool_type=wanted)


def main():
    torch.set_grad_enabled(False)
    models = rc.import_panns()
    for name, (rate, pool_type, n_samples, batch) in CASES.items():
        m = narrow(models, rate, pool_type)
        stages = {}

        def keep(key, pick=lambda i, o: o):
            return lambda _m, i, o: stages.__setitem__(key, pick(i, o).clone().numpy())

        # A hook gets the tensor before later in-place functions run; conv blocks return a new one.
        m.bn0.register_forward_hook(keep("bn0", lambda i, o: o.transpose(1, 3)))
        for i in range(6):
            getattr(m, f"conv_block{i + 1}").forward = watched(getattr(m, f"conv_block{i + 1}").forward, stages, f"block{i + 1}")
        m.fc1.register_forward_hook(keep("pooled", lambda i, o: i[0]))
        m.fc_audioset.register_forward_hook(keep("logits"))
        x = torch.stack([torch.from_numpy(rc.as_float(rc.signal(n_samples, rate, seed=1 + b))) for b in range(batch)])
        out = m(x)
        stages["log_mel"] = m.logmel_extractor(m.spectrogram_extractor(x)).numpy()
        stages["clipwise_output"] = out["clipwise_output"].numpy()
        stages["embedding"] = out["embedding"].numpy()
        rc.save(
            os.path.join(HERE, f"cnn14_{name}.safetensors"), stages, seed=SEED, sample_rate=rate, n_samples=n_samples,
            batch=batch, pool_type=pool_type, versions=rc.versions("torch", "torchlibrosa", "librosa", "panns-inference"))


def watched(forward, stages, key):
    def run(*args, **kwargs):
        y = forward(*args, **kwargs)
        stages[key] = y.clone().numpy()
        return y

    return run


if __name__ == "__main__":
    main()
