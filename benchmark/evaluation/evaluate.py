"""Evaluate predictions by a protocol: from maps and scores to the metrics of a record.

Level and threshold are chosen on validation, and test is used once. What looks at test to choose is
called `oracle`: a bound on choosing better, no result.

Letters: L levels, N samples, S one to three spatial axes, P pixels within the regions of interest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .build_ground_truth import build_ground_truth
from .conformal import calibration_record
from .ground_truth import GroundTruth, LevelPredictions
from .metrics.connected_components import Array
from .metrics.per_volume import best_volume_dice
from .metrics.pixel_scores import Pixels
from .metrics.ranking import MetricValues, image_metrics
from .operating_point import OperatingPoint, confidence_intervals
from .predictions import Predictions
from .protocol import Protocol, best_level
from .protocol_values import ProtocolError
from .sample_results import SampleResults
from .scorers import joins_levels, score_splits
from .subgroups import subgroup_metrics
from .thresholds import bisect_dice_threshold, threshold_rank

MAX_TAG_VALUES = 24
"""Values of a tag beyond which it names samples, not strata."""

SWEEP_METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_dice_oracle")


def evaluate(
    calibration: Predictions,
    val: Predictions,
    test: Predictions,
    levels: Sequence[int],
    published: int,
    protocol: Protocol,
    synthetic: Predictions | None = None,
    *,
    require_threshold: bool = True,
) -> tuple[dict[str, Any], SampleResults]:
    """The metrics of a record as JSON values, and the sample results to compare it by.

    A metric that is undefined is None.

    calibration, val, test: predictions of one method at the same levels
    levels: the L levels of scores and maps, in their order
    published: the paper's own level, one of them
    synthetic: normal samples with and without synthetic anomalies, where the protocol chooses by
        them
    require_threshold: False leaves the threshold None where its rule lacks samples, and with it the
        metrics that need one

    Raises ValueError where `published` is not among the levels, ProtocolError where a rule of the
    protocol needs samples that there are none of.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.evaluate import evaluate
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> def predictions(labels, scores):
    ...     keys = [f"patient {i}" for i in range(len(labels))]
    ...     return Predictions(keys, keys, np.array(labels, bool), None, None, None,
    ...                        [{} for _ in labels], np.array(scores), None)
    >>> normal = predictions([0, 0], [[0.1, 0.2], [0.1, 0.2]])
    >>> split = predictions([0, 0, 1, 1], [[0.1, 0.4, 0.3, 0.8], [0.1, 0.2, 0.3, 0.8]])
    >>> record, results = evaluate(normal, split, split, [100, 250], 100, Protocol())
    >>> record["level"], record["metrics"]["image_auroc"]["value"]
    ({'chosen': 250, 'rule': 'val', 'published': 100, 'oracle': 250}, 1.0)
    >>> record["at_published"]["image_auroc"]  # 3 of 4 pairs of samples are in order
    0.75
    """
    levels = list(levels)
    if published not in levels:
        raise ValueError(f"the published level {published} is none of the levels given, {levels}")
    calibration, val, test, levels, synthetic = score_splits(
        protocol, calibration, val, test, levels, published, synthetic
    )
    splits = EvaluationSplits(
        build_ground_truth(calibration, protocol),
        build_ground_truth(val, protocol),
        build_ground_truth(test, protocol),
        require_threshold,
    )
    on_val = _metrics_per_level(splits.val, levels)
    on_test = _metrics_per_level(splits.test, levels)
    on_synthetic = []
    if synthetic is not None:
        on_synthetic = _metrics_per_level(build_ground_truth(synthetic, protocol), levels)
    rule, chosen = protocol.choose_level(on_val, on_test, levels, published, on_synthetic)
    if joins_levels(protocol.scorer) and rule != "oracle":
        rule = "all levels"
    oracle = best_level(on_test, protocol.selection_metric(on_val), levels)
    paper = levels.index(published)
    point = splits.operating_point(chosen)
    results = point.sample_results()
    calibrated = calibration_record(splits.calibration, splits.test, chosen)  # of maps at hand
    at_level = {chosen: dict(results.values)}
    for i in sorted({paper, oracle} - {chosen}):
        at_level[i] = splits.operating_point(i).metrics()
    intervals = confidence_intervals(results)
    record = {
        "level": {
            "chosen": int(levels[chosen]),
            "rule": rule,
            "published": int(published),
            "oracle": int(levels[oracle]),
        },
        "threshold": {"rule": protocol.threshold, "value": point.threshold},
        "metrics": {
            name: {"value": value, "low": low, "high": high}
            for name, value in results.values.items()
            for low, high in [intervals.get(name, (None, None))]
        },
        "at_published": at_level[paper],
        "at_oracle": at_level[oracle],
        "sweep": {
            str(level): {
                "val": _level_selection_metrics(on_val[i]),
                "test": {name: on_test[i][name] for name in SWEEP_METRICS},
            }
            | ({"pseudo": _level_selection_metrics(on_synthetic[i])} if on_synthetic else {})
            for i, level in enumerate(levels)
        },
        "strata": _stratified_metrics(point.level_predictions, test.tags),
        "metadata": subgroup_metrics(point),
        "lesions": point.lesion_metrics(),
        "pixel_error": point.level_predictions.pixel_metrics["error"],
        "reference": _reference_values(splits.test),
        "calibration": calibrated,
        "counts": {
            "test": len(test.label),
            "test_abnormal": int(np.sum(test.label)),
            "test_groups": len(set(test.groups)),
            "val": len(val.label),
            "calibration": len(calibration.label),
        },
    }
    return record, results


def _metrics_per_level(ground_truth: GroundTruth, levels: Sequence[int]) -> list[MetricValues]:
    return [ground_truth.metrics_at(i) for i in range(len(levels))]


def _level_selection_metrics(metrics: MetricValues) -> MetricValues:
    return {name: metrics[name] for name in ("image_auroc", "pixel_ap")}


@dataclass(frozen=True)
class EvaluationSplits:
    """The three splits that an operating point needs, with their ground truth.

    require_threshold: whether a rule of the protocol that lacks samples is an error; else there is
        no threshold then

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.evaluate import EvaluationSplits
    >>> from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> maps = np.arange(100, dtype=np.float32).reshape(1, 1, 100)  # a level, a sample, 100 pixels
    >>> normal = Predictions(["a"], ["a"], np.array([False]), None, None, None, [{}], None, maps)
    >>> truth = build_ground_truth(normal, Protocol(threshold="healthy@5%"))
    >>> EvaluationSplits(calibration=truth, val=truth, test=truth).operating_point(0).threshold
    94.0
    """

    calibration: GroundTruth
    val: GroundTruth
    test: GroundTruth
    require_threshold: bool = True

    def operating_point(self, index: int) -> OperatingPoint:
        """The test split at one level, and at the threshold that the protocol chooses for it."""
        predictions = self.test.at_level(index)
        if predictions.pixels is None:
            return OperatingPoint(predictions, index, None)
        try:
            threshold = self.threshold(index, predictions)
        except ProtocolError:
            if self.require_threshold:
                raise
            threshold = None
        return OperatingPoint(predictions, index, threshold)

    def threshold(self, index: int, test_predictions: LevelPredictions) -> float | None:
        """The threshold by the protocol's rule, at one level.

        None only for an oracle without test masks. Raises ProtocolError where the rule needs
        samples that there are none of.
        """
        protocol = self.test.protocol
        if protocol.fixed_threshold is not None:
            return protocol.fixed_threshold
        if protocol.threshold == "oracle":
            return test_predictions.pixel_metrics["threshold"]
        if protocol.healthy_percent is not None:
            healthy = self.calibration.at_level(index).pixels
            size = 0 if healthy is None else int(healthy.counts.sum())
            if healthy is None or not size:
                raise ProtocolError(
                    f"threshold '{protocol.threshold}' needs calibration samples, and there "
                    "are none; use val-dice or fixed:<number>"
                )
            rank = threshold_rank(protocol.healthy_percent, size)
            return float(healthy.order_statistics(np.array([rank]))[0])
        val = self.val.at_level(index)
        threshold = val.pixel_metrics["threshold"]
        if threshold is None or val.pixels is None:
            raise ProtocolError(
                f"threshold '{protocol.threshold}' needs validation samples with masks, and there "
                "are none; use healthy@5%"
            )
        if protocol.threshold == "val-volume-dice":
            return best_volume_dice(val.pixels, self.val.predictions.groups)[1]
        if protocol.threshold == "val-bisect10":
            return bisect_dice_threshold(val.pixels)
        return threshold


def _stratified_metrics(
    level_predictions: LevelPredictions, tags: Sequence[Mapping[str, str]]
) -> dict[str, dict[str, Any]]:
    """n, image_auroc and pixel_ap of the abnormal samples that share a tag, by "tag=value".

    Against all normal samples; None where one is undefined. Tags of more than MAX_TAG_VALUES values
    are left out.

    tags: (N,) of each sample
    """
    label = level_predictions.ground_truth.label
    abnormal: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(label).tolist():
        for name, value in tags[i].items():
            abnormal.setdefault((name, value), []).append(i)
    names = [name for name, _ in abnormal]
    strata = {}
    for (name, value), members in sorted(abnormal.items()):
        if names.count(name) > MAX_TAG_VALUES:
            continue
        selected = ~label
        selected[members] = True
        score = level_predictions.score[selected]
        strata[f"{name}={value}"] = {
            "n": len(members),
            "image_auroc": image_metrics(score, label[selected])["auroc"],
            "pixel_ap": _pixel_ap(level_predictions.pixels, selected),
        }
    return strata


def _pixel_ap(pixels: Pixels | None, selected: Array) -> float | None:
    if pixels is None:
        return None
    ranking = pixels.ranking(selected)
    return None if ranking is None else ranking.ap()


def _reference_values(test: GroundTruth) -> dict[str, float | None]:
    """What metrics are compared with: those of a method that knows nothing.

    prevalence, image_prevalence: the shares of abnormal pixels and samples, the AP by chance
    dice_floor: the Dice of calling every pixel abnormal

    None without masks or samples.
    """
    prevalence = test.prevalence
    return {
        "prevalence": prevalence,
        "dice_floor": None if prevalence is None else 2 * prevalence / (1 + prevalence),
        "image_prevalence": float(test.label.mean()) if test.label.size else None,
    }
