#!/usr/bin/env python3
"""Golden data of W2V-BERT 2.0, by transformers: `Wav2Vec2BertModel` with narrow widths, in f64, on features of
`SeamlessM4TFeatureExtractor`.

    python w2v_bert.py        writes w2v_bert.safetensors and w2v_bert_config.json beside this file

NAME.N.L is hidden state L of the clip of N samples, and NAME.N.last the last hidden state of the model with an adapter; only the
unmasked frames. Weights are hashed from their names (refcommon.py): those of norms are 0.8 to 1.2, their biases and all others
± 0.1, and matrices ± sqrt(3 / inputs). ctc.N are logits of `Wav2Vec2BertForCTC` with the adapter and the configuration
w2v_bert_config.json.
"""
import math
import os

import torch

torch.version.cuda = None  # otherwise torchaudio, imported by transformers, rejects a torch of another CUDA version
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertForCTC, Wav2Vec2BertModel

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 33
LENGTHS = (560, 720, 5521, 6001)  # 2, 3, 33 and 36 frames of features
COMMON = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, conv_depthwise_kernel_size=7,
    left_max_position_embeddings=6, right_max_position_embeddings=3, attn_implementation="eager")
ADAPTER = dict(add_adapter=True, num_adapter_layers=2, output_hidden_size=12, use_intermediate_ffn_before_adapter=True)
CONFIGS = {
    "relative_key": Wav2Vec2BertConfig(**COMMON),
    "relative": Wav2Vec2BertConfig(**COMMON, position_embeddings_type="relative"),
    "rotary": Wav2Vec2BertConfig(**COMMON, position_embeddings_type="rotary", rotary_embedding_base=500),
    "none": Wav2Vec2BertConfig(**COMMON, position_embeddings_type=None, hidden_act="gelu", layer_norm_eps=1e-3),
    "adapter": Wav2Vec2BertConfig(**COMMON, **ADAPTER),
    # Its convolutions give one frame more than its mask keeps.
    "strides": Wav2Vec2BertConfig(
        **COMMON, add_adapter=True, adapter_kernel_size=3, adapter_stride=4, adapter_act="swish"),
}


def fill(model):
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if len(shape) == 1:
            low, high = (0.8, 1.2) if name.endswith("weight") else (-0.1, 0.1)
        else:
            high = math.sqrt(3.0 / math.prod(shape[1:]))
            low = -high
        tensor.copy_(torch.from_numpy(rc.hashed(name, shape, low, high, SEED)))
    return model.double().eval()


def features(n):
    extractor = SeamlessM4TFeatureExtractor(padding_value=1.0)
    x = rc.as_float(rc.signal(n, 16000, seed=5))
    out = extractor(x, sampling_rate=16000, return_tensors="pt")
    return dict(input_features=out["input_features"].double(), attention_mask=out["attention_mask"])


def valid(model, x):
    """The numbers of unmasked frames of the encoder and after the adapter."""
    n = int(x["attention_mask"].sum())
    return n, int(model._get_feat_extract_output_lengths(torch.tensor(n)))


def main():
    torch.set_grad_enabled(False)
    tensors = {}
    for name, config in CONFIGS.items():
        model = fill(Wav2Vec2BertModel(config))
        for n in LENGTHS:
            x = features(n)
            n_frames, n_last = valid(model, x)
            out = model(**x, output_hidden_states=True)
            if config.add_adapter:
                tensors[f"{name}.{n}.last"] = out.last_hidden_state[0, :n_last].float().numpy()
            else:
                for layer, state in enumerate(out.hidden_states):
                    tensors[f"{name}.{n}.{layer}"] = state[0, :n_frames].float().numpy()
                assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
            print(name, n, x["attention_mask"].tolist()[0][-2:], tuple(out.last_hidden_state.shape), n_frames, n_last)
    config = Wav2Vec2BertConfig(**COMMON, **ADAPTER, vocab_size=7, pad_token_id=2, architectures=["Wav2Vec2BertForCTC"])
    model = Wav2Vec2BertForCTC(config).eval()
    fill(model.wav2vec2_bert)
    model.double()
    for leaf, tensor in model.lm_head.state_dict().items():
        high = 0.1 if leaf == "bias" else math.sqrt(3.0 / ADAPTER["output_hidden_size"])
        tensor.copy_(torch.from_numpy(rc.hashed(f"lm_head.{leaf}", tuple(tensor.shape), -high, high, SEED)))
    for n in LENGTHS[2:]:
        x = features(n)
        tensors[f"ctc.{n}"] = model(**x).logits[0, : valid(model, x)[1]].float().numpy()
    with open(os.path.join(HERE, "w2v_bert_config.json"), "w") as file:
        file.write(config.to_json_string(use_diff=False))
    rc.save(os.path.join(HERE, "w2v_bert.safetensors"), tensors, seed=SEED, versions=rc.versions("torch", "transformers"))


if __name__ == "__main__":
    main()
