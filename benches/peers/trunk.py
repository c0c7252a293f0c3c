#!/usr/bin/env python3
"""Networks in onnxruntime, OpenVINO and PyTorch compared with ours, interleaved, f32.

CNN14 from log-mel to scores, as published or with an eighth of the channels, and LeeNet11 from the waveform.

Peers: `onnxruntime` and `openvino` run the exported graph; `pytorch` is eager, `pytorch-compiled` is torch.compile with
frozen weights. `-swapped` is CNN14 with its two spatial axes swapped, so that time is last, which some runtimes run faster,
because the mel axis is narrow. Each peer's scores are compared with eager PyTorch's before timing. Our weights are
different random ones: times do not depend on them.
"""
from turns import arguments, compare, confine, ours

parser = arguments(__doc__)
parser.add_argument("--model", choices=["cnn14", "cnn14-narrow", "leenet11"], default="cnn14")
parser.add_argument("--batch", type=int, default=1, help="clips per call (default 1)")
args = parser.parse_args()
confine(args.threads)

import numpy as np

from networks import Cnn14, LeeNet11, seeded, swapped
from runtimes import peers

SAMPLE_RATE, HOP = 32_000, 320

samples = round(args.seconds * SAMPLE_RATE)
random = np.random.default_rng(2)
if args.model == "leenet11":
    networks = {"": seeded(LeeNet11())}
    inputs = {"": random.uniform(-0.1, 0.1, (args.batch, 1, samples)).astype(np.float32)}
else:
    width = 64 if args.model == "cnn14" else 8
    networks = {"": seeded(Cnn14(width))}
    networks["-swapped"] = swapped(networks[""], width)
    log_mel = random.uniform(-80, 0, (args.batch, 1, samples // HOP + 1, 64)).astype(np.float32)
    inputs = {"": log_mel, "-swapped": np.ascontiguousarray(log_mel.transpose(0, 1, 3, 2))}

title = f"{args.model}: {args.batch} x {args.seconds:g} s"
turn = lambda: ours(args, "--model", args.model, "--part", "trunk", "--batch", args.batch)
compare(title, args, peers(networks, inputs, args), turn)
