"""A pretrained network's features, fine-tuned on normal images so that they ignore what does not
matter.

Mousakhan et al. 2023 (DDAD), section 3.4: on normal images, the features of a reconstruction become
like those of its target, while neither moves far from the features of the original network.
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
    """A feature network and the frozen original it is fine-tuned from.

    The fine-tuned copy is in the state dict; the original is not. Its norms keep the statistics of
    the original.

    features: a network's name, as `FeatureExtractor` has it
    batch_statistics: norms use, in training, the statistics of the batch and follow them, so that
        a sample's loss depends on its batch

    >>> import torch
    >>> from adbench.engine.features.adapted import AdaptedFeatures
    >>> features, x = AdaptedFeatures("effperc-random"), torch.rand(2, 1, 16, 16)
    >>> features.distance(x, x).shape
    torch.Size([2, 16, 16])
    >>> features.loss(x, x, 0.1).abs().max().item() < 1e-4  # nothing has moved yet
    True
    """

    def __init__(self, features: str = "effperc", *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.batch_statistics = batch_statistics
        self.trunk = FeatureExtractor(features)
        frozen = self.trunk.perceptual.frozen
        assert isinstance(frozen, EfficientNetBlocks)  # what a FeatureExtractor has
        self.net, self._original = deepcopy(frozen).requires_grad_(), [frozen]

    @property
    def weights_id(self) -> str:
        """Name, package and version of the original weights: for cache keys."""
        return self.trunk.weights_id

    def train(self, mode: bool = True) -> AdaptedFeatures:
        super().train(mode)
        self.net.train(mode and self.batch_statistics)
        return self

    def loss(self, reconstruction: Tensor, target: Tensor, distillation_weight: float) -> Tensor:
        """The distance of the two images' features, plus `distillation_weight` times how far either
        has moved from its original features, (N,).

        Distances are one minus the cosine of whole layers as one vector, summed over layers.

        reconstruction, target: (N, C, H, W) in [0, 1]
        """
        total = torch.zeros(len(reconstruction), device=reconstruction.device)
        images, nets = (reconstruction, target), (self.net, self._original[0])
        layers = zip(*[_layer_features(net, y) for net in nets for y in images], strict=True)
        for new, new_target, old, old_target in layers:
            shift = _cosine_distance(new_target, old_target) + _cosine_distance(new, old)
            total = total + _cosine_distance(new, new_target) + distillation_weight * shift
        return total

    @torch.no_grad()
    def distance(self, x: Tensor, y: Tensor, *, smooth: int = 3) -> Tensor:
        """One minus the cosine of the features at every pixel, summed over layers but the first,
        (N, H, W).

        x, y: (N, C, H, W) in [0, 1]
        smooth: side of the square over which features are averaged beforehand
        """

        def layer_distances(a: Tensor, b: Tensor) -> Tensor:
            total = torch.zeros(len(a), 1, *a.shape[2:], device=a.device)
            layers = zip(_layer_features(self.net, a), _layer_features(self.net, b), strict=True)
            for f, g in list(layers)[1:]:
                f, g = (avg_pool2d(layer, smooth, 1, smooth // 2) for layer in (f, g))
                distance = (1 - cosine_similarity(f, g))[:, None].clamp(min=0)
                size = list(a.shape[2:])
                total += interpolate(distance, size=size, mode="bilinear", align_corners=True)
            return total[:, 0]

        with torch.autocast(x.device.type, enabled=False):
            return apply_in_batches(layer_distances, self.batch, x.float(), y.float())


def _layer_features(net: EfficientNetBlocks, x: Tensor) -> list[Tensor]:
    """Each layer's features of (N, C, H, W), (N, K, h, w): of a colour image, or of every channel
    as grey, concatenated. Small images are enlarged, as in
    `EfficientNetBlocks.normalized_features`."""
    count = 1 if x.shape[1] == 3 else x.shape[1]
    grey = x.reshape(len(x) * count, -1, *x.shape[2:]).expand(-1, 3, -1, -1)
    factor = min(4, -(-64 // min(x.shape[2:])))
    if factor > 1:
        grey = interpolate(grey, scale_factor=factor, mode="bilinear")
    return [layer.reshape(len(x), -1, *layer.shape[2:]) for layer in net.feature_maps(grey)]


def _cosine_distance(f: Tensor, g: Tensor) -> Tensor:
    return 1 - cosine_similarity(f.flatten(1), g.flatten(1))
