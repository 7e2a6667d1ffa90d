"""ResNets as frozen networks, with the names of torchvision's and timm's weights.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Zagoruyko and Komodakis, "Wide
Residual Networks", BMVC 2016. Our own, because torchvision and timm are no dependencies: a file of
their weights is all that is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from .imagenet import ImageNetLayers


class ResNetLayers(ImageNetLayers):
    """The layers of a ResNet, without its classifier, as feature maps of an image.

    blocks: in each of the four layers.
    width: of the 3 x 3 convolutions of the first layer; 64, or 128 of a wide ResNet-50.
    bottleneck: blocks of three convolutions, which quadruple the channels; else of two.
    layers: that are returned, in ascending order: 0, the pooled stem, and 1, at a quarter of the
        side; each of 2, 3 and 4 halves it.

    >>> import torch
    >>> from adbench.engine.features.resnet import ResNetLayers
    >>> net = ResNetLayers((1, 1, 1, 1), bottleneck=False, layers=(1, 2))
    >>> [tuple(values.shape) for values in net(torch.zeros(1, 3, 32, 32))]
    [(1, 64, 8, 8), (1, 128, 4, 4)]
    """

    def __init__(
        self, blocks: Sequence[int], *, width: int = 64, bottleneck: bool, layers: Sequence[int]
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels, widths = 64, [64]
        for number in range(1, max(layers) + 1):
            inner, out = width << (number - 1), (256 if bottleneck else 64) << (number - 1)
            kind, stages = _Bottleneck if bottleneck else _Basic, []
            for i in range(blocks[number - 1]):
                stages.append(kind(channels, inner, out, 2 if i == 0 and number > 1 else 1))
                channels = out
            self.add_module(f"layer{number}", nn.Sequential(*stages))
            widths.append(out)
        self.channels = tuple(widths[number] for number in layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of (N, 3, H, W) in [0, 1] after each of `layers`, (N, C', h, w)."""
        maps, x = [], relu(self.bn1(self.conv1(self.standardise(x))))
        x = max_pool2d(x, 3, 2, 1)
        for number in range(max(self.layers) + 1):
            x = self.get_submodule(f"layer{number}")(x) if number else x
            if number in self.layers:
                maps.append(x)
        return maps


class _Basic(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, channels: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), _norm(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), _norm(out)
        self.downsample = _shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(h + self.downsample(x))


class _Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of one pixel, beside a shortcut."""

    def __init__(self, channels: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), _norm(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), _norm(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), _norm(out)
        self.downsample = _shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))
        return relu(self.bn3(self.conv3(h)) + self.downsample(x))


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


def _shortcut(channels: int, out: int, stride: int) -> nn.Module:
    if channels == out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
