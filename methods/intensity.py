"""Intensity: the map is the intensity itself. Nothing is trained.

On FLAIR, many lesions are the brightest pixels of the image: a detector that loses to this baseline
has learnt nothing of use (Meissen et al., "Challenging current semi-supervised anomaly segmentation
methods for brain MRI", 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Choice, SearchSpace
from ..engine.runtime.setting_types import Natural
from .base import Detection, Method


class Intensity(Method):
    """Score every pixel by its intensity, (L, N, *S); the score is the map's mean.

    channel: whose intensity, None for the mean over channels; ValueError for one that is not there
    dark: dark pixels are abnormal in place of bright ones

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.intensity import Intensity
    >>> x = torch.tensor([[[0.25, 1.0]]])
    >>> Intensity(Spec(1, (2,))).localize(x, Rng(["a"]))
    tensor([[0.2500, 1.0000]])
    >>> Intensity(Spec(1, (2,)), dark=True).localize(x, Rng(["a"]))
    tensor([[0.7500, 0.0000]])
    """

    inference: ClassVar[frozenset[str]] = frozenset({"channel", "dark"})

    search_space = SearchSpace(dark=Choice(False, True))

    def __init__(self, spec: Spec, *, channel: Natural | None = None, dark: bool = False) -> None:
        super().__init__(spec)
        if channel is not None and not 0 <= channel < spec.channels:
            raise ValueError(f"channel is one of 0..{spec.channels - 1}, not {channel}")
        self.channel, self.dark = channel, dark

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        """There is nothing to learn."""

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        bright = x.mean(1) if self.channel is None else x[:, self.channel]
        map = (1 - bright if self.dark else bright).clamp(min=0)  # (N, *S)
        return Detection.from_map(map.expand(len(levels), *map.shape))
