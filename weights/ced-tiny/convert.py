#!/usr/bin/env python3
"""Converts the ONNX graph of CED-tiny with 8-bit weights to model.safetensors.

    pip install onnx==1.23.2 numpy==2.4.6 safetensors==0.8.0
    python convert.py tiny.onnx

tiny.onnx is `models/tiny.onnx` of the published crate soundevents 0.5.0. Its 8-bit tensors (DequantizeLinear with one scale
per tensor, zero point 0) stay 8-bit: `NAME` holds the bytes, `NAME.scale` the scale, and the value is their product in f32. All
other tensors stay f32. Names are those of RicherMans/CED. Matrices stored transposed in the graph are transposed back.
"""
import hashlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

SHA256 = "3890f227660be71886ff48633d11a731993e0206db8a486781412c28a0873435"
# Tensors whose names the exporter dropped, and the names they belong to.
RENAMED = {
    "val_45": "front_end.0.spectrogram.window",
    "mel_transform.mel_scale.fb": "front_end.0.mel_scale.fb",
    "alias": "freq_pos_embed",
}


def main(path):
    data = open(path, "rb").read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{path} is not the file that this script was written for")
    graph = onnx.load_from_string(data).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    consumers = {name: node for node in graph.node for name in node.input}
    tensors = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            quantised, scale, zero = (values[name] for name in node.input)
            assert quantised.dtype == np.int8 and scale.dtype == np.float32 and scale.ndim == 0 and zero == 0
            name, user = node.output[0].removesuffix("_dq"), consumers[node.output[0]]
            if user.op_type == "MatMul" and name.startswith("val_"):  # a linear layer; its bias has kept its name
                bias = next(n for n in consumers[user.output[0]].input if n != user.output[0])
                name = bias.removesuffix("_dq").replace(".bias", ".weight")
                quantised = quantised.T
            name = plain(name)
            tensors[name], tensors[f"{name}.scale"] = np.ascontiguousarray(quantised), scale.reshape(1)
    for name, value in values.items():
        if name.startswith("model."):
            if not name.endswith(("_q", "_s", "_z")):
                tensors[plain(name)] = value
    metadata = {"format": "pt", "source": f"soundevents 0.5.0 models/tiny.onnx, sha256 {SHA256}", "licence": "Apache-2.0"}
    save_file(tensors, "model.safetensors", metadata)
    print(len(tensors), "tensors,", sum(t.size for n, t in tensors.items() if not n.endswith(".scale")), "values")


def plain(name):
    return RENAMED.get(name, name).removeprefix("model.").removeprefix("encoder.")


if __name__ == "__main__":
    main(sys.argv[1])
