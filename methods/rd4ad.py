"""RD4AD: a student that gives back a frozen teacher's features from a narrow code of them.

Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022.
https://arxiv.org/abs/2201.10703 Number of steps and learning rate are those of UAD-IMAG's
comparison, https://arxiv.org/abs/2512.01534

As in the paper: the teacher's first three feature maps are joined to a code of half the last one's
side, from which a decoder estimates them, from the deepest to the first; the loss is one minus the
cosine of both at every position, its mean over positions summed over the maps (equations 1 and 2);
the map is the sum of the enlarged distances, blurred by 4 pixels, and the score its maximum.

Differs: features of EfficientNet-lite0 by default, whose weights a package ships
(`features="wide-resnet50-2", blocks=3` are nearer to the paper's, from a file of torchvision's
weights); the student's blocks are of two convolutions, with group norms in place of batch norms;
the authors' code takes the cosine of whole maps as vectors in its loss. No average of weights (EMA)
is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.features.backbones import BackboneName
from ..engine.features.feature_maps import FeatureMaps
from ..engine.networks.reverse_distillation import ReverseDistillation
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Depth, Many, Natural, NonNegative
from ..engine.training.loop import Training, train_module
from ..engine.transforms.feature_grid import backbone_canvas, enlarge_grid
from .base import Detection, Method

TRAINING = Training(steps=25_000, batch=16, lr=1e-4, clip=None, ema=None, momentum=0.5)


class RD4AD(Method):
    """Score every position by the cosine distances of teacher and student.

    size: pixels along the longest axis.
    features, depths: name of the teacher and numbers of its layers, each at half the sides of the
        one before.
    blocks: residual blocks at every resolution of the student.
    blur: standard deviation of the map's blur in pixels of `size`.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.rd4ad import RD4AD
    >>> method = RD4AD(Spec(1, (64, 64)), size=64, features="effperc-random", blocks=1)
    >>> method.maps.strides, method.maps.channels
    ((4, 8, 16), (24, 40, 112))
    """

    ndims = frozenset({2})
    inference = frozenset({"blur"})

    def __init__(
        self, spec: Spec, *,
        size: Count = 256, features: BackboneName = "effperc", depths: Many[Natural] = (1, 2, 3),
        blocks: Depth = 2, training: Training = TRAINING, blur: NonNegative = 4.0,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.maps = FeatureMaps(spec.channels, features, depths)
        strides = self.maps.strides
        if any(low * 2 != high for low, high in pairwise(strides)):
            raise ValueError(
                f"every layer must halve the sides of the one before; {features}'s layers "
                f"{list(depths)} are at 1/{', 1/'.join(map(str, strides))}"
            )
        self.canvas = backbone_canvas(spec.shape, size, 2 * strides[-1])
        self.student = ReverseDistillation(self.maps.channels, blocks)
        self.plan, self.blur = training, blur

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return torch.stack([d.flatten(1).mean(1) for d in self._distances(x)]).sum(0)

        context.place(self)
        train_module(loss, self.student, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        total = x.new_zeros(len(x), *self.canvas.padded_shape)
        for distance in self._distances(x):
            total += enlarge_grid(distance.clamp(min=0), self.canvas)[0]
        shown, map = enlarge_grid(total, self.canvas, self.blur)
        score, count = shown.flatten(1).amax(1), len(levels)
        return Detection(score.expand(count, -1), map.expand(count, *map.shape))

    def _distances(self, x: Tensor) -> list[Tensor]:
        """One minus the cosine of teacher and student at every position of each map, (N, h, w)."""
        teacher = self.maps.extract(self.canvas.forward(x))
        pairs = zip(teacher, self.student(teacher), strict=True)
        return [
            torch.stack([cosine_distance(f, g) for f, g in zip(one, other, strict=True)])
            for one, other in pairs
        ]


def cosine_distance(f: Tensor, g: Tensor) -> Tensor:
    """One minus the cosine of two feature maps at every position, (h, w).

    f, g: (C, h, w) of one sample: sums over channels round by how many samples there are

    >>> import torch
    >>> from adbench.methods.rd4ad import cosine_distance
    >>> f = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    >>> cosine_distance(f, torch.tensor([[[3.0, 1.0]], [[0.0, 0.0]]]))
    tensor([[0., 1.]])
    """
    squares = f.square().sum(0) * g.square().sum(0)
    return 1 - (f * g).sum(0) / squares.clamp(min=1e-16).sqrt()
