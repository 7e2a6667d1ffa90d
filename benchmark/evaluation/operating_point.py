"""Test at one level and threshold: the figures, and how sure they are.

Letters: N samples, P places within the regions of interest, B draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .metrics.lesions import by_size, contrasts, found_lesions, froc, lesion_samples, unit
from .metrics.per_sample import EACH, per_sample
from .metrics.ranking import Array, Figures, overlap
from .predictions import Look
from .sample_results import Rows
from .statistics.bootstrap import Resamples, image_draws, interval, overlaps, pixel_draws
from .statistics.histogram_bootstrap import WHOLE

FIXED = ("pixel_dice", "pixel_iou", "healthy_fp", "lesion_sensitivity", "lesion_contrast")
QUALITY = ("healthy_psnr", "healthy_ssim")


@dataclass(frozen=True)
class Verdict:
    """Test at one level and threshold. level: which of the levels; found: (P,) bool"""

    look: Look
    level: int
    threshold: float | None
    found: Array | None

    def figures(self) -> Figures:
        """Every metric of a record; None where it is undefined, which a board counts as the worst.

        pixel_dice, pixel_iou: at the threshold, pooled over all places; higher is better
        healthy_fp: the share of normal samples' places above the threshold; lower is better
        lesion_sensitivity: the share of all lesions that are found at the threshold
        lesion_contrast: the mean over abnormal samples of `contrasts`
        healthy_psnr, healthy_ssim: of reconstructions of normal samples, their mean, higher is
            better for leaving the normal alone; None from a method that reconstructs nothing
        sample_pixel_auroc, sample_pixel_ap, sample_pixel_dice_otsu: the mean of `per_sample`
        """
        seen, places = self.look.ground, self.look.places
        fixed: Figures = dict.fromkeys(FIXED)
        if places is not None and self.found is not None:
            at = overlap(self.found, places.truth)
            alarms = self.found[np.repeat(~seen.label, places.counts)]
            fixed["pixel_dice"], fixed["pixel_iou"] = at["dice"], at["iou"]
            fixed["healthy_fp"] = float(alarms.mean()) if alarms.size else None
            fixed["lesion_sensitivity"] = _mean(self._hit)
        fixed["lesion_contrast"] = _mean(self._contrast)
        normal = [_mean(values[~seen.label]) for values in self._quality]
        each = {name: _mean(values) for name, values in self._each.items()}
        return self.look.figures() | fixed | each | dict(zip(QUALITY, normal, strict=True))

    @cached_property
    def _hit(self) -> Array:
        """Which lesions are found, (R,) bool."""
        places = self.look.places
        if places is None or self.found is None:
            return np.zeros(0, bool)
        return found_lesions(places, self.found)

    @cached_property
    def _contrast(self) -> Array:
        """Of each sample, (N,), NaN where there is none."""
        ground, places = self.look.ground, self.look.places
        if places is None or ground.roi is None or ground.seen.mask is None:
            return np.full(len(ground.label), np.nan)
        return contrasts(places, np.asarray(ground.seen.mask, bool), ground.roi)

    @cached_property
    def _each(self) -> dict[str, Array]:
        places = self.look.places
        nothing = np.full(len(self.look.ground.label), np.nan)
        return dict.fromkeys(EACH, nothing) if places is None else per_sample(places)

    @property
    def _quality(self) -> list[Array]:
        """psnr and ssim of each sample, (N,) each, NaN where there is none."""
        seen = self.look.ground.seen
        nothing = np.full(len(seen.label), np.nan)
        return [nothing if a is None else np.asarray(a[self.level]) for a in (seen.psnr, seen.ssim)]

    def lesions(self) -> dict[str, Any] | None:
        """Lesion by lesion: n, unit of sizes, bins of size, points of a FROC curve, and the mean
        size of what is found in a normal sample; None without masks or a threshold."""
        ground, places = self.look.ground, self.look.places
        if places is None or self.found is None or ground.roi is None or not places.region.size:
            return None
        name, place = unit(ground.roi.ndim - 1, ground.seen.spacing)
        false = overlaps(places, self.found)[~ground.label, 2]
        return {
            "n": len(self._hit),
            "unit": name,
            "bins": by_size(places, self._hit, place),
            "froc": froc(places, ground.label, ground.roi),
            "false_size": float(false.mean()) * place if false.size else None,
        }

    def draws(self) -> dict[str, Array]:
        """Every metric on every resample, (B,) each; of too few groups (0,)."""
        look, label = self.look, self.look.ground.label
        resamples = Resamples.of(look.ground.seen.groups)
        patients = replace(resamples, member=np.arange(len(resamples.groups)))
        draws = {
            f"image_{name}": values
            for name, values in image_draws(look.score, label, resamples).items()
        }
        draws["group_auroc"] = image_draws(*look.grouped(), patients)["auroc"]
        means = {"lesion_contrast": self._contrast} | self._each
        means |= dict(
            zip(QUALITY, (np.where(label, np.nan, q) for q in self._quality), strict=True)
        )
        if look.places is not None:
            pixel = pixel_draws(look.places, resamples, self.found, label)
            rate = pixel.pop("healthy_fp", None)
            draws |= {f"pixel_{name}": values for name, values in pixel.items()}
            draws |= {} if rate is None else {"healthy_fp": rate}
            if self._hit.size:
                share = _summed(lesion_samples(look.places), self._hit, len(label))
                draws["lesion_sensitivity"] = _ratio(*resamples.sums(share).T)
        for name, values in means.items():
            known = ~np.isnan(values)
            whole = np.round(np.where(known, values, 0.0) / WHOLE) * WHOLE
            both = np.stack([whole, known], 1)
            draws[name] = _ratio(*resamples.sums(both).T)
        return draws

    def rows(self) -> Rows:
        """What is kept for comparing, sample by sample and draw by draw."""
        seen, places = self.look.ground.seen, self.look.places
        counts = None
        if places is not None and self.found is not None:
            counts = overlaps(places, self.found)
        figures = self.figures()
        return Rows(
            keys=seen.keys,
            groups=seen.groups,
            label=self.look.ground.label,
            score=self.look.score,
            counts=counts,
            values=figures,
            draws={n: d for n, d in self.draws().items() if figures.get(n) is not None and d.size},
        )


def bounds(rows: Rows) -> dict[str, tuple[float, float]]:
    """95 % intervals of the metrics that have one."""
    found = {name: interval(drawn, rows.rare(name)) for name, drawn in rows.draws.items()}
    return {name: bound for name, bound in found.items() if bound is not None}


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return math.fsum(known.tolist()) / known.size if known.size else None  # in any order the same


def _ratio(top: Array, bottom: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _summed(sample: Array, hit: Array, samples: int) -> Array:
    """(N, 2) of each sample: lesions found, and lesions."""
    both = [np.bincount(sample, hit, minlength=samples), np.bincount(sample, minlength=samples)]
    return np.stack(both, 1)
