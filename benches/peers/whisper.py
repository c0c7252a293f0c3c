#!/usr/bin/env python3
"""Whisper tiny's encoder in transformers, onnxruntime and OpenVINO compared with ours, interleaved: from log-mel to hidden states.

Peers: as in trunk.py; PyTorch's is transformers' encoder with fused attention. They always process 30 s; ours processes a clip's own
length, so `--seconds 10` shows the cost of short clips on either side. With `--precision int8`, ours and the peers run in less than
f32. The weights of the sides are different random ones: times do not depend on them.
"""
from turns import arguments, compare, confine, ours

parser = arguments(__doc__)
parser.add_argument("--precision", help="the precision of ours; if given, the peers are those in bf16 and int8")
parser.set_defaults(seconds=30.0)
args = parser.parse_args()
confine(args.threads)

import numpy as np
import torch

torch.version.cuda = None  # torchaudio, which transformers imports, refuses a PyTorch of another build for GPUs
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from runtimes import peers

torch.manual_seed(0)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        tiny = dict(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80)
        self.encoder = WhisperEncoder(WhisperConfig(**tiny, attn_implementation="sdpa"))

    def forward(self, x):
        return self.encoder(x).last_hidden_state


log_mel = np.random.default_rng(2).uniform(-1, 1, (1, 80, 3000)).astype(np.float32)
title = f"Whisper tiny's encoder, ours on {args.seconds:g} s, theirs on 30 s{', reduced precision' if args.precision else ''}"
precision = ["--precision", args.precision] if args.precision else []
turn = lambda: ours(args, "--model", "whisper-tiny", "--part", "trunk", *precision)
compare(title, args, peers({"": Encoder().eval()}, {"": log_mel}, args, bool(args.precision)), turn)
