"""What predicting new files takes from a detector and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...datasets.base import Dataset
from ...engine.runtime.context import TrainingContext
from ...methods.base import Method
from ..evaluation.conformal import Calibration
from ..evaluation.protocol import Protocol
from .inputs import file_of_key


class PredictionError(ValueError):
    """A prediction that cannot be begun: one line, why, and what would do.

    >>> import adbench
    >>> adbench.predict("anodpm", "scans", "predicted", results="no/such/folder")
    Traceback (most recent call last):
    adbench...PredictionError: no record in no/such/folder/records is of anodpm; there are none ...
    """

    exit_code = 2


@dataclass(frozen=True)
class DetectorParts:
    """A trained method, and all that its predictions depend on.

    method: with its weights, on the device
    dataset: reads new files as it read those that the method was trained on
    level, threshold: chosen on validation; threshold None without maps
    protocol: post-processing and the score of an image
    context: device and seed
    images, pixels: the calibration samples, one value per file, and their pixels; None where the
        record has none
    identity: JSON values that name the detector; two with the same identity predict the same

    >>> from adbench.benchmark.prediction.detector_parts import DetectorParts
    >>> from adbench.benchmark.registry.registry import Registry
    >>> from adbench.datasets.phantom import Phantom
    >>> dataset = Phantom(shape=(16,))
    >>> method = Registry.read().method("intensity").build(dataset.spec)
    >>> images = Calibration.from_values(np.arange(19.0), [str(k) for k in range(19)])
    >>> parts = DetectorParts("intensity", method, dataset, 0, 0.5, Protocol(), TrainingContext(),
    ...                       images, None, {"method": "intensity"})
    >>> parts.images.allows(0.05), parts.images.p_values(np.array([20.0])).tolist()
    (True, [0.05])
    """

    name: str
    method: Method
    dataset: Dataset
    level: int
    threshold: float | None
    protocol: Protocol
    context: TrainingContext
    images: Calibration | None
    pixels: Calibration | None
    identity: Mapping[str, Any]


def calibration_of_record(
    record: Mapping[str, Any],
) -> tuple[Calibration | None, Calibration | None]:
    """The calibration samples of a record and their pixels, to compute p-values against.

    A file of several samples, such as a volume that was cut into planes, counts with the highest
    score of them, as a new file does. None where the record holds none.

    >>> from adbench.benchmark.prediction.detector_parts import calibration_of_record
    >>> part = {"key": ["a/z001", "a/z002", "b/z001"], "group": ["a", "a", "b"],
    ...         "score": [0.1, 0.3, 0.2], "pixel_knots": None, "pixel_exceeded": None, "groups": 2}
    >>> images, pixels = calibration_of_record({"calibration": part})
    >>> images.knots.tolist(), pixels
    ([0.2, 0.3], None)
    """
    part = record.get("calibration")
    if not part:
        return None, None
    highest: dict[str, float] = {}
    group_of: dict[str, str] = {}
    for key, group, score in zip(part["key"], part["group"], part["score"], strict=True):
        file = file_of_key(key)
        highest[file] = max(score, highest.get(file, score))
        group_of[file] = group
    images = Calibration.from_values(np.array([*highest.values()]), [*group_of.values()])
    if part["pixel_knots"] is None:
        return images, None
    knots, exceeded = (np.array(part[name]) for name in ("pixel_knots", "pixel_exceeded"))
    return images, Calibration(knots, exceeded, part["groups"])
