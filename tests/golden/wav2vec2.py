#!/usr/bin/env python3
"""Golden data of the wav2vec 2.0 family, by transformers: its models with narrow widths, in f64.

    python wav2vec2.py        writes wav2vec2.safetensors and wav2vec2_config.json beside this file

NAME.N.L is hidden state L of the clip of N samples, which `Wav2Vec2FeatureExtractor` has normalised; the last one is the output,
after the final norm. Weights are hashed from their names (refcommon.py): those of norms, their running variances and the gates'
constants are 0.8 to 1.2, biases and all others ± 0.1, gains of weight norm 0.5 to 1.5, and matrices ± sqrt(3 / inputs), tables
of relative positions ± 2. ctc.raw and ctc.normalized are logits of `Wav2Vec2ForCTC` for the longest clip, as it is and normalised,
with the configuration wav2vec2_config.json.
"""
import math
import os

import torch

torch.version.cuda = None  # otherwise torchaudio, imported by transformers, rejects a torch of another CUDA version
from transformers import (
    HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Model, WavLMConfig, WavLMModel)

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 31
LENGTHS = (400, 719, 9001)
COMMON = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, attn_implementation="eager")
MODELS = {
    "group": (Wav2Vec2Model, Wav2Vec2Config(**COMMON)),
    "layer": (Wav2Vec2Model, Wav2Vec2Config(
        **COMMON, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)),
    "adapter": (Wav2Vec2Model, Wav2Vec2Config(
        **COMMON, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, adapter_attn_dim=5)),
    "hubert": (HubertModel, HubertConfig(**COMMON, feat_proj_layer_norm=False)),
    "batch": (HubertModel, HubertConfig(
        **COMMON, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, conv_pos_batch_norm=True)),
    # Few buckets, so that the longest clip reaches the last ones.
    "wavlm": (WavLMModel, WavLMConfig(**COMMON, num_buckets=12, max_bucket_distance=20)),
    "wavlm-large": (WavLMModel, WavLMConfig(
        **COMMON, feat_extract_norm="layer", do_stable_layer_norm=True, num_buckets=12, max_bucket_distance=20)),
}


def fill(model):
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            continue
        if name.endswith("original0"):
            low, high = 0.5, 1.5
        elif name.endswith("running_var") or name.endswith("gru_rel_pos_const"):
            low, high = 0.8, 1.2
        elif name.endswith("rel_attn_embed.weight"):
            low, high = -2.0, 2.0
        elif len(shape) == 1:
            low, high = (0.8, 1.2) if name.endswith("weight") else (-0.1, 0.1)
        else:
            high = math.sqrt(3.0 / math.prod(shape[1:]))
            low = -high
        tensor.copy_(torch.from_numpy(rc.hashed(name, shape, low, high, SEED)))
    return model.double().eval()


def main():
    torch.set_grad_enabled(False)
    tensors = {}
    for name, (build, config) in MODELS.items():
        model = fill(build(config))
        for n in LENGTHS:
            x = rc.as_float(rc.signal(n, 16000, seed=5)).astype("float64")
            x = Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([x], None)[0]
            out = model(torch.from_numpy(x)[None], output_hidden_states=True)
            states = out.hidden_states
            if config.do_stable_layer_norm:  # transformers 4 returns the last one after the norm
                assert not torch.equal(states[-1], out.last_hidden_state)
                states = (*states, out.last_hidden_state)
            for layer, state in enumerate(states):
                tensors[f"{name}.{n}.{layer}"] = state[0].float().numpy()
            print(name, n, tuple(out.last_hidden_state.shape), float(out.last_hidden_state.abs().max()))
    config = Wav2Vec2Config(**COMMON, vocab_size=7, pad_token_id=2, architectures=["Wav2Vec2ForCTC"])
    model = Wav2Vec2ForCTC(config).eval()
    fill(model.wav2vec2)
    model.double()
    for leaf, tensor in model.lm_head.state_dict().items():
        high = 0.1 if leaf == "bias" else math.sqrt(3.0 / COMMON["hidden_size"])
        tensor.copy_(torch.from_numpy(rc.hashed(f"lm_head.{leaf}", tuple(tensor.shape), -high, high, SEED)))
    x = rc.as_float(rc.signal(9001, 16000, seed=5)).astype("float64")
    tensors["ctc.raw"] = model(torch.from_numpy(x)[None]).logits[0].float().numpy()
    x = Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([x], None)[0]
    tensors["ctc.normalized"] = model(torch.from_numpy(x)[None]).logits[0].float().numpy()
    with open(os.path.join(HERE, "wav2vec2_config.json"), "w") as file:
        file.write(config.to_json_string(use_diff=False))
    rc.save(os.path.join(HERE, "wav2vec2.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "transformers"))


if __name__ == "__main__":
    main()
