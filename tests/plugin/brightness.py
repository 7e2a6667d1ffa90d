"""A method of somebody else's: how bright a place is. Knows nothing, learns nothing."""

from collections.abc import Sequence

from torch import Tensor

from adbench.datasets.base import Spec, Split
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Detection, Method


class Brightness(Method):
    """power: what brightness is raised to. fail: where to raise an error, for tests."""

    def __init__(self, spec: Spec, *, power: float = 1.0, fail: str = "") -> None:
        super().__init__(spec)
        self.power, self.fail = power, fail

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if self.fail == "fit":
            raise RuntimeError("this plugin always fails")

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        results = x.mean(1).abs() ** self.power
        if self.fail == "nan":
            results = results / 0.0 * 0.0
        return Detection.from_map(results.expand(len(levels), *results.shape))
