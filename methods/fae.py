"""FAE: an autoencoder of a frozen network's features, compared by structural similarity.

Meissen et al., "Unsupervised Anomaly Localization with Structural Feature-Autoencoders", MICCAI
Workshops (BrainLes) 2022. https://arxiv.org/abs/2208.10992 Trained as in UAD-IMAG's comparison,
https://arxiv.org/abs/2512.01534

As there: early feature maps of a network trained on ImageNet on one grid; an autoencoder of four
strided convolutions of 6 x 6 and as many transposed; the loss is the structural similarity of the
features and their reconstruction, in windows of 5 x 5 that a Gaussian weights, and the map is one
minus its mean over channels, enlarged; 20,000 steps of 128 images at a learning rate of 1e-4.

The paper is about places alone: the score, the map's maximum, is our choice. Differs: features of
EfficientNet-lite0 by default, whose weights a package ships (`features="resnet18",
depths=[0, 1, 2]` are the paper's, from a file of torchvision's weights); group norms in place of
batch norms; no dropout of channels. No average of weights (EMA) is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.features.backbones import BackboneName
from ..engine.features.feature_maps import FeatureMaps
from ..engine.networks.feature_autoencoder import FeatureAutoencoder
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Many, Natural, Odd
from ..engine.training.loop import Training, train_module
from ..engine.transforms.feature_grid import backbone_canvas, enlarge_grid
from ..engine.transforms.structural_similarity import structural_similarity
from .base import Detection, Method

TRAINING = Training(steps=20_000, batch=128, lr=1e-4, clip=None, ema=None)


class FAE(Method):
    """Score every position by how unlike its features are their reconstruction.

    size: pixels along the longest axis.
    features, depths: name of the frozen network and numbers of its layers; the first has the grid.
    widths: channels of the autoencoder after each halving of the grid.
    ssim_window: side of the neighbourhood that is compared.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.fae import FAE
    >>> method = FAE(Spec(1, (64, 64)), size=64, features="effperc-random", widths=(8, 8))
    >>> method.maps.channels, method.maps.grids((64, 64))
    ((24, 40), [(16, 16), (8, 8)])
    """

    ndims = frozenset({2})

    def __init__(
        self, spec: Spec, *,
        size: Count = 224, features: BackboneName = "effperc", depths: Many[Natural] = (1, 2),
        widths: Many[Count] = (100, 150, 200, 300), ssim_window: Odd = 5,
        training: Training = TRAINING,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.maps = FeatureMaps(spec.channels, features, depths)
        self.canvas = backbone_canvas(spec.shape, size, self.maps.divisor)
        grid = self.maps.grids(self.canvas.padded_shape)[0]
        if min(grid) < 2 ** len(widths):
            raise ValueError(
                f"FAE halves a grid of {grid[0]} x {grid[1]} {len(widths)} times: fewer widths or "
                "a larger size do"
            )
        self.coder = FeatureAutoencoder(sum(self.maps.channels), widths)
        self.plan, self.ssim_window = training, ssim_window

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self._dissimilarity(x).flatten(1).mean(1)

        context.place(self)
        train_module(loss, self.coder, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        distance = self._dissimilarity(x).clamp(min=0)
        shown, map = enlarge_grid(distance, self.canvas)
        score, count = shown.flatten(1).amax(1), len(levels)
        return Detection(score.expand(count, -1), map.expand(count, *map.shape))

    def _dissimilarity(self, x: Tensor) -> Tensor:
        """One minus the similarity of features and their reconstruction, (N, h, w)."""
        z = self.maps.embed(self.canvas.forward(x))
        similarity = structural_similarity(z, self.coder(z), window=self.ssim_window)
        return 1 - torch.stack([sample.mean(0) for sample in similarity])  # alike in any batch
