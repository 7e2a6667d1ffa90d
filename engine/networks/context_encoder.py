"""A code of a whole sample, to condition a denoiser on: a residual network that ends in a mean.

MONAI's, for one to three axes. Norms are over groups of channels, not over the batch, so that a
code depends on its own sample alone, in training too; those of a network that was trained elsewhere
may have statistics of batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches


class ContextEncoder(BatchedModule):
    """A residual network (N, C, *S) -> (N, size).

    ndim: number of axes of S
    channels: C
    size: of the code
    layers: bottleneck blocks at each of four resolutions; (3, 4, 6, 3) is ResNet-50
    width: channels inside the first of them, doubled at each resolution
    norm: "group", or "batch": training then sees the statistics of a batch, inference those stored

    >>> import torch
    >>> from adbench.engine.networks.context_encoder import ContextEncoder
    >>> encoder = ContextEncoder(1, 1, 4, layers=(1, 1, 1, 1), width=4).eval()
    >>> encoder(torch.zeros(2, 1, 32)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self, ndim: int, channels: int, size: int, *,
        layers: Sequence[int] = (3, 4, 6, 3), width: int = 64,
        norm: Literal["group", "batch"] = "group",
    ) -> None:  # fmt: skip
        from monai.networks.nets.resnet import ResNet  # here: importing MONAI takes seconds

        super().__init__()
        if len(layers) != 4:
            raise ValueError(f"a residual network has layers at four resolutions, not {layers}")
        groups = math.gcd(32, width)
        self.ndim, self.widths = ndim, [4 * width << i for i in range(4)]
        self.net = ResNet(
            "bottleneck", list(layers), [width << i for i in range(4)], spatial_dims=ndim,
            n_input_channels=channels, conv1_t_stride=2, num_classes=size,
            norm=("group", {"num_groups": groups}) if norm == "group" else "batch",
            bias_downsample=False,
        )  # fmt: skip
        if norm == "batch":
            return
        for part in list(self.net.modules()):  # MONAI's shortcuts normalise batches all the same
            for name, child in part.named_children():
                if isinstance(child, nn.modules.batchnorm._BatchNorm):
                    setattr(part, name, nn.GroupNorm(groups, child.num_features))

    def forward(self, x: Tensor) -> Tensor:
        return self._encode(x) if self.training else apply_in_batches(self._encode, self.batch, x)

    def _encode(self, x: Tensor) -> Tensor:
        return self.call_net(lambda net, rows: net(rows), x)

    def feature_maps(self, x: Tensor, visible: Tensor) -> list[Tensor]:
        """The features at each of the four resolutions, (N, widths[i], *S'), 0 where not visible.

        x: (N, C, *S)
        visible: (N, 1, *S) bool; where it is false x is no input
        """

        def masked(y: Tensor) -> Tensor:
            return y * interpolate(visible.to(y), size=y.shape[2:])

        net, features = self.net, []
        x = masked(net.maxpool(net.act(net.bn1(net.conv1(x * visible)))))
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = masked(layer(x))
            features.append(x)
        return features
