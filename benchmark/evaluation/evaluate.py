"""From maps and scores to a record's figures: level and threshold chosen on validation, test looked
at once. What does look at test to choose is called `oracle`: a bound on choosing better, no result.

Letters: L levels, N samples, S one to three spatial axes, P places within the regions of interest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .metrics.ranking import MetricValues, PixelScores, Ranking, image_metrics
from .operating_point import OperatingPoint, confidence_intervals
from .predictions import GroundTruth, LevelPredictions, Predictions
from .protocol import (
    Protocol,
    ProtocolError,
    best_level,
    bisect_dice_threshold,
    threshold_exceeded_by,
)
from .sample_results import SampleResults

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
) -> tuple[dict[str, Any], SampleResults]:
    """The judge's part of a record, JSON throughout, and the rows to compare it by.

    A figure that is undefined is None. levels: the L levels of scores and maps, in their order
    published: the paper's own of them      synthetic: normal samples with and without made-up
    lesions,
    where the protocol chooses by them
    """
    levels = list(levels)
    if published not in levels:
        raise ValueError(f"the published level {published} is none of the levels seen, {levels}")
    bench = EvaluationSplits(
        GroundTruth(calibration, protocol), GroundTruth(val, protocol), GroundTruth(test, protocol)
    )
    on_val = _metrics_per_level(bench.val, levels)
    on_test = _metrics_per_level(bench.test, levels)
    on_pseudo = (
        [] if synthetic is None else _metrics_per_level(GroundTruth(synthetic, protocol), levels)
    )
    rule, chosen = protocol.choose_level(on_val, on_test, levels, published, on_pseudo)
    oracle = best_level(on_test, protocol.selection_metric(on_val), levels)
    paper = levels.index(published)
    verdicts = {i: bench.operating_point(i) for i in sorted({chosen, paper, oracle})}
    verdict = verdicts[chosen]
    rows = verdict.sample_results()
    bound = confidence_intervals(rows)
    record = {
        "level": {
            "chosen": int(levels[chosen]),
            "rule": rule,
            "published": int(published),
            "oracle": int(levels[oracle]),
        },
        "threshold": {"rule": protocol.threshold, "value": verdict.threshold},
        "metrics": {
            name: {"value": value, "low": low, "high": high}
            for name, value in rows.values.items()
            for low, high in [bound.get(name, (None, None))]
        },
        "at_published": verdicts[paper].metrics(),
        "at_oracle": verdicts[oracle].metrics(),
        "sweep": {
            str(level): {
                "val": _level_selection_metrics(on_val[i]),
                "test": {name: on_test[i][name] for name in SWEEP_METRICS},
            }
            | ({"pseudo": _level_selection_metrics(on_pseudo[i])} if on_pseudo else {})
            for i, level in enumerate(levels)
        },
        "strata": stratified_metrics(verdict.level_predictions, test.tags),
        "lesions": verdict.lesion_metrics(),
        "pixel_error": verdict.level_predictions.pixel_metrics["error"],
        "reference": reference_values(bench.test),
        "counts": {
            "test": len(test.label),
            "test_abnormal": int(np.sum(test.label)),
            "test_groups": len(set(test.groups)),
            "val": len(val.label),
            "held_out": len(calibration.label),
        },
    }
    return record, rows


def _metrics_per_level(ground_truth: GroundTruth, levels: Sequence[int]) -> list[MetricValues]:
    return [ground_truth.at_level(i).metrics() for i in range(len(levels))]


def _level_selection_metrics(metrics: MetricValues) -> MetricValues:
    return {name: metrics[name] for name in ("image_auroc", "pixel_ap")}


@dataclass(frozen=True)
class EvaluationSplits:
    """The three splits that a verdict needs."""

    calibration: GroundTruth
    val: GroundTruth
    test: GroundTruth

    def operating_point(self, index: int) -> OperatingPoint:
        look = self.test.at_level(index)
        if look.pixels is None:
            return OperatingPoint(look, index, None, None)
        threshold = self.threshold(index, look)
        found = None if threshold is None else self.test.binarize(look.pixels, threshold)
        return OperatingPoint(look, index, threshold, found)

    def threshold(self, index: int, test_predictions: LevelPredictions) -> float | None:
        """By the protocol's rule, at one level; None only for an oracle without test masks."""
        protocol = self.test.protocol
        if protocol.fixed_threshold is not None:
            return protocol.fixed_threshold
        if protocol.threshold == "oracle":
            return test_predictions.pixel_metrics["threshold"]
        if protocol.healthy_percent is not None:
            healthy = self.calibration.at_level(index).pixels
            if healthy is None or not healthy.score.size:
                raise ProtocolError(
                    f"threshold '{protocol.threshold}' needs held-out normal samples, and there "
                    "are none; use val-dice or fixed:<number>"
                )
            return threshold_exceeded_by(protocol.healthy_percent, healthy.score)
        val = self.val.at_level(index)
        threshold = val.pixel_metrics["threshold"]
        if threshold is None or val.pixels is None:
            raise ProtocolError(
                f"threshold '{protocol.threshold}' needs validation samples with masks, and there "
                "are none; use healthy@5%"
            )
        if protocol.threshold == "val-bisect10":
            return bisect_dice_threshold(val.pixels.score, val.pixels.truth)
        return threshold


def stratified_metrics(
    level_predictions: LevelPredictions, tags: Sequence[Mapping[str, str]]
) -> dict[str, dict[str, Any]]:
    """n, image_auroc and pixel_ap of abnormal samples that share a tag, against all normal ones."""
    label = level_predictions.ground_truth.label
    abnormal: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(label).tolist():
        for name, value in tags[i].items():
            abnormal.setdefault((name, value), []).append(i)
    names = [name for name, _ in abnormal]
    table = {}
    for (name, value), rows in sorted(abnormal.items()):
        if names.count(name) > MAX_TAG_VALUES:
            continue
        keep = ~label
        keep[rows] = True
        table[f"{name}={value}"] = {
            "n": len(rows),
            "image_auroc": image_metrics(level_predictions.score[keep], label[keep])["auroc"],
            "pixel_ap": _pixel_ap(level_predictions.pixels, keep),
        }
    return table


def _pixel_ap(pixels: PixelScores | None, selected: Any) -> float | None:
    if pixels is None:
        return None
    rows = np.repeat(selected, pixels.counts)
    ranking = Ranking.from_scores(pixels.score[rows], pixels.truth[rows])
    return None if ranking is None else ranking.ap()


def reference_values(test: GroundTruth) -> dict[str, float | None]:
    """What a figure is read against: the shares of abnormal places and samples, and the Dice of
    calling every place abnormal."""
    place = None
    if test.predictions.mask is not None and test.pixels is not None and test.pixels.truth.size:
        place = float(test.pixels.truth.mean())
    return {
        "prevalence": place,
        "dice_floor": None if place is None else 2 * place / (1 + place),
        "image_prevalence": float(test.label.mean()) if test.label.size else None,
    }
