#!/usr/bin/env python3
"""Taggers in onnxruntime, OpenVINO and PyTorch compared with ours, interleaved, f32: the references' own classes with random weights.

    taggers.py --references FOLDER --model resnet38

FOLDER holds checkouts of the references, each under its repository's name: audioset_tagging_cnn (PANNs), EfficientAT,
audioset-convnext-inf, EAT, PretrainedSED (BEATs, frame_mn), passt_hear21, Dasheng, TCN, whisper-at. `yamnet` needs none, `ast` and
`whisper-at` need the package transformers. All begin with the features; ours of those on the waveform (Wavegram-Logmel too, whose
peers are given both inputs), of YAMNet and of Whisper-AT begin with the samples. Whisper-AT is that on Whisper tiny: its encoder sees
30 s, its head the windows of 10 s that begin within `--seconds`. Scores of all peers are compared before the clock runs. Our weights
are other random ones, but Whisper-AT's: times do not depend on them.
"""
import os
import sys
import tempfile
import types
from pathlib import Path

from turns import PROJECT, arguments, compare, confine, ours

PANNS = {
    "cnn6": "Cnn6", "cnn10": "Cnn10", "resnet22": "ResNet22", "resnet38": "ResNet38", "resnet54": "ResNet54",
    "mobilenetv1": "MobileNetV1", "mobilenetv2": "MobileNetV2",
}
# Models that take the waveform.
PANNS_1D = {
    "leenet24": "LeeNet24", "dainet19": "DaiNet19", "res1dnet31": "Res1dNet31", "res1dnet51": "Res1dNet51",
    "wavegram-cnn14": "Wavegram_Cnn14", "wavegram-logmel-cnn14": "Wavegram_Logmel_Cnn14",
}
EFFICIENT_AT = [f"{kind}{width}" for kind in ("mn", "dymn") for width in ("04", "05", "10", "20", "30", "40")]
OTHERS = ["ast", "eat", "beats", "passt", "dasheng", "frame_mn10", "tcn", "whisper-at"]

parser = arguments(__doc__)
parser.add_argument("--model", required=True, choices=[*PANNS, *PANNS_1D, *EFFICIENT_AT, "convnext-tiny", "yamnet", *OTHERS])
parser.add_argument("--references", default="..", help="the folder with the checkouts (default %(default)s)")
args = parser.parse_args()
confine(args.threads)

import numpy as np
import torch
from torch import nn

from networks import YamNet, seeded
from runtimes import peers

sys.path.insert(0, str(PROJECT / "tests/golden"))
random = np.random.default_rng(2)
torch.version.cuda = None  # torchaudio, which some import, refuses a PyTorch of another build for GPUs
torch.set_grad_enabled(False)
torch.manual_seed(0)


class Scores(nn.Module):
    """The timed network: it returns the scores and has no front end."""

    def __init__(self, network, scores):
        super().__init__()
        self.network, self.scores = network, scores
        for name in ("spectrogram_extractor", "logmel_extractor"):
            if hasattr(network, name):
                setattr(network, name, nn.Identity())
        self.eval()

    def forward(self, x):
        return self.scores(self.network(x))


class Given(nn.Module):
    """Stands in for the front end of a network that takes the samples too: gives features that were computed before."""

    def forward(self, _):
        return self.features


class OnBoth(Scores):
    """The scores for samples and their features."""

    def forward(self, samples, features):
        self.network.spectrogram_extractor.features = features
        return super().forward(samples)


class WhisperAtScores(nn.Module):
    """Whisper-AT with another spelling of its pooling, which onnxruntime does not load, and a head that sees `n_windows`."""

    def __init__(self, network, n_windows):
        super().__init__()
        self.encoder, self.at_model, self.n_steps = network.encoder, network.at_model, 25 * n_windows

    def forward(self, mel):
        encoder = self.encoder
        x = nn.functional.gelu(encoder.conv2(nn.functional.gelu(encoder.conv1(mel))))
        x = x.permute(0, 2, 1) + encoder.positional_embedding
        layers = []
        for block in encoder.blocks:
            x = block(x)
            layers.append(x.reshape(-1, 20, x.shape[2]).mean(1)[: self.n_steps])
        return torch.sigmoid(self.at_model(torch.stack(layers)))


def stub(name):
    """A stub for a module that is imported but not used."""
    module = types.ModuleType(name)
    module.__getattr__ = lambda _: None
    sys.modules[name] = module


def checkout(name, folder=""):
    path = Path(args.references) / name
    sys.path.insert(0, str(path / folder))
    os.chdir(path)  # some read files while they are imported


def features(*shape):
    return random.uniform(-1, 1, shape).astype(np.float32)


