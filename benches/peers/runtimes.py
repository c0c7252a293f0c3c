"""One PyTorch network in several runtimes, for timing: f32, as exported."""
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from turns import ready

# Maximum difference of scores, which lie in 0..1. Different convolution algorithms differ by less than 1e-6.
TOLERANCE = 1e-5


def peers(networks, inputs, args):
    """Name to a call, each checked against eager PyTorch.

    `networks` and `inputs` are by a suffix of the name: several forms of one network with the same scores, the first the usual
    one, which alone PyTorch runs eagerly. Inputs are NumPy arrays, or tuples of them.
    """
    inputs = {order: x if isinstance(x, tuple) else (x,) for order, x in inputs.items()}
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    folder = tempfile.TemporaryDirectory()
    usual = next(iter(networks))

    def tensors(order):
        return tuple(torch.from_numpy(x) for x in inputs[order])

    def names(order):
        return [f"x{i}" for i in range(len(inputs[order]))]

    def exported(order):
        path = Path(folder.name) / f"network{order}.onnx"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter that needs no further package calls itself old
                torch.onnx.export(networks[order], tensors(order), str(path), input_names=names(order), opset_version=17, dynamo=False)
        return str(path)

    def onnxruntime(order):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
        session = onnxruntime.InferenceSession(exported(order), options, providers=["CPUExecutionProvider"])
        feed = dict(zip(names(order), inputs[order]))
        return lambda: session.run(None, feed)[0]

    def openvino(order):
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": args.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = openvino.Core().compile_model(exported(order), "CPU", settings).create_infer_request()
        feed = dict(enumerate(inputs[order]))
        return lambda: request.infer(feed)[0]

    def pytorch(order):
        x = tensors(order)
        return lambda: networks[order](*x).numpy()

    def compiled(order):
        import torch._inductor.config

        torch._inductor.config.freezing = True
        network, x = torch.compile(networks[order], dynamic=False), tensors(order)
        return lambda: network(*x).numpy()

    builders = {}
    for name, build in [
        ("onnxruntime", onnxruntime), ("openvino", openvino), ("pytorch", pytorch), ("pytorch-compiled", compiled),
    ]:
        for order in networks:
            if (name, order) == ("pytorch", usual) or name != "pytorch":  # the other forms are never the fastest there
                builders[name + order] = lambda build=build, order=order: build(order)

    expected = pytorch(usual)()
    found = ready(builders, args.peers)
    for name, call in found.items():
        difference = float(np.abs(call() - expected).max())
        if not difference < TOLERANCE:
            raise SystemExit(f"{name} computes something else: scores differ by {difference:.1e}")
    return found
