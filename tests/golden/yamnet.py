#!/usr/bin/env python3
"""Golden data of YAMNet: Keras' layers with TensorFlow's padding, features in f64 by NumPy, hashed weights.

    python yamnet.py [--real FOLDER --audio FOLDER]     writes yamnet.safetensors beside this file

Given the published file yamnet.tflite and its weights as f32 in one FOLDER, and R9_ZSCveAHg_7s.wav and jfk.wav in the other, also
stores the results of the TensorFlow Lite runtime and of an f32 evaluation.

Weights are hashed from their names (refcommon.py), so only outputs are stored; of large ones every n-th value.
"""
import argparse
import os
import wave

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 43
RATE, WINDOW, HOP, N_FFT, N_MELS = 16000, 400, 160, 512, 64
PAIRS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
# Clip lengths in samples: the shortest, one sample more, 2.5 s.
LENGTHS = (15600, 15601, 40000)
EVERY = {"00": 101, "06": 61, "12": 31, "26": 7}


def mel(hz):
    return 1127.0 * np.log(1.0 + np.asarray(hz, np.float64) / 700.0)


def filters():
    """As tf.signal.linear_to_mel_weight_matrix: triangles over mel, without 0 Hz."""
    bins = mel(np.linspace(0.0, RATE / 2, N_FFT // 2 + 1)[1:])[:, None]
    edges = np.linspace(mel(125.0), mel(7500.0), N_MELS + 2)
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)))
    return np.pad(weights, [[1, 0], [0, 0]])


def spectrum(x):
    n = 1 + (len(x) - WINDOW) // HOP
    frames = np.asarray(x, np.float64)[np.arange(WINDOW)[None] + HOP * np.arange(n)[:, None]]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return np.abs(np.fft.rfft(frames * window, N_FFT))


def log_mel(x):
    return np.log(spectrum(x) @ filters() + 0.001)


def conv_bounds(fan_in):
    limit = np.sqrt(6.0 / fan_in)
    return -limit, limit


def layers():
    """Name and layer of each convolution, built and filled."""
    names, channels, height, width = [], 1, 96, 64

    def add(index, layer, fan_in, depthwise):
        kind = "depthwise" if depthwise else "conv"
        layer.build((None, height, width, channels))
        kernel, bias = layer.weights
        rows, columns, inputs, outputs = kernel.shape
        name = f"{index:02d}.{kind}"
        shape = (inputs, 1, rows, columns) if depthwise else (outputs, inputs, rows, columns)
        values = rc.hashed(f"{name}.weight", shape, *conv_bounds(fan_in), SEED)
        kernel.assign(values.transpose(2, 3, 0, 1) if depthwise else values.transpose(2, 3, 1, 0))
        bias.assign(rc.hashed(f"{name}.bias", tuple(bias.shape), -0.05, 0.05, SEED))
        names.append((name, layer))

    conv = dict(padding="same", activation="relu", use_bias=True)
    add(0, keras.layers.Conv2D(32, 3, strides=2, **conv), 9, False)
    channels, height, width = 32, 48, 32
    for i, (outputs, stride) in enumerate(PAIRS):
        add(2 * i + 1, keras.layers.DepthwiseConv2D(3, strides=stride, **conv), 9, True)
        height, width = height // stride, width // stride
        add(2 * i + 2, keras.layers.Conv2D(outputs, 1, **conv), channels, False)
        channels = outputs
    return names


def patches_of(features):
    return np.stack([features[i : i + 96] for i in range(0, len(features) - 95, 48)])[..., None]


