"""Paired comparison of two methods on the same samples, from their sample results.

These lie in samples/<record>.h5 beside the records, with bootstrap replicates of every metric. From
a record alone, only metrics of scores and counts can be resampled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ..evaluation.metrics.ranking import LOWER_IS_BETTER, Array, image_metrics
from ..evaluation.sample_results import (
    COUNT_NAMES,
    SampleResults,
    SampleResultsError,
    compare,
    read_sample_results,
)
from ..evaluation.statistics.bootstrap import Resamples, bootstrap_image_metrics
from ..registry.imports import did_you_mean
from .metric_names import METRIC_RANGES
from .records import DamagedFile, Record, read_sealed

BETTER, WORSE, ALIKE = "better", "worse", "not distinguishable"

DEFAULT_METRICS = ("pixel_ap", "image_auroc")
"""Metrics by which two methods are compared, the first that both have."""

IMAGE_METRICS = ("image_auroc", "image_ap")
OVERLAP_METRICS = ("pixel_dice", "pixel_iou", "healthy_fp")
"""Metrics that can be resampled from the lists in a record."""


class PairError(ValueError):
    """What cannot be compared: one line, why, and what would do.

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.comparison import compare
    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.leaderboard.pairwise import PairError
    >>> try:
    ...     compare("anodpm", "pddpm", Path("results"), example_records())
    ... except PairError as error:
    ...     print(error)
    no result of 'anodpm' in results. Did you mean 'anoddpm'? There are anoddpm, pddpm
    """


def sample_results_of(
    record: Record, folder: Path | None = None, metrics: Collection[str] | None = None
) -> SampleResults | None:
    """The sample results of a record; None where there are none or their sizes differ.

    folder: of the results, where `samples` lies
    metrics: those whose replicates are needed; None for all

    Raises SampleResultsError where the file in `samples` cannot be read or is not the one that the
    record names.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.pairwise import sample_results_of
    >>> results = sample_results_of(example_record(detected=18))
    >>> len(results.keys), results.values["image_auroc"], results.replicates["image_auroc"].shape
    (40, 0.9, (2000,))
    """
    path = _sample_file(record, folder)
    if path is not None:
        try:
            read_sealed(record, path)
        except (DamagedFile, OSError) as error:
            raise SampleResultsError(str(error)) from None
        return read_sample_results(path, metrics)
    return _embedded_results(record.get("samples"), metrics)


def damaged_sample_files(records: Iterable[Record], folder: Path | None) -> list[str]:
    """A line for each file in `samples` that is not as its record says, with what mends it.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.pairwise import damaged_sample_files
    >>> damaged_sample_files([example_record(detected=18)], None)
    []
    """
    lines = []
    for record in records:
        path = _sample_file(record, folder)
        if path is None:
            continue
        try:
            read_sealed(record, path)
        except (DamagedFile, OSError) as error:
            lines.append(str(error))
    return lines


def _sample_file(record: Record, folder: Path | None) -> Path | None:
    name = str(record.get("file", "")).removesuffix(".json")
    path = None if folder is None or not name else folder / "samples" / f"{Path(name).name}.h5"
    return path if path is not None and path.is_file() else None


def _embedded_results(samples: Any, metrics: Collection[str] | None = None) -> SampleResults | None:
    """Sample results of the lists in a record: key, group, label, score and, with maps, counts."""
    names = (*IMAGE_METRICS, *OVERLAP_METRICS)
    if metrics is not None and not set(metrics) & {*names}:
        return None
    try:
        keys, groups = ([str(word) for word in samples[name]] for name in ("key", "group"))
        label, score = np.array(samples["label"], bool), np.array(samples["score"], np.float64)
        columns = [samples[name] for name in COUNT_NAMES] if COUNT_NAMES[0] in samples else None
        counts = None if columns is None else np.array(columns, np.float64).T
    except (KeyError, ValueError, TypeError):
        return None
    size = (len(keys),)
    if not keys or len(groups) != size[0] or label.shape != size or score.shape != size:
        return None
    if np.isnan(score).any() or (counts is not None and counts.shape != (*size, len(COUNT_NAMES))):
        return None
    return _bootstrap_results(keys, groups, label, score, counts, metrics or names)


def _bootstrap_results(
    keys: list[str],
    groups: list[str],
    label: Array,
    score: Array,
    counts: Array | None,
    metrics: Collection[str],
) -> SampleResults:
    resamples = _draw_resamples(tuple(groups))
    image = image_metrics(score, label)
    values: dict[str, float | None] = {
        name: image[name.removeprefix("image_")] for name in IMAGE_METRICS
    }
    replicates: dict[str, Array] = {}
    if {*IMAGE_METRICS} & {*metrics}:
        ranked = bootstrap_image_metrics(score, label, resamples)
        replicates = {name: ranked[name.removeprefix("image_")] for name in IMAGE_METRICS}
    if counts is not None and {*OVERLAP_METRICS} & {*metrics}:
        overlap = _overlap_results(counts.sum(0)[None], (counts * ~label[:, None]).sum(0)[None])
        values |= {n: None if np.isnan(v[0]) else float(v[0]) for n, v in overlap.items()}
        normal = resamples.sums(counts * ~label[:, None])
        replicates |= _overlap_results(resamples.sums(counts), normal)
    defined = {name: d for name, d in replicates.items() if values[name] is not None and d.size}
    return SampleResults(keys, groups, label, score, counts, values, defined)


@lru_cache(maxsize=2)
def _draw_resamples(groups: tuple[str, ...]) -> Resamples:
    """The records of a board hold the same samples, for which the same draws are made."""
    return Resamples.from_groups(groups)


def _overlap_results(total: Array, normal: Array) -> dict[str, Array]:
    """Metrics at the threshold from sums (B, 4) of counts, of all samples and of normal ones."""
    _, abnormal, positive, overlap = total.T
    union = positive + abnormal - overlap
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "pixel_dice": np.where(abnormal > 0, 2 * overlap / (positive + abnormal), np.nan),
            "pixel_iou": np.where(abnormal > 0, overlap / union, np.nan),
            "healthy_fp": normal[:, 2] / normal[:, 0],
        }


@dataclass(frozen=True)
class PairedComparison:
    """The comparison of methods a and b in a metric on the same samples.

    a, b: the metric of each       value: a minus b
    low, high, p: the 95 % interval and the p-value of the difference; None where groups are too few
    verdict: on a, in the metric's own direction: better, worse or not distinguishable

    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.leaderboard.pairwise import PairedComparison
    >>> from adbench.benchmark.leaderboard.pairwise import compare_pair, sample_results_of
    >>> a, b = ([sample_results_of(record)] for record in example_records())
    >>> result = compare_pair(a, b, "image_auroc")
    >>> isinstance(result, PairedComparison), result.a, result.b, result.groups, result.verdict
    (True, 0.9, 0.6, 40, 'better')
    """

    metric: str
    a: float
    b: float
    value: float
    low: float | None
    high: float | None
    p: float | None
    samples: int
    groups: int
    verdict: str


def compare_pair(
    a: Sequence[SampleResults], b: Sequence[SampleResults], metric: str, *, margin: float = 0.0
) -> PairedComparison:
    """Compare two methods, each by the sample results of its seeds.

    margin: how far apart still counts as alike, in the metric's own units

    Raises PairError where one of them lacks the metric, SampleResultsError where samples differ.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults
    >>> from adbench.benchmark.leaderboard.pairwise import compare_pair
    >>> keys, label = [f"patient {k}" for k in range(20)], np.arange(20) % 2 == 1
    >>> noise = np.random.default_rng(0).normal(0, 0.01, (2, 2000))
    >>> a, b = (
    ...     SampleResults(keys, keys, label, np.zeros(20), None, {"image_ap": value},
    ...                   {"image_ap": value + noise[k]})
    ...     for k, value in enumerate((0.8, 0.7)))
    >>> result = compare_pair([a], [b], "image_ap")
    >>> round(result.value, 3), result.verdict
    (0.1, 'better')
    """
    for results in (*a, *b):
        if results.values.get(metric) is None:
            raise PairError(_missing_metric(metric, comparable_metrics([*a, *b])))
    mean_a, mean_b = (fmean(r.values[metric] or 0.0 for r in results) for results in (a, b))
    result = compare(a, b, metric)
    verdict = ALIKE
    if result.low is not None and result.high is not None:
        up, down = (
            (-result.high, -result.low) if metric in LOWER_IS_BETTER else (result.low, result.high)
        )
        verdict = BETTER if up > margin else WORSE if down < -margin else ALIKE
    size, groups = len(a[0].keys), len(set(a[0].groups))
    return PairedComparison(
        metric,
        mean_a,
        mean_b,
        mean_a - mean_b,
        result.low,
        result.high,
        result.p,
        size,
        groups,
        verdict,
    )


def _missing_metric(metric: str, names: Sequence[str]) -> str:
    """Why there is no such metric, and which there are."""
    choices = f"there are {', '.join(names)}"
    if metric in METRIC_RANGES:
        return f"no {metric} of single samples is stored for both; {choices}"
    inside = [name for name in names if metric.casefold() in name]
    guess = did_you_mean(min(inside, key=len) if inside else metric, names)
    return f"unknown metric {metric!r}{guess} {choices.capitalize()}"


def comparable_metrics(results: Sequence[SampleResults]) -> list[str]:
    """Names of the metrics that all of them have.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults
    >>> from adbench.benchmark.leaderboard.pairwise import comparable_metrics
    >>> samples = ["a"], ["a"], np.array([True]), np.array([0.5]), None
    >>> with_map = SampleResults(*samples, {"image_ap": 1.0, "pixel_ap": 0.5}, {})
    >>> without = SampleResults(*samples, {"image_ap": 0.9, "pixel_ap": None}, {})
    >>> comparable_metrics([with_map, without])
    ['image_ap']
    """
    first = results[0].values
    return [n for n in first if all(results.values.get(n) is not None for results in results)]


def shared_metric(results: Sequence[SampleResults], preferred: str) -> str:
    """The metric by which methods are compared: the preferred one where all of them have it, else
    the first of DEFAULT_METRICS that they have.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults
    >>> from adbench.benchmark.leaderboard.pairwise import shared_metric
    >>> samples = ["a"], ["a"], np.array([True]), np.array([0.5]), None
    >>> results = [SampleResults(*samples, {"image_auroc": 1.0, "pixel_dice": 0.5}, {})]
    >>> shared_metric(results, "pixel_dice"), shared_metric(results, "pixel_ap")
    ('pixel_dice', 'image_auroc')
    """
    names = comparable_metrics(results)
    return next(
        (name for name in (preferred, *DEFAULT_METRICS) if name in names), DEFAULT_METRICS[-1]
    )


def worse_than(
    records: Sequence[Record], reference: Record, metric: str, folder: Path | None = None
) -> dict[int, bool | None]:
    """Whether each record is worse than a reference in a metric, by the record's id.

    It is where the paired 95 % interval lies wholly on the worse side of 0. None where that is
    unknown: no sample results with the metric, damaged ones, too few groups, or other samples.

    folder: of the results, where `samples` lies

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.pairwise import worse_than
    >>> baseline, better, worse = (example_record(name, hits) for name, hits in
    ...                            (("PCA", 12), ("AnoDDPM", 18), ("pDDPM", 4)))
    >>> list(worse_than([better, worse], baseline, "image_auroc").values())
    [False, True]
    """
    against = _resampled(reference, metric, folder)
    return {
        id(record): _is_worse(_resampled(record, metric, folder), against, metric)
        for record in records
    }


def _resampled(record: Record, metric: str, folder: Path | None) -> SampleResults | None:
    """The sample results of a record, if they are sound and have replicates of the metric."""
    try:
        results = sample_results_of(record, folder, [metric])
    except SampleResultsError:
        return None
    return results if results is not None and metric in results.replicates else None


def _is_worse(
    results: SampleResults | None, against: SampleResults | None, metric: str
) -> bool | None:
    if results is None or against is None:
        return None
    try:
        difference = compare_pair([results], [against], metric)
    except (PairError, SampleResultsError):
        return None
    return None if difference.low is None else difference.verdict == WORSE
