#!/usr/bin/env python3
"""Golden data of Whisper's front end and encoder, by transformers.

    python whisper.py        writes whisper.safetensors beside this file

Front end: `WhisperFeatureExtractor` in f64 on the hashed signal at 16 kHz, zero-padded to 30 s. `mel.M.N` holds the frames
of the clip of N samples with M mels; for 30 s, every 150th and the last one. `mel.80.click` has its loudest sample in the frame after
the clip's last one, `mel.80.end` in the one that the front end drops: both hold the clip's last 5 frames.

Encoder: `WhisperEncoder` with narrow widths and hashed weights, in f64. NAME.0, .1, … are its hidden states; `NAME.short` the
last ones of the same weights with 9 positions, for the first 18 frames: the result for a clip that is not padded.
"""
import os

import numpy as np
import torch

torch.version.cuda = None  # otherwise torchaudio, imported by transformers, rejects a torch of another CUDA version
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 8
# mels, dim, heads, blocks, width of the feed-forward layer, positions
SHAPES = {"narrow80": (80, 128, 2, 2, 256, 25), "narrow128": (128, 64, 1, 1, 96, 20)}


def mel(n_mels, samples):
    x = np.zeros(480_000, np.float64)
    x[: len(samples)] = samples
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    return extractor._np_extract_fbank_features(x[None], "cpu")[0].T.astype(np.float32)


def clip(n, loud=None):
    x = rc.as_float(rc.signal(n, 16000, seed=SEED)).astype(np.float64)
    if loud is not None:
        x *= 1e-3
        x[loud] = 1.0
    return x


def fill(encoder):
    rc.fill(encoder, SEED)
    for name, module in encoder.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            for leaf, tensor in module.state_dict().items():
                full = f"{name}.{leaf}"
                low, high = rc.bounds(full, tensor.shape, "bn")
                tensor.copy_(torch.from_numpy(rc.hashed(full, tuple(tensor.shape), low, high, SEED)))
    name = "embed_positions.weight"
    table = encoder.embed_positions.weight
    with torch.no_grad():
        table.copy_(torch.from_numpy(rc.hashed(name, tuple(table.shape), -1.0, 1.0, SEED)))
    return encoder.double()


def encoder(shape, n_positions):
    n_mels, dim, heads, blocks, ffn, _ = shape
    config = WhisperConfig(
        num_mel_bins=n_mels,
        d_model=dim,
        encoder_attention_heads=heads,
        encoder_layers=blocks,
        encoder_ffn_dim=ffn,
        max_source_positions=n_positions,
        attn_implementation="eager",
    )
    return fill(WhisperEncoder(config).eval())


def main():
    torch.manual_seed(0)
    tensors = {}
    for n_mels, n in [(80, 1), (80, 161), (80, 4000), (128, 2400)]:
        tensors[f"mel.{n_mels}.{n}"] = mel(n_mels, clip(n))[: -(-n // 160)]
    whole = mel(80, clip(480_000))
    tensors["mel.80.480000"] = np.concatenate([whole[::150], whole[-1:]])
    # 1,121 samples are 8 frames; the ninth, around sample 1,280, depends on samples from 1,080 on.
    tensors["mel.80.click"] = mel(80, clip(1121, loud=1120))[3:8]
    tensors["mel.80.end"] = mel(80, clip(480_000, loud=479_999))[-5:]

    with torch.no_grad():
        for name, shape in SHAPES.items():
            n_mels, dim, _, blocks, _, n_positions = shape
            x = torch.from_numpy(rc.hashed("features", (1, n_mels, 2 * n_positions), -1.0, 1.5, SEED)).double()
            model = encoder(shape, n_positions)
            conv2 = torch.nn.functional.gelu(model.conv2(torch.nn.functional.gelu(model.conv1(x))))
            output = model(x, output_hidden_states=True)
            states = output.hidden_states
            assert len(states) == blocks + 1 and torch.equal(states[-1], output.last_hidden_state)
            assert torch.allclose(states[0], conv2.transpose(1, 2) + model.embed_positions.weight)
            for i, state in enumerate(states):
                tensors[f"{name}.{i}"] = state.float().numpy()
            short = encoder(shape, 9)
            short.embed_positions.weight.copy_(model.embed_positions.weight[:9])
            tensors[f"{name}.short"] = short(x[:, :, :18]).last_hidden_state.float().numpy()
    rc.save(os.path.join(HERE, "whisper.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "transformers", "numpy"))


if __name__ == "__main__":
    main()
