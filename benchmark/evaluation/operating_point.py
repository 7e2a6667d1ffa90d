"""Test at one level and threshold: the figures, and how sure they are.

Letters: N samples, P places within the regions of interest, B draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .metrics.lesions import (
    detected_lesions,
    froc,
    lesion_contrast,
    lesion_sample_indices,
    sensitivity_by_size,
    size_unit,
)
from .metrics.per_sample import PER_SAMPLE_METRICS, per_sample_metrics
from .metrics.ranking import Array, MetricValues, overlap_metrics
from .predictions import LevelPredictions
from .sample_results import SampleResults
from .statistics.bootstrap import (
    Resamples,
    bootstrap_image_metrics,
    bootstrap_pixel_metrics,
    overlap_counts,
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
    """Test at one level and threshold. level_index: which of the levels; positive: (P,) bool"""

    level_predictions: LevelPredictions
    level_index: int
    threshold: float | None
    positive: Array | None

    def metrics(self) -> MetricValues:
        """Every metric of a record; None where it is undefined, which a board counts as the worst.

        pixel_dice, pixel_iou: at the threshold, pooled over all places; higher is better
        healthy_fp: the share of normal samples' places above the threshold; lower is better
        lesion_sensitivity: the share of all lesions that are found at the threshold
        lesion_contrast: the mean over abnormal samples of `contrasts`
        healthy_psnr, healthy_ssim: of reconstructions of normal samples, their mean, higher is
            better for leaving the normal alone; None from a method that reconstructs nothing
        sample_pixel_auroc, sample_pixel_ap, sample_pixel_dice_otsu: the mean of `per_sample`
        """
        seen, places = self.level_predictions.ground_truth, self.level_predictions.pixels
        fixed: MetricValues = dict.fromkeys(OPERATING_POINT_METRICS)
        if places is not None and self.positive is not None:
            at = overlap_metrics(self.positive, places.truth)
            alarms = self.positive[np.repeat(~seen.label, places.counts)]
            fixed["pixel_dice"], fixed["pixel_iou"] = at["dice"], at["iou"]
            fixed["healthy_fp"] = float(alarms.mean()) if alarms.size else None
            fixed["lesion_sensitivity"] = _exact_mean(self._detected_lesions)
        fixed["lesion_contrast"] = _exact_mean(self._lesion_contrast)
        normal = [_exact_mean(values[~seen.label]) for values in self._reconstruction_quality]
        each = {name: _exact_mean(values) for name, values in self._per_sample.items()}
        return (
            self.level_predictions.metrics()
            | fixed
            | each
            | dict(zip(RECONSTRUCTION_METRICS, normal, strict=True))
        )

    @cached_property
    def _detected_lesions(self) -> Array:
        """Which lesions are found, (R,) bool."""
        places = self.level_predictions.pixels
        if places is None or self.positive is None:
            return np.zeros(0, bool)
        return detected_lesions(places, self.positive)

    @cached_property
    def _lesion_contrast(self) -> Array:
        """Of each sample, (N,), NaN where there is none."""
        ground, places = self.level_predictions.ground_truth, self.level_predictions.pixels
        if places is None or ground.roi is None or ground.predictions.mask is None:
            return np.full(len(ground.label), np.nan)
        return lesion_contrast(places, np.asarray(ground.predictions.mask, bool), ground.roi)

    @cached_property
    def _per_sample(self) -> dict[str, Array]:
        places = self.level_predictions.pixels
        nothing = np.full(len(self.level_predictions.ground_truth.label), np.nan)
        return (
            dict.fromkeys(PER_SAMPLE_METRICS, nothing)
            if places is None
            else per_sample_metrics(places)
        )

    @property
    def _reconstruction_quality(self) -> list[Array]:
        """psnr and ssim of each sample, (N,) each, NaN where there is none."""
        seen = self.level_predictions.ground_truth.predictions
        nothing = np.full(len(seen.label), np.nan)
        return [
            nothing if a is None else np.asarray(a[self.level_index])
            for a in (seen.psnr, seen.ssim)
        ]

    def lesion_metrics(self) -> dict[str, Any] | None:
        """Lesion by lesion: n, unit of sizes, bins of size, points of a FROC curve, and the mean
        size of what is found in a normal sample; None without masks or a threshold."""
        ground, places = self.level_predictions.ground_truth, self.level_predictions.pixels
        if (
            places is None
            or self.positive is None
            or ground.roi is None
            or not places.component.size
        ):
            return None
        name, place = size_unit(ground.roi.ndim - 1, ground.predictions.spacing)
        false = overlap_counts(places, self.positive)[~ground.label, 2]
        return {
            "n": len(self._detected_lesions),
            "unit": name,
            "bins": sensitivity_by_size(places, self._detected_lesions, place),
            "froc": froc(places, ground.label, ground.roi),
            "false_size": float(false.mean()) * place if false.size else None,
        }

    def bootstrap(self) -> dict[str, Array]:
        """Every metric on every resample, (B,) each; of too few groups (0,)."""
        look, label = self.level_predictions, self.level_predictions.ground_truth.label
        resamples = Resamples.from_groups(look.ground_truth.predictions.groups)
        patients = replace(resamples, group_index=np.arange(len(resamples.groups)))
        draws = {
            f"image_{name}": values
            for name, values in bootstrap_image_metrics(look.score, label, resamples).items()
        }
        draws["group_auroc"] = bootstrap_image_metrics(*look.group_scores(), patients)["auroc"]
        means = {"lesion_contrast": self._lesion_contrast} | self._per_sample
        means |= dict(
            zip(
                RECONSTRUCTION_METRICS,
                (np.where(label, np.nan, q) for q in self._reconstruction_quality),
                strict=True,
            )
        )
        if look.pixels is not None:
            pixel = bootstrap_pixel_metrics(look.pixels, resamples, self.positive, label)
            rate = pixel.pop("healthy_fp", None)
            draws |= {f"pixel_{name}": values for name, values in pixel.items()}
            draws |= {} if rate is None else {"healthy_fp": rate}
            if self._detected_lesions.size:
                share = _lesion_counts(
                    lesion_sample_indices(look.pixels), self._detected_lesions, len(label)
                )
                draws["lesion_sensitivity"] = _ratio(*resamples.sums(share).T)
        for name, values in means.items():
            known = ~np.isnan(values)
            whole = np.round(np.where(known, values, 0.0) / FIXED_POINT_UNIT) * FIXED_POINT_UNIT
            both = np.stack([whole, known], 1)
            draws[name] = _ratio(*resamples.sums(both).T)
        return draws

    def sample_results(self) -> SampleResults:
        """What is kept for comparing, sample by sample and draw by draw."""
        seen, places = (
            self.level_predictions.ground_truth.predictions,
            self.level_predictions.pixels,
        )
        counts = None
        if places is not None and self.positive is not None:
            counts = overlap_counts(places, self.positive)
        figures = self.metrics()
        return SampleResults(
            keys=seen.keys,
            groups=seen.groups,
            label=self.level_predictions.ground_truth.label,
            score=self.level_predictions.score,
            counts=counts,
            values=figures,
            replicates={
                n: d for n, d in self.bootstrap().items() if figures.get(n) is not None and d.size
            },
        )


def confidence_intervals(results: SampleResults) -> dict[str, tuple[float, float]]:
    """95 % intervals of the metrics that have one."""
    found = {
        name: percentile_interval(drawn, results.effective_clusters(name))
        for name, drawn in results.replicates.items()
    }
    return {name: bound for name, bound in found.items() if bound is not None}


def _exact_mean(values: Array) -> float | None:
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return math.fsum(known.tolist()) / known.size if known.size else None  # in any order the same


def _ratio(numerator: Array, denominator: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _lesion_counts(sample: Array, detected: Array, samples: int) -> Array:
    """(N, 2) of each sample: lesions found, and lesions."""
    both = [
        np.bincount(sample, detected, minlength=samples),
        np.bincount(sample, minlength=samples),
    ]
    return np.stack(both, 1)
