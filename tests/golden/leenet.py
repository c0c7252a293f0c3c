#!/usr/bin/env python3
"""Golden data of LeeNet11 and LeeNet24 at their published widths: outputs only, weights are hashed (refcommon.py).

    python leenet.py --panns CHECKOUT        writes leenet.safetensors beside this file

CHECKOUT is a checkout of qiuqiangkong/audioset_tagging_cnn (read at d2f4b8c).
"""
import argparse
import os

import torch

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 11
LENGTHS = (1, 2187, 16001)  # one sample, 3^7, half a second and one more


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--panns", required=True)
    models = rc.import_panns(ap.parse_args().panns)
    torch.set_grad_enabled(False)
    tensors = {}
    for arch in ("LeeNet11", "LeeNet24"):
        build = getattr(models, arch)
        m = rc.fill(build(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000, classes_num=527), SEED)
        for n in LENGTHS:
            x = torch.from_numpy(rc.as_float(rc.signal(n, 32000, seed=3)))[None]
            for key, value in m(x).items():
                tensors[f"{arch.lower()}.{n}.{key}"] = value.numpy()
            print(arch, n, float(tensors[f"{arch.lower()}.{n}.clipwise_output"].max()))
    rc.save(os.path.join(HERE, "leenet.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
