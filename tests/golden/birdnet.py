#!/usr/bin/env python3
"""Golden data of BirdNET V2.4: Keras' layers with TensorFlow's padding, spectrograms in f64 by NumPy, hashed weights.

    python birdnet.py     writes birdnet.safetensors beside this file

Weights are hashed from their names (refcommon.py), so only outputs are stored; of large ones every n-th value. The filters of
the spectrograms are triangular here.
"""
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED, CLASSES = 53, 13
RATE, WINDOW, N_MELS = 48000, 144000, 96
FRAMES = [(2048, 278, 0.23), (1024, 280, 0.19)]
STAGES = [(3, 72, 36, 0), (4, 288, 72, 18), (5, 864, 108, 27), (4, 1536, 192, 48)]
# Clip lengths in samples: a short one, and one of two windows.
LENGTHS = (50000, 150000)


def hashed(name, shape, limit):
    return rc.hashed(name, shape, -limit, limit, SEED)


def filters(index, n_bins):
    """Filter m peaks at 1 at bin 3 m + 5 (in the other transform 2 m + 4); the widths grow."""
    peak = (np.arange(N_MELS) * (3 - index) + 5 - index)[:, None]
    return np.maximum(0.0, 1.0 - np.abs(np.arange(n_bins)[None] - peak) / (1.5 + peak / 64)).astype(np.float32)


class Layers:
    def __init__(self):
        self.next = 0

    def conv(self, x, outputs, kernel, stride=1, padding="same", activation=None, depthwise=False):
        inputs, rows, columns = x.shape[-1], *((kernel, kernel) if isinstance(kernel, int) else kernel)
        conv = dict(strides=stride, padding=padding, activation=activation)
        layer = keras.layers.DepthwiseConv2D(kernel, **conv) if depthwise else keras.layers.Conv2D(outputs, kernel, **conv)
        layer.build(x.shape)
        name = f"{self.next:02d}.{'depthwise' if depthwise else 'conv'}"
        self.next += 1
        shape = (inputs, 1, rows, columns) if depthwise else (outputs, inputs, rows, columns)
        # With a variance that keeps the second moment through swish.
        values = hashed(f"{name}.weight", shape, np.sqrt(6.0 / np.prod(shape[1:])))
        layer.weights[0].assign(values.transpose(2, 3, 0, 1) if depthwise else values.transpose(2, 3, 1, 0))
        layer.weights[1].assign(hashed(f"{name}.bias", tuple(layer.weights[1].shape), 0.05))
        return layer(x)


def spectrogram(x, index):
    length, hop, power = FRAMES[index]
    n = 1 + (len(x) - length) // hop
    frames = x.astype(np.float64)[np.arange(length)[None] + hop * np.arange(n)[:, None]]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    mels = np.fft.rfft(frames * window).real @ filters(index, length // 2 + 1).T.astype(np.float64)
    scale, shift = hashed("03.mul", (2,), 0.5)[index], hashed("01.add", (2,), 0.5)[index]
    return ((mels.astype(np.float32) ** 2) ** np.float32(power) * scale + shift).T[::-1]


def embed(window, keep):
    window = window - window.min()
    window = (window / (window.max() + np.float32(1e-6)) - np.float32(0.5)) * np.float32(2)
    x = np.stack([spectrogram(window, i) for i in range(2)], -1)[None].astype(np.float32)
    keep("spectrograms", x.transpose(0, 3, 1, 2), 997)
    layers, silu = Layers(), "silu"
    x = layers.conv(keras.ops.convert_to_tensor(x), 24, (4, 8), 2, activation="relu")
    pools = [pool((1, 2), (1, 2), "valid")(x) for pool in (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)]
    x = layers.conv(keras.ops.concatenate(pools, -1), 24, 1)
    for stage, (blocks, inside, outside, squeezed) in enumerate(STAGES):
        for block in range(blocks):
            y = layers.conv(x, inside, 1, activation=silu)
            if block == 0:
                y = layers.conv(keras.layers.ZeroPadding2D(1)(y), inside, 3, 2, "valid", silu, True)
            else:
                y = layers.conv(y, inside, 3, activation=silu, depthwise=True)
            if squeezed:
                gates = layers.conv(keras.ops.mean(y, (1, 2), keepdims=True), squeezed, 1, activation=silu)
                y = y * layers.conv(gates, inside, 1, activation="sigmoid")
            y = layers.conv(y, outside, 1)
            x = y if block == 0 else x + y
        keep(f"stage{stage}", keras.ops.convert_to_numpy(x).transpose(0, 3, 1, 2), [997, 499, 251, 97][stage])
    x = keras.ops.relu(x * hashed("04.mul", (192,), 1.0) + hashed("02.add", (192,), 0.5))
    x = layers.conv(x, 1024, 3, padding="valid", activation="relu")
    return keras.ops.convert_to_numpy(keras.ops.mean(x, (1, 2)))[0]


def main():
    torch.set_grad_enabled(False)
    tensors = {}
    weight = hashed("02.fully_connected.weight", (CLASSES, 1024), np.sqrt(3 / 1024)).astype(np.float64)
    bias = hashed("02.fully_connected.bias", (CLASSES,), 0.05)
    for n in LENGTHS:
        x = rc.as_float(rc.signal(n, RATE, seed=3))
        x = np.pad(x, (0, -n % WINDOW))

        def keep(name, values, every):
            if n == LENGTHS[0]:
                tensors[f"{n}.{name}"] = values.reshape(-1)[::every]

        embeddings = np.stack([embed(window, keep) for window in x.reshape(-1, WINDOW)])
        scores = 1 / (1 + np.exp(-(embeddings @ weight.T + bias)))
        tensors[f"{n}.frames"] = scores
        tensors[f"{n}.clipwise_output"] = scores.mean(0)
        tensors[f"{n}.embedding"] = embeddings.mean(0)[::3]
        print(n, scores.min(), scores.max(), np.abs(embeddings).max())
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    rc.save(os.path.join(HERE, "birdnet.safetensors"), tensors, seed=SEED, versions=rc.versions("keras", "torch", "numpy"))


if __name__ == "__main__":
    main()
