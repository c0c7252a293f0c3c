"""One PyTorch network in several runtimes, for timing: f32, bf16 and int8."""
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from turns import ready

# Maximum difference of f32 results, in units of the largest value or of 1, whichever is more. Different convolution algorithms
# differ by less than 1e-6.
TOLERANCE = 1e-5
# Peers that run in less than f32.
REDUCED = ["onnxruntime-int8", "openvino-int8", "openvino-bf16"]


def peers(networks, inputs, args, reduced=False):
    """Name to a call, each checked against eager PyTorch.

    `networks` and `inputs` are by a suffix of the name: several forms of one network with the same results, the first the usual
    one, which alone PyTorch runs eagerly. Inputs are NumPy arrays, or tuples of them. With `reduced`, the peers are those in
    bf16 and int8, whose difference is printed.
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

    def prepared(order):
        """The export with its shapes inferred, as onnxruntime's quantisation wants it."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        path = str(Path(folder.name) / f"prepared{order}.onnx")
        quant_pre_process(exported(order), path)
        return path

    def onnxruntime(order, path=None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
        session = onnxruntime.InferenceSession(path or exported(order), options, providers=["CPUExecutionProvider"])
        feed = dict(zip(names(order), inputs[order]))
        return lambda: session.run(None, feed)[0]

    def onnxruntime_int8(order):
        """Weights in 8 bits; activations are quantised as they come."""
        from onnxruntime.quantization import quantize_dynamic

        path = str(Path(folder.name) / f"dynamic{order}.onnx")
        quantize_dynamic(prepared(order), path, per_channel=True)
        return onnxruntime(order, path)

    def openvino(order, model=None, precision="f32"):
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": args.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        request = openvino.Core().compile_model(model or exported(order), "CPU", settings).create_infer_request()
        feed = dict(enumerate(inputs[order]))
        return lambda: request.infer(feed)[0]

    def openvino_pytorch(order):
        """Converted from PyTorch without ONNX between, so that attention stays one operation."""
        from openvino import convert_model

        x = tensors(order)
        return openvino(order, convert_model(networks[order], example_input=x, input=[tuple(t.shape) for t in x]))

    def openvino_int8(order):
        """Weights and activations of layers in 8 bits, with ranges from a calibration on the input."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        class Input(CalibrationDataReader):
            left = [dict(zip(names(order), inputs[order]))]

            def get_next(self):
                return self.left.pop() if self.left else None

        path = str(Path(folder.name) / f"static{order}.onnx")
        quantize_static(
            prepared(order), path, Input(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"], extra_options={"MatMulConstBOnly": True})
        return openvino(order, path)

    def pytorch(order):
        x = tensors(order)
        return lambda: networks[order](*x).numpy()

    def pytorch_jit(order):
        x = tensors(order)
        network = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(networks[order], x)))
        for _ in range(3):
            network(*x)  # the first calls optimise
        return lambda: network(*x).numpy()

    def pytorch_compiled(order):
        import torch._inductor.config

        torch._inductor.config.freezing = True
        network, x = torch.compile(networks[order], dynamic=False), tensors(order)
        return lambda: network(*x).numpy()

    kinds = {
        "onnxruntime": onnxruntime, "openvino": openvino, "openvino-pytorch": openvino_pytorch, "pytorch": pytorch,
        "pytorch-jit": pytorch_jit, "pytorch-compiled": pytorch_compiled,
    }
    if reduced:
        kinds = dict(zip(REDUCED, (onnxruntime_int8, openvino_int8, lambda order: openvino(order, precision="bf16"))))
    builders = {}
    for name, build in kinds.items():
        for order in networks:
            # Eager PyTorch is never the fastest on another form, nor a conversion that OpenVINO reads from ONNX too.
            if order == usual or name not in ("pytorch", "openvino-pytorch"):
                builders[name + order] = lambda build=build, order=order: build(order)

    expected = pytorch(usual)()
    found = ready(builders, args)
    for name, call in found.items():
        difference = float(np.abs(call() - expected).max()) / max(1, float(np.abs(expected).max()))
        if reduced:
            print(f"{name} differs by {difference:.1e}")
        elif not difference < TOLERANCE:
            raise SystemExit(f"{name} computes something else: differs by {difference:.1e}")
    return found
