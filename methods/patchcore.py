"""PatchCore: the distance of every patch's features from a memory of normal ones.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.
https://arxiv.org/abs/2106.08265 https://github.com/amazon-science/patchcore-inspection

As in the paper: feature maps of two middle layers of a network trained on ImageNet, each averaged
over 3 x 3 positions (with zeros beyond the edge, as in the authors' code), the deeper one enlarged
to the grid of the other; a memory of a tenth of all normal vectors, a greedy core-set in randomly
projected coordinates; the map is the distance to the nearest vector, enlarged, and blurred by 4
pixels; the score is the largest distance of a patch, weighted by how close to one another the
memory's vectors around its nearest are (equation 7, over 9 neighbours).

Differs: features of EfficientNet-lite0 by default, whose weights a package ships
(`features="wide-resnet50-2"` are the paper's, from a file of torchvision's weights); features are
concatenated as they are, where the authors' code pools them to 1024 numbers; images are resized
without a crop; the core-set is chosen from at most `bank` training samples and begins at the vector
nearest to the mean. The authors' code leaves out the weight of equation 7 (`reweight=False`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softmax

from ..datasets.base import Spec, Split
from ..engine.features.backbones import BackboneName
from ..engine.features.feature_maps import FeatureMaps
from ..engine.features.memory_bank import MemoryBank
from ..engine.runtime.context import Interrupted, TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Many, Natural, NonNegative, Odd, PositiveFraction
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.transforms.feature_grid import backbone_canvas, enlarge_grid
from .base import Detection, Method


@dataclass(frozen=True)
class CoresetConfig:
    """The memory of normal feature vectors.

    share: of the normal vectors that the memory stores.
    bank: number of training samples that they come from at most.
    projection: number of random directions in which the core-set is chosen.
    neighbours: of equation 7, the vectors around the nearest one, itself among them.
    reweight: whether the score is weighted by equation 7.

    >>> from adbench.methods.patchcore import CoresetConfig
    >>> CoresetConfig(share=0.01).neighbours
    9
    """

    share: PositiveFraction = 0.1
    bank: Count = 512
    projection: Count = 128
    neighbours: Count = 9
    reweight: bool = True


MEMORY = CoresetConfig()


class PatchCore(Method):
    """Score every patch by its distance from the nearest normal one.

    size: pixels along the longest axis; at least 64 along the shortest.
    features, depths: name of the frozen network and numbers of its layers; the first has the grid.
    window: side of the square of positions over which features are averaged.
    blur: standard deviation of the map's blur in pixels of `size`.

    >>> import torch
    >>> from adbench.datasets.base import Sample, Spec
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.methods.patchcore import CoresetConfig, PatchCore
    >>> method = PatchCore(Spec(1, (64, 64)), size=64, features="effperc-random",
    ...     memory=CoresetConfig(share=0.25))
    >>> image = Sample(torch.rand(1, 64, 64), key="a", group="a", label=False)
    >>> method.fit([image], [], TrainingContext())
    >>> method.memory.vectors.shape  # a quarter of 8 x 8 positions
    torch.Size([16, 152])
    """

    ndims = frozenset({2})
    inference = frozenset({"neighbours", "reweight", "blur"})

    def __init__(
        self, spec: Spec, *,
        size: Count = 224, features: BackboneName = "effperc", depths: Many[Natural] = (2, 3),
        window: Odd = 3, memory: CoresetConfig = MEMORY, blur: NonNegative = 4.0,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.maps = FeatureMaps(spec.channels, features, depths)
        self.canvas = backbone_canvas(spec.shape, size, self.maps.divisor)
        self.memory = MemoryBank(sum(self.maps.channels))
        self.memory_config, self.window, self.blur = memory, window, blur

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        context.place(self)
        config = self.memory_config
        index, vectors = evenly_spaced_indices(len(train), config.bank), []
        if not index:
            raise ValueError("there is nothing to remember: the training split is empty")
        for start in range(0, len(index), self.maps.batch):
            if context.stop():
                raise Interrupted(f"stopped at training sample {start} of {len(index)}")
            rows = [train[i].x for i in index[start : start + self.maps.batch]]
            patches = self._patches(torch.stack(rows).to(context.device))
            vectors.append(patches.flatten(0, 1))
        self.memory.fill(
            torch.cat(vectors), config.share, context, projection_dim=config.projection
        )

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        grid = self.maps.grids(self.canvas.padded_shape)[0]
        distances, scores = [], []
        for places in self._patches(x):  # a sample by itself: products round by their rows
            distance, nearest = self.memory.distances_to_nearest(places.contiguous(), 1)
            distance, nearest = distance[:, 0], nearest[:, 0]
            distances.append(distance.view(grid))
            farthest = distance.argmax().view(1)  # an index () would be read by the host
            place, vector = places.index_select(0, farthest), nearest.index_select(0, farthest)
            scores.append(self._weight(place, vector) * distance.index_select(0, farthest)[0])
        _, map = enlarge_grid(torch.stack(distances), self.canvas, self.blur)
        count = len(levels)
        return Detection(torch.stack(scores).expand(count, -1), map.expand(count, *map.shape))

    def _patches(self, x: Tensor) -> Tensor:
        """The features of every patch, (N, P, K)."""
        return self.maps.embed(self.canvas.forward(x), window=self.window).flatten(2).mT

    def _weight(self, place: Tensor, nearest: Tensor) -> Tensor:
        """Equation 7, (): one minus the softmax of the distance of a place (1, K) to the vector
        nearest to it, of this index (1,), among those to the vectors around that."""
        config, vectors = self.memory_config, self.memory.vectors
        if not config.reweight or len(vectors) == 1:
            return torch.ones((), device=place.device)
        around = self.memory.distances_to_nearest(vectors[nearest], config.neighbours)[1][0]
        distance = (vectors[around] - place).square().sum(1).sqrt()
        own = (vectors[nearest] - place).square().sum().sqrt()
        others = distance[around != nearest]
        return 1 - softmax(torch.cat([own[None], others]), 0)[0]
