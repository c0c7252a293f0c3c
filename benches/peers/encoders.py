#!/usr/bin/env python3
"""Speech encoders compared with ours, interleaved, f32, full size: wav2vec 2.0 base, WavLM, HuBERT large, W2V-BERT 2.0.

Peers: `eager` is transformers with PyTorch's fused attention where the model has it, `compiled` the same under torch.compile,
`onnxruntime` and `openvino` run an export. All sides have the same seeded weights, and the hidden states of all sides are compared
before timing. Ours starts from the waveform; the peers get normalised samples or features.
"""
import os
import subprocess
import tempfile
from pathlib import Path

from turns import arguments, compare, confine, ours, ready

parser = arguments(__doc__)
parser.add_argument("--model", choices=("wav2vec2-base", "wavlm-base", "hubert-large", "w2v-bert"), default="wav2vec2-base")
args = parser.parse_args()
confine(args.threads)

import numpy as np
import torch

torch.version.cuda = None  # torchaudio, which transformers imports, refuses a PyTorch of another build for GPUs
from transformers import (
    HubertConfig, HubertModel, SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel, Wav2Vec2Config,
    Wav2Vec2FeatureExtractor, Wav2Vec2Model, WavLMConfig, WavLMModel)

torch.set_num_threads(args.threads)
torch.set_grad_enabled(False)
torch.manual_seed(0)

LARGE = dict(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, feat_extract_norm="layer",
    do_stable_layer_norm=True)
extractor = Wav2Vec2FeatureExtractor()
if args.model == "wav2vec2-base":
    model = Wav2Vec2Model(Wav2Vec2Config())
elif args.model == "wavlm-base":
    model, extractor = WavLMModel(WavLMConfig()), Wav2Vec2FeatureExtractor(do_normalize=False)
elif args.model == "hubert-large":
    model = HubertModel(HubertConfig(**LARGE))
else:
    model, extractor = Wav2Vec2BertModel(Wav2Vec2BertConfig()), SeamlessM4TFeatureExtractor()
for parameter in model.parameters():
    if parameter.dim() > 1:
        parameter.normal_(0, parameter[0].numel() ** -0.5)
model.eval()

samples = np.random.default_rng(0).uniform(-0.1, 0.1, int(args.seconds * 16000)).astype("float32")
inputs = extractor(samples, sampling_rate=16000, return_tensors="pt")
x = inputs.input_features if args.model == "w2v-bert" else inputs.input_values
wanted = model(x).last_hidden_state
folder = tempfile.TemporaryDirectory()
model.save_pretrained(folder.name, max_shard_size="100GB")
extractor.save_pretrained(folder.name)


def checked(name, call):
    """Returns `call` after checking that its result equals that of transformers."""
    difference = float(np.abs(np.asarray(call()) - wanted.numpy()).max() / wanted.abs().max())
    assert difference < 1e-3, f"{name}: {difference}"
    return call


def compiled():
    compiled = torch.compile(model)
    return checked("compiled", lambda: compiled(x).last_hidden_state)


class Output(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).last_hidden_state


def export():
    path = Path(folder.name) / "model.onnx"
    if not path.exists():
        torch.onnx.export(Output(), (x,), str(path), input_names=["x"], output_names=["y"], dynamo=False, opset_version=17)
    return str(path)


def onnxruntime():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(export(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return checked("onnxruntime", lambda: session.run(None, feed)[0])


def openvino():
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(export(), "CPU", config).create_infer_request()
    feed = {"x": x.numpy()}
    return checked("openvino", lambda: request.infer(feed)[0])


def check_ours():
    """Compares our hidden states of the same clip, computed by `clipwise encode`."""
    import soundfile
    from safetensors.numpy import load_file

    wave, out = os.path.join(folder.name, "clip.wav"), os.path.join(folder.name, "clip.safetensors")
    soundfile.write(wave, samples, 16000, subtype="FLOAT")
    subprocess.run([args.clipwise, "encode", "--weights", folder.name, "--out", out, wave], check=True)
    difference = float(np.abs(load_file(out)["last_hidden"] - wanted[0].numpy()).max() / wanted.abs().max())
    print(f"largest difference between ours and transformers: {difference:.1e} of the largest value")


check_ours()
builders = {"eager": lambda: lambda: model(x), "compiled": compiled, "onnxruntime": onnxruntime, "openvino": openvino}
peers = ready(builders, args)
title = f"{args.model} on {args.seconds:g} s"
compare(title, args, peers, lambda: ours(args, "--weights", folder.name))
