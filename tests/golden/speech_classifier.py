#!/usr/bin/env python3
"""Golden data of speech classifiers and of MMS's languages, by transformers: its classes with narrow widths, in f64.

    python speech_classifier.py        writes speech_classifier.safetensors and speech_classifier.json beside this file

For each model NAME, speech_classifier.json has the `config.json`, the `preprocessor_config.json` and the shapes of all tensors as
saved by transformers; for `mms` also the names of the tensors in `adapter.fra.safetensors` and the `vocab.json`. Values are hashed
from the names (see wav2vec2.py), those of the adapter file with another seed. NAME.N are the logits for a clip of N samples.
"""
import json
import os
import tempfile

import torch

torch.version.cuda = None  # otherwise torchaudio, imported by transformers, rejects a torch of another CUDA version
from transformers import (
    HubertConfig, HubertForSequenceClassification, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification, WavLMConfig, WavLMForSequenceClassification, WhisperConfig,
    WhisperFeatureExtractor, WhisperForAudioClassification)

import refcommon as rc
from wav2vec2 import COMMON, SEED, fill

HERE = os.path.dirname(os.path.abspath(__file__))
LENGTHS = (400, 9001)
LABELS = {0: "yes", 1: "no", 2: "stop"}
HEAD = dict(classifier_proj_size=10, id2label=LABELS, label2id={name: id for id, name in LABELS.items()})
LAYER = dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
WHISPER = dict(
    d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, decoder_layers=1,
    decoder_attention_heads=2, decoder_ffn_dim=24)
MODELS = {
    "wav2vec2": (Wav2Vec2ForSequenceClassification, Wav2Vec2Config(**COMMON, **HEAD, use_weighted_layer_sum=True)),
    "wav2vec2-large": (Wav2Vec2ForSequenceClassification, Wav2Vec2Config(
        **COMMON, **LAYER, **HEAD, use_weighted_layer_sum=True)),
    "hubert": (HubertForSequenceClassification, HubertConfig(
        **COMMON, **LAYER, **HEAD, problem_type="multi_label_classification")),
    "wavlm": (WavLMForSequenceClassification, WavLMConfig(**COMMON, classifier_proj_size=7)),
    "whisper": (WhisperForAudioClassification, WhisperConfig(**WHISPER, **HEAD)),
    "whisper-sum": (WhisperForAudioClassification, WhisperConfig(**WHISPER, **HEAD, use_weighted_layer_sum=True)),
}


def shapes(model):
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def saved(folder, name):
    with open(os.path.join(folder, name)) as file:
        return json.load(file)


def main():
    torch.set_grad_enabled(False)
    tensors, about = {}, {}
    for name, (build, config) in MODELS.items():
        model = fill(build(config))
        extractor = Wav2Vec2FeatureExtractor(do_normalize=name != "wavlm")
        if name.startswith("whisper"):
            extractor = WhisperFeatureExtractor(feature_size=80)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            extractor.save_pretrained(folder)
            about[name] = {
                "config": saved(folder, "config.json"), "preprocessor": saved(folder, "preprocessor_config.json"),
                "tensors": shapes(model)}
        about[name]["preprocessor"].pop("mel_filters", None)
        for n in LENGTHS:
            x = rc.as_float(rc.signal(n, 16000, seed=5)).astype("float64")
            inputs = extractor(x, sampling_rate=16000, return_tensors="pt", return_attention_mask=False)
            logits = model(next(iter(inputs.values())).double()).logits[0]
            tensors[f"{name}.{n}"] = logits.float().numpy()
            print(name, n, logits.tolist())

    config = Wav2Vec2Config(**COMMON, **LAYER, adapter_attn_dim=5, vocab_size=4, pad_token_id=0)
    model = fill(Wav2Vec2ForCTC(config)).float()
    vocabularies = {
        "eng": {"<pad>": 0, "|": 1, "a": 2, "b": 3}, "fra": {"<pad>": 0, "|": 1, "a": 2, "é": 3, "ç": 4, "<s>": 5}}
    x = rc.as_float(rc.signal(9001, 16000, seed=5)).astype("float64")
    x = torch.from_numpy(Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([x], None)[0])[None]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        about["mms"] = {
            "config": saved(folder, "config.json"), "preprocessor": {"do_normalize": True}, "tensors": shapes(model),
            "vocab": vocabularies}
        tensors["mms.eng"] = model.double()(x).logits[0].float().numpy()
        french = {name: tuple(tensor.shape) for name, tensor in model._get_adapters().items()}
        french["lm_head.weight"], french["lm_head.bias"] = (6, COMMON["hidden_size"]), (6,)
        from safetensors.torch import save_file

        values = {name: torch.zeros(shape) for name, shape in french.items()}
        for name, tensor in values.items():
            low, high = (0.8, 1.2) if len(tensor.shape) == 1 and name.endswith("weight") else (-0.3, 0.3)
            tensor.copy_(torch.from_numpy(rc.hashed(name, tuple(tensor.shape), low, high, SEED + 1)))
        save_file(values, os.path.join(folder, "adapter.fra.safetensors"))
        about["mms"]["adapter"] = {name: list(shape) for name, shape in french.items()}
        model = Wav2Vec2ForCTC.from_pretrained(folder, target_lang="fra", ignore_mismatched_sizes=True).eval()
        tensors["mms.fra"] = model.double()(x).logits[0].float().numpy()
        print("mms", tensors["mms.eng"].shape, tensors["mms.fra"].shape)
    with open(os.path.join(HERE, "speech_classifier.json"), "w") as file:
        json.dump(about, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")
    path = os.path.join(HERE, "speech_classifier.safetensors")
    rc.save(path, tensors, seed=SEED, versions=rc.versions("torch", "transformers"))


if __name__ == "__main__":
    main()
