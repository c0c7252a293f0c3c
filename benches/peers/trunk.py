#!/usr/bin/env python3
"""Networks in onnxruntime, OpenVINO and PyTorch beside ours, in turn, f32.

CNN14 from log-mel to scores, as published or with an eighth of the channels, ResNet38, the MobileNets of PANNs and
EfficientAT's mn04 likewise, LeeNet11 from the waveform.

Peers: `onnxruntime` and `openvino` run the graph as exported; `pytorch` is eager, `pytorch-compiled` is torch.compile with
frozen weights. `-swapped` is the same CNN14 with its two spatial axes swapped, time last, which some of them run faster,
because the mel axis is narrow. Each peer's scores are compared with eager PyTorch's before the clock runs. Our weights are
other random ones: times do not depend on them.
"""
import tempfile
import warnings
from pathlib import Path

from turns import arguments, compare, confine, ours, ready

parser = arguments(__doc__)
MODELS = ["cnn14", "cnn14-narrow", "resnet38", "mobilenetv1", "mobilenetv2", "mn04", "leenet11"]
parser.add_argument("--model", choices=MODELS, default="cnn14")
parser.add_argument("--batch", type=int, default=1, help="clips in a call (default 1)")
args = parser.parse_args()
confine(args.threads)

import numpy as np
import torch

import networks as nets
from networks import Cnn14, LeeNet11, Mn04, seeded, swapped

SAMPLE_RATE, HOP = 32_000, 320
# Largest difference of scores, which lie in 0..1. Convolutions by other algorithms differ by less than 1e-6; the many layers and
# gates of a MobileNet with random weights make more of it.
TOLERANCE = 1e-3 if args.model == "mn04" else 1e-5

torch.set_num_threads(args.threads)
torch.set_grad_enabled(False)
folder = tempfile.TemporaryDirectory()

samples = round(args.seconds * SAMPLE_RATE)
random = np.random.default_rng(2)
if args.model == "leenet11":
    networks = {"": seeded(LeeNet11())}
    inputs = {"": random.uniform(-0.1, 0.1, (args.batch, 1, samples)).astype(np.float32)}
elif args.model == "mn04":
    networks = {"": seeded(Mn04())}
    inputs = {"": random.uniform(-1.4, 1.4, (args.batch, 1, 128, samples // HOP + 1)).astype(np.float32)}
else:
    if args.model.startswith("cnn14"):
        width = 64 if args.model == "cnn14" else 8
        networks = {"": seeded(Cnn14(width))}
        networks["-swapped"] = swapped(networks[""], width)
    else:
        networks = {"": seeded(getattr(nets, args.model)())}
    log_mel = random.uniform(-80, 0, (args.batch, 1, samples // HOP + 1, 64)).astype(np.float32)
    inputs = {"": log_mel, "-swapped": np.ascontiguousarray(log_mel.transpose(0, 1, 3, 2))}


def exported(order):
    path = Path(folder.name) / f"network{order}.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that needs no further package calls itself old
            x = torch.from_numpy(inputs[order])
            torch.onnx.export(networks[order], (x,), str(path), input_names=["x"], opset_version=17, dynamo=False)
    return str(path)


def onnxruntime(order):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(exported(order), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": inputs[order]})[0]


def openvino(order):
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": args.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(exported(order), "CPU", settings).create_infer_request()
    return lambda: request.infer({0: inputs[order]})[0]


def pytorch(order):
    x = torch.from_numpy(inputs[order])
    return lambda: networks[order](x).numpy()


def compiled(order):
    import torch._inductor.config

    torch._inductor.config.freezing = True
    network, x = torch.compile(networks[order], dynamic=False), torch.from_numpy(inputs[order])
    return lambda: network(x).numpy()


builders = {}
for name, build in [
    ("onnxruntime", onnxruntime), ("openvino", openvino), ("pytorch", pytorch), ("pytorch-compiled", compiled),
]:
    for order in networks:
        if (name, order) != ("pytorch", "-swapped"):  # never the fastest, never the usual one
            builders[name + order] = lambda build=build, order=order: build(order)

expected = pytorch("")()
peers = ready(builders, args.peers)
for name, call in peers.items():
    difference = float(np.abs(call() - expected).max())
    if not difference < TOLERANCE:
        raise SystemExit(f"{name} computes something else: scores differ by {difference:.1e}")
title = f"{args.model}: {args.batch} x {args.seconds:g} s"
turn = lambda: ours(args, "--model", args.model, "--part", "trunk", "--batch", args.batch)
compare(title, args, peers, turn)
