"""Intervals: a bootstrap over groups (patients), the same resamples for every method.

Slices of one patient are not independent, so whole groups are drawn, with replacement. The draws
depend on the groups' names alone: methods judged on the same samples are compared draw by draw,
from what each has kept of its draws, without a map. Several seeds of a method are an outer level.
Counts are whole numbers in float64, so a sum has no order and the figures do not depend on threads.

Letters: N samples, G groups, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from ..metrics.connected_components import Array
from ..metrics.ranking import PixelScores
from .histogram_bootstrap import binned_metrics, bootstrap_ranking_metrics

MIN_GROUPS = 5
"""Groups below which no interval is given: two patients say nothing about a third."""

REPLICATES = 2000


@dataclass(frozen=True)
class Resamples:
    """B draws of G groups out of G.

    groups: the G distinct names, sorted, so that the order of samples does not matter
    group_index: (N,) int, each sample's group
    counts: (B, G) float64, how often a draw holds a group; B is 0 where groups are too few
    """

    groups: tuple[str, ...]
    group_index: Array
    counts: Array

    @classmethod
    def from_groups(
        cls, groups: Sequence[str], *, replicates: int = REPLICATES, stream_name: str = "bootstrap"
    ) -> Resamples:
        names, member = np.unique(np.asarray(groups, str), return_inverse=True)
        size = len(names)
        if size < MIN_GROUPS:
            return cls(tuple(names.tolist()), member, np.zeros((0, size)))
        flat = np.repeat(np.arange(replicates), size) * size + random_integers(
            stream_name, replicates * size, size
        )
        counts = np.bincount(flat, minlength=replicates * size).reshape(replicates, size)
        return cls(tuple(names.tolist()), member, counts.astype(np.float64))

    def sums(self, values: Array) -> Array:
        """Of values (N, K), their sum over every draw, (B, K)."""
        each = np.zeros((len(self.groups), values.shape[1]))
        np.add.at(each, self.group_index, values)
        return self.counts @ each


def random_integers(stream_name: str, count: int, below: int) -> Array:
    """(count,) int64 in 0..below-1, each equally likely, from the stream of that name."""
    seed = int.from_bytes(blake2b(stream_name.encode(), digest_size=16).digest(), "big")
    raw = np.random.PCG64(seed).random_raw(count)  # raw bits never change with numpy
    return ((raw >> np.uint64(32)) * np.uint64(below) >> np.uint64(32)).astype(np.int64)


def effective_clusters(groups: Sequence[str], label: Array, weight: Array | None = None) -> int:
    """How many groups there are of the kind, with an abnormal or with a normal sample, of which
    there are fewer: what an interval can be sure of hangs on these.

    weight: (N,) abnormal places, for a figure pooled over them. Such a figure hangs on the patients
    with the large lesions, so abnormal groups count as (sum w)^2 / (sum w^2) of them, w the places
    of each: the effective number of clusters of unequal size (Kish, Survey Sampling, 1965; for
    tests Carter, Schnepel and Steigerwald, Review of Economics and Statistics 99, 2017)
    """
    names = np.asarray(groups, str)
    label = np.asarray(label, bool)
    abnormal, normal = len(np.unique(names[label])), len(np.unique(names[~label]))
    if weight is not None and np.any(weight):
        each = np.bincount(np.unique(names, return_inverse=True)[1], weight)
        share = each / each.max()
        abnormal = min(abnormal, max(2, round(share.sum() ** 2 / (share**2).sum())))
    return min(abnormal, normal)


def difference_clusters(
    replicates: Array, clusters: int, seeds: Sequence[Sequence[float]]
) -> float:
    """From how many groups a difference of means over seeds is known: `clusters`, and where few
    seeds
    disagree by more than groups do, from little more than there are seeds.

    replicates: its draws (B,)       seeds: of each side its seeds' figures

    One more than the degrees of freedom of a sum of independent variances, that of groups and of
    each side's seeds (Satterthwaite, Biometrics Bulletin 2, 1946).
    """
    spread = [(float(np.var(s, ddof=1)) / len(s), len(s) - 1) for s in seeds if len(s) > 1]
    resampled = sum(part * free / (free + 1) for part, free in spread)
    groups = max(float(np.nanvar(replicates)) - resampled, 0.0) if replicates.size else 0.0
    parts = [(groups, max(clusters - 1, 1)), *spread]
    whole = sum(part for part, _ in parts)
    if whole <= 0:
        return clusters
    return 1 + whole**2 / sum(part**2 / free for part, free in parts)


def percentile_interval(
    replicates: Array, clusters: float | None = None, *, extrapolate: bool = False
) -> tuple[float, float] | None:
    """The middle 95 % of draws (B,); None where over 5 % of them are undefined, or there are none.

    A draw is undefined (NaN) that holds no abnormal or no normal sample. clusters: from how few
    groups
    the figure is (`rarer`); then a little more than the middle 95 %, for a bootstrap of n groups is
    too narrow by the factor sqrt((n - 1) / n) and by the tails of a normal distribution where
    Student's would do (Hesterberg, The American Statistician 69, 2015, the expanded percentile
    interval). extrapolate: where so few groups ask for more than there are draws to tell, the
    outermost
    are moved out in proportion, and not taken as they are.
    """
    defined = replicates[~np.isnan(replicates)]
    if not replicates.size or defined.size < 0.95 * replicates.size:
        return None
    asked = expanded_level(0.05, clusters)
    out = max(asked, 2 / defined.size) if extrapolate else asked
    low, high = np.percentile(defined, (50 * out, 100 - 50 * out))
    if out > asked:
        middle, more = np.median(defined), _normal_quantile(asked) / _normal_quantile(out)
        low, high = middle - more * (middle - low), middle + more * (high - middle)
    return float(low), float(high)


def _normal_quantile(p: float) -> float:
    """How many standard deviations out the share p of a normal distribution begins, both sides."""
    from scipy.special import ndtri

    return -float(ndtri(max(p / 2, 1e-300)))


def expanded_level(p: float, clusters: float | None) -> float:
    """The share of draws to leave out for an interval that is to miss with probability p."""
    if clusters is None or clusters < 2:
        return p
    from scipy.special import ndtr, stdtrit

    return float(2 * ndtr(stdtrit(clusters - 1, p / 2) * np.sqrt(clusters / (clusters - 1))))


def corrected_p_value(p: float, clusters: float | None) -> float:
    """The probability to miss of an interval that leaves out the share p: `expanded` undone."""
    if clusters is None or clusters < 2:
        return p
    from scipy.special import ndtri, stdtr

    return float(2 * stdtr(clusters - 1, ndtri(p / 2) * np.sqrt((clusters - 1) / clusters)))


def bootstrap_image_metrics(score: Array, label: Array, resamples: Resamples) -> dict[str, Array]:
    """auroc, ap, f1max and fpr95 of scores (N,) on every resample, (B,) each; exact."""
    order = np.argsort(-score, kind="stable")
    score, label, member = score[order], label[order], resamples.group_index[order]
    start = np.flatnonzero(np.append(True, score[1:] != score[:-1])[: score.size])
    step = max(1, 2**20 // max(1, score.size))
    parts = []
    for i in range(0, len(resamples.counts), step):
        times = resamples.counts[i : i + step, member]
        hits, alarms = times * label, times * ~label
        if len(start) < score.size:
            hits, alarms = (np.add.reduceat(part, start, axis=1) for part in (hits, alarms))
        found = binned_metrics(hits, alarms, None, np.ones(len(start), bool))
        found["f1max"] = found.pop("dice_oracle")
        parts.append(found | {"fpr95": _fpr95(hits, alarms)})
    if not parts:
        return {name: np.zeros(0) for name in ("auroc", "ap", "f1max", "fpr95")}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _fpr95(hits: Array, alarms: Array) -> Array:
    true, false = hits.cumsum(1), alarms.cumsum(1)
    first = (true >= 0.95 * true[:, -1:] - 1e-9).argmax(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = false[np.arange(len(first)), first] / false[:, -1]
    return np.where(true[:, -1] > 0, rate, np.nan)


def bootstrap_pixel_metrics(
    pixels: PixelScores, resamples: Resamples, positive: Array | None, label: Array | None = None
) -> dict[str, Array]:
    """auroc, ap, aupro30, aupro05, dice_oracle on every resample, (B,) each, from histograms; and
    of what was found (P,) bool dice and iou, with labels (N,) healthy_fp too, which are exact."""
    draws = bootstrap_ranking_metrics(pixels, resamples.group_index, resamples.counts)
    if positive is not None:
        draws |= bootstrap_overlap_metrics(overlap_counts(pixels, positive), resamples, label)
    return draws


def overlap_counts(pixels: PixelScores, positive: Array) -> Array:
    """(N, 4) int: places of each sample, abnormal ones, found ones, rightly found ones."""
    ends = np.append(0, np.cumsum(pixels.counts)).tolist()
    rows = []
    for first, last in pairwise(ends):
        true, hit = pixels.truth[first:last], positive[first:last]
        rows.append((last - first, *map(np.count_nonzero, (true, hit, true & hit))))
    return np.array(rows, np.int64).reshape(-1, 4)


def bootstrap_overlap_metrics(
    counts: Array, resamples: Resamples, label: Array | None = None
) -> dict[str, Array]:
    """dice and iou, and with labels (N,) healthy_fp, of `overlaps` (N, 4) on every resample."""
    draws = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        _, true, found, both = resamples.sums(counts).T
        draws["dice"] = np.where(true > 0, 2 * both / (found + true), np.nan)
        draws["iou"] = np.where(true > 0, both / (found + true - both), np.nan)
        if label is not None:
            places, _, false, _ = resamples.sums(counts * ~label[:, None]).T
            draws["healthy_fp"] = false / places
    return draws
