#!/usr/bin/env python3
"""Converts EfficientAT's published mn04 to model.safetensors with 8-bit weights.

    pip install torch numpy safetensors==0.8.0
    python convert.py mn04_as_mAP_432.pt

Norms become a weight and a bias, with a mean of 0 and a variance of 1. A filter of a large 1x1 convolution is stored as integers
from -127 to 127; the norm that follows absorbs its scale, so each filter has its own. The matrix of a fully connected layer is
stored likewise, with one scale, `NAME.scale`. Other filters, which are few and to which scores are most sensitive, are f16; biases
and norms stay f32. Names are the published ones.
"""
import hashlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

SHA256 = "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"
EPS = 1e-3  # of the norms
LARGE = 4000  # values of a convolution


def rounded(x, scale):
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8)


def main(path):
    data = open(path, "rb").read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{path} is not the file that this script was written for")
    values = {name: value.double().numpy() for name, value in torch.load(path, map_location="cpu").items()}
    tensors = {}
    for name, value in values.items():
        place, leaf = name.rsplit(".", 1)
        if leaf == "weight" and value.ndim == 4:
            norm = place.removesuffix("0") + "1"
            weight, bias, mean, variance = (values[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
            factor = weight / np.sqrt(variance + EPS)
            if value.shape[1] == 1 or value.size < LARGE:
                scale = np.ones(len(bias))
                tensors[name] = value.astype(np.float16)
            else:
                scale = np.maximum(np.abs(value).max((1, 2, 3)), 1e-12) / 127
                tensors[name] = rounded(value, scale[:, None, None, None])
                tensors[f"{name}.scale"] = np.ones(1, np.float32)
            tensors[f"{norm}.weight"] = (factor * scale * np.sqrt(1 + EPS)).astype(np.float32)
            tensors[f"{norm}.bias"] = (bias - factor * mean).astype(np.float32)
            tensors[f"{norm}.running_mean"] = np.zeros(len(bias), np.float32)
            tensors[f"{norm}.running_var"] = np.ones(len(bias), np.float32)
        elif leaf == "weight" and value.ndim == 2:
            scale = np.abs(value).max() / 127
            tensors[name], tensors[f"{name}.scale"] = rounded(value, scale), np.array([scale], np.float32)
        elif leaf == "bias" and f"{place}.running_mean" not in values:
            tensors[name] = value.astype(np.float32)
    metadata = {"format": "pt", "source": f"EfficientAT mn04_as_mAP_432.pt, sha256 {SHA256}", "licence": "MIT"}
    save_file(tensors, "model.safetensors", metadata)
    print(len(tensors), "tensors")


if __name__ == "__main__":
    main(sys.argv[1])
