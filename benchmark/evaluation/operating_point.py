"""Metrics of the test split at one noise level and one threshold, with confidence intervals.

Letters: N samples, P pixels within the regions of interest, R lesions, B replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .ground_truth import LevelPredictions
from .metrics.aupimo import aupimo
from .metrics.boxes import RATES, BoxCounts, box_counts, pointing_game, recall_at_rate
from .metrics.lesions import (
    detected_lesions,
    froc,
    lesion_contrast,
    lesion_sample_indices,
    sensitivity_by_size,
    size_unit,
)
from .metrics.per_sample import PER_SAMPLE_METRICS, per_sample_metrics
from .metrics.per_series import per_series_metrics
from .metrics.per_volume import (
    VOLUME_METRICS,
    best_volume_dice,
    healthy_volume_rates,
    per_volume_metrics,
)
from .metrics.pixel_scores import PixelScores
from .metrics.ranking import Array, MetricValues, overlap_counts, pooled_overlap, ppv_at_sensitivity
from .sample_results import SampleResults
from .statistics.bootstrap import (
    Resamples,
    bootstrap_image_metrics,
    bootstrap_pixel_metrics,
    percentile_interval,
)
from .statistics.histogram_bootstrap import FIXED_POINT_UNIT

OPERATING_POINT_METRICS = (
    "pixel_dice",
    "pixel_iou",
    "healthy_fp",
    "lesion_sensitivity",
    "lesion_contrast",
)
RECONSTRUCTION_METRICS = ("healthy_psnr", "healthy_ssim")


@dataclass(frozen=True)
class OperatingPoint:
    """The test split at one noise level and threshold.

    level_index: of the level among those predicted
    threshold: None without a map, or where there is none to choose

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.operating_point import OperatingPoint
    >>> from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> maps = np.array([[[0.1, 0.2], [0.9, 0.6]]], np.float32)  # one level, two signals
    >>> mask = np.array([[0, 0], [1, 0]], bool)
    >>> split = Predictions([*"ab"], [*"ab"], np.array([False, True]), mask, None, None, [{}, {}],
    ...                     None, maps)
    >>> truth = build_ground_truth(split, Protocol())
    >>> point = OperatingPoint(truth.at_level(0), 0, 0.5)
    >>> metrics = point.metrics()  # two pixels are positive, one of them is in the mask
    >>> round(metrics["pixel_dice"], 3), metrics["pixel_iou"], metrics["healthy_fp"]
    (0.667, 0.5, 0.0)
    """

    level_predictions: LevelPredictions
    level_index: int
    threshold: float | None

    def metrics(self) -> MetricValues:
        """Every metric of a record; None where one is undefined, which counts as the worst.

        Those of `LevelPredictions.metrics`, and:
        pixel_dice, pixel_iou: at the threshold, pooled over all pixels; higher is better
        healthy_fp: the share of normal samples' pixels above the threshold; lower is better
        lesion_sensitivity: the share of all lesions that are detected at the threshold; higher is
            better
        lesion_contrast: the mean of `lesion_contrast` over abnormal samples; higher is better
        healthy_psnr, healthy_ssim: the mean over reconstructions of normal samples; higher is
            better for leaving the normal alone; None from a method that reconstructs nothing
        sample_pixel_auroc, sample_pixel_ap, sample_pixel_dice_otsu: the mean of
            `per_sample_metrics`; higher is better
        volume_ap, volume_dice, volume_sensitivity, volume_precision: the mean over groups
            (patients) of `per_volume_metrics`; higher is better
        volume_dice_oracle, pixel_iou_oracle: `best_volume_dice` and the best pooled IoU over all
            thresholds; bounds and no results
        healthy_volume_fp: the mean over groups (patients) without a lesion of the share of their
            pixels above the threshold; lower is better
        pixel_aupimo: the mean of `aupimo` over abnormal samples; higher is better
        image_ppv95: `ppv_at_sensitivity` at 95 %; higher is better
        pointing_game: where the truth is boxes, the mean of `pointing_game` over samples with any
        box_recall_025, box_recall_1: likewise `recall_at_rate` at the RATES; higher is better
        range_auc_roc, range_auc_pr, vus_roc, vus_pr, pa_f1_oracle, pa_f1_random: of signals alone,
            the mean over groups (recordings) of `per_series_metrics`; higher is better
        """
        truth, pixels = self.level_predictions.ground_truth, self.level_predictions.pixels
        metrics: MetricValues = dict.fromkeys(OPERATING_POINT_METRICS)
        overlaps = self._measured.overlaps
        if pixels is not None and overlaps is not None:
            overlap = pooled_overlap(overlaps)
            normal, _, false, _ = overlaps[~truth.label].sum(0).tolist()
            metrics["pixel_dice"], metrics["pixel_iou"] = overlap["dice"], overlap["iou"]
            metrics["healthy_fp"] = false / normal if normal else None
            metrics["lesion_sensitivity"] = _exact_mean(self._detected_lesions)
        metrics["lesion_contrast"] = _exact_mean(self._lesion_contrasts)
        for name, values in (self._per_sample | self._means_of_samples).items():
            metrics[name] = _exact_mean(values)
        metrics["volume_dice_oracle"] = metrics["pixel_iou_oracle"] = None
        if pixels is not None:
            groups = truth.predictions.groups
            metrics["volume_dice_oracle"] = best_volume_dice(pixels, groups)[0]
            metrics["pixel_iou_oracle"] = self.level_predictions.pixel_metrics["iou"]
        metrics["image_ppv95"] = ppv_at_sensitivity(self.level_predictions.score, truth.label)
        for name, values in self._reconstruction_quality.items():
            metrics[name] = _exact_mean(values[~truth.label])
        if self._box_counts is not None:
            for name, values in self._box_recalls(_total).items():
                metrics[name] = None if np.isnan(values[0]) else float(values[0])
        return self.level_predictions.metrics() | metrics

    @cached_property
    def _measured(self) -> _SampleMeasures:
        """What is measured in each sample by itself, in one pass over the maps."""
        truth = self.level_predictions.ground_truth
        undefined = np.full(len(truth.label), np.nan)
        if self.level_predictions.pixels is None:
            nothing = {name: undefined for name in PER_SAMPLE_METRICS}
            return _SampleMeasures(None, np.zeros(0, bool), undefined, nothing)
        overlaps, detected = [np.zeros((0, 4), np.int64)], [np.zeros(0, bool)]
        contrasts, per_sample = [np.zeros(0)], list[dict[str, Array]]()
        for block in self.level_predictions.detections(self.threshold):
            pixels = block.pixels
            if block.positive is not None:
                overlaps.append(overlap_counts(pixels, block.positive))
                detected.append(detected_lesions(pixels, block.positive))
            if block.mask is not None:
                mask = np.asarray(block.mask, bool)
                contrasts.append(lesion_contrast(pixels, mask, block.roi))
            per_sample.append(per_sample_metrics(pixels))
        return _SampleMeasures(
            None if self.threshold is None else np.concatenate(overlaps),
            np.concatenate(detected),
            np.concatenate(contrasts) if truth.predictions.mask is not None else undefined,
            {
                name: np.concatenate([np.zeros(0), *(each[name] for each in per_sample)])
                for name in PER_SAMPLE_METRICS
            },
        )

    def _maps(self) -> Iterator[Array]:
        """The post-processed map of each sample, (*S); minus infinity outside of its region of
        interest."""
        truth, pixels = self.level_predictions.ground_truth, self.level_predictions.pixels
        assert truth.roi is not None and isinstance(pixels, PixelScores)
        ends = np.cumsum(pixels.counts).tolist()
        for roi, count, end in zip(truth.roi, pixels.counts.tolist(), ends, strict=True):
            sample = np.full(roi.shape, -np.inf, np.float32)
            sample[roi] = pixels.score[end - count : end]
            yield sample

    @cached_property
    def _box_counts(self) -> BoxCounts | None:
        truth = self.level_predictions.ground_truth
        boxes = truth.predictions.boxes
        if boxes is None or self.level_predictions.pixels is None or truth.roi is None:
            return None
        return box_counts(self._maps(), truth.roi, boxes, truth.label)

    def _box_recalls(self, total: Callable[[Array], Array]) -> dict[str, Array]:
        """The recall of boxes at each rate, (B,).

        total: sums values of samples (N, K) to (B, K)
        """
        counts = self._box_counts
        if counts is None:
            return {}
        detected, false = total(counts.detected), total(counts.false)
        boxes, normal = total(np.stack([counts.boxes, counts.normal], 1)).T
        return {
            name: recall_at_rate(detected, false, boxes, normal, rate)
            for name, rate in RATES.items()
        }

    @property
    def overlaps(self) -> Array | None:
        """Of each sample the pixels: all, abnormal, positive, both, (N, 4); None without any."""
        return self._measured.overlaps

    @property
    def _detected_lesions(self) -> Array:
        """Which lesions are detected, (R,) bool."""
        return self._measured.detected

    @property
    def _lesion_contrasts(self) -> Array:
        """Of each sample, (N,), NaN where there is none."""
        return self._measured.contrasts

    @property
    def _per_sample(self) -> dict[str, Array]:
        return self._measured.per_sample

    @cached_property
    def _means_of_samples(self) -> dict[str, Array]:
        """Metrics that are means over volumes or samples: a value at each that counts, else NaN."""
        truth, pixels = self.level_predictions.ground_truth, self.level_predictions.pixels
        undefined = np.full(len(truth.label), np.nan)
        names = (*VOLUME_METRICS, "healthy_volume_fp", "pixel_aupimo")
        if pixels is None:
            return dict.fromkeys(names, undefined)
        groups, rates, overlaps = truth.predictions.groups, undefined, self._measured.overlaps
        if overlaps is not None:
            rates = healthy_volume_rates(groups, overlaps)
        others: dict[str, Array] = {}
        if truth.roi is not None and truth.roi.ndim == 2:
            others = per_series_metrics(pixels, groups)
        if truth.predictions.boxes is not None and truth.roi is not None:
            samples = zip(self._maps(), truth.roi, truth.predictions.boxes, strict=True)
            others["pointing_game"] = np.array([pointing_game(*sample) for sample in samples])
        return {
            **per_volume_metrics(pixels, groups, overlaps),
            "healthy_volume_fp": rates,
            "pixel_aupimo": aupimo(pixels, truth.label),
            **others,
        }

    @property
    def _reconstruction_quality(self) -> dict[str, Array]:
        """PSNR and SSIM of each sample, (N,) each, NaN where there is none."""
        split = self.level_predictions.ground_truth.predictions
        undefined = np.full(len(split.label), np.nan)
        return {
            name: undefined if values is None else np.asarray(values[self.level_index])
            for name, values in zip(RECONSTRUCTION_METRICS, (split.psnr, split.ssim), strict=True)
        }

    def lesion_metrics(self) -> dict[str, Any] | None:
        """Lesion-wise results; None without masks or a threshold.

        n: lesions      unit: of sizes      bins: `sensitivity_by_size`      froc: `froc`
        false_size: the mean size of what is positive in a normal sample
        """
        truth, pixels = self.level_predictions.ground_truth, self.level_predictions.pixels
        overlaps = self._measured.overlaps
        if pixels is None or overlaps is None or not self._detected_lesions.size:
            return None
        unit, pixel_size = size_unit(truth.roi.ndim - 1, truth.predictions.spacing)
        false = overlaps[~truth.label, 2]
        return {
            "n": len(self._detected_lesions),
            "unit": unit,
            "bins": sensitivity_by_size(pixels, self._detected_lesions, pixel_size),
            "froc": froc(pixels, truth.label, truth.roi),
            "false_size": float(false.mean()) * pixel_size if false.size else None,
        }

    def bootstrap(self) -> dict[str, Array]:
        """Every metric on every resample, (B,) each; (0,) where groups are too few."""
        predictions = self.level_predictions
        truth, pixels = predictions.ground_truth, predictions.pixels
        label = truth.label
        resamples = Resamples.from_groups(truth.predictions.groups)
        by_group = replace(resamples, group_index=np.arange(len(resamples.groups)))
        image = bootstrap_image_metrics(predictions.score, label, resamples)
        replicates = {f"image_{name}": values for name, values in image.items()}
        group = bootstrap_image_metrics(*predictions.group_scores(), by_group)
        replicates["group_auroc"] = group["auroc"]
        if pixels is not None:
            pixel = bootstrap_pixel_metrics(pixels, resamples, self._measured.overlaps, label)
            healthy_fp = pixel.pop("healthy_fp", None)
            replicates |= {f"pixel_{name}": values for name, values in pixel.items()}
            replicates |= {} if healthy_fp is None else {"healthy_fp": healthy_fp}
            if self._detected_lesions.size:
                samples = lesion_sample_indices(pixels)
                counts = _lesion_counts(samples, self._detected_lesions, len(label))
                replicates["lesion_sensitivity"] = _ratio(*resamples.sums(counts).T)
        means = (
            {"lesion_contrast": self._lesion_contrasts} | self._per_sample | self._means_of_samples
        )
        for name, values in self._reconstruction_quality.items():
            means[name] = np.where(label, np.nan, values)
        for name, values in means.items():
            defined = ~np.isnan(values)
            fixed = np.round(np.where(defined, values, 0.0) / FIXED_POINT_UNIT) * FIXED_POINT_UNIT
            replicates[name] = _ratio(*resamples.sums(np.stack([fixed, defined], 1)).T)
        if self._box_counts is not None:
            replicates |= self._box_recalls(resamples.sums)
        return replicates

    def sample_results(self) -> SampleResults:
        """What is stored for comparisons: the samples one by one, and the bootstrap replicates."""
        predictions = self.level_predictions
        split = predictions.ground_truth.predictions
        metrics = self.metrics()
        return SampleResults(
            keys=split.keys,
            groups=split.groups,
            label=predictions.ground_truth.label,
            score=predictions.score,
            counts=self._measured.overlaps,
            values=metrics,
            replicates={
                name: values
                for name, values in self.bootstrap().items()
                if metrics.get(name) is not None and values.size
            },
        )


@dataclass(frozen=True)
class _SampleMeasures:
    """overlaps: (N, 4), of `overlap_counts`; None without a threshold
    detected: (R,) bool, which lesions are detected
    contrasts: (N,) of `lesion_contrast`; NaN where there is none
    per_sample: (N,) each, of `per_sample_metrics`
    """

    overlaps: Array | None
    detected: Array
    contrasts: Array
    per_sample: dict[str, Array]


def confidence_intervals(results: SampleResults) -> dict[str, tuple[float, float]]:
    """95 % confidence intervals of the metrics that have one, by name.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.operating_point import confidence_intervals
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults
    >>> label, replicates = np.arange(40) % 2 == 1, np.linspace(0.5, 0.9, 1001)
    >>> keys = [f"patient {i}" for i in range(40)]
    >>> results = SampleResults(
    ...     keys, keys, label, np.zeros(40), None, {"image_ap": 0.7}, {"image_ap": replicates})
    >>> low, high = confidence_intervals(results)["image_ap"]
    >>> 0.5 <= low < 0.52 < 0.88 < high <= 0.9
    True
    """
    intervals = {
        name: percentile_interval(values, results.effective_clusters(name))
        for name, values in results.replicates.items()
    }
    return {name: interval for name, interval in intervals.items() if interval is not None}


def _total(values: Array) -> Array:
    return values.sum(0, keepdims=True)


def _exact_mean(values: Array) -> float | None:
    """The mean of the values that are not NaN, the same in any order; None of none."""
    defined = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return math.fsum(defined.tolist()) / defined.size if defined.size else None


def _ratio(numerator: Array, denominator: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _lesion_counts(sample: Array, detected: Array, samples: int) -> Array:
    """Detected lesions and all lesions of each sample, (N, 2)."""
    counts = [
        np.bincount(sample, detected, minlength=samples),
        np.bincount(sample, minlength=samples),
    ]
    return np.stack(counts, 1)
