"""Which ground truth predictions are compared with: one in memory, or one on disk."""

from __future__ import annotations

from .ground_truth import GroundTruth
from .in_memory_ground_truth import InMemoryGroundTruth
from .predictions import Predictions
from .protocol import Protocol
from .streamed_ground_truth import StreamedGroundTruth


def build_ground_truth(predictions: Predictions, protocol: Protocol) -> GroundTruth:
    """Return the ground truth of predictions, in memory unless their maps are streamed.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> scores_alone = Predictions([*"ab"], [*"ab"], np.array([False, True]), None, None, None,
    ...                            [{}, {}], np.array([[0.1, 0.9]]), None)
    >>> truth = build_ground_truth(scores_alone, Protocol())
    >>> truth.at_level(0).score.tolist(), truth.roi
    ([0.1, 0.9], None)
    """
    if predictions.streamed and predictions.map is not None:
        return StreamedGroundTruth(predictions, protocol)
    return InMemoryGroundTruth(predictions, protocol)
