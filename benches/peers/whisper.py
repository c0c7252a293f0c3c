#!/usr/bin/env python3
"""Whisper's encoder in transformers compared with ours, interleaved, f32: tiny, from log-mel to hidden states.

Peers: `eager` is transformers' encoder with PyTorch's fused attention, `compiled` the same under torch.compile. They always process
30 s; ours processes a clip's own length, so `--seconds 10` shows the cost of short clips on either side. The weights of the sides are
different random ones: times do not depend on them.
"""
from turns import arguments, compare, confine, ours, ready

parser = arguments(__doc__)
parser.set_defaults(seconds=30.0)
args = parser.parse_args()
confine(args.threads)

import torch

torch.version.cuda = None  # torchaudio, which transformers imports, refuses a PyTorch of another build for GPUs
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

torch.set_num_threads(args.threads)
torch.set_grad_enabled(False)
torch.manual_seed(0)

tiny = dict(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80)
encoder = WhisperEncoder(WhisperConfig(**tiny, attn_implementation="sdpa")).eval()
log_mel = torch.rand(1, 80, 3000) * 2 - 1


def compiled():
    compiled = torch.compile(encoder)
    difference = (compiled(log_mel).last_hidden_state - encoder(log_mel).last_hidden_state).abs().max()
    assert difference < 1e-3, f"compiled: {difference}"
    return lambda: compiled(log_mel)


peers = ready({"eager": lambda: lambda: encoder(log_mel), "compiled": compiled}, args.peers)
title = f"Whisper tiny's encoder, ours on {args.seconds:g} s, theirs on 30 s"
compare(title, args, peers, lambda: ours(args, "--model", "whisper-tiny", "--part", "trunk"))
