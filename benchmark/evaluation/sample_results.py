"""What is kept of a judged run beside its record: its samples one by one, and what every resample
of their groups scored. Two methods judged on the same samples are compared from this alone, without
maps, data or a network; the draws are of every metric that has an interval.

One HDF5 file: `record` the record's judged part as JSON; `key`, `group`, `label`, `score` and, from
a method with maps, `counts` (places, abnormal, found, rightly found) of N samples; `draws/<metric>`
(B,) float64. Letters: N samples, B draws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

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

COUNT_NAMES = ("places", "true", "found", "both")

PIXEL_POOLED_METRICS = ("pixel_auroc", "pixel_ap", "pixel_dice", "pixel_dice_oracle", "pixel_iou")
"""Metrics in which every abnormal place weighs alike, so a patient as much as it has of them."""


class SampleResultsError(ValueError):
    """Rows that cannot be read or compared: one line, why, and what would do."""


@dataclass(frozen=True)
class SampleResults:
    """The test samples of a run at its chosen level, in their order.

    keys, groups: one per sample        label: (N,) bool        score: (N,)
    counts: (N, 4) int of places: all, abnormal, found, rightly found; None without maps
    values, replicates: each metric's figure, and what every resample scored, (B,) each
    """

    keys: list[str]
    groups: list[str]
    label: Array
    score: Array
    counts: Array | None
    values: Mapping[str, float | None]
    replicates: Mapping[str, Array]

    def effective_clusters(self, metric: str) -> int:
        """How many groups a metric's interval hangs on."""
        if self.counts is None or metric not in PIXEL_POOLED_METRICS:
            return effective_clusters(self.groups, self.label)
        return effective_clusters(
            self.groups, self.label, self.counts[:, COUNT_NAMES.index("true")]
        )

    def to_json(self) -> dict[str, list[Any]]:
        """The samples in words of JSON: key, group, label, score and, with maps, the four counts.

        A score of minus infinity, of a sample with no place to look at, is told as the least.
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
    with h5py.File(path, "w") as file:
        file["record"] = json.dumps(record, allow_nan=False)
        file.create_dataset("key", data=results.keys, dtype=h5py.string_dtype())
        file.create_dataset("group", data=results.groups, dtype=h5py.string_dtype())
        file["label"], file["score"] = results.label, results.score
        if results.counts is not None:
            file["counts"] = results.counts
        for name, values in results.replicates.items():
            file.create_dataset(f"draws/{name}", data=values, compression="gzip", shuffle=True)


def read_evaluation(path: Path) -> dict[str, Any]:
    """The judged part of a record."""
    with h5py.File(path, "r") as file:
        return json.loads(_read_text(file, "record")[()])


def read_sample_results(path: Path) -> SampleResults:
    """Raises RowsError on a file that holds no rows."""
    try:
        with h5py.File(path, "r") as file:
            record = json.loads(_read_text(file, "record")[()])
            found = file.get("draws")
            drawn = list(found) if isinstance(found, h5py.Group) else []
            return SampleResults(
                keys=_read_text(file, "key")[()].tolist(),
                groups=_read_text(file, "group")[()].tolist(),
                label=_read_array(file, "label"),
                score=_read_array(file, "score"),
                counts=_read_array(file, "counts") if "counts" in file else None,
                values={name: found["value"] for name, found in record["metrics"].items()},
                replicates={name: _read_array(file, f"draws/{name}") for name in drawn},
            )
    except (OSError, KeyError, ValueError) as error:
        said = " ".join(str(error).split())
        raise SampleResultsError(
            f"{path} holds no rows of samples ({said}); judge the run again"
        ) from None


def compare(
    a: Sequence[SampleResults], b: Sequence[SampleResults], metric: str
) -> PairedDifference:
    """a minus b, each the rows of a method's seeds on the same samples."""
    _check_same_samples([*a, *b])
    one, two = _pool_seeds(a, metric, "a"), _pool_seeds(b, metric, "b")
    return paired_difference(
        one.value, one.replicates, two.value, two.replicates, _difference_clusters(one, two)
    )


def significance_against_best(
    methods: Mapping[str, Sequence[SampleResults]], metric: str
) -> dict[str, SignificanceResult]:
    """Where each method stands among all; each the rows of its seeds on the same samples."""
    _check_same_samples(rows for seeds in methods.values() for rows in seeds)
    pooled = [_pool_seeds(seeds, metric, name) for name, seeds in methods.items()]
    found = compare_with_best(
        [each.value for each in pooled],
        [each.replicates for each in pooled],
        lower_is_better=metric in LOWER_IS_BETTER,
        clusters=lambda i, j: _difference_clusters(pooled[i], pooled[j]),
    )
    return dict(zip(methods, found, strict=True))


class _PooledSeeds(NamedTuple):
    """value: the mean over seeds, None where one of them has no figure; replicates: its draws (B,);
    clusters: the groups that it hangs on; seed_values: their figures"""

    value: float | None
    replicates: Array
    clusters: int
    seed_values: list[float]


def _pool_seeds(seeds: Sequence[SampleResults], metric: str, name: str) -> _PooledSeeds:
    values = [rows.values.get(metric) for rows in seeds]
    known = [value for value in values if value is not None]
    drawn = [rows.replicates.get(metric, np.zeros(0)) for rows in seeds]
    rare = seeds[0].effective_clusters(metric)
    if len(known) < len(values):
        return _PooledSeeds(None, np.full(max(map(len, drawn)), np.nan), rare, known)
    return _PooledSeeds(float(np.mean(known)), resample_seeds(drawn, name), rare, known)


def _difference_clusters(a: _PooledSeeds, b: _PooledSeeds) -> float:
    """From how many groups the difference of two is known, if one is of few seeds that disagree
    from fewer."""
    if a.value is None or b.value is None:
        return min(a.clusters, b.clusters)
    return difference_clusters(
        a.replicates - b.replicates, min(a.clusters, b.clusters), [a.seed_values, b.seed_values]
    )


def _check_same_samples(all_results: Any) -> None:
    first, *others = all_results
    for rows in others:
        if rows.keys != first.keys or rows.groups != first.groups:
            only = sorted({*rows.keys} ^ {*first.keys})
            what = f"{len(only)} are in one alone, such as {only[0]!r}" if only else "their order"
            raise SampleResultsError(
                f"not judged on the same samples ({what}); run both on the same data and --limit"
            )
        if not np.array_equal(rows.label, first.label):
            raise SampleResultsError(
                "the same samples have other labels: the data has changed; run again"
            )


def _read_text(file: h5py.File, name: str) -> Any:
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(name)
    return found.asstr()


def _read_array(file: h5py.File, name: str) -> Array:
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(name)
    return np.asarray(found[()])
