"""PaDiM: a Gaussian of normal features at every position, and the Mahalanobis distance from it.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR Workshops 2021. https://arxiv.org/abs/2011.08785

As in the paper: the feature maps of the first three layers of a network trained on ImageNet on the
grid of the first, each position with the nearest of the deeper ones; 100 of their channels, drawn
at random once; at every position the mean and the covariance of the training images, with 0.01
added to its diagonal; the map is the Mahalanobis distance, enlarged and blurred by 4 pixels; the
score is the map's maximum.

Differs: features of EfficientNet-lite0 by default, whose weights a package ships
(`features="resnet18"`, or "wide-resnet50-2" with `dimensions=550`, are the paper's, from a file of
torchvision's weights); images are resized without a crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.features.backbones import BackboneName
from ..engine.features.feature_maps import FeatureMaps
from ..engine.runtime.context import Interrupted, TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Many, Natural, NonNegative, Positive
from ..engine.transforms.feature_grid import backbone_canvas, enlarge_grid
from .base import Detection, Method


class PaDiM(Method):
    """Score every position by the Mahalanobis distance of its features from normal ones there.

    size: pixels along the longest axis; at least 64 along the shortest.
    features, depths: name of the frozen network and numbers of its layers; the first has the grid.
    dimensions: number of channels that are drawn, or all if there are fewer.
    ridge: what is added to the diagonal of every covariance.
    blur: standard deviation of the map's blur in pixels of `size`.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.padim import PaDiM
    >>> method = PaDiM(Spec(1, (64, 64)), size=64, features="effperc-random", dimensions=10)
    >>> method.precision.shape  # of every position, the channels' inverse covariance
    torch.Size([256, 10, 10])
    """

    ndims = frozenset({2})
    inference = frozenset({"blur"})
    channels: Tensor  # (K,) int64, which of the network's
    mean: Tensor  # (P, K)
    precision: Tensor  # (P, K, K), inverses of the covariances

    def __init__(
        self, spec: Spec, *,
        size: Count = 224, features: BackboneName = "effperc", depths: Many[Natural] = (1, 2, 3),
        dimensions: Count = 100, ridge: Positive = 0.01, blur: NonNegative = 4.0,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.maps = FeatureMaps(spec.channels, features, depths)
        self.canvas = backbone_canvas(spec.shape, size, self.maps.divisor)
        height, width = self.maps.grids(self.canvas.padded_shape)[0]
        count, places = min(dimensions, sum(self.maps.channels)), height * width
        self.register_buffer("channels", torch.arange(count))
        self.register_buffer("mean", torch.zeros(places, count))
        self.register_buffer("precision", torch.zeros(places, count, count))
        self.ridge, self.blur = ridge, blur

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if len(train) < 2:
            raise ValueError(f"a covariance takes two training samples at least, not {len(train)}")
        context.place(self)
        order = Rng(["channels"], context.seed).uniform((sum(self.maps.channels),))[0].argsort()
        self.channels.copy_(order[: len(self.channels)].sort().values)
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        products = torch.zeros_like(self.precision, dtype=torch.float64)
        pivot = None
        for start in range(0, len(train), self.maps.batch):
            if context.stop():
                raise Interrupted(f"stopped at training sample {start} of {len(train)}")
            rows = range(start, min(start + self.maps.batch, len(train)))
            x = torch.stack([train[i].x for i in rows]).to(context.device)
            z = self._places(x).double().transpose(0, 1)  # (P, N, K)
            pivot = z.mean(1, keepdim=True) if pivot is None else pivot  # against cancellation
            centred = z - pivot
            total += centred.sum(1)
            products += centred.mT @ centred
        assert pivot is not None  # there is a batch
        count = len(train)
        covariance = products - total[:, :, None] * total[:, None] / count
        covariance /= count - 1
        covariance.diagonal(dim1=1, dim2=2).add_(self.ridge)
        self.mean.copy_(total / count + pivot[:, 0])
        self.precision.copy_(torch.linalg.inv(covariance))

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        grid = self.maps.grids(self.canvas.padded_shape)[0]
        distances = []
        for places in self._places(x):  # a sample by itself: products round by their rows
            off = (places - self.mean)[:, None]  # (P, 1, K)
            square = (off @ self.precision * off).sum(2)
            distances.append(square.clamp(min=0).sqrt().view(grid))
        shown, map = enlarge_grid(torch.stack(distances), self.canvas, self.blur)
        score, count = shown.flatten(1).amax(1), len(levels)
        return Detection(score.expand(count, -1), map.expand(count, *map.shape))

    def _places(self, x: Tensor) -> Tensor:
        """The drawn channels at every position, (N, P, K)."""
        z = self.maps.embed(self.canvas.forward(x), interpolation="nearest")
        return z.index_select(1, self.channels).flatten(2).mT
