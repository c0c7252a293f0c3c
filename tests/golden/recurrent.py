"""The recurrent encoder in PyTorch: convolution, batch norm, ReLU, then GRU or LSTM layers over packed sequences.

Weights are hashed, each under its name in the state dict; features of three clips of different lengths are hashed too, with
zero padding after the shorter ones. Stored are the hidden states after the convolution and after each recurrent layer.
"""
import os

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import refcommon

SEED = 43
FOLDER = os.path.dirname(os.path.abspath(__file__))
N_FEATURES, HIDDEN, KERNEL, STRIDE = 8, 6, 5, 3
LENGTHS = [17, 24, 1]


class Encoder(nn.Module):
    def __init__(self, cell, bidirectional):
        super().__init__()
        dim = HIDDEN * (2 if bidirectional else 1)
        self.conv = nn.Conv1d(N_FEATURES, dim, KERNEL, STRIDE, padding=KERNEL // 2, bias=False)
        self.norm = nn.BatchNorm1d(dim)
        self.rnn = cell(dim, HIDDEN, 2, batch_first=True, bidirectional=bidirectional)

    def layer(self, index):
        """One layer of `rnn` as a separate module."""
        rnn = type(self.rnn)(self.rnn.input_size, HIDDEN, batch_first=True, bidirectional=self.rnn.bidirectional)
        state = self.rnn.state_dict()
        rnn.load_state_dict({name: state[name.replace("_l0", f"_l{index}")] for name in rnn.state_dict()})
        return rnn

    def forward(self, x, lengths):
        x = self.norm(self.conv(x.transpose(1, 2))).relu().transpose(1, 2)
        lengths = torch.tensor([-(-length // STRIDE) for length in lengths])
        x = x * (torch.arange(x.shape[1])[None, :, None] < lengths[:, None, None])
        states = [x]
        for index in range(2):
            packed = pack_padded_sequence(states[-1], lengths, batch_first=True, enforce_sorted=False)
            states.append(pad_packed_sequence(self.layer(index)(packed)[0], batch_first=True)[0])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        whole = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]
        assert torch.allclose(whole, states[-1], atol=1e-6)
        return states


def main():
    tensors = {}
    x = refcommon.hashed("features", (len(LENGTHS), max(LENGTHS), N_FEATURES), -2.0, 2.0, SEED)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = 0.0
    for name, cell, bidirectional in [("gru", nn.GRU, True), ("lstm", nn.LSTM, False)]:
        model = refcommon.fill(Encoder(cell, bidirectional), SEED)
        with torch.no_grad():
            for index, state in enumerate(model(torch.from_numpy(x), LENGTHS)):
                tensors[f"{name}.states.{index}"] = state.numpy()
        for key, value in model.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                tensors[f"{name}.weights.{key}"] = value.numpy()
    refcommon.save(
        os.path.join(FOLDER, "recurrent.safetensors"), tensors, seed=SEED, versions=refcommon.versions("torch", "numpy")
    )


if __name__ == "__main__":
    main()
