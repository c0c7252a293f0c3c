#!/usr/bin/env python3
"""Golden data of CED-tiny: the published graph with 8-bit weights, run by onnxruntime.

    python ced.py --onnx tiny.onnx --recordings FILE        writes ced.safetensors beside this file

tiny.onnx: see weights/ced-tiny/convert.py. Clips are the hashed signal at 16 kHz: the shortest that has a patch, one a sample shorter
than two patches, and the longest that the graph accepts; `N.scores` are its 527 outputs, `N.pooled` the mean over tokens before
the head. FILE is a safetensors file of real recordings, `NAME.waveform_16k`; only `NAME.scores` are kept. The graph runs without
optimisations: with them, onnxruntime rounds the activations of some products to 8 bits, and its scores change by up to 3e-3,
depending on the processor. `window` and `filters` are the dequantised front-end tables, `fc1` the first rows of one dequantised matrix.
"""
import argparse
import os

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
LENGTHS = (2400, 4959, 40_000, 161_439)  # 16, 31, 251 and 1009 frames
KEPT = {"val_45_dq": "window", "mel_transform.mel_scale.fb_dq": "filters", "val_119_dq": "fc1", "mean": None}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--onnx", required=True)
    ap.add_argument("--recordings", required=True)
    a = ap.parse_args()
    model = onnx.load(a.onnx)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in KEPT)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    tensors = {}
    for n in LENGTHS:
        x = rc.as_float(rc.signal(n, 16000, seed=7))[None]
        scores, window, filters, fc1, pooled = session.run(["logits", *KEPT], {"waveform": x})
        tensors[f"{n}.scores"], tensors[f"{n}.pooled"] = scores[0], pooled.reshape(-1)
        print(n, float(scores.max()))
    for name, x in load_file(a.recordings).items():
        if name.endswith(".waveform_16k"):
            name = name.removesuffix(".waveform_16k")
            tensors[f"{name}.scores"] = session.run(["logits"], {"waveform": x[None]})[0][0]
    tensors.update(window=window, filters=filters, fc1=fc1[:, :20].T)
    rc.save(os.path.join(HERE, "ced.safetensors"), tensors, seed=7, versions=rc.versions("onnx", "onnxruntime", "numpy"))


if __name__ == "__main__":
    main()
