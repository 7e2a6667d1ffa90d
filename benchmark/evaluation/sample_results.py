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
from .metrics.ranking import LOWER
from .statistics.bootstrap import known_from, rarer
from .statistics.paired_tests import Difference, Standing, difference, over_seeds, standings

COUNTS = ("places", "true", "found", "both")

POOLED = ("pixel_auroc", "pixel_ap", "pixel_dice", "pixel_dice_oracle", "pixel_iou")
"""Metrics in which every abnormal place weighs alike, so a patient as much as it has of them."""


class RowsError(ValueError):
    """Rows that cannot be read or compared: one line, why, and what would do."""


@dataclass(frozen=True)
class Rows:
    """The test samples of a run at its chosen level, in their order.

    keys, groups: one per sample        label: (N,) bool        score: (N,)
    counts: (N, 4) int of places: all, abnormal, found, rightly found; None without maps
    values, draws: each metric's figure, and what every resample scored, (B,) each
    """

    keys: list[str]
    groups: list[str]
    label: Array
    score: Array
    counts: Array | None
    values: Mapping[str, float | None]
    draws: Mapping[str, Array]

    def rare(self, metric: str) -> int:
        """How many groups a metric's interval hangs on."""
        if self.counts is None or metric not in POOLED:
            return rarer(self.groups, self.label)
        return rarer(self.groups, self.label, self.counts[:, COUNTS.index("true")])

    def told(self) -> dict[str, list[Any]]:
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
            rows |= dict(zip(COUNTS, self.counts.T.tolist(), strict=True))
        return rows


def write(path: Path, record: Mapping[str, Any], rows: Rows) -> None:
    with h5py.File(path, "w") as file:
        file["record"] = json.dumps(record, allow_nan=False)
        file.create_dataset("key", data=rows.keys, dtype=h5py.string_dtype())
        file.create_dataset("group", data=rows.groups, dtype=h5py.string_dtype())
        file["label"], file["score"] = rows.label, rows.score
        if rows.counts is not None:
            file["counts"] = rows.counts
        for name, values in rows.draws.items():
            file.create_dataset(f"draws/{name}", data=values, compression="gzip", shuffle=True)


def read_record(path: Path) -> dict[str, Any]:
    """The judged part of a record."""
    with h5py.File(path, "r") as file:
        return json.loads(_text(file, "record")[()])


def read(path: Path) -> Rows:
    """Raises RowsError on a file that holds no rows."""
    try:
        with h5py.File(path, "r") as file:
            record = json.loads(_text(file, "record")[()])
            found = file.get("draws")
            drawn = list(found) if isinstance(found, h5py.Group) else []
            return Rows(
                keys=_text(file, "key")[()].tolist(),
                groups=_text(file, "group")[()].tolist(),
                label=_array(file, "label"),
                score=_array(file, "score"),
                counts=_array(file, "counts") if "counts" in file else None,
                values={name: found["value"] for name, found in record["metrics"].items()},
                draws={name: _array(file, f"draws/{name}") for name in drawn},
            )
    except (OSError, KeyError, ValueError) as error:
        said = " ".join(str(error).split())
        raise RowsError(f"{path} holds no rows of samples ({said}); judge the run again") from None


def compared(a: Sequence[Rows], b: Sequence[Rows], metric: str) -> Difference:
    """a minus b, each the rows of a method's seeds on the same samples."""
    _check([*a, *b])
    one, two = _pooled(a, metric, "a"), _pooled(b, metric, "b")
    return difference(one.value, one.draws, two.value, two.draws, _known(one, two))


def board_standings(methods: Mapping[str, Sequence[Rows]], metric: str) -> dict[str, Standing]:
    """Where each method stands among all; each the rows of its seeds on the same samples."""
    _check(rows for seeds in methods.values() for rows in seeds)
    pooled = [_pooled(seeds, metric, name) for name, seeds in methods.items()]
    found = standings(
        [each.value for each in pooled],
        [each.draws for each in pooled],
        lower=metric in LOWER,
        rare=lambda i, j: _known(pooled[i], pooled[j]),
    )
    return dict(zip(methods, found, strict=True))


class _Pooled(NamedTuple):
    """value: the mean over seeds, None where one of them has no figure; draws: its draws (B,);
    rare: the groups that it hangs on; seeds: their figures"""

    value: float | None
    draws: Array
    rare: int
    seeds: list[float]


def _pooled(seeds: Sequence[Rows], metric: str, name: str) -> _Pooled:
    values = [rows.values.get(metric) for rows in seeds]
    known = [value for value in values if value is not None]
    drawn = [rows.draws.get(metric, np.zeros(0)) for rows in seeds]
    rare = seeds[0].rare(metric)
    if len(known) < len(values):
        return _Pooled(None, np.full(max(map(len, drawn)), np.nan), rare, known)
    return _Pooled(float(np.mean(known)), over_seeds(drawn, name), rare, known)


def _known(a: _Pooled, b: _Pooled) -> float:
    """From how many groups the difference of two is known, if one is of few seeds that disagree
    from fewer."""
    if a.value is None or b.value is None:
        return min(a.rare, b.rare)
    return known_from(a.draws - b.draws, min(a.rare, b.rare), [a.seeds, b.seeds])


def _check(all_rows: Any) -> None:
    first, *others = all_rows
    for rows in others:
        if rows.keys != first.keys or rows.groups != first.groups:
            only = sorted({*rows.keys} ^ {*first.keys})
            what = f"{len(only)} are in one alone, such as {only[0]!r}" if only else "their order"
            raise RowsError(
                f"not judged on the same samples ({what}); run both on the same data and --limit"
            )
        if not np.array_equal(rows.label, first.label):
            raise RowsError("the same samples have other labels: the data has changed; run again")


def _text(file: h5py.File, name: str) -> Any:
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(name)
    return found.asstr()


def _array(file: h5py.File, name: str) -> Array:
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(name)
    return np.asarray(found[()])
