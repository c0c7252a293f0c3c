"""Networks without their front ends in PyTorch, for timing: random weights, but CED-tiny's bundled ones.

Written from the papers: Kong et al., "PANNs" (arXiv 1912.10211), Lee et al. (arXiv 1703.01789), Howard et al. (arXiv 1704.04861),
Dai et al. (arXiv 1610.00087), Dinkel et al., "CED" (arXiv 2308.11957).
"""
import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 527


class Cnn14(nn.Module):
    """Log-mel `[batch, 1, frames, 64]`, or `[batch, 1, 64, frames]` if `time_last`, to scores `[batch, 527]`.

    `width` is the number of channels of the first block: 64 as published.
    """

    def __init__(self, width=64, time_last=False):
        super().__init__()
        self.time, self.mel = (3, 2) if time_last else (2, 3)
        self.bn0 = nn.BatchNorm2d(64)
        self.blocks = nn.ModuleList()
        inputs = 1
        for outputs in (width << i for i in range(6)):
            layers = []
            for channels in (inputs, outputs):
                layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            self.blocks.append(nn.Sequential(*layers))
            inputs = outputs
        self.fc1, self.fc_audioset = nn.Linear(inputs, inputs), nn.Linear(inputs, CLASSES)

    def forward(self, x):
        x = self.bn0(x.transpose(1, self.mel)).transpose(1, self.mel)
        for block in self.blocks[:5]:
            x = F.avg_pool2d(block(x), 2)
        x = self.blocks[5](x).mean(self.mel)
        return torch.sigmoid(self.fc_audioset(F.relu(self.fc1(x.amax(2) + x.mean(2)))))


class LeeNet11(nn.Module):
    """Waveform `[batch, 1, samples]` to scores `[batch, 527]`."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 1
        for i, outputs in enumerate((64, 64, 64, 128, 128, 128, 128, 128, 256)):
            conv = nn.Conv1d(inputs, outputs, 3, stride=3 if i == 0 else 1, padding=1, bias=False)
            layers += [conv, nn.BatchNorm1d(outputs), nn.ReLU()]
            if i > 0:
                layers.append(nn.MaxPool1d(3, padding=1))
            inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.fc1, self.fc_audioset = nn.Linear(inputs, 512), nn.Linear(512, CLASSES)

    def forward(self, x):
        x = self.blocks(x)
        return torch.sigmoid(self.fc_audioset(F.relu(self.fc1(x.amax(2) + x.mean(2)))))


class YamNet(nn.Module):
    """Patches of log-mel `[n, 1, 96, 64]` to the scores of a clip `[1, 521]`, with TensorFlow's padding."""

    def __init__(self):
        super().__init__()
        pairs = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
        layers, inputs = [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 32, 3, stride=2), nn.ReLU()], 32
        for outputs, stride in pairs:
            layers.append(nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1))
            layers += [nn.Conv2d(inputs, inputs, 3, stride=stride, groups=inputs), nn.ReLU()]
            layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
            inputs = outputs
        self.layers, self.dense = nn.Sequential(*layers), nn.Linear(inputs, 521)

    def forward(self, x):
        return torch.sigmoid(self.dense(self.layers(x).mean((2, 3)))).mean(0, keepdim=True)


class M5(nn.Module):
    """Waveform `[batch, 1, samples]` to the scores of 35 words `[batch, 35]`."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 1
        for outputs, kernel, stride in ((32, 80, 16), (32, 3, 1), (64, 3, 1), (64, 3, 1)):
            layers += [nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]
            inputs = outputs
        self.layers, self.fc1 = nn.Sequential(*layers), nn.Linear(inputs, 35)

    def forward(self, x):
        return torch.softmax(self.fc1(self.layers(x).mean(2)), 1)


class Recurrent(nn.Module):
    """`[batch, frames, 64]` to the states `[batch, frames, 512]` of two bidirectional layers; `cell` is `GRU` or `LSTM`."""

    def __init__(self, cell):
        super().__init__()
        self.layers = getattr(nn, cell)(64, 256, 2, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.layers(x)[0]


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class CedTiny(nn.Module):
    """Log-mel in dB `[batch, 64, frames]`, at most 1012 frames, to scores `[batch, 527]`."""

    def __init__(self):
        super().__init__()
        self.init_bn = nn.BatchNorm1d(64)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, 192, 16, 16)})
        self.time_pos_embed = nn.Parameter(torch.zeros(1, 192, 1, 63))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, 192, 4, 1))
        self.blocks = nn.Sequential(*(Block(192, 3) for _ in range(12)))
        self.norm = nn.LayerNorm(192, 1e-6)
        self.outputlayer = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, CLASSES))

    def forward(self, x):
        x = self.patch_embed["proj"](self.init_bn(x)[:, None])
        x = x + self.time_pos_embed[..., : x.shape[3]] + self.freq_pos_embed
        x = self.norm(self.blocks(x.flatten(2).transpose(1, 2)))
        return torch.sigmoid(self.outputlayer(x.mean(1)))

    @classmethod
    def open(cls, path):
        """The network with the weights of a checkpoint in 8 bits, widened to f32."""
        from safetensors.torch import load_file

        stored, network = load_file(path), cls()
        scale = lambda name: stored.get(f"{name}.scale", torch.ones(()))
        values = {name: value.float() * scale(name) for name, value in stored.items() if not name.endswith(".scale")}
        kept = {name: value for name, value in values.items() if not name.startswith("front_end.")}
        network.load_state_dict(kept)
        return network.eval()


def seeded(network):
    """He-initialised weights and random norm statistics, so that activations neither grow nor vanish; PyTorch's own in GRUs and LSTMs."""
    generator = torch.Generator().manual_seed(1)
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            on_decibels = name == "bn0"
            nn.init.uniform_(module.running_mean, *((-45, -35) if on_decibels else (-0.1, 0.1)), generator=generator)
            nn.init.uniform_(module.running_var, *((200, 300) if on_decibels else (0.8, 1.2)), generator=generator)
    return network.eval()


def swapped(network, width):
    """CNN14 with its two spatial axes swapped: every kernel is transposed."""
    other = Cnn14(width, time_last=True)
    weights = {k: v.transpose(2, 3).contiguous() if v.dim() == 4 else v for k, v in network.state_dict().items()}
    other.load_state_dict(weights)
    return other.eval()