def real(folder, audio, convs):
    """Means over the whole patches of two recordings."""
    from ai_edge_litert.interpreter import Interpreter
    from safetensors.numpy import load_file

    weights, out = load_file(f"{folder}/yamnet_dequantised.safetensors"), {}
    for name, layer in convs:
        kernel, bias = layer.weights
        values = weights[f"{name}.weight"]
        kernel.assign(values.transpose(2, 3, 0, 1) if "depthwise" in name else values.transpose(2, 3, 1, 0))
        bias.assign(weights[f"{name}.bias"])
    runtime = Interpreter(f"{folder}/yamnet.tflite", num_threads=1)
    runtime.allocate_tensors()
    for clip in ("R9_ZSCveAHg_7s", "jfk"):
        with wave.open(f"{audio}/{clip}.wav") as file:
            rate, samples = file.getframerate(), file.readframes(file.getnframes())
        x = np.frombuffer(samples, np.int16).astype(np.float32) / 32768
        if rate == 2 * RATE:
            x = (x[0 : len(x) // 2 * 2 : 2] + x[1::2]) / 2
        x = x[: (len(x) - 15600) // 7680 * 7680 + 15600]
        scores = []
        for start in range(0, len(x) - 15599, 7680):
            runtime.set_tensor(runtime.get_input_details()[0]["index"], x[start : start + 15600].reshape(runtime.get_input_details()[0]["shape"]))
            runtime.invoke()
            output = [o["index"] for o in runtime.get_output_details() if o["shape"][-1] == 521][0]
            scores.append(runtime.get_tensor(output).reshape(-1))
        out[f"{clip}.runtime"] = np.mean(scores, 0)
        maps = patches_of(np.log(spectrum(x) @ weights["mel.weight"].T.astype(np.float64) + weights["mel.bias"]).astype(np.float32))
        for _, layer in convs:
            maps = keras.ops.convert_to_numpy(layer(maps))
        embeddings = maps.mean((1, 2), dtype=np.float64)
        out[f"{clip}.scores"] = (1 / (1 + np.exp(-(embeddings @ weights["dense.weight"].T.astype(np.float64) + weights["dense.bias"])))).mean(0)
        out[f"{clip}.embedding"] = embeddings.mean(0)[::5]
        print(clip, np.sort(out[f"{clip}.runtime"])[-2:], np.sort(out[f"{clip}.scores"])[-2:], np.abs(out[f"{clip}.runtime"] - out[f"{clip}.scores"]).max())
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--real")
    ap.add_argument("--audio")
    args = ap.parse_args()
    convs = layers()
    weight = rc.hashed("dense.weight", (521, 1024), *rc.bounds("dense.weight", (521, 1024), "linear"), SEED).astype(np.float64)
    bias = rc.hashed("dense.bias", (521,), -0.05, 0.05, SEED)
    tensors = {}
    for n in LENGTHS:
        x = rc.as_float(rc.signal(n, RATE, seed=3))
        n_patches = 1 + -(-max(n - 15600, 0) // 7680)
        x = np.pad(x, (0, 15600 + 7680 * (n_patches - 1) - n))
        features = log_mel(x).astype(np.float32)
        maps = patches_of(features)
        for name, layer in convs:
            maps = keras.ops.convert_to_numpy(layer(maps))
            if n == LENGTHS[0] and name[:2] in EVERY:
                tensors[f"{n}.{name}"] = maps.transpose(0, 3, 1, 2).reshape(-1)[:: EVERY[name[:2]]]
        patches = maps.mean((1, 2), dtype=np.float64)
        scores = 1 / (1 + np.exp(-(patches @ weight.T + bias)))
        tensors[f"{n}.log_mel"] = features.reshape(-1)[::41]
        tensors[f"{n}.frames"] = scores[:, ::16].reshape(-1)
        tensors[f"{n}.clipwise_output"] = scores.mean(0)[::3]
        tensors[f"{n}.embedding"] = patches.mean(0)[::5]
        print(n, features.shape, scores.max(), np.abs(patches).max())
    if args.real:
        tensors.update(real(args.real, args.audio, convs))
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    rc.save(os.path.join(HERE, "yamnet.safetensors"), tensors, seed=SEED, versions=rc.versions("keras", "torch", "numpy"))


if __name__ == "__main__":
    main()
