"""Intervals: a bootstrap over groups (patients), the same resamples for every method.

Slices of one patient are not independent, so whole groups are drawn, with replacement. The draws
depend on the groups' names alone: methods judged on the same samples are compared draw by draw.
Counts are whole numbers in float64, so a sum has no order and the figures do not depend on threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from .metrics import Array, Places

FEWEST = 5
"""Groups below which no interval is given: two patients say nothing about a third."""

BINS = 1024
BLOCK = 256


@dataclass(frozen=True)
class Resamples:
    """B draws of G groups out of G.

    groups: the G distinct names, sorted, so that the order of samples does not matter
    member: (N,) int, each sample's group
    counts: (B, G) float64, how often a draw holds a group; B is 0 where groups are too few
    """

    groups: tuple[str, ...]
    member: Array
    counts: Array

    @classmethod
    def of(cls, groups: Sequence[str], *, draws: int = 1000, name: str = "bootstrap") -> Resamples:
        names, member = np.unique(np.asarray(groups, str), return_inverse=True)
        size = len(names)
        if size < FEWEST:
            return cls(tuple(names.tolist()), member, np.zeros((0, size)))
        seed = int.from_bytes(blake2b(name.encode(), digest_size=16).digest(), "big")
        raw = np.random.PCG64(seed).random_raw(draws * size)  # raw bits never change with numpy
        drawn = (raw >> np.uint64(32)) * np.uint64(size) >> np.uint64(32)
        flat = np.repeat(np.arange(draws), size) * size + drawn.astype(np.int64)
        counts = np.bincount(flat, minlength=draws * size).reshape(draws, size)
        return cls(tuple(names.tolist()), member, counts.astype(np.float64))


def interval(draws: Array) -> tuple[float, float] | None:
    """The middle 95 % of draws (B,); None where over 5 % of them are undefined, or there are none.

    A draw is undefined (NaN) that holds no abnormal or no normal sample.
    """
    defined = draws[~np.isnan(draws)]
    if not draws.size or defined.size < 0.95 * draws.size:
        return None
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


def image_draws(score: Array, label: Array, resamples: Resamples) -> dict[str, Array]:
    """auroc and ap of scores (N,) on every resample, (B,) each; exact."""
    order = np.argsort(-score, kind="stable")
    score, label, member = score[order], label[order], resamples.member[order]
    start = np.flatnonzero(np.append(True, score[1:] != score[:-1])[: score.size])
    step = max(1, 2**22 // max(1, score.size))
    parts = []
    for i in range(0, len(resamples.counts), step):
        times = resamples.counts[i : i + step, member]
        hits = np.add.reduceat(times * label, start, axis=1)
        alarms = np.add.reduceat(times * ~label, start, axis=1)
        parts.append(_figures(hits, alarms, np.ones(len(start), bool)))
    return _joined(parts)


def pixel_draws(places: Places, resamples: Resamples, found: Array | None) -> dict[str, Array]:
    """auroc, ap and, of what was found (P,) bool, dice on every resample, (B,) each.

    dice is exact; auroc and ap are read from each group's histogram over bins of equal mass, half
    of them equal in abnormal places and half in normal ones. A value too frequent for its bin has
    one of its own, so ties stay ties.
    """
    draws, size = resamples.counts.shape
    if not draws:
        return {name: np.zeros(0) for name in ("auroc", "ap", "dice")}
    edges = _edges(places)
    hits, alarms = np.zeros((draws, len(edges))), np.zeros((draws, len(edges)))
    sizes = np.zeros((size, 2))  # of each group: what was found and rightly so; found plus true
    ends = np.cumsum(places.counts).tolist()
    spans = [slice(first, last) for first, last in zip([0, *ends], ends, strict=False)]
    samples = np.split(
        np.argsort(resamples.member, kind="stable"),
        np.cumsum(np.bincount(resamples.member, minlength=size))[:-1],
    )
    for first in range(0, size, BLOCK):
        block = range(first, min(first + BLOCK, size))
        counted = np.zeros((2, len(block), len(edges)))
        for row, group in enumerate(block):
            own = [spans[i] for i in samples[group]]
            score = np.concatenate([places.score[span] for span in own])
            truth = np.concatenate([places.truth[span] for span in own])
            counted[0, row] = _histogram(score[truth], edges)
            counted[1, row] = _histogram(score[~truth], edges)
            if found is not None:
                hit = np.concatenate([found[span] for span in own])
                sizes[group] = (hit & truth).sum(), hit.sum() + truth.sum()
        times = resamples.counts[:, block.start : block.stop]
        hits += times @ counted[0]
        alarms += times @ counted[1]
    tied = np.append(edges[1:] == np.nextafter(edges[:-1], np.inf), True)  # the last is the maximum
    figures = _figures(hits[:, ::-1], alarms[:, ::-1], tied[::-1])
    both, either = (resamples.counts @ sizes).T
    with np.errstate(invalid="ignore", divide="ignore"):
        figures["dice"] = np.where(hits.sum(1) > 0, 2 * both / either, np.nan)
    return figures


def _edges(places: Places) -> Array:
    """Lower edges of the bins, ascending; a value with a bin of its own ends right after it.

    The highest abnormal places have one each, for they weigh most in ap. Other edges lie between
    two scores: a bin that began at an abnormal place would rank it lowest.
    """
    edges = []
    for score, top in (
        (places.score[places.truth], BINS // 2),
        (places.score[~places.truth], 0),
    ):
        if score.size:
            score.sort()
            at = np.linspace(0, score.size - 1, BINS // 2).round().astype(np.int64)
            value, times = np.unique(score[at], return_counts=True)
            own = np.concatenate([value[times > 1], score[max(0, score.size - top) :][:top]])
            between = score[at] / 2 + score[np.maximum(at - 1, 0)] / 2
            edges += [between, own, np.nextafter(own, np.inf, dtype=score.dtype), score[-1:]]
    return np.unique(np.concatenate(edges))


def _histogram(score: Array, edges: Array) -> Array:
    below = np.searchsorted(np.sort(score), edges, "left")
    return np.diff(np.append(below, score.size))


def _figures(hits: Array, alarms: Array, tied: Array) -> dict[str, Array]:
    """auroc and ap, (B,), of positives and negatives (B, K) per bin, the highest scores first.

    Within a bin that is no tie, positives and negatives are taken to alternate: the precision that
    counts is that at its middle.
    """
    true, false = hits.cumsum(1), alarms.cumsum(1)
    positives, negatives = true[:, -1], false[:, -1]
    at_true = np.where(tied, true, true - (hits - 1) / 2)
    at_false = np.where(tied, false, false - alarms / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(hits > 0, at_true / (at_true + at_false), 0)
        outranked = (hits * (negatives[:, None] - false + alarms / 2)).sum(1)
        auroc = outranked / (positives * negatives)
        ap = (hits * precision).sum(1) / positives
    defined = (positives > 0) & (negatives > 0)
    return {"auroc": np.where(defined, auroc, np.nan), "ap": np.where(defined, ap, np.nan)}


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    if not parts:
        return {"auroc": np.zeros(0), "ap": np.zeros(0)}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