def network():
    """The network, its input, and the corresponding part of ours."""
    frames = round(args.seconds * 100) + 1
    samples = round(args.seconds * 32_000)
    clipwise = lambda output: output["clipwise_output"]
    if args.model in PANNS or args.model in PANNS_1D:
        checkout("audioset_tagging_cnn", "pytorch")
        checkout("audioset_tagging_cnn", "utils")
        import models

        front_end = dict(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000, classes_num=527)
        net = seeded(getattr(models, {**PANNS, **PANNS_1D}[args.model])(**front_end))
        if args.model in PANNS:
            return Scores(net, clipwise), 30 * features(1, 1, frames, 64) - 40, "trunk"
        if "logmel" in args.model:
            both = OnBoth(net, clipwise)
            net.spectrogram_extractor = Given()
            return both, (0.1 * features(1, samples), 30 * features(1, 1, frames, 64) - 40), "all"
        return Scores(net, clipwise), 0.1 * features(1, samples), "all"
    if args.model in EFFICIENT_AT:
        checkout("EfficientAT")
        from models.dymn.model import get_model as get_dymn
        from models.mn.model import get_model as get_mn

        get = get_dymn if args.model.startswith("dymn") else get_mn
        net = get(width_mult=int(args.model[-2:]) / 10, pretrained_name=None).eval()
        return Scores(net, lambda output: torch.sigmoid(output[0])), features(1, 1, 128, frames - 1), "trunk"
    if args.model == "convnext-tiny":
        checkout("audioset-convnext-inf", "src")
        stub("audioset_convnext_inf.pytorch.augmentations")
        from audioset_convnext_inf.pytorch.convnext import convnext_tiny

        net = convnext_tiny(after_stem_dim=[252, 56]).eval()
        return Scores(net, clipwise), 30 * features(1, 1, frames, 224) - 40, "trunk"
    if args.model == "yamnet":
        patches = 1 + -(-max(0, round(args.seconds * 16_000) - 15_600) // 7_680)
        return seeded(YamNet()), features(patches, 1, 96, 64), "all"
    if args.model == "eat":
        from eat import BASE, Eat

        net = Eat(str(Path(args.references) / "EAT"), **BASE).eval()
        net.forward = lambda x: net.head(net.fc_norm(net.encode(x)[-1][:, 0]))
        return Scores(net, torch.sigmoid), features(1, 1, 1024, 128), "trunk"
    if args.model == "beats":
        checkout("PretrainedSED")
        from models.beats.BEATs import BEATs, BEATsConfig

        net = BEATs(BEATsConfig(dict(finetuned_model=True))).eval()
        net.forward = lambda x: net.extract_features(x, do_preprocess=False)[0]
        return Scores(net, lambda scores: scores), features(1, 1, frames - 3, 128), "trunk"
    if args.model == "passt":
        for name in ("timm", "timm.models", "timm.models._hub"):
            stub(name)
        checkout("passt_hear21")
        from hear21passt.models import passt

        passt.first_RUN = False
        net = passt.PaSST(embed_dim=768, depth=12, num_heads=12, img_size=(128, 998), distilled=True, stride=10).eval()
        return Scores(net, lambda output: torch.sigmoid(output[0])), features(1, 1, 128, frames - 3), "trunk"
    if args.model == "dasheng":
        stub("dasheng")
        sys.modules["dasheng"].__path__ = [str(Path(args.references) / "Dasheng/dasheng")]
        from dasheng.pretrained.pretrained import Dasheng

        net = Dasheng(embed_dim=768, depth=12, num_heads=12, target_length=1008).eval()
        net.front_end = nn.Identity()
        return Scores(net, lambda tokens: torch.sigmoid(tokens.mean(1))), 30 * features(1, 64, frames) - 40, "trunk"
    if args.model == "frame_mn10":
        checkout("PretrainedSED")
        from models.frame_mn.model import get_model

        return Scores(get_model(width_mult=1.0).eval(), torch.sigmoid), features(1, 1, 128, frames), "trunk"
    if args.model == "tcn":
        checkout("TCN", "TCN")
        from tcn import TemporalConvNet

        net = TemporalConvNet(64, [128] * 8, kernel_size=3)
        for parameter in net.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
        return Scores(net, lambda y: torch.sigmoid(y.mean(2))), features(1, 64, frames), "trunk"
    if args.model == "whisper-at":
        from safetensors.torch import save_file
        from whisper_at import WhisperAt, reference

        net = WhisperAt(reference(str(Path(args.references) / "whisper-at")), 384, 6, 4, 527, "tl_tr_1_8").eval()
        save_file(net.state_dict(), weights.name)
        return WhisperAtScores(net, -(-int(args.seconds * 100) // 1000)), features(1, 80, 3000), "all"
    from transformers import ASTConfig, ASTForAudioClassification

    net = ASTForAudioClassification(ASTConfig(num_labels=527)).eval()
    return Scores(net, lambda output: torch.sigmoid(output.logits)), features(1, 1024, 128), "trunk"


args.references = str(Path(args.references).absolute())
weights = tempfile.NamedTemporaryFile(suffix=".safetensors")
net, x, part = network()
given = ["--weights", weights.name] if args.model == "whisper-at" else []
turn = lambda: ours(args, "--model", args.model, "--part", part, *given)
compare(f"{args.model}: {args.seconds:g} s", args, peers({"": net}, {"": x}, args), turn)
