"""Writes weights_*.pth and weights_*.safetensors: the same tensors in every container that PyTorch writes.

Run in this folder, offline. Written with Python 3.11, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0; seed 0.

- weights_checkpoint_{zip,legacy}_p{2,4}.pth: a training checkpoint as PANNs writes it (`iteration`, `model`, `sampler`,
  `optimizer`), the model in DataParallel; expected: weights_checkpoint.safetensors.
- weights_dtypes_{zip,legacy}.pth: a bare state dict of every element type, of strided, offset, repeated, 0-dimensional
  and empty tensors, of parameters; expected, in f32: weights_dtypes.safetensors.
- weights_torch_types.pth: types that only the zip format has; expected: weights_torch_types.safetensors.
- weights_half.safetensors: half and bfloat16; expected: the same names in weights_dtypes.safetensors.
- weights_float8.safetensors: an element type that is listed but cannot be read, beside one that can.
- weights_module.pth: a whole pickled module; expected: weights_module.safetensors.
- weights_script.pt: TorchScript, which is rejected.
"""

import collections
import sys

import numpy as np
import torch
from safetensors.torch import save_file

torch.manual_seed(0)
rng = np.random.default_rng(0)


def save(value, name, zip_format=True, protocol=2):
    torch.save(value, name, _use_new_zipfile_serialization=zip_format, pickle_protocol=protocol)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bn0 = torch.nn.BatchNorm2d(3)
        self.conv1 = torch.nn.Conv2d(1, 4, 3, bias=False)
        self.fc1 = torch.nn.Linear(4, 5)

    def forward(self, x):
        return self.fc1(x)


net = Net()
optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
loss = sum((p * torch.randn_like(p)).sum() for p in net.parameters())
loss.backward()
optimizer.step()
state = net.state_dict()
wrapped = collections.OrderedDict(("module." + k, v) for k, v in state.items())
wrapped._metadata = state._metadata
checkpoint = {
    "iteration": 540000,
    "model": wrapped,
    "sampler": {
        "indexes_per_class": [rng.integers(0, 1000, 7) for _ in range(3)],
        "queue": [3, 1, 2, 70000, -5, 2**40, 2**70],
        "pointers_of_classes": [0] * 5,
        "random_state": np.random.RandomState(1),
        "scalar": np.float32(0.5),
        "object_array": np.array([None, "x", 1.5], dtype=object),
        "nested": {"t": (), "f": frozenset([1]), "s": {1, 2}, "b": b"bytes", "n": None, "c": 1 + 2j, "x": [True, 1.5]},
    },
    "optimizer": optimizer.state_dict(),
    "statistics": {"mAP": 0.431, "history": [0.1, 0.2]},
}
for zip_format in (True, False):
    for protocol in (2, 4):
        save(checkpoint, f"weights_checkpoint_{'zip' if zip_format else 'legacy'}_p{protocol}.pth", zip_format, protocol)
save_file({k: v.float().contiguous() for k, v in state.items()}, "weights_checkpoint.safetensors")

base = torch.randn(6, 7)
dtypes = {
    "f64": torch.randn(3, 4, dtype=torch.float64),
    "f32": torch.randn(2, 3),
    "f16": torch.tensor([1.5, -65504.0, 6e-8, float("inf"), 0.333], dtype=torch.float16),
    "bf16": torch.randn(7).to(torch.bfloat16),
    "i64": torch.tensor([-3, 2**40, 7]),
    "i32": torch.tensor([-(2**31), 5], dtype=torch.int32),
    "i16": torch.tensor([-32768, 5], dtype=torch.int16),
    "i8": torch.tensor([-128, 127], dtype=torch.int8),
    "u8": torch.tensor([[0, 255]], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "whole": base,
    "transposed": base.t(),
    "row": base[2],
    "column": base[:, 3],
    "window": base[1:4, 2:6],
    "every_other": base[::2, ::3],
    "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
    "repeated": torch.tensor([[1.0], [2.0]]).expand(2, 5),
    "scalar": torch.tensor(3.25),
    "empty": torch.zeros(0, 4),
    "parameter": torch.nn.Parameter(torch.randn(4)),
    "buffer": torch.nn.Buffer(torch.randn(2)),
    "channels_last": torch.randn(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
}
save(dtypes, "weights_dtypes_zip.pth")
save(dtypes, "weights_dtypes_legacy.pth", zip_format=False)
as_f32 = {k: v.detach().float().contiguous().clone() for k, v in dtypes.items()}
save_file(as_f32, "weights_dtypes.safetensors", {"made_by": "tests/golden/weights.py"})
save_file({k: dtypes[k] for k in ("f64", "f16", "bf16", "i64", "i8", "u8", "bool")}, "weights_half.safetensors")

torch_types = {
    "u16": torch.tensor([0, 65535], dtype=torch.uint16),
    "u32": torch.tensor([0, 2**32 - 1], dtype=torch.uint32),
    "u64": torch.tensor([0, 2**63], dtype=torch.uint64),
    "f32": torch.randn(3),
    "bytes_of_f32": torch.randn(3).view(torch.uint8),
    "complex": torch.randn(2, dtype=torch.complex64),
    "f8": torch.randn(4).to(torch.float8_e4m3fn),
}
save(torch_types, "weights_torch_types.pth")
save_file(
    {k: v.float() for k, v in torch_types.items() if k not in ("complex", "f8")}, "weights_torch_types.safetensors"
)
save_file({"f8": torch_types["f8"], "f32": torch_types["f32"]}, "weights_float8.safetensors")

module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.ReLU()))
module.register_buffer("window", torch.randn(4))
module.register_buffer("scratch", torch.randn(4), persistent=False)
module.register_parameter("absent", None)
torch.save(torch.nn.DataParallel(module), "weights_module.pth")
save_file({k: v.float() for k, v in module.state_dict().items()}, "weights_module.safetensors")
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), "weights_script.pt")
print(sys.version, torch.__version__, np.__version__)
