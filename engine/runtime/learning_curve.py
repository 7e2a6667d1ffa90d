"""How the loss of a training went, and which of its steps the weights are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class CurvePoint(NamedTuple):
    """The losses at one step of a training.

    step: steps completed
    loss: mean training loss of the steps since the last point
    calibration_loss: of the weights at this step, None where it was not measured

    >>> from adbench.engine.runtime.learning_curve import CurvePoint
    >>> points = [CurvePoint(50, 0.4, 0.6), CurvePoint(100, 0.2, 0.5), CurvePoint(150, 0.1, 0.7)]
    >>> min(points, key=lambda point: point.calibration_loss).step
    100
    """

    step: int
    loss: float
    calibration_loss: float | None


class LearningCurve(NamedTuple):
    """The losses of a whole training, also of what was done before it was interrupted.

    name: of the training in its method, such as "fit" or "diffusion"
    plan: its settings, the same object that the training was called with
    points: in the order of their steps
    selected_step: how many steps the weights that it ends with have been trained

    >>> from adbench.engine.runtime.learning_curve import CurvePoint, LearningCurve
    >>> LearningCurve("fit", None, [CurvePoint(5, 0.5, None)], 5).as_dict()["loss"]
    [0.5]
    """

    name: str
    plan: object
    points: list[CurvePoint]
    selected_step: int

    def as_dict(self) -> dict[str, object]:
        """The curve as JSON values: a list of each of the points' numbers."""
        return {
            "training": self.name,
            "selected_step": self.selected_step,
            "step": [point.step for point in self.points],
            "loss": [point.loss for point in self.points],
            "calibration_loss": [point.calibration_loss for point in self.points],
        }


CurveHandler = Callable[[LearningCurve], None]
"""(curve): receives the curve of every training that has ended."""


def ignore_curve(curve: LearningCurve) -> None:
    """Do nothing with a learning curve.

    curve: of a training

    >>> from adbench.engine.runtime.learning_curve import LearningCurve, ignore_curve
    >>> ignore_curve(LearningCurve("fit", None, [], 0))
    """
