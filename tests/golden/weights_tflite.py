#!/usr/bin/env python3
"""A small TensorFlow Lite file with each supported kind of layer, and the expected values.

    pip install tflite; python weights_tflite.py     writes weights_layers.tflite and weights_layers.safetensors beside this file
"""
import os

import flatbuffers
import numpy as np
import tflite

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 41
CONV, DEPTHWISE, DEQUANTIZE, FULLY_CONNECTED, RELU = 3, 4, 6, 9, 19
CODES = [CONV, DEPTHWISE, DEQUANTIZE, FULLY_CONNECTED, RELU]
F32, F16, I8 = 0, 1, 9


class Writer:
    def __init__(self):
        self.builder = flatbuffers.Builder(1024)
        self.buffers = [b""]
        self.tensors = []
        self.operators = []

    def vector(self, start, values, prepend):
        start(self.builder, len(values))
        for value in reversed(values):
            prepend(value)
        return self.builder.EndVector()

    def tensor(self, shape, kind=F32, data=None, scales=None, axis=0):
        """Its number."""
        self.tensors.append((shape, kind, 0 if data is None else len(self.buffers), scales, axis))
        if data is not None:
            self.buffers.append(data.tobytes())
        return len(self.tensors) - 1

    def operator(self, code, inputs, outputs):
        self.operators.append((CODES.index(code), inputs, outputs))

    def finish(self):
        b = self.builder
        tensors, operators, codes, buffers = [], [], [], []
        for shape, kind, buffer, scales, axis in self.tensors:
            quantization = None
            if scales is not None:
                scale = self.vector(tflite.QuantizationParametersStartScaleVector, list(scales), b.PrependFloat32)
                zero = self.vector(tflite.QuantizationParametersStartZeroPointVector, [0] * len(scales), b.PrependInt64)
                tflite.QuantizationParametersStart(b)
                tflite.QuantizationParametersAddScale(b, scale)
                tflite.QuantizationParametersAddZeroPoint(b, zero)
                tflite.QuantizationParametersAddQuantizedDimension(b, axis)
                quantization = tflite.QuantizationParametersEnd(b)
            dims = self.vector(tflite.TensorStartShapeVector, list(shape), b.PrependInt32)
            tflite.TensorStart(b)
            tflite.TensorAddShape(b, dims)
            tflite.TensorAddType(b, kind)
            tflite.TensorAddBuffer(b, buffer)
            if quantization is not None:
                tflite.TensorAddQuantization(b, quantization)
            tensors.append(tflite.TensorEnd(b))
        for code, inputs, outputs in self.operators:
            inputs = self.vector(tflite.OperatorStartInputsVector, inputs, b.PrependInt32)
            outputs = self.vector(tflite.OperatorStartOutputsVector, outputs, b.PrependInt32)
            tflite.OperatorStart(b)
            tflite.OperatorAddOpcodeIndex(b, code)
            tflite.OperatorAddInputs(b, inputs)
            tflite.OperatorAddOutputs(b, outputs)
            operators.append(tflite.OperatorEnd(b))
        for code in CODES:
            tflite.OperatorCodeStart(b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, code)
            tflite.OperatorCodeAddBuiltinCode(b, code)
            codes.append(tflite.OperatorCodeEnd(b))
        for data in self.buffers:
            data = b.CreateByteVector(data) if data else None
            tflite.BufferStart(b)
            if data is not None:
                tflite.BufferAddData(b, data)
            buffers.append(tflite.BufferEnd(b))
        offset = b.PrependUOffsetTRelative
        tensors = self.vector(tflite.SubGraphStartTensorsVector, tensors, offset)
        operators = self.vector(tflite.SubGraphStartOperatorsVector, operators, offset)
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, tensors)
        tflite.SubGraphAddOperators(b, operators)
        graphs = self.vector(tflite.ModelStartSubgraphsVector, [tflite.SubGraphEnd(b)], offset)
        codes = self.vector(tflite.ModelStartOperatorCodesVector, codes, offset)
        buffers = self.vector(tflite.ModelStartBuffersVector, buffers, offset)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, codes)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddBuffers(b, buffers)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())


def main():
    writer, wanted = Writer(), {}

    def values(name, shape):
        return rc.hashed(name, shape, -1.0, 1.0, SEED)

    def codes(name, shape):
        return np.round(127 * values(name, shape)).astype(np.int8)

    x = writer.tensor((1, 4, 4, 2))
    # 8 bits with a scale per output channel, and a bias.
    weight, scales, bias = codes("conv", (3, 2, 2, 2)), np.float32([0.01, 0.5, 2.0]), values("conv.bias", (3,))
    conv = [x, writer.tensor(weight.shape, I8, weight, scales), writer.tensor((3,), F32, bias)]
    writer.operator(CONV, conv, [writer.tensor((1, 3, 3, 3))])
    wanted["00.conv.weight"] = (weight * scales[:, None, None, None]).astype(np.float32).transpose(0, 3, 1, 2)
    wanted["00.conv.bias"] = bias
    # 8 bits dequantised in the graph, with a scale per channel, which is the last axis.
    weight, scales = codes("depthwise", (1, 2, 3, 3)), np.float32([0.25, 0.1, 0.3])
    stored, floats = writer.tensor(weight.shape, I8, weight, scales, 3), writer.tensor(weight.shape)
    writer.operator(DEQUANTIZE, [stored], [floats])
    writer.operator(DEPTHWISE, [conv[0], floats, -1], [writer.tensor((1, 2, 1, 3))])
    wanted["01.depthwise.weight"] = (weight * scales).astype(np.float32).transpose(3, 0, 1, 2)
    writer.operator(RELU, [0], [0])
    # Half precision; one scale for the whole tensor; weights computed by the graph.
    weight = values("half", (4, 6)).astype(np.float16)
    writer.operator(FULLY_CONNECTED, [x, writer.tensor(weight.shape, F16, weight), -1], [writer.tensor((1, 4))])
    wanted["00.fully_connected.weight"] = weight.astype(np.float32)
    weight = codes("dense", (2, 5))
    writer.operator(FULLY_CONNECTED, [x, writer.tensor(weight.shape, I8, weight, [0.125])], [writer.tensor((1, 2))])
    wanted["01.fully_connected.weight"] = weight * np.float32(0.125)
    writer.operator(FULLY_CONNECTED, [x, x, -1], [writer.tensor((1, 2))])

    with open(os.path.join(HERE, "weights_layers.tflite"), "wb") as file:
        file.write(writer.finish())
    wanted = {name: np.ascontiguousarray(value) for name, value in wanted.items()}
    rc.save(os.path.join(HERE, "weights_layers.safetensors"), wanted, seed=SEED, versions=rc.versions("numpy", "tflite"))


if __name__ == "__main__":
    main()
