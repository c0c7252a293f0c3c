#!/usr/bin/env python3
"""Golden data of AST: `ASTForAudioClassification` and `ASTFeatureExtractor` of transformers with narrow widths.

    python ast_tagger.py [--full]       writes ast.safetensors beside this file; --full: ast_full.safetensors, of the published size, to
                                        the current directory

Weights are hashed under the names of transformers 5. Features are torchaudio's in f64, which the extractor's f32 approximates;
`N.extractor` are the extractor's own, every 61st value. `N.states` is every 13th value of the tokens before the first block and
after each. `original` has the epsilons of YuanGongND/ast, to whose layout the test renames the tensors. Clips longer than the model's
window are cut as described in src/models/vit.rs.
"""
import os
import sys

import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))

SEED = 71
NARROW = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_length=64)
MODELS = {
    "single": dict(NARROW, num_labels=5),
    "strided": dict(NARROW, num_labels=3, patch_size=8, frequency_stride=12, time_stride=6, qkv_bias=False),
    "original": dict(NARROW, num_labels=11, layer_norm_eps=1e-6),
}
LENGTHS = (400, 9001, 24_000)  # 1, 54 and 148 frames
MEAN, STD = -5.5, 3.25


def run(name, config, lengths, mean, std):
    config = ASTConfig(**config)
    model = rc.fill_transformer(ASTForAudioClassification(config), SEED)
    if name == "original":
        model.classifier.layernorm.eps = 1e-5
    extractor = ASTFeatureExtractor(max_length=config.max_length, mean=mean, std=std)
    tensors = {}
    for n in lengths:
        x = rc.as_float(rc.signal(n, 16000, seed=9))
        tensors[f"{n}.extractor"] = extractor(x, sampling_rate=16000, return_tensors="np").input_values[0].ravel()[::61]
        fbank = rc.fbank(x, window_type="hanning")
        outputs, total = [], 0
        for start, weight in rc.windows(len(fbank), config.max_length):
            window = fbank[start : start + config.max_length]
            window = torch.nn.functional.pad(window, (0, 0, 0, config.max_length - len(window)))
            out = model(((window - mean) / (2 * std)).float()[None], output_hidden_states=True)
            pooled = model.audio_spectrogram_transformer(((window - mean) / (2 * std)).float()[None]).pooler_output[0]
            logits = out.logits[0]
            scores = logits.softmax(-1) if name != "original" and name != "full" else logits.sigmoid()
            outputs.append((weight, scores, pooled))
            total += weight
            if len(fbank) <= config.max_length:
                tensors[f"{n}.logits"] = logits
        tensors[f"{n}.scores"] = sum(weight * scores for weight, scores, _ in outputs) / total
        tensors[f"{n}.embedding"] = sum(weight * pooled for weight, _, pooled in outputs) / total
        if n == 9001:
            states = out.hidden_states
            embedded = model.audio_spectrogram_transformer.embeddings(((window - mean) / (2 * std)).float()[None])
            assert torch.equal(states[0], embedded) and len(states) == config.num_hidden_layers + 1
            tensors[f"{n}.states"] = torch.cat([state.flatten() for state in states])[::13]
        print(name, n, float(tensors[f"{n}.scores"].max()))
    return {f"{name}.{key}": torch.as_tensor(value).float().numpy() for key, value in tensors.items()}


def main():
    torch.set_grad_enabled(False)
    versions = rc.versions("torch", "torchaudio", "transformers")
    if "--full" in sys.argv:
        full = dict(num_labels=527)
        rc.save("ast_full.safetensors", run("full", full, (160_000, 19_792), -4.2677393, 4.5689974), seed=SEED)
        return
    tensors = {}
    for name, config in MODELS.items():
        tensors |= run(name, config, LENGTHS, MEAN, STD)
    rc.save(os.path.join(HERE, "ast.safetensors"), tensors, seed=SEED, mean=MEAN, std=STD, versions=versions)


if __name__ == "__main__":
    main()
