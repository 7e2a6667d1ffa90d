"""A pretrained network's features, moved a little so that they forget what does not matter.

Mousakhan et al. 2023 (DDAD), section 3.4: on normal images, a restored one is to look like the one
that it was led to, while neither is to look much unlike what it did to the network as it came.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity, interpolate

from ..runtime.fixed_batches import in_batches
from ..runtime.run import Batched
from .pretrained import Blocks, Trunk


class Adapted(Batched):
    """features: a network's name, as `Trunk` has it. The copy that learns is in the state dict; the
    one that it came from is not. Its norms keep the statistics that they came with;
    batch_statistics: in training they normalise by those of the batch, and follow them, so that a
    sample's loss depends on its batch."""

    def __init__(self, features: str = "effperc", *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.batch_statistics = batch_statistics
        self.trunk = Trunk(features)
        frozen = self.trunk.perceptual.frozen
        assert isinstance(frozen, Blocks)  # what a Trunk has
        self.net, self._before = deepcopy(frozen).requires_grad_(), [frozen]

    @property
    def identity(self) -> str:
        return self.trunk.identity

    def train(self, mode: bool = True) -> Adapted:
        super().train(mode)
        self.net.train(mode and self.batch_statistics)
        return self

    def loss(self, made: Tensor, target: Tensor, kept: float) -> Tensor:
        """How unlike the two (N, C, H, W) in [0, 1] are, and `kept` times how far either has moved
        from how it was seen; whole layers as one vector, their cosine; (N,)."""
        total = torch.zeros(len(made), device=made.device)
        nets = (self.net, self._before[0])
        layers = zip(*[_seen(net, y) for net in nets for y in (made, target)], strict=True)
        for new_made, new_target, old_made, old_target in layers:
            moved = _apart(new_target, old_target) + _apart(new_made, old_made)
            total = total + _apart(new_made, new_target) + kept * moved
        return total

    @torch.no_grad()
    def distance(self, one: Tensor, other: Tensor, *, smooth: int = 3) -> Tensor:
        """(N, H, W): one minus the cosine of the features at every place, the sum over layers but
        the first; smooth: the side of the square that features are averaged over beforehand."""

        def look(a: Tensor, b: Tensor) -> Tensor:
            total = torch.zeros(len(a), 1, *a.shape[2:], device=a.device)
            for f, g in list(zip(_seen(self.net, a), _seen(self.net, b), strict=True))[1:]:
                f, g = (avg_pool2d(y, smooth, 1, smooth // 2) for y in (f, g))
                apart = (1 - cosine_similarity(f, g))[:, None].clamp(min=0)
                size = list(a.shape[2:])
                total += interpolate(apart, size=size, mode="bilinear", align_corners=True)
            return total[:, 0]

        with torch.autocast(one.device.type, enabled=False):
            return in_batches(look, self.batch, one.float(), other.float())


def _seen(net: Blocks, x: Tensor) -> list[Tensor]:
    """Each layer's features of (N, C, H, W), (N, K, h, w): of a colour image, or of every channel
    as grey, put beside each other. Small images are magnified, as `Blocks.features` does."""
    count = 1 if x.shape[1] == 3 else x.shape[1]
    grey = x.reshape(len(x) * count, -1, *x.shape[2:]).expand(-1, 3, -1, -1)
    factor = min(4, -(-64 // min(x.shape[2:])))
    if factor > 1:
        grey = interpolate(grey, scale_factor=factor, mode="bilinear")
    return [made.reshape(len(x), -1, *made.shape[2:]) for made in net.maps(grey)]


def _apart(f: Tensor, g: Tensor) -> Tensor:
    return 1 - cosine_similarity(f.flatten(1), g.flatten(1))
