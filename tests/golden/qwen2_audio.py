#!/usr/bin/env python3
"""Golden data of Qwen2-Audio's audio tower, by transformers: `Qwen2AudioForConditionalGeneration` with narrow widths.

    python qwen2_audio.py        writes qwen2_audio.safetensors, qwen2_audio_config.json and qwen2_audio_nf4.safetensors beside this file

N.L is hidden state L of the clip of N samples (the input of the first block, then the output of each), without padding tokens; N.last
and N.projected are the outputs of the tower and of the projector, without padding frames: the modules' values when the whole model
runs on the features of `WhisperFeatureExtractor`, which pads the clip. Every 8th value of a state, in f64. Weights are hashed
from their names on the hub (refcommon.py) and rounded to bf16: those of norms 0.8 to 1.2, vectors +- 0.1, matrices
+- sqrt(3 / inputs). qwen2_audio_nf4.safetensors is the same model as saved by transformers and bitsandbytes, NF4 with double
quantisation, the rest in bf16; nf4.N.last and nf4.N.projected are those of its weights as `dequantize_4bit` returns them.
"""
import math
import os
import shutil
import tempfile

import bitsandbytes as bnb
import numpy as np
import torch
from safetensors.torch import load_file, save_file

torch.version.cuda = None  # otherwise torchaudio, imported by transformers, rejects a torch of another CUDA version
from transformers import (BitsAndBytesConfig, Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor)

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 61
SECONDS = 1
LENGTHS = (321, 480, 4801, 9000, 15700, 16000)
AUDIO = 19
CONFIG = Qwen2AudioConfig(
    audio_config=dict(
        model_type="qwen2_audio_encoder", num_mel_bins=8, d_model=64, encoder_layers=1, encoder_attention_heads=4,
        encoder_ffn_dim=64, max_source_positions=50 * SECONDS),
    text_config=dict(
        model_type="qwen2", hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, vocab_size=20, max_position_embeddings=128),
    audio_token_index=AUDIO, attn_implementation="eager")


def hub_name(name):
    """A parameter's name in published files."""
    for new, old in {
        "model.audio_tower.": "audio_tower.", "model.multi_modal_projector.": "multi_modal_projector.",
        "model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}.items():
        if name.startswith(new):
            return old + name[len(new):]
    return name


def fill(model):
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if len(shape) == 1:
            low, high = (0.8, 1.2) if name.endswith("norm.weight") else (-0.1, 0.1)
        else:
            high = math.sqrt(3.0 / math.prod(shape[1:]))
            low = -high
        values = torch.from_numpy(rc.hashed(hub_name(name), shape, low, high, SEED))
        tensor.copy_(values.bfloat16())
    return model.eval()


def run(model, n, dtype):
    """States of all layers, of the tower and of the projector for a clip, without padding."""
    x = rc.as_float(rc.signal(n, 16000, seed=7))
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=SECONDS)
    features = extractor(x, sampling_rate=16000, return_attention_mask=True, padding="max_length", return_tensors="pt")
    seen = {"layers": []}
    tower, projector = model.model.audio_tower, model.model.multi_modal_projector
    hooks = [layer.register_forward_hook(lambda _, args, out: seen["layers"].append((args[0], out))) for layer in tower.layers]
    hooks.append(projector.register_forward_hook(lambda _, args, out: seen.update(last=args[0], projected=out)))
    frames = int(features.attention_mask.sum())
    n_tokens = (frames - 1) // 2 + 1
    n_frames = (n_tokens - 2) // 2 + 1
    ids = torch.tensor([[1, *[AUDIO] * n_frames, 2, 3]])
    model(
        input_ids=ids, attention_mask=torch.ones_like(ids), input_features=features.input_features.to(dtype),
        feature_attention_mask=features.attention_mask)
    [hook.remove() for hook in hooks]
    states = [seen["layers"][0][0], *[out for _, out in seen["layers"]]]
    states = [(state[0] if isinstance(state, tuple) else state)[0, :n_tokens] for state in states]
    numpy = lambda x: x[:, ::8].float().contiguous().numpy()
    return [numpy(x) for x in states], numpy(seen["last"][0, :n_frames]), numpy(seen["projected"][0, :n_frames])


def main():
    torch.set_grad_enabled(False)
    tensors = {}
    model = fill(Qwen2AudioForConditionalGeneration(CONFIG))
    folder = tempfile.mkdtemp()
    model.save_pretrained(folder)
    for n in LENGTHS:
        states, last, projected = run(model.double(), n, torch.float64)
        tensors |= {f"{n}.{layer}": state for layer, state in enumerate(states)}
        tensors[f"{n}.last"], tensors[f"{n}.projected"] = last, projected
        print(n, states[0].shape, last.shape, projected.shape, float(np.abs(last).max()))
    quantised = Qwen2AudioForConditionalGeneration.from_pretrained(
        folder, device_map="cpu", dtype=torch.float32, attn_implementation="eager",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32))
    quantised.save_pretrained(folder)
    shutil.copy(os.path.join(folder, "config.json"), os.path.join(HERE, "qwen2_audio_config.json"))
    saved = load_file(os.path.join(folder, "model.safetensors"))
    is_piece = lambda name: "absmax" in name or "quant_map" in name or saved[name].dtype == torch.uint8
    saved = {name: x if is_piece(name) else x.bfloat16() for name, x in saved.items()}
    save_file(saved, os.path.join(HERE, "qwen2_audio_nf4.safetensors"), {"format": "pt"})
    shutil.rmtree(folder)
    for name, module in quantised.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            model.get_submodule(name).weight.copy_(weight)
            print(name, end=" ")
    for n in (4801, 16000):
        _, tensors[f"nf4.{n}.last"], tensors[f"nf4.{n}.projected"] = run(model, n, torch.float64)
    rc.save(
        os.path.join(HERE, "qwen2_audio.safetensors"), tensors, lengths=LENGTHS, seed=SEED,
        versions=rc.versions("torch", "transformers", "bitsandbytes"))


if __name__ == "__main__":
    main()
