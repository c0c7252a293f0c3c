#!/usr/bin/env python3
"""Networks written in networks.py in onnxruntime, OpenVINO and PyTorch compared with ours, interleaved.

CNN14, as published or with an eighth of the channels, and CED-tiny from log-mel to scores, LeeNet11 and M5 from the waveform, two
bidirectional layers of GRU or LSTM over 100 frames per second.

Peers: `onnxruntime` and `openvino` run the exported graph in f32, `openvino-pytorch` a conversion without ONNX between; `pytorch`
is eager, `pytorch-jit` traced and frozen, `pytorch-compiled` torch.compile with frozen weights. `-swapped` is CNN14 with its two
spatial axes swapped, so that time is last, which some runtimes run faster, because the mel axis is narrow. With `--precision int8`,
ours and the peers run in less than f32. Each peer's result is compared with eager PyTorch's before timing. Weights are random ones,
different on our side, but CED-tiny's are the bundled ones on all sides: times do not depend on them.
"""
from turns import PROJECT, arguments, compare, confine, ours

parser = arguments(__doc__)
parser.add_argument("--model", choices=["cnn14", "cnn14-narrow", "leenet11", "ced-tiny", "m5", "gru", "lstm"], default="cnn14")
parser.add_argument("--batch", type=int, default=1, help="clips per call (default 1)")
parser.add_argument("--precision", help="the precision of ours; if given, the peers are those in bf16 and int8")
args = parser.parse_args()
confine(args.threads)

import numpy as np

from networks import CedTiny, Cnn14, LeeNet11, M5, Recurrent, seeded, swapped
from runtimes import peers

random = np.random.default_rng(2)
frames = round(args.seconds * 100)


def uniform(low, high, *shape):
    return random.uniform(low, high, (args.batch, *shape)).astype(np.float32)


if args.model == "leenet11":
    networks = {"": seeded(LeeNet11())}
    inputs = {"": uniform(-0.1, 0.1, 1, round(args.seconds * 32_000))}
elif args.model == "m5":
    networks = {"": seeded(M5())}
    inputs = {"": uniform(-0.1, 0.1, 1, round(args.seconds * 8_000))}
elif args.model == "ced-tiny":
    networks = {"": CedTiny.open(PROJECT / "weights/ced-tiny/model.safetensors")}
    inputs = {"": uniform(-80, 0, 64, frames + 1)}
elif args.model in ("gru", "lstm"):
    networks = {"": seeded(Recurrent(args.model.upper()))}
    inputs = {"": uniform(-0.1, 0.1, frames, 64)}
    args.without += ",pytorch-compiled"  # takes hours: it unrolls the frames
else:
    width = 64 if args.model == "cnn14" else 8
    networks = {"": seeded(Cnn14(width))}
    networks["-swapped"] = swapped(networks[""], width)
    log_mel = uniform(-80, 0, 1, frames + 1, 64)
    inputs = {"": log_mel, "-swapped": np.ascontiguousarray(log_mel.transpose(0, 1, 3, 2))}

title = f"{args.model}: {args.batch} x {args.seconds:g} s{', reduced precision' if args.precision else ''}"
precision = ["--precision", args.precision] if args.precision else []
turn = lambda: ours(args, "--model", args.model, "--part", "trunk", "--batch", args.batch, *precision)
compare(title, args, peers(networks, inputs, args, bool(args.precision)), turn)
