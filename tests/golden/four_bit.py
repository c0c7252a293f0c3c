#!/usr/bin/env python3
"""Golden data of 4-bit tensors, by bitsandbytes on the CPU.

    python four_bit.py        writes four_bit.safetensors beside this file

NAME and the tensors beside it are a tensor as saved by `Linear4bit`; NAME.bits is the FNV-1a hash of the f32 bytes of
`dequantize_4bit`'s output (bf16 and f16 converted exactly), NAME.first its first 8 values.
"""
import math
import os

import bitsandbytes.functional as bnb
import torch

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 51
# shape, type of codes, block, double quantisation, stored type, type of the bytes
TENSORS = {
    "nf4": ((24, 40), "nf4", 64, False, torch.float32, torch.uint8),
    "nf4_double": ((70, 256), "nf4", 64, True, torch.float32, torch.uint8),
    "nf4_32": ((6, 50), "nf4", 32, True, torch.float32, torch.uint8),
    "nf4_4096": ((5, 3, 300), "nf4", 4096, False, torch.float32, torch.uint8),
    "nf4_odd": ((7, 9), "nf4", 64, True, torch.float32, torch.uint8),
    "nf4_bf16": ((16, 72), "nf4", 128, True, torch.bfloat16, torch.uint8),
    "nf4_in_bf16": ((16, 72), "nf4", 64, True, torch.bfloat16, torch.bfloat16),
    "fp4": ((12, 40), "fp4", 64, False, torch.float32, torch.uint8),
    "fp4_double": ((12, 40), "fp4", 128, True, torch.float16, torch.uint8),
}


def main():
    tensors = {}
    for name, (shape, kind, block, double, dtype, storage) in TENSORS.items():
        # Blocks of different loudness.
        x = rc.hashed(name, shape, -1.0, 1.0, SEED).reshape(-1)
        x = x * (1.0 + rc.hashed(f"{name}.loud", (math.ceil(x.size / block),), 0.0, 4.0, SEED)).repeat(block)[: x.size]
        x = torch.from_numpy(x).reshape(shape).to(dtype)
        codes, state = bnb.quantize_4bit(
            x, blocksize=block, compress_statistics=double, quant_type=kind, quant_storage=storage)
        tensors[name] = codes
        for piece, value in state.as_dict(packed=True).items():
            tensors[f"{name}.{piece}"] = value
        state = bnb.QuantState.from_dict(dict(state.as_dict(packed=True)), torch.device("cpu"))
        values = bnb.dequantize_4bit(codes, state).float().contiguous() + 0.0  # bitsandbytes' AVX-512 code has -0 in its FP4 table
        assert values.shape == shape
        digest = 0xCBF29CE484222325
        for byte in values.numpy().tobytes():
            digest = (digest ^ byte) * 0x100000001B3 % 2**64
        tensors[f"{name}.bits"] = torch.tensor([digest - 2**64 if digest >= 2**63 else digest])
        tensors[f"{name}.first"] = values.reshape(-1)[:8].clone()
        print(name, tuple(codes.shape), codes.dtype, float((values - x.float()).abs().max()))
    from safetensors.torch import save_file

    path = os.path.join(HERE, "four_bit.safetensors")
    save_file(tensors, path, {"seed": str(SEED), "versions": rc.versions("torch", "bitsandbytes")})
    os.chmod(path, 0o644)
    print(os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
