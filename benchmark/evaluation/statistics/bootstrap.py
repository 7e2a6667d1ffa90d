"""Confidence intervals: a bootstrap over groups (patients), the same resamples for every method.

Slices of one patient are not independent, so whole groups are drawn, with replacement. The draws
depend on the groups' names alone: methods evaluated on the same samples are compared replicate by
replicate, from what is stored of each, without a map. Several seeds of a method are an outer level.

Why not `scipy.stats.bootstrap`: it computes a statistic anew on every resample, of samples that it
takes as independent, from a stream of its own. Here the groups' counts or histograms are added up,
for all resamples in one product of matrices. Counts are whole numbers in float64, so a sum has no
order and the metrics do not depend on threads.

Letters: N samples, G groups, B replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ..metrics.connected_components import Array
from ..metrics.pixel_scores import Pixels
from .histogram_bootstrap import binned_metrics, bootstrap_ranking_metrics

MIN_GROUPS = 5
"""Groups below which no interval is given: two patients say nothing about a third."""

REPLICATES = 2000
"""Resamples of which every interval is made."""

VALUES_AT_A_TIME = 2**24
"""Counts of groups in draws that are numbers of eight bytes at a time."""


@dataclass(frozen=True)
class Resamples:
    """B draws of G groups out of G, with replacement.

    groups: the G distinct names, sorted, so that the order of samples does not matter
    group_index: (N,) int, each sample's group
    counts: (B, G) uint16, how often a draw holds a group; B is 0 where groups are too few

    >>> from adbench.benchmark.evaluation.statistics.bootstrap import Resamples
    >>> resamples = Resamples.from_groups(["b", "a", "c", "d", "e", "a"], replicates=3)
    >>> resamples.groups, resamples.group_index.tolist()
    (('a', 'b', 'c', 'd', 'e'), [1, 0, 2, 3, 4, 0])
    >>> resamples.counts.sum(1).tolist()
    [5, 5, 5]
    """

    groups: tuple[str, ...]
    group_index: Array
    counts: Array

    @classmethod
    def from_groups(
        cls, groups: Sequence[str], *, replicates: int = REPLICATES, stream_name: str = "bootstrap"
    ) -> Resamples:
        """Draw groups `replicates` times; none of fewer than MIN_GROUPS groups.

        groups: (N,) the group of each sample      stream_name: names the stream of random numbers
        """
        names, group_index = np.unique(np.asarray(groups, str), return_inverse=True)
        size = len(names)
        if size < MIN_GROUPS:
            return cls(tuple(names.tolist()), group_index, np.zeros((0, size), np.uint16))
        counts = np.zeros((replicates, size), np.uint16)
        stream = random_stream(stream_name)
        for row in counts:
            row[:] = np.bincount(_integers(stream, size, size), minlength=size)
        return cls(tuple(names.tolist()), group_index, counts)

    def sums(self, values: Array) -> Array:
        """The sums of per-sample values (N, K) over every draw, (B, K)."""
        group_sums = np.zeros((len(self.groups), values.shape[1]))
        np.add.at(group_sums, self.group_index, values)
        step = max(1, VALUES_AT_A_TIME // max(1, len(self.groups)))
        parts = [
            self.counts[i : i + step].astype(np.float64) @ group_sums
            for i in range(0, len(self.counts), step)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, values.shape[1]))


def random_integers(stream_name: str, count: int, below: int) -> Array:
    """Draw integers in 0..below-1, each equally likely, from the stream of that name, (count,).

    The same for a name, on any machine and with any version of numpy.

    >>> from adbench.benchmark.evaluation.statistics.bootstrap import random_integers
    >>> random_integers("bootstrap", 5, 10).tolist()
    [5, 0, 5, 4, 3]
    """
    return _integers(random_stream(stream_name), count, below)


def random_stream(name: str) -> np.random.PCG64:
    """The stream of that name, of raw bits, which never change with numpy.

    >>> from adbench.benchmark.evaluation.statistics.bootstrap import random_stream
    >>> int(random_stream("bootstrap").random_raw()) >> 32
    2181818344
    """
    seed = int.from_bytes(blake2b(name.encode(), digest_size=16).digest(), "big")
    return np.random.PCG64(seed)


def _integers(stream: np.random.PCG64, count: int, below: int) -> Array:
    raw = stream.random_raw(count)
    return ((raw >> np.uint64(32)) * np.uint64(below) >> np.uint64(32)).astype(np.int64)


def effective_clusters(groups: Sequence[str], label: Array, weight: Array | None = None) -> int:
    """The number of groups of the rarer kind, those with an abnormal or those with a normal sample.

    The width of an interval depends on these.

    groups, label: (N,) of each sample
    weight: (N,) abnormal pixels, for a metric pooled over them. Such a metric depends on the
        patients with the large lesions, so abnormal groups count as (sum w)^2 / (sum w^2) of them,
        w the pixels of each: the effective number of clusters of unequal size (Kish, Survey
        Sampling, 1965; for tests Carter, Schnepel and Steigerwald, Review of Economics and
        Statistics 99, 2017)

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.bootstrap import effective_clusters
    >>> groups, label = ["a", "a", "b", "c", "d", "e"], np.array([1, 0, 1, 1, 0, 0], bool)
    >>> effective_clusters(groups, label), effective_clusters(groups, label, 100 * label)
    (3, 3)
    >>> effective_clusters(groups, label, np.array([1000, 0, 1, 1, 0, 0]))
    2
    """
    names = np.asarray(groups, str)
    label = np.asarray(label, bool)
    abnormal, normal = len(np.unique(names[label])), len(np.unique(names[~label]))
    if weight is not None and np.any(weight):
        group_weight = np.bincount(np.unique(names, return_inverse=True)[1], weight)
        share = group_weight / group_weight.max()
        abnormal = min(abnormal, max(2, round(share.sum() ** 2 / (share**2).sum())))
    return min(abnormal, normal)


def difference_clusters(
    replicates: Array, clusters: int, seeds: Sequence[Sequence[float]]
) -> float:
    """The effective number of clusters of a difference between two means over seeds.

    It is `clusters`; where few seeds disagree by more than groups do, little more than there are
    seeds. One more than the degrees of freedom of a sum of independent variances, that of groups
    and of each side's seeds (Satterthwaite, Biometrics Bulletin 2, 1946).

    replicates: (B,) of the difference       clusters: those of either side, the fewer
    seeds: of each side, the metric of every seed

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.bootstrap import difference_clusters
    >>> replicates = np.array([0.1, 0.2, 0.3])
    >>> difference_clusters(replicates, 20, [[0.5], [0.4]])
    20.0
    >>> round(difference_clusters(replicates, 20, [[0.2, 0.9], [0.4, 0.4]]), 3)
    2.0
    """
    seed_variances = [(float(np.var(s, ddof=1)) / len(s), len(s) - 1) for s in seeds if len(s) > 1]
    resampled = sum(part * free / (free + 1) for part, free in seed_variances)
    groups = max(float(np.nanvar(replicates)) - resampled, 0.0) if replicates.size else 0.0
    variances = [(groups, max(clusters - 1, 1)), *seed_variances]
    total = sum(part for part, _ in variances)
    if total <= 0:
        return clusters
    return 1 + total**2 / sum(part**2 / free for part, free in variances)


def percentile_interval(
    replicates: Array, clusters: float | None = None, *, extrapolate: bool = False
) -> tuple[float, float] | None:
    """The 95 % confidence interval of a metric, the middle of its replicates.

    A replicate is undefined (NaN) that holds no abnormal or no normal sample. None where over 5 %
    of them are undefined, or there are none.

    replicates: (B,) the metric on every resample
    clusters: effective number of clusters of the metric (`effective_clusters`). With it, a little
        more than the middle 95 %, for a bootstrap of n groups is too narrow by the factor
        sqrt((n - 1) / n) and by the tails of a normal distribution where Student's would do
        (Hesterberg, The American Statistician 69, 2015, the expanded percentile interval)
    extrapolate: where so few groups need more than there are replicates to tell, move the outermost
        out in proportion, instead of taking them as they are

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.bootstrap import percentile_interval
    >>> replicates = np.arange(101.0)
    >>> percentile_interval(replicates)
    (2.5, 97.5)
    >>> low, high = percentile_interval(replicates, clusters=10)
    >>> round(low, 2), round(high, 2)
    (0.86, 99.14)
    >>> percentile_interval(np.full(100, np.nan)) is None
    True
    """
    defined = replicates[~np.isnan(replicates)]
    if not replicates.size or defined.size < 0.95 * replicates.size:
        return None
    level = expanded_level(0.05, clusters)
    outside = max(level, 2 / defined.size) if extrapolate else level
    low, high = np.percentile(defined, (50 * outside, 100 - 50 * outside))
    if outside > level:
        middle, factor = np.median(defined), _normal_quantile(level) / _normal_quantile(outside)
        low, high = middle - factor * (middle - low), middle + factor * (high - middle)
    return float(low), float(high)


def _normal_quantile(p: float) -> float:
    """The standard deviations beyond which, on both sides, lies the share p of a normal
    distribution."""
    from scipy.special import ndtri

    return -float(ndtri(max(p / 2, 1e-300)))


def expanded_level(p: float, clusters: float | None) -> float:
    """The share of replicates to leave out of an interval that is to miss with probability p.

    clusters: effective number of clusters; None for very many

    >>> from adbench.benchmark.evaluation.statistics.bootstrap import expanded_level
    >>> expanded_level(0.05, None), round(expanded_level(0.05, 10), 4)
    (0.05, 0.0171)
    """
    if clusters is None or clusters < 2:
        return p
    from scipy.special import ndtr, stdtrit

    return float(2 * ndtr(stdtrit(clusters - 1, p / 2) * np.sqrt(clusters / (clusters - 1))))


def bootstrap_p_value(differences: Array) -> float:
    """The two-sided p-value of no difference, consistent with an interval that extrapolates.

    Twice the share of replicates with the rarer sign. Where none has it, their tails are taken as
    normal: so many times further than the outermost as 0 is from their median, so many times the
    normal quantile. Replicates that are all the same cannot tell, and give 2 / (B + 1).

    differences: (B,) without NaN

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.bootstrap import bootstrap_p_value
    >>> bootstrap_p_value(np.arange(-1.0, 98.0)), bootstrap_p_value(np.ones(99))
    (0.06, 0.02)
    >>> normal = np.random.default_rng(4).normal(5, 1, 2000)
    >>> print(f"{bootstrap_p_value(normal):.1e}")  # 5 standard deviations have 5.7e-07
    4.6e-07
    """
    from scipy.special import ndtr

    fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p = min(1.0, 2 * (fewer + 1) / (differences.size + 1))
    if fewer:
        return p
    outside = 2 / differences.size
    middle, edge = np.percentile(abs(differences), (50, 50 * outside))
    if middle - edge <= 1e-9 * middle or outside >= 1:
        return p
    return min(p, float(2 * ndtr(-_normal_quantile(outside) * middle / (middle - edge))))


def corrected_p_value(p: float, clusters: float | None) -> float:
    """The probability to miss of an interval that leaves out the share p: `expanded_level` undone.

    >>> from adbench.benchmark.evaluation.statistics.bootstrap import (
    ...     corrected_p_value, expanded_level)
    >>> round(corrected_p_value(expanded_level(0.05, 10), 10), 12)
    0.05
    """
    if clusters is None or clusters < 2:
        return p
    from scipy.special import ndtri, stdtr

    quantile = ndtri(max(p / 2, 1e-300))
    return float(2 * stdtr(clusters - 1, quantile * np.sqrt((clusters - 1) / clusters)))


def bootstrap_image_metrics(score: Array, label: Array, resamples: Resamples) -> dict[str, Array]:
    """`image_metrics` (auroc, ap, f1max, fpr95) on every resample, (B,) each; exact.

    NaN on a resample without an abnormal or without a normal sample.

    score: (N,)       label: (N,) bool

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.bootstrap import (
    ...     Resamples, bootstrap_image_metrics)
    >>> score, label = np.arange(8.0), np.arange(8) % 2 == 1
    >>> resamples = Resamples.from_groups([str(i) for i in range(8)], replicates=100)
    >>> replicates = bootstrap_image_metrics(score, label, resamples)
    >>> {name: values.shape for name, values in replicates.items()}
    {'auroc': (100,), 'ap': (100,), 'f1max': (100,), 'fpr95': (100,)}
    """
    order = np.argsort(-score, kind="stable")
    score, label, group_index = score[order], label[order], resamples.group_index[order]
    start = np.flatnonzero(np.append(True, score[1:] != score[:-1])[: score.size])
    step = max(1, 2**20 // max(1, score.size))
    blocks = []
    for i in range(0, len(resamples.counts), step):
        times = resamples.counts[i : i + step, group_index].astype(np.float64)
        positives, negatives = times * label, times * ~label
        if len(start) < score.size:
            positives = np.add.reduceat(positives, start, axis=1)
            negatives = np.add.reduceat(negatives, start, axis=1)
        metrics = binned_metrics(positives, negatives, None, np.ones(len(start), bool))
        metrics["f1max"] = metrics.pop("dice_oracle")
        blocks.append(metrics | {"fpr95": _fpr95(positives, negatives)})
    if not blocks:
        return {name: np.zeros(0) for name in ("auroc", "ap", "f1max", "fpr95")}
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _fpr95(positives: Array, negatives: Array) -> Array:
    true, false = positives.cumsum(1), negatives.cumsum(1)
    first = (true >= 0.95 * true[:, -1:] - 1e-9).argmax(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = false[np.arange(len(first)), first] / false[:, -1]
    return np.where(true[:, -1] > 0, rate, np.nan)


def bootstrap_pixel_metrics(
    pixels: Pixels, resamples: Resamples, overlaps: Array | None, label: Array | None = None
) -> dict[str, Array]:
    """Pixel metrics on every resample, (B,) each: `bootstrap_ranking_metrics`, from histograms;
    and those of `bootstrap_overlap_metrics`, which are exact.

    overlaps: (N, 4), of `overlap_counts`; None without a threshold
    label: (N,) bool; with it healthy_fp too

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import overlap_counts
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> from adbench.benchmark.evaluation.statistics.bootstrap import (
    ...     Resamples, bootstrap_pixel_metrics)
    >>> maps = np.random.default_rng(0).random((6, 4, 4))
    >>> pixels = PixelScores.from_maps(maps, maps > 0.8)
    >>> resamples = Resamples.from_groups([*"abcdef"], replicates=10)
    >>> overlaps = overlap_counts(pixels, pixels.score > 0.8)
    >>> replicates = bootstrap_pixel_metrics(pixels, resamples, overlaps)
    >>> [*replicates], float(replicates["dice"].min())
    (['auroc', 'ap', 'dice_oracle', 'aupro30', 'aupro05', 'dice', 'iou'], 1.0)
    """
    replicates = bootstrap_ranking_metrics(pixels, resamples.group_index, resamples.counts)
    if overlaps is not None:
        replicates |= bootstrap_overlap_metrics(overlaps, resamples, label)
    return replicates


def bootstrap_overlap_metrics(
    counts: Array, resamples: Resamples, label: Array | None = None
) -> dict[str, Array]:
    """Pooled dice and iou, and with labels healthy_fp, on every resample, (B,) each.

    NaN on a resample without an abnormal pixel, or for healthy_fp without a normal sample.

    counts: (N, 4), of `overlap_counts`      label: (N,) bool

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.bootstrap import (
    ...     Resamples, bootstrap_overlap_metrics)
    >>> resamples = Resamples.from_groups([*"abcdef"], replicates=10)
    >>> counts = np.tile([100, 10, 10, 5], (6, 1))
    >>> bootstrap_overlap_metrics(counts, resamples)["dice"].tolist() == [0.5] * 10
    True
    """
    replicates = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        _, true, positive, both = resamples.sums(counts).T
        replicates["dice"] = np.where(true > 0, 2 * both / (positive + true), np.nan)
        replicates["iou"] = np.where(true > 0, both / (positive + true - both), np.nan)
        if label is not None:
            pixels, _, false, _ = resamples.sums(counts * ~label[:, None]).T
            replicates["healthy_fp"] = false / pixels
    return replicates
