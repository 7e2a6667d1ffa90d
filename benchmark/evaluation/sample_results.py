"""Stored results of a run, sample by sample, and the comparison of methods from these alone.

Beside a record lie the samples of the test split, and what every bootstrap replicate scored. Two
methods evaluated on the same samples are compared from this, without maps, data or a network; the
replicates are of every metric that has an interval.

One HDF5 file: `record` the evaluated part of the record as JSON; `key`, `group`, `label`, `score`
and, from a method with maps, `counts` (pixels: all, abnormal, positive, both) of N samples;
`draws/<metric>` (B,) float64. Letters: N samples, B replicates.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ...datasets.io.hdf5_output import write_hdf5
from .hdf5_arrays import hdf5_dataset, read_array
from .metrics.connected_components import Array
from .metrics.ranking import LOWER_IS_BETTER
from .statistics.bootstrap import difference_clusters, effective_clusters
from .statistics.paired_tests import (
    PairedDifference,
    SignificanceResult,
    compare_with_best,
    paired_difference,
    resample_seeds,
)

COUNT_NAMES = ("pixels", "abnormal_pixels", "positive_pixels", "true_positive_pixels")
"""Of the columns of `counts` in a record: of all pixels, of those in the mask, above the threshold,
and both."""

PIXEL_POOLED_METRICS = ("pixel_auroc", "pixel_ap", "pixel_dice", "pixel_dice_oracle", "pixel_iou")
"""Metrics in which every abnormal pixel weighs alike, so a patient as much as it has of them."""


class SampleResultsError(ValueError):
    """Sample results that cannot be read or compared: one line, why, and what would do.

    >>> from pathlib import Path
    >>> from adbench.benchmark.evaluation.sample_results import (
    ...     SampleResultsError, read_sample_results)
    >>> try:
    ...     read_sample_results(Path("no/such.h5"))
    ... except SampleResultsError as error:
    ...     print(error)
    no/such.h5 holds no results of samples (...); evaluate the run again
    """


@dataclass(frozen=True)
class SampleResults:
    """The test samples of a run at its chosen level, in their order, and its metrics.

    keys, groups: one per sample        label: (N,) bool        score: (N,)
    counts: (N, 4) int of pixels: all, abnormal, positive, both; None without maps
    values: each metric, None where undefined
    replicates: each metric on every bootstrap resample, (B,)

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults
    >>> results = SampleResults(
    ...     keys=["a", "b"], groups=["patient 1", "patient 2"], label=np.array([False, True]),
    ...     score=np.array([-np.inf, 0.5]), counts=None, values={"image_auroc": 1.0}, replicates={})
    >>> results.to_json()["label"], results.to_json()["score"]
    ([0, 1], [0.5, 0.5])
    """

    keys: list[str]
    groups: list[str]
    label: Array
    score: Array
    counts: Array | None
    values: Mapping[str, float | None]
    replicates: Mapping[str, Array]
    _clusters: dict[bool, int] = field(default_factory=dict, repr=False, compare=False)

    def effective_clusters(self, metric: str) -> int:
        """The effective number of clusters of a metric, on which its interval depends."""
        pooled = self.counts is not None and metric in PIXEL_POOLED_METRICS
        if pooled not in self._clusters:  # once, not for every pair of methods
            weight = None
            if self.counts is not None and pooled:
                weight = self.counts[:, COUNT_NAMES.index("abnormal_pixels")]
            self._clusters[pooled] = effective_clusters(self.groups, self.label, weight)
        return self._clusters[pooled]

    def to_json(self) -> dict[str, list[Any]]:
        """The samples as JSON values: key, group, label, score and, with maps, the four counts.

        A score of minus infinity, of a sample with no pixel to look at, becomes the lowest other.
        """
        least = min((s for s in self.score.tolist() if np.isfinite(s)), default=0.0)
        rows: dict[str, list[Any]] = {
            "key": list(self.keys),
            "group": list(self.groups),
            "label": [int(label) for label in self.label],
            "score": [max(score, least) for score in self.score.tolist()],
        }
        if self.counts is not None:
            rows |= dict(zip(COUNT_NAMES, self.counts.T.tolist(), strict=True))
        return rows


def write_sample_results(path: Path, record: Mapping[str, Any], results: SampleResults) -> None:
    """Write the evaluated part of a record and its sample results into one HDF5 file.

    The file appears complete or not at all. Raises OSError where the disk is full.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import (
    ...     SampleResults, read_sample_results, write_sample_results)
    >>> results = SampleResults(["a"], ["a"], np.array([True]), np.array([0.5]), None, {}, {})
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "samples.h5"
    ...     write_sample_results(path, {"metrics": {"image_auroc": {"value": 1.0}}}, results)
    ...     read_sample_results(path).values
    {'image_auroc': 1.0}
    """
    with write_hdf5(path) as file:
        file["record"] = json.dumps(record, allow_nan=False)
        file.create_dataset("key", data=results.keys, dtype=h5py.string_dtype())
        file.create_dataset("group", data=results.groups, dtype=h5py.string_dtype())
        file["label"], file["score"] = results.label, results.score
        if results.counts is not None:
            file["counts"] = results.counts
        for name, values in results.replicates.items():
            file.create_dataset(f"draws/{name}", data=values, compression="gzip", shuffle=True)


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read the evaluated part of a record, as JSON values.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import (
    ...     SampleResults, read_evaluation, write_sample_results)
    >>> results = SampleResults(["a"], ["a"], np.array([True]), np.array([0.5]), None, {}, {})
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "samples.h5"
    ...     write_sample_results(path, {"metrics": {"image_auroc": {"value": 1.0}}}, results)
    ...     read_evaluation(path)
    {'metrics': {'image_auroc': {'value': 1.0}}}
    """
    with h5py.File(path, "r") as file:
        return json.loads(_read_text(file, "record")[()])


