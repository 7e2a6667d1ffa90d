"""What every method answers: fit to normal data; how unusual is a sample, and where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..datasets.base import Spec, Split
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import SearchSpace
from ..engine.training.loop import Training


@dataclass(frozen=True)
class Detection:
    """What a method says of N samples at L noise levels. Higher is more anomalous; no fixed scale.

    score: (L, N)
    map: (L, N, *S), non-negative; None from a method that cannot tell where
    reconstruction: (L, N, C, *S) in [0, 1], what the sample would be were it normal; for looking at
    """

    score: Tensor
    map: Tensor | None = None
    reconstruction: Tensor | None = None

    def check(self, levels: int, x: Tensor) -> None:
        """Raise ValueError, with what is wrong, unless all parts are as described above.

        levels: L, how many were asked for
        x: (N, C, *S), the samples

        >>> import torch
        >>> from adbench.methods.base import Detection
        >>> try:
        ...     Detection(torch.zeros(2, 3)).check(1, torch.zeros(3, 1, 4))
        ... except ValueError as error:
        ...     print(error)
        score has shape (2, 3), not (1, 3): levels, samples
        """
        lead, axes = (levels, len(x)), x.shape[2:]
        parts = (
            ("score", self.score, lead, "levels, samples"),
            ("map", self.map, (*lead, *axes), "levels, samples, axes"),
            ("reconstruction", self.reconstruction, (*lead, *x.shape[1:]),
             "levels, samples, channels, axes"),
        )  # fmt: skip
        for name, value, shape, words in parts:
            if value is None and name != "score":
                continue
            if not isinstance(value, Tensor):
                raise ValueError(f"{name} is a {type(value).__name__}, not a tensor")
            if tuple(value.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, not {shape}: {words}")
            if value.is_complex():
                raise ValueError(f"{name} is complex, not real: its imaginary part would be lost")
        if self.map is not None and self.map.numel() and self.map.min() < 0:
            raise ValueError(f"map is at least 0, not {self.map.min().item():g}")

    @classmethod
    def from_map(cls, map: Tensor, reconstruction: Tensor | None = None) -> Detection:
        """Of a method whose map says it all: its score is the map's mean over S."""
        return cls(map.flatten(2).mean(2), map, reconstruction)


class Method(nn.Module, ABC):
    """A detector. Everything it learns is a parameter or a buffer, so its state dict is all of it.

    The constructor's keyword arguments are its hyperparameters, with the paper's as defaults;
    registry.yaml may set them. It never names a device, picks a test threshold, post-processes
    for the metric, or sees a label in `detect`; all randomness comes from the Rng it is handed.
    What it says of a sample does not depend on the sample's batch mates, their order or number.

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.base import Detection, Method
    >>> class Brightness(Method):
    ...     def fit(self, train, calibration, context):
    ...         pass
    ...     def detect(self, x, levels, rng):
    ...         return Detection.from_map(x.mean(1).expand(len(levels), -1, -1, -1))
    >>> method, x = Brightness(Spec(1, (2, 2))), torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    >>> method.score(x.expand(2, 1, 2, 2), Rng(["a", "b"]))
    tensor([0., 1.])
    """

    supervision: ClassVar[Literal["normal", "image-labels"]] = "normal"
    """What it learns from: normal samples, or labelled abnormal ones too. Printed beside every row.
    """

    ndims: ClassVar[frozenset[int]] = frozenset({1, 2, 3})
    """How many axes S may have."""

    levels: ClassVar[tuple[int, ...]] = (0,)
    """The noise levels to sweep, integers on a 1000-step scale. A method without such a knob has
    the one level 0."""

    published: ClassVar[int] = 0
    """The level its paper uses; one of `levels`."""

    inference: ClassVar[frozenset[str]] = frozenset()
    """Constructor arguments that do not change training: a new value needs no new checkpoint."""

    selects_best: ClassVar[bool] = False
    """Whether `fit` hands calibration samples to its main training, which the best weights are then
    selected by (`select="best"`)."""

    search_space: ClassVar[SearchSpace] = SearchSpace()
    """Values of constructor arguments that are worth trying, for `adbench tune`; a method without
    any is run as it is."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if len(spec.shape) not in self.ndims:
            raise ValueError(
                f"{type(self).__name__} takes samples of {_alternatives(self.ndims)} axes, "
                f"not of {len(spec.shape)}"
            )
        self.spec = spec
        self.batch_dependent = False
        """Whether a sample's result depends on the other samples of its batch, as published code
        may have it: the benchmark then predicts batches of one size on every device."""
        self.ineffective_arguments: dict[tuple[str, ...], str] = {}
        """By the names of the arguments that decide it: why what they are for cannot happen with
        these samples. The benchmark refuses that where one of these arguments was asked for; with
        the values of a profile the method runs."""

    @abstractmethod
    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        """Learn from `train`: normal samples, or labelled ones if so supervised.

        calibration: normal samples that are not trained on, to calibrate on.
        """

    @abstractmethod
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        """Look at x, (N, C, *S) in [0, 1], at each of the levels, in one pass."""

    def training_plans(self) -> list[Training]:
        """Return the plans of the trainings that `fit` makes, that of the main network first.

        By default all attributes of type Training, in the order in which the constructor sets
        them. The benchmark takes the cost of training from them, before and after it.
        """
        return [value for value in vars(self).values() if isinstance(value, Training)]

    @torch.no_grad()
    def score(self, x: Tensor, rng: Rng) -> Tensor:
        """How anomalous each sample is at the published level, (N,)."""
        return self.detect(x, [self.published], rng).score[0]

    @torch.no_grad()
    def localize(self, x: Tensor, rng: Rng) -> Tensor:
        """Where each sample is anomalous at the published level, (N, *S).

        Raises NotImplementedError from a method that cannot tell where.
        """
        maps = self.detect(x, [self.published], rng).map
        if maps is None:
            raise NotImplementedError(f"{type(self).__name__} cannot tell where")
        return maps[0]


def _alternatives(numbers: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))
