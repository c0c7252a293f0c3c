"""CNN14, ResNet38, MobileNets and EfficientAT's mn04 after their front ends, and LeeNet11, in PyTorch, for timing: random weights.

Written from the papers: Kong et al., "PANNs" (arXiv 1912.10211), Lee et al. (arXiv 1703.01789), and Howard et al., "Searching for
MobileNetV3" (arXiv 1905.02244) with the sizes of Schmid et al. (arXiv 2211.04772).
"""
import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 527


class Cnn14(nn.Module):
    """Log-mel `[batch, 1, frames, 64]`, or `[batch, 1, 64, frames]` where `time_last`, to scores `[batch, 527]`.

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


class OnLogMel(nn.Module):
    """Log-mel `[batch, 1, frames, 64]` to scores `[batch, 527]`; `layers` end in `channels`."""

    def __init__(self, layers, channels, embedding):
        super().__init__()
        self.bn0, self.layers = nn.BatchNorm2d(64), nn.Sequential(*layers)
        self.fc1, self.fc_audioset = nn.Linear(channels, embedding), nn.Linear(embedding, CLASSES)

    def forward(self, x):
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        x = self.layers(x).mean(3)
        return torch.sigmoid(self.fc_audioset(F.relu(self.fc1(x.amax(2) + x.mean(2)))))


class Sum(nn.Module):
    """The activation of the sum of two ways."""

    def __init__(self, layers, connection, activation):
        super().__init__()
        self.layers, self.connection, self.activation = nn.Sequential(*layers), connection, activation
        nn.init.constant_(layers[-1].weight, 0.25)  # of the last norm, or sums of many blocks grow

    def forward(self, x):
        return self.activation(self.layers(x) + self.connection(x))


def conv(inputs, outputs, kernel=3, groups=1, halves=False, activation=nn.ReLU):
    """A convolution, a mean over 2x2 if it halves the map, a norm and an activation."""
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)]
    layers += [nn.AvgPool2d(2)] * halves + [nn.BatchNorm2d(outputs)]
    return layers if activation is None else [*layers, activation()]


def resnet38():
    layers, inputs = [*conv(1, 64), *conv(64, 64), nn.AvgPool2d(2)], 64
    for outputs, blocks in zip((64, 128, 256, 512), (3, 4, 6, 3)):
        layers += [nn.AvgPool2d(2)] * (outputs > 64)
        for _ in range(blocks):
            connection = nn.Identity() if inputs == outputs else nn.Sequential(*conv(inputs, outputs, 1, activation=None))
            block = [*conv(inputs, outputs), *conv(outputs, outputs, activation=None)]
            layers.append(Sum(block, connection, nn.ReLU()))
            inputs = outputs
    return OnLogMel([*layers, nn.AvgPool2d(2), *conv(512, 2048), *conv(2048, 2048)], 2048, 2048)


def mobilenetv1():
    layers, inputs = conv(1, 32, halves=True), 32
    for i, outputs in enumerate((64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)):
        layers += [*conv(inputs, inputs, groups=inputs, halves=i in (1, 3, 5, 11)), *conv(inputs, outputs, 1)]
        inputs = outputs
    return OnLogMel(layers, 1024, 1024)


def mobilenetv2():
    layers, inputs = conv(1, 32, halves=True, activation=nn.ReLU6), 32
    for times, outputs, blocks, halves in (
        (1, 16, 1, False), (6, 24, 2, True), (6, 32, 3, True), (6, 64, 4, True), (6, 96, 3, True), (6, 160, 3, False), (6, 320, 1, False),
    ):
        for i in range(blocks):
            inner = times * inputs
            block = conv(inputs, inner, 1, activation=nn.ReLU6) if times > 1 else []
            block += conv(inner, inner, groups=inner, halves=halves and i == 0, activation=nn.ReLU6)
            block += conv(inner, outputs, 1, activation=None)
            layers += [Sum(block, nn.Identity(), nn.Identity())] if i > 0 else block
            inputs = outputs
    return OnLogMel([*layers, *conv(320, 1280, 1, activation=nn.ReLU6)], 1280, 1024)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1, self.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x):
        gates = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * gates[:, :, None, None]


class Inverted(nn.Module):
    """An inverted residual."""

    def __init__(self, inputs, kernel, expanded, outputs, squeezes, act, stride):
        super().__init__()
        layers = []
        if expanded != inputs:
            layers += [nn.Conv2d(inputs, expanded, 1, bias=False), nn.BatchNorm2d(expanded), act()]
        depthwise = nn.Conv2d(expanded, expanded, kernel, stride, kernel // 2, groups=expanded, bias=False)
        layers += [depthwise, nn.BatchNorm2d(expanded), act()] + [SqueezeExcitation(expanded)] * squeezes
        self.layers = nn.Sequential(*layers, nn.Conv2d(expanded, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.layers(x) if self.is_residual else self.layers(x)


class Mn04(nn.Module):
    """Log-mel `[batch, 1, 128, frames]` to scores `[batch, 527]`."""

    BLOCKS = [
        (3, 8, 8, 0, 1), (3, 24, 16, 0, 2), (3, 32, 16, 0, 1), (5, 32, 16, 1, 2), (5, 48, 16, 1, 1), (5, 48, 16, 1, 1),
        (3, 96, 32, 0, 2), (3, 80, 32, 0, 1), (3, 72, 32, 0, 1), (3, 72, 32, 0, 1), (3, 192, 48, 1, 1), (3, 272, 48, 1, 1),
        (5, 272, 64, 1, 2), (5, 384, 64, 1, 1), (5, 384, 64, 1, 1),
    ]  # fmt: skip

    def __init__(self):
        super().__init__()
        layers, inputs = [nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()], 8
        for i, (kernel, expanded, outputs, squeezes, stride) in enumerate(self.BLOCKS):
            act = nn.ReLU if i < 6 else nn.Hardswish
            layers.append(Inverted(inputs, kernel, expanded, outputs, squeezes, act, stride))
            inputs = outputs
        self.features = nn.Sequential(*layers, nn.Conv2d(inputs, 384, 1, bias=False), nn.BatchNorm2d(384), nn.Hardswish())
        self.hidden, self.classes = nn.Linear(384, 512), nn.Linear(512, CLASSES)

    def forward(self, x):
        return torch.sigmoid(self.classes(F.hardswish(self.hidden(self.features(x).mean((2, 3))))))


def seeded(network):
    """Weights by He's rule and norms with statistics of their own, so that sums neither grow nor fade."""
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
    """The same CNN14 with its two spatial axes swapped: every kernel is transposed."""
    other = Cnn14(width, time_last=True)
    weights = {k: v.transpose(2, 3).contiguous() if v.dim() == 4 else v for k, v in network.state_dict().items()}
    other.load_state_dict(weights)
    return other.eval()