def read_sample_results(path: Path, metrics: Collection[str] | None = None) -> SampleResults:
    """Read sample results. Raises SampleResultsError on a file that holds none.

    metrics: those whose replicates are read; None for all

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import (
    ...     SampleResults, read_sample_results, write_sample_results)
    >>> replicates = {"image_auroc": np.array([0.8, 1.0]), "image_ap": np.array([0.7, 0.9])}
    >>> results = SampleResults(
    ...     ["a"], ["a"], np.array([True]), np.array([0.5]), None, {}, replicates)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "samples.h5"
    ...     write_sample_results(path, {"metrics": {}}, results)
    ...     list(read_sample_results(path, ["image_auroc"]).replicates)
    ['image_auroc']
    """
    try:
        with h5py.File(path, "r") as file:
            record = json.loads(_read_text(file, "record")[()])
            replicates = file.get("draws")
            names = list(replicates) if isinstance(replicates, h5py.Group) else []
            names = [name for name in names if metrics is None or name in metrics]
            return SampleResults(
                keys=_read_text(file, "key")[()].tolist(),
                groups=_read_text(file, "group")[()].tolist(),
                label=read_array(file, "label"),
                score=read_array(file, "score"),
                counts=read_array(file, "counts") if "counts" in file else None,
                values={name: metric["value"] for name, metric in record["metrics"].items()},
                replicates={name: read_array(file, f"draws/{name}") for name in names},
            )
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SampleResultsError(
            f"{path} holds no results of samples ({reason}); evaluate the run again"
        ) from None


def compare(
    a: Sequence[SampleResults], b: Sequence[SampleResults], metric: str
) -> PairedDifference:
    """The difference of two methods in a metric, a minus b.

    a, b: of each seed of a method, all on the same samples

    Raises SampleResultsError where the samples differ.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults, compare
    >>> keys, label = [f"patient {i}" for i in range(20)], np.arange(20) % 2 == 1
    >>> replicates = np.linspace(0.55, 0.65, 999)  # of b; those of a are 0.2 higher throughout
    >>> a, b = (SampleResults(keys, keys, label, np.zeros(20), None, {"image_ap": value},
    ...                       {"image_ap": value - 0.6 + replicates}) for value in (0.8, 0.6))
    >>> [round(number, 3) for number in compare([a], [b], "image_ap")[:3]]
    [0.2, 0.2, 0.2]
    """
    _check_same_samples([*a, *b])
    one, two = _pool_seeds(a, metric, "a"), _pool_seeds(b, metric, "b")
    return paired_difference(
        one.value, one.replicates, two.value, two.replicates, _difference_clusters(one, two)
    )


