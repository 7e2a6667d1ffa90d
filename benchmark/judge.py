"""From maps and scores to a record's figures: level and threshold chosen on validation, test looked
at once. What does look at test to choose is called `oracle`: a bound on choosing better, no result.

Letters: L levels, N samples, S one to three spatial axes, P places within the regions of interest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .metrics import (
    Array,
    Figures,
    Places,
    Ranking,
    image_metrics,
    overlap,
    place_metrics,
    region_share,
)
from .protocol import Protocol, ProtocolError, best, exceeded_by
from .stats import Resamples, image_draws, interval, pixel_draws

BLOCK = 2**22
"""Values of a map read and post-processed at a time."""

MOST = 24
"""Values of a tag beyond which it names samples, not strata."""

SWEEP = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_dice_oracle")


@dataclass(frozen=True)
class Seen:
    """A split as one method saw it, and the truth about it.

    keys, groups, tags: one per sample           label: (N,) bool
    mask, roi: (N, *S) bool or None              spacing: mm per step, or None
    score: (L, N) or None                        map: (L, N, *S) float32 or None; may be on disk,
                                                 for only [l, i:j] is ever asked of it
    """

    keys: list[str]
    groups: list[str]
    label: Array
    mask: Array | None
    roi: Array | None
    spacing: tuple[float, ...] | None
    tags: list[dict[str, str]]
    score: Array | None
    map: Any


def judge(
    held_out: Seen,
    val: Seen,
    test: Seen,
    levels: Sequence[int],
    published: int,
    protocol: Protocol,
) -> dict[str, Any]:
    """The judge's part of a record, JSON throughout; a figure that is undefined is None.

    levels: the L levels of scores and maps, in their order     published: the paper's own of them
    """
    levels = list(levels)
    if published not in levels:
        raise ValueError(f"the published level {published} is none of the levels seen, {levels}")
    bench = Bench(Ground(held_out, protocol), Ground(val, protocol), Ground(test, protocol))
    on_val = [bench.val.look(i).figures() for i in range(len(levels))]
    on_test = [bench.test.look(i).figures() for i in range(len(levels))]
    rule, chosen = protocol.choose(on_val, on_test, levels, published)
    oracle = best(on_test, protocol.by(on_val), levels)
    paper = levels.index(published)
    verdicts = {i: bench.verdict(i) for i in sorted({chosen, paper, oracle})}
    verdict = verdicts[chosen]
    bounds = verdict.bounds()
    return {
        "level": {
            "chosen": int(levels[chosen]),
            "rule": rule,
            "published": int(published),
            "oracle": int(levels[oracle]),
        },
        "threshold": {"rule": protocol.threshold, "value": verdict.threshold},
        "metrics": {
            name: {"value": value, "low": low, "high": high}
            for name, value in verdict.figures().items()
            for low, high in [bounds.get(name, (None, None))]
        },
        "at_published": verdicts[paper].figures(),
        "at_oracle": verdicts[oracle].figures(),
        "sweep": {
            str(level): {
                "val": {name: on_val[i][name] for name in ("image_auroc", "pixel_ap")},
                "test": {name: on_test[i][name] for name in SWEEP},
            }
            for i, level in enumerate(levels)
        },
        "strata": strata(verdict.look, test.tags),
        "reference": reference(bench.test),
        "counts": {
            "test": len(test.label),
            "test_abnormal": int(np.sum(test.label)),
            "test_groups": len(set(test.groups)),
            "val": len(val.label),
            "held_out": len(held_out.label),
        },
    }


class Ground:
    """A split's places: where they are and what is true there, the same at every level."""

    def __init__(self, seen: Seen, protocol: Protocol) -> None:
        self.seen, self.protocol = seen, protocol
        self.label = np.asarray(seen.label, bool)
        self.roi = self._regions()
        self.places = None if self.roi is None else self._places(self.roi)

    def _regions(self) -> Array | None:
        seen = self.seen
        known = next((a for a in (seen.roi, seen.mask) if a is not None), None)
        if known is None and seen.map is None:
            return None
        shape = seen.map.shape[1:] if known is None else known.shape
        if seen.roi is None or not self.protocol.roi:
            return np.ones(shape, bool)
        return self.protocol.within(np.asarray(seen.roi, bool))

    def _places(self, roi: Array) -> Places:
        counts = roi.reshape(len(roi), math.prod(roi.shape[1:])).sum(1)
        truth, share = np.zeros(int(counts.sum()), bool), np.zeros(0)
        if self.seen.mask is not None:
            mask = np.asarray(self.seen.mask, bool)
            truth = mask[roi]
            share = np.concatenate([np.zeros(0), *map(region_share, mask & roi)])
        return Places(np.zeros(truth.size, np.float32), truth, counts, share)

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """(first sample, past the last, first place, past the last) of blocks of samples."""
        assert self.roi is not None and self.places is not None
        ends = np.append(0, np.cumsum(self.places.counts))
        step = max(1, BLOCK // max(1, math.prod(self.roi.shape[1:])))
        for i in range(0, len(self.roi), step):
            j = min(i + step, len(self.roi))
            yield i, j, int(ends[i]), int(ends[j])

    def look(self, index: int) -> Look:
        """The split at one level, post-processed."""
        seen, protocol = self.seen, self.protocol
        if seen.map is None or self.places is None or self.roi is None:
            if seen.score is None and len(self.label):
                raise ValueError("a method gave neither a score nor a map")
            score = np.zeros(0) if seen.score is None else np.asarray(seen.score[index])
            return Look(self, score.astype(np.float64), None)
        values = np.empty(self.places.truth.size, np.float32)
        for i, j, first, last in self.blocks():
            maps = np.asarray(seen.map[index, i:j], np.float32)
            values[first:last] = protocol.smooth(maps)[self.roi[i:j]]
        if protocol.reducer == "method":
            if seen.score is None:
                raise ValueError("the reducer 'method' wants a score, and the method gave none")
            score = np.asarray(seen.score[index], np.float64)
        else:
            parts = np.split(values, np.cumsum(self.places.counts)[:-1]) if len(self.label) else []
            score = np.array([protocol.reduce(part) for part in parts], np.float64)
        return Look(self, score, replace(self.places, score=values))

    def found(self, places: Places, threshold: float) -> Array:
        """What exceeds the threshold, (P,) bool, without components that are too small."""
        found = places.score > threshold
        if self.protocol.cleans and self.roi is not None:
            for i, j, first, last in self.blocks():
                picture = np.zeros(self.roi[i:j].shape, bool)
                picture[self.roi[i:j]] = found[first:last]
                found[first:last] = self.protocol.clean(picture)[self.roi[i:j]]
        return found


@dataclass(frozen=True)
class Look:
    """A split at one level: scores (N,), and the places' scores or None without a map."""

    ground: Ground
    score: Array
    places: Places | None

    def figures(self) -> Figures:
        """All that needs no threshold but the best: image_*, group_auroc, pixel_*."""
        score, label = self.score, self.ground.label
        image = {f"image_{name}": value for name, value in image_metrics(score, label).items()}
        image["group_auroc"] = image_metrics(*self.grouped())["auroc"]
        pixel: Figures = dict.fromkeys(("auroc", "ap", "aupro30", "aupro05", "dice"))
        if self.places is not None:
            pixel = place_metrics(self.places)
        names = {"dice": "pixel_dice_oracle"}
        skipped = ("iou", "threshold")
        return image | {
            names.get(name, f"pixel_{name}"): value
            for name, value in pixel.items()
            if name not in skipped
        }

    def grouped(self) -> tuple[Array, Array]:
        """The highest score, and whether any sample is abnormal, of each group in sorted order."""
        names, member = np.unique(np.asarray(self.ground.seen.groups, str), return_inverse=True)
        score, label = np.full(len(names), -np.inf), np.zeros(len(names), bool)
        np.maximum.at(score, member, self.score)
        np.logical_or.at(label, member, self.ground.label)
        return score, label


@dataclass(frozen=True)
class Verdict:
    """Test at one level and threshold: the figures, and how sure they are."""

    look: Look
    threshold: float | None
    found: Array | None

    def figures(self) -> Figures:
        seen, places = self.look.ground, self.look.places
        fixed: Figures = dict.fromkeys(("pixel_dice", "pixel_iou", "healthy_fp"))
        if places is not None and self.found is not None:
            at = overlap(self.found, places.truth)
            alarms = self.found[np.repeat(~seen.label, places.counts)]
            fixed = {
                "pixel_dice": at["dice"],
                "pixel_iou": at["iou"],
                "healthy_fp": float(alarms.mean()) if alarms.size else None,
            }
        return self.look.figures() | fixed

    def bounds(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the metrics that have one."""
        look = self.look
        resamples = Resamples.of(look.ground.seen.groups)
        patients = replace(resamples, member=np.arange(len(resamples.groups)))
        draws = {
            f"image_{name}": values
            for name, values in image_draws(look.score, look.ground.label, resamples).items()
        }
        draws["group_auroc"] = image_draws(*look.grouped(), patients)["auroc"]
        if look.places is not None:
            pixel = pixel_draws(look.places, resamples, self.found)
            draws |= {f"pixel_{name}": values for name, values in pixel.items()}
        bounds = {name: interval(values) for name, values in draws.items()}
        return {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Bench:
    """The three splits that a verdict needs."""

    held_out: Ground
    val: Ground
    test: Ground

    def verdict(self, index: int) -> Verdict:
        look = self.test.look(index)
        if look.places is None:
            return Verdict(look, None, None)
        threshold = self.threshold(index, look.places)
        found = None if threshold is None else self.test.found(look.places, threshold)
        return Verdict(look, threshold, found)

    def threshold(self, index: int, test: Places) -> float | None:
        """By the protocol's rule, at one level; None only for an oracle without test masks."""
        protocol = self.test.protocol
        if protocol.fixed is not None:
            return protocol.fixed
        if protocol.threshold == "oracle":
            return place_metrics(test)["threshold"]
        if protocol.percent is not None:
            healthy = self.held_out.look(index).places
            if healthy is None or not healthy.score.size:
                raise ProtocolError(
                    f"threshold '{protocol.threshold}' needs held-out normal samples, and there "
                    "are none; use val-dice or fixed:<number>"
                )
            return exceeded_by(protocol.percent, healthy.score)
        val = self.val.look(index).places
        threshold = None if val is None else place_metrics(val)["threshold"]
        if threshold is None:
            raise ProtocolError(
                "threshold 'val-dice' needs validation samples with masks, and there are none; "
                "use healthy@5%"
            )
        return threshold


def strata(look: Look, tags: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """n, image_auroc and pixel_ap of abnormal samples that share a tag, against all normal ones."""
    label = look.ground.label
    abnormal: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(label).tolist():
        for name, value in tags[i].items():
            abnormal.setdefault((name, value), []).append(i)
    names = [name for name, _ in abnormal]
    table = {}
    for (name, value), rows in sorted(abnormal.items()):
        if names.count(name) > MOST:
            continue
        keep = ~label
        keep[rows] = True
        table[f"{name}={value}"] = {
            "n": len(rows),
            "image_auroc": image_metrics(look.score[keep], label[keep])["auroc"],
            "pixel_ap": _pixel_ap(look.places, keep),
        }
    return table


def _pixel_ap(places: Places | None, keep: Array) -> float | None:
    if places is None:
        return None
    rows = np.repeat(keep, places.counts)
    ranking = Ranking.of(places.score[rows], places.truth[rows])
    return None if ranking is None else ranking.ap()


def reference(test: Ground) -> dict[str, float | None]:
    """What a figure is read against: the shares of abnormal places and samples, and the Dice of
    calling every place abnormal."""
    place = None
    if test.seen.mask is not None and test.places is not None and test.places.truth.size:
        place = float(test.places.truth.mean())
    return {
        "prevalence": place,
        "dice_floor": None if place is None else 2 * place / (1 + place),
        "image_prevalence": float(test.label.mean()) if test.label.size else None,
    }
