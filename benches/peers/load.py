#!/usr/bin/env python3
"""The time from opening a checkpoint to the first result, and peak memory: ours compared with a session of onnxruntime, interleaved.

CNN14 with random weights (323 MB) on 10 s, and the bundled CED-tiny, of which onnxruntime gets a float export. Each run is a process
of its own; the files are in the page cache. onnxruntime's begins after its import, with features that are given; ours includes
the front end. Its memory is what it takes on top of Python with NumPy and the import.
"""
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from turns import PROJECT, arguments, build, clipwise, confine

CHILD = """
import json, sys, time
import numpy, onnxruntime

def memory(field):
    return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1]) * 1024 / 1e6

shape, before = json.loads(sys.argv[2]), memory("VmRSS:")
x = numpy.random.default_rng(2).uniform(-80, 0, shape).astype("float32")
start = time.perf_counter()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = int(sys.argv[3]), 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
opened = time.perf_counter()
session.run(None, {"x0": x})
end = time.perf_counter()
print(json.dumps({"open": (opened - start) * 1e3, "result": (end - start) * 1e3, "peak": memory("VmHWM:") - before}))
"""

parser = arguments(__doc__)
parser.add_argument("--model", choices=["cnn14", "ced-tiny"], default="cnn14")
args = parser.parse_args()
confine(args.threads)

import torch

from networks import CedTiny, Cnn14, seeded

folder = tempfile.TemporaryDirectory()
checkpoint, export = Path(folder.name) / "model.safetensors", Path(folder.name) / "model.onnx"
frames = round(args.seconds * 100) + 1
if args.model == "cnn14":
    from safetensors.torch import save_file

    network, shape = seeded(Cnn14()), [1, 1, frames, 64]
    names = {f".{3 * i + j}.": f".{kind}{i + 1}." for i in range(2) for j, kind in enumerate(("conv", "bn"))}

    def published(name):
        """PANNs' name of a tensor."""
        if not name.startswith("blocks."):
            return name
        _, block, layer, tensor = name.split(".")
        return f"conv_block{int(block) + 1}{names[f'.{layer}.']}{tensor}"

    save_file({published(name): tensor.contiguous() for name, tensor in network.state_dict().items()}, checkpoint)
    options = ["--model", "cnn14", "--weights", checkpoint]
else:
    network, shape = CedTiny.open(PROJECT / "weights/ced-tiny/model.safetensors"), [1, 64, frames]
    options = ["--model", "ced-tiny"]
with warnings.catch_warnings(), torch.no_grad():
    warnings.simplefilter("ignore")
    torch.onnx.export(network, (torch.zeros(shape),), str(export), input_names=["x0"], opset_version=17, dynamo=False)


def ours():
    options_of_run = ["--load", "--runs", 1, "--threads", args.threads, "--seconds", args.seconds, *options]
    row = clipwise(args.clipwise, *options_of_run)[0]
    return {"open": row["load"]["open_ms"], "result": row["ms"]["median"], "peak": row["load"]["peak_rss_mb"]}, row


def theirs():
    command = [sys.executable, "-c", CHILD, str(export), json.dumps(shape), str(args.threads)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


sides = {"clipwise": [], "onnxruntime": []}
for _ in range(args.rounds):
    run, row = ours()
    sides["clipwise"].append(run)
    sides["onnxruntime"].append(theirs())
median = lambda name, value: statistics.median(run[value] for run in sides[name])
print(f"\nloading {args.model}; {args.threads} thread(s), {args.rounds} rounds")
print(f"{'':14} {'open ms':>10} {'first result ms':>16} {'peak MB':>9}")
for name in sides:
    print(f"{name:14} {median(name, 'open'):10.1f} {median(name, 'result'):16.1f} {median(name, 'peak'):9.0f}")
if args.json:
    ms = {name: {value: median(name, value) for value in ("open", "result", "peak")} for name in sides}
    settings = {"title": f"loading {args.model}", "threads": args.threads, "rounds": args.rounds, "runs": 1}
    print(json.dumps({**settings, "load": ms, "clipwise": build(row)}), flush=True)
