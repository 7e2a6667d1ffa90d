"""A pretrained network's features, moved a little so that they forget what does not matter.

Mousakhan et al. 2023 (DDAD), section 3.4: on normal images, a restored one is to look like the one
that it was led to, while neither is to look much unlike what it did to the network as it came.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity, interpolate

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches
from .pretrained import EfficientNetBlocks, FeatureExtractor


class AdaptedFeatures(BatchedModule):
    """features: a network's name, as `Trunk` has it. The copy that learns is in the state dict; the
    one that it came from is not. Its norms keep the statistics that they came with;
    batch_statistics: in training they normalise by those of the batch, and follow them, so that a
    sample's loss depends on its batch."""

    def __init__(self, features: str = "effperc", *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.batch_statistics = batch_statistics
        self.trunk = FeatureExtractor(features)
        frozen = self.trunk.perceptual.frozen
        assert isinstance(frozen, EfficientNetBlocks)  # what a Trunk has
        self.net, self._original = deepcopy(frozen).requires_grad_(), [frozen]

    @property
    def weights_id(self) -> str:
        return self.trunk.weights_id

    def train(self, mode: bool = True) -> AdaptedFeatures:
        super().train(mode)
        self.net.train(mode and self.batch_statistics)
        return self

    def loss(self, reconstruction: Tensor, target: Tensor, distillation_weight: float) -> Tensor:
        """How unlike the two (N, C, H, W) in [0, 1] are, and `distillation_weight` times how far
        either has moved
        from how it was seen; whole layers as one vector, their cosine; (N,)."""
        total = torch.zeros(len(reconstruction), device=reconstruction.device)
        nets = (self.net, self._original[0])
        layers = zip(
            *[_layer_features(net, y) for net in nets for y in (reconstruction, target)],
            strict=True,
        )
        for new_made, new_target, old_made, old_target in layers:
            moved = _cosine_distance(new_target, old_target) + _cosine_distance(new_made, old_made)
            total = total + _cosine_distance(new_made, new_target) + distillation_weight * moved
        return total

    @torch.no_grad()
    def distance(self, x: Tensor, y: Tensor, *, smooth: int = 3) -> Tensor:
        """(N, H, W): one minus the cosine of the features at every place, the sum over layers but
        the first; smooth: the side of the square that features are averaged over beforehand."""

        def look(a: Tensor, b: Tensor) -> Tensor:
            total = torch.zeros(len(a), 1, *a.shape[2:], device=a.device)
            for f, g in list(
                zip(_layer_features(self.net, a), _layer_features(self.net, b), strict=True)
            )[1:]:
                f, g = (avg_pool2d(y, smooth, 1, smooth // 2) for y in (f, g))
                apart = (1 - cosine_similarity(f, g))[:, None].clamp(min=0)
                size = list(a.shape[2:])
                total += interpolate(apart, size=size, mode="bilinear", align_corners=True)
            return total[:, 0]

        with torch.autocast(x.device.type, enabled=False):
            return apply_in_batches(look, self.batch, x.float(), y.float())


def _layer_features(net: EfficientNetBlocks, x: Tensor) -> list[Tensor]:
    """Each layer's features of (N, C, H, W), (N, K, h, w): of a colour image, or of every channel
    as grey, put beside each other. Small images are magnified, as `Blocks.features` does."""
    count = 1 if x.shape[1] == 3 else x.shape[1]
    grey = x.reshape(len(x) * count, -1, *x.shape[2:]).expand(-1, 3, -1, -1)
    factor = min(4, -(-64 // min(x.shape[2:])))
    if factor > 1:
        grey = interpolate(grey, scale_factor=factor, mode="bilinear")
    return [made.reshape(len(x), -1, *made.shape[2:]) for made in net.feature_maps(grey)]


def _cosine_distance(f: Tensor, g: Tensor) -> Tensor:
    return 1 - cosine_similarity(f.flatten(1), g.flatten(1))
