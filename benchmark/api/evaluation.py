"""Evaluation of anybody's scores and maps under a protocol of the benchmark, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..evaluation.build_ground_truth import build_ground_truth
from ..evaluation.evaluate import EvaluationSplits
from ..evaluation.named_protocols import parse_protocol
from ..evaluation.operating_point import OperatingPoint, confidence_intervals
from ..evaluation.predictions import Predictions
from ..evaluation.protocol import Protocol

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]


class EvaluationError(ValueError):
    """Arrays that cannot be evaluated together: one line, both shapes or values, and what fits.

    >>> import adbench
    >>> from adbench.benchmark.api.evaluation import EvaluationError
    >>> try:
    ...     adbench.evaluate(scores=[0.1, 0.9], labels=[0, 1, 1])
    ... except EvaluationError as error:
    ...     print(error)
    scores are (N,), not (2,), with N = 3 labels
    """

    exit_code = 2


@dataclass(frozen=True)
class Metric:
    """A metric's value and its 95 % interval from resampling groups; None where undefined.

    >>> import adbench
    >>> labels = [0] * 20 + [1] * 20  # every abnormal sample scores higher than all normal ones
    >>> adbench.evaluate(scores=range(40), labels=labels).metrics["image_auroc"]
    Metric(value=1.0, low=1.0, high=1.0)
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Every metric of a set of samples, by name, at one threshold.

    metrics: image_*, group_auroc, pixel_*, lesion_*, sample_*, each a Metric
    threshold: what a map must exceed to be called abnormal; None where the rule has no data

    >>> import adbench
    >>> evaluation = adbench.evaluate(maps=[[0.1, 0.2], [0.9, 0.6]], masks=[[0, 0], [1, 0]],
    ...                               labels=[0, 1], protocol="fixed:0.5")
    >>> evaluation.threshold, evaluation["pixel_auroc"], evaluation["pixel_iou"]
    (0.5, 1.0, 0.5)
    """

    metrics: Mapping[str, Metric]
    threshold: float | None
    protocol: Protocol

    def __getitem__(self, name: str) -> float | None:
        """The value of a metric."""
        return self.metrics[name].value

    def to_frame(self) -> pandas.DataFrame:
        """One row per metric that is defined: value, low and high."""
        import pandas

        rows = {
            name: (metric.value, metric.low, metric.high)
            for name, metric in self.metrics.items()
            if metric.value is not None
        }
        columns = ["value", "low", "high"]
        frame = pandas.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
        return frame.rename_axis("metric")

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(float_format="{:.3f}".format, na_rep="-")


def evaluate(
    *,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    maps: ArrayLike | None = None,
    masks: ArrayLike | None = None,
    rois: ArrayLike | None = None,
    groups: Sequence[object] | None = None,
    calibration: ArrayLike | None = None,
    spacing: Sequence[float] | None = None,
    protocol: Protocol | str = "",
) -> Evaluation:
    """Evaluate scores and maps of N samples, and return every metric with its interval.

    labels: (N,), whether each sample is abnormal
    scores: (N,), higher is more anomalous; without them a sample's score is read from its map by
        the protocol's reducer, and with them it is theirs
    maps: (N, *S), higher is more anomalous, S one to three axes
    masks: (N, *S) bool, true where abnormal        rois: (N, *S) bool, where to evaluate
    groups: what samples were cut from (patients); intervals resample these, and without them
        samples
    calibration: maps (M, *S) of normal samples, from which `healthy@5%` takes its threshold;
        without them that rule has none, and metrics at a threshold are None
    spacing: mm along each axis of S
    protocol: a Protocol, its name such as "bmad", or its text such as "fixed:0.5" or
        "oracle,post=median5"
    Raises EvaluationError on arrays that do not fit together, ProtocolError on a protocol.

    >>> evaluate(scores=[0.1, 0.4, 0.35, 0.8], labels=[0, 0, 1, 1])["image_auroc"]
    0.75
    """
    protocol = parse_protocol(protocol) if isinstance(protocol, str) else protocol
    label = np.asarray(labels).astype(bool)
    arrays = {
        name: None if value is None else np.asarray(value)
        for name, value in {"scores": scores, "maps": maps, "masks": masks, "rois": rois}.items()
    }
    _check(label, arrays)
    if scores is not None:
        protocol = replace(protocol, reducer="method")
    score, map_, mask, roi = arrays.values()
    test = Predictions(
        keys=[str(i) for i in range(len(label))],
        groups=[str(group) for group in (range(len(label)) if groups is None else groups)],
        label=label,
        mask=None if mask is None else mask.astype(bool),
        roi=None if roi is None else roi.astype(bool),
        spacing=None if spacing is None else tuple(spacing),
        tags=[{} for _ in label],
        score=None if score is None else score.astype(np.float64)[None],
        map=None if map_ is None else map_.astype(np.float32)[None],
    )
    if len(test.groups) != len(label):
        raise EvaluationError(f"{len(test.groups)} groups for {len(label)} labels: one per sample")
    splits = EvaluationSplits(
        build_ground_truth(_normal(calibration), protocol),
        build_ground_truth(_normal(None), protocol),
        build_ground_truth(test, protocol),
    )
    if protocol.threshold.startswith("val-"):
        raise EvaluationError(
            f"threshold '{protocol.threshold}' takes a validation split, which evaluate has not: "
            "use fixed:<number>, oracle, or healthy@5% with calibration maps"
        )
    if protocol.healthy_percent is not None and calibration is None:
        point = OperatingPoint(splits.test.at_level(0), 0, None)
    else:
        point = splits.operating_point(0)
    rows = point.sample_results()
    interval = confidence_intervals(rows)
    metrics = {
        name: Metric(value, *interval.get(name, (None, None)))
        for name, value in rows.values.items()
    }
    return Evaluation(metrics, point.threshold, protocol)


def _normal(maps: ArrayLike | None) -> Predictions:
    """Maps of normal samples, of which nothing else is known."""
    values = None if maps is None else np.asarray(maps, np.float32)[None]
    count = 0 if values is None else values.shape[1]
    nothing = np.zeros(count, bool)
    keys = [str(i) for i in range(count)]
    return Predictions(
        keys, keys, nothing, None, None, None, [{}] * count, np.zeros((1, count)), values
    )


def _check(label: Array, arrays: Mapping[str, Array | None]) -> None:
    """Raises EvaluationError on arrays of different lengths, shapes, or with NaN."""
    if label.ndim != 1:
        raise EvaluationError(f"labels are (N,), not {label.shape}")
    if arrays["scores"] is None and arrays["maps"] is None:
        raise EvaluationError("evaluate needs scores, maps or both")
    shapes = {name: array.shape for name, array in arrays.items() if array is not None}
    for name, shape in shapes.items():
        if shape[:1] != label.shape or (name == "scores") != (len(shape) == 1):
            expected = "(N,)" if name == "scores" else "(N, *S)"
            raise EvaluationError(
                f"{name} are {expected}, not {shape}, with N = {len(label)} labels"
            )
        array = arrays[name]
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EvaluationError(f"{name} hold values that are not finite")
    spatial = {shape for name, shape in shapes.items() if name != "scores"}
    if len(spatial) > 1:
        raise EvaluationError(f"maps, masks and rois have one shape, not {sorted(spatial)}")