def significance_against_best(
    methods: Mapping[str, Sequence[SampleResults]], metric: str
) -> dict[str, SignificanceResult]:
    """Compare every method with the best of them in a metric, by name of the method.

    methods: by name, of each seed, all on the same samples

    Raises SampleResultsError where the samples differ.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import (
    ...     SampleResults, significance_against_best)
    >>> keys, label = [f"patient {i}" for i in range(20)], np.arange(20) % 2 == 1
    >>> noise = np.random.default_rng(0).normal(0, 0.01, (2, 2000))
    >>> a, b = (SampleResults(keys, keys, label, np.zeros(20), None, {"image_ap": value},
    ...                       {"image_ap": value + noise[k]}) for k, value in enumerate((0.8, 0.6)))
    >>> results = significance_against_best({"anoddpm": [a], "pddpm": [b]}, "image_ap")
    >>> {name: result.verdict for name, result in results.items()}
    {'anoddpm': 'best', 'pddpm': 'worse'}
    """
    _check_same_samples(results for seeds in methods.values() for results in seeds)
    pooled = [_pool_seeds(seeds, metric, name) for name, seeds in methods.items()]
    results = compare_with_best(
        [method.value for method in pooled],
        [method.replicates for method in pooled],
        lower_is_better=metric in LOWER_IS_BETTER,
        clusters=lambda i, j: _difference_clusters(pooled[i], pooled[j]),
    )
    return dict(zip(methods, results, strict=True))


class _PooledSeeds(NamedTuple):
    """A metric of a method over its seeds.

    value: the mean over seeds; None where one of them has none
    replicates: (B,) of the mean        clusters: effective number of clusters
    seed_values: the metric of each seed
    """

    value: float | None
    replicates: Array
    clusters: int
    seed_values: list[float]


def _pool_seeds(seeds: Sequence[SampleResults], metric: str, name: str) -> _PooledSeeds:
    values = [results.values.get(metric) for results in seeds]
    defined = [value for value in values if value is not None]
    replicates = [results.replicates.get(metric, np.zeros(0)) for results in seeds]
    clusters = seeds[0].effective_clusters(metric)
    if len(defined) < len(values):
        undefined = np.full(max(map(len, replicates)), np.nan)
        return _PooledSeeds(None, undefined, clusters, defined)
    mean = float(np.mean(defined))
    return _PooledSeeds(mean, resample_seeds(replicates, name), clusters, defined)


def _difference_clusters(a: _PooledSeeds, b: _PooledSeeds) -> float:
    """The effective number of clusters of the difference of two methods."""
    clusters = min(a.clusters, b.clusters)
    if a.value is None or b.value is None:
        return clusters
    seeds = [a.seed_values, b.seed_values]
    return difference_clusters(a.replicates - b.replicates, clusters, seeds)


def _check_same_samples(all_results: Iterable[SampleResults]) -> None:
    first, *others = all_results
    for results in others:
        if results.keys != first.keys or results.groups != first.groups:
            only = sorted({*results.keys} ^ {*first.keys})
            what = f"{len(only)} are in one alone, such as {only[0]!r}" if only else "their order"
            raise SampleResultsError(
                f"not evaluated on the same samples ({what}); run both on the same data and --limit"
            )
        if not np.array_equal(results.label, first.label):
            raise SampleResultsError(
                "the same samples have other labels: the data has changed; run again"
            )


def _read_text(file: h5py.File, name: str) -> Any:
    return hdf5_dataset(file, name).asstr()
