"""Ranking of methods over datasets: mean ranks, and which of them differ significantly.

Ranked together are leaderboards of one protocol and one profile, none of them partial, real data
apart from synthetic. The dataset is the unit of repetition, so each counts once: of leaderboards
with its name that differ in arguments or samples, only the one that evaluated most methods.
A method is known by its name and arguments; of its seeds the mean is taken. Where it has no
figure, for it failed, was skipped or was never run, it is the worst; one without a figure on any of
them has no rank. Baselines are ranked too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ..evaluation.metrics.ranking import LOWER_IS_BETTER
from ..evaluation.statistics.rank_tests import ALPHA, RankTest, rank_test
from .entry_names import entry_names, training_marks
from .leaderboard import Leaderboard, build_leaderboards
from .metric_names import METRIC_NAMES
from .records import Record, metric_value

RANKED_METRICS = ("pixel_ap", "image_auroc")
MIN_DATASETS = 5
"""Data sets below which ranks say little (Demsar, 2006)."""

SINGLE_DATASET_NOTE = (
    "A ranking over datasets needs results on at least two datasets, by one protocol and profile "
    "and not of trial runs; here there are fewer."
)

Key = tuple[str, str]


class DatasetRank(NamedTuple):
    """The rank of a method on a dataset.

    value: of the metric, the mean over seeds; None where there is none, which counts as the worst
    rank: 1 is the best, equals share their mean        files: of its records

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.rankings import DatasetRank
    >>> from adbench.benchmark.leaderboard.rankings import build_rankings
    >>> records = [example_record(name, hits, dataset=dataset) for dataset in ("brats", "ixi")
    ...            for name, hits in (("AnoDDPM", 18), ("pDDPM", 12))]
    >>> build_rankings(records)[0].methods[1].dataset_ranks[0]
    DatasetRank(value=0.32, rank=2.0, files=['pddpm-brats-0.json'])
    """

    value: float | None
    rank: float
    files: list[str]


@dataclass(frozen=True)
class RankedMethod:
    """A method and its ranks.

    name: as on a leaderboard; dataset_ranks: one for each dataset; mean: of these, 1 is the best

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.rankings import RankedMethod
    >>> from adbench.benchmark.leaderboard.rankings import build_rankings
    >>> records = [example_record(name, hits, dataset=dataset) for dataset in ("brats", "ixi")
    ...            for name, hits in (("AnoDDPM", 18), ("pDDPM", 12))]
    >>> [(method.name, method.mean) for method in build_rankings(records)[0].methods]
    [('AnoDDPM', 1.0), ('pDDPM', 2.0)]
    """

    name: str
    baseline: bool
    mean: float
    dataset_ranks: list[DatasetRank]


@dataclass(frozen=True)
class CrossDatasetRanking:
    """Methods over data sets in one metric, the best mean rank first.

    p, critical_difference: as in rank_tests.py     cliques: of indices of methods that are not
    significantly different
    notes: sentences to print beneath

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.rankings import CrossDatasetRanking
    >>> from adbench.benchmark.leaderboard.rankings import build_rankings
    >>> records = [example_record(name, hits, dataset=dataset) for dataset in ("brats", "ixi")
    ...            for name, hits in (("AnoDDPM", 18), ("pDDPM", 12))]
    >>> [(ranking.title, ranking.datasets) for ranking in build_rankings(records)]
    [('pixel AP over 2 data sets, profile tiny', ['brats', 'ixi']), ('image AUROC over 2 data sets,
    profile tiny', ['brats', 'ixi'])]
    """

    title: str
    metric: str
    datasets: list[str]
    methods: list[RankedMethod]
    p: float | None
    critical_difference: float | None
    cliques: list[list[int]]
    notes: list[str]


def build_rankings(records: Sequence[Record]) -> list[CrossDatasetRanking]:
    """The rankings of the leaderboards of records, as `rank_leaderboards` gives them.

    >>> from adbench.benchmark.leaderboard.rankings import build_rankings
    >>> build_rankings([])
    []
    """
    return rank_leaderboards(build_leaderboards(records))


@dataclass(frozen=True)
class LeaderboardSet:
    """All leaderboards of records, and the rankings over their datasets.

    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.leaderboard.rankings import LeaderboardSet
    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> results = build_leaderboard_set(example_records())
    >>> [board.title for board in results.leaderboards], results.rankings
    (['BraTS'], [])
    >>> results
    <LeaderboardSet: 1 leaderboard, 0 rankings>
    <Leaderboard BraTS: 2 rows>
    """

    leaderboards: list[Leaderboard]
    rankings: list[CrossDatasetRanking]

    def __repr__(self) -> str:
        """How many leaderboards and rankings there are, and a line for each leaderboard."""
        counts = {"leaderboard": len(self.leaderboards), "ranking": len(self.rankings)}
        parts = [f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items()]
        head = f"<{type(self).__name__}: {', '.join(parts)}>"
        return "\n".join([head, *map(repr, self.leaderboards)])


def build_leaderboard_set(records: Sequence[Record], folder: Path | None = None) -> LeaderboardSet:
    """The leaderboards and rankings of records; `folder` as for `build_leaderboards`.

    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> build_leaderboard_set([])
    <LeaderboardSet: 0 leaderboards, 0 rankings>
    """
    leaderboards = build_leaderboards(records, folder)
    return LeaderboardSet(leaderboards, rank_leaderboards(leaderboards))


def rank_leaderboards(
    leaderboards: Sequence[Leaderboard], *, only_complete: bool = False
) -> list[CrossDatasetRanking]:
    """One ranking for each metric of each protocol and profile with two datasets or more.

    only_complete: leave out methods that were never run on one of the datasets, for leaderboards
        that were not meant to have the same methods; otherwise they are the worst there

    >>> from adbench.benchmark.leaderboard.leaderboard import Leaderboard
    >>> from adbench.benchmark.leaderboard.rankings import rank_leaderboards
    >>> rank_leaderboards([Leaderboard("brats", "pixel_ap", [])])
    []
    """
    groups: dict[tuple[bool, str, str], list[tuple[Leaderboard, list[Record]]]] = {}
    for leaderboard in leaderboards:
        if not leaderboard.done or leaderboard.done[0].record["partial"]:
            continue
        record = leaderboard.done[0].record
        for profile in sorted({str(entry.record["profile"]) for entry in leaderboard.entries}):
            of_profile = [
                entry.record
                for entry in leaderboard.entries
                if str(entry.record["profile"]) == profile
            ]
            key = bool(record["dataset"]["synthetic"]), record["protocol"]["id"], profile
            groups.setdefault(key, []).append((leaderboard, of_profile))
    return [
        ranking
        for key, group in sorted(groups.items(), key=lambda item: item[0])
        for ranking in _rankings_of_group(key, group, only_complete)
    ]


def _rankings_of_group(
    key: tuple[bool, str, str],
    group: Sequence[tuple[Leaderboard, list[Record]]],
    only_complete: bool,
) -> Iterator[CrossDatasetRanking]:
    synthetic, protocol, profile = key
    for metric in RANKED_METRICS:
        with_metric = [
            records
            for _, records in group
            if any(metric_value(r, metric) is not None for r in records)
        ]
        sets, left_out = _unique_datasets(with_metric)
        if len(sets) < 2:
            continue
        kind = "synthetic data sets" if synthetic else "data sets"
        title = f"{METRIC_NAMES[metric]} over {len(sets)} {kind}, profile {profile}"
        if only_complete:
            sets, not_run = _without_incomplete(sets)
            left_out += not_run
        if any(sets.values()):
            yield _build_ranking(title, metric, sets, [f"Protocol {protocol}.", *left_out])


def _unique_datasets(
    record_groups: Sequence[list[Record]],
) -> tuple[dict[str, list[Record]], list[str]]:
    """The records of each data set by its name, and notes on leaderboards that are left out."""
    chosen: dict[str, list[Record]] = {}
    other: dict[str, int] = {}
    for records in record_groups:
        name = _dataset_name(records)
        if name in chosen:
            other[name] = other.get(name, 0) + 1
        if name not in chosen or _evaluated_samples(records) > _evaluated_samples(chosen[name]):
            chosen[name] = records
    notes = [
        f"{name} counts once, by the leaderboard with most methods; left out: {count} more."
        for name, count in sorted(other.items())
    ]
    return dict(sorted(chosen.items())), notes


def _without_incomplete(
    sets: dict[str, list[Record]],
) -> tuple[dict[str, list[Record]], list[str]]:
    """The records of methods that were run on each data set, and a note on the others."""
    methods = {
        _key(record): {**record, "seed": ""} for records in sets.values() for record in records
    }
    on_all = set.intersection(*({_key(record) for record in records} for records in sets.values()))
    complete = {
        name: [record for record in records if _key(record) in on_all]
        for name, records in sets.items()
    }
    names = entry_names(list(methods.values()))
    others = sorted(names[id(methods[key])] for key in methods.keys() - on_all)
    if not others:
        return complete, []
    return complete, [f"Not run on all of them, and so without a rank: {', '.join(others)}."]


def _dataset_name(records: Sequence[Record]) -> str:
    return str(records[0]["dataset"]["name"])


def _evaluated_samples(records: Sequence[Record]) -> int:
    return len({_key(record) for record in records if record["status"] == "ok"})


def _key(record: Record) -> Key:
    method = record["method"]
    settings = [method["args"], *training_marks(record)]
    return str(method["name"]), json.dumps(settings, sort_keys=True)


def _build_ranking(
    title: str, metric: str, sets: dict[str, list[Record]], notes: Sequence[str]
) -> CrossDatasetRanking:
    methods = {
        _key(record): {**record, "seed": ""}
        for records in reversed(sets.values())
        for record in reversed(records)
    }
    names = entry_names(list(methods.values()))
    by_set = [_by_method(records, methods) for records in sets.values()]
    values = {
        key: [_mean_value(by_key[key], metric) for by_key in by_set] for key in sorted(methods)
    }
    keys = [key for key, row in values.items() if any(value is not None for value in row)]
    table = [list(column) for column in zip(*(values[key] for key in keys), strict=True)]
    unranked = sorted(names[id(methods[key])] for key in values.keys() - {*keys})
    test = rank_test(table, lower_is_better=metric in LOWER_IS_BETTER)
    order = sorted(
        range(len(keys)), key=lambda i: (test.mean_ranks[i], names[id(methods[keys[i]])])
    )
    entrants = [
        RankedMethod(
            name=names[id(methods[keys[i]])],
            baseline=bool(methods[keys[i]]["method"]["baseline"]),
            mean=float(test.mean_ranks[i]),
            dataset_ranks=[
                DatasetRank(table[d][i], float(test.ranks[d, i]), _files(by_key[keys[i]]))
                for d, by_key in enumerate(by_set)
            ],
        )
        for i in order
    ]
    seeds = {len({str(r["seed"]) for r in group}) for f in by_set for group in f.values() if group}
    all_notes = [
        *_test_notes(test, len(sets)),
        *_missing_notes(entrants, list(sets)),
        *_unranked_notes(unranked),
        *_seed_notes(seeds),
        *notes,
    ]
    cliques = [sorted(order.index(i) for i in clique) for clique in test.cliques]
    return CrossDatasetRanking(
        title,
        metric,
        list(sets),
        entrants,
        test.p_value,
        test.critical_difference,
        cliques,
        all_notes,
    )


def _by_method(records: Sequence[Record], keys: Iterable[Key]) -> dict[Key, list[Record]]:
    groups: dict[Key, list[Record]] = {key: [] for key in keys}
    for record in records:
        groups[_key(record)].append(record)
    return groups


def _mean_value(seeds: Sequence[Record], metric: str) -> float | None:
    """Over seeds; None where there is none, or one has no figure: missing is the worst."""
    values = [metric_value(r, metric) if r["status"] == "ok" else None for r in seeds]
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined and len(defined) == len(values) else None


def _files(seeds: Sequence[Record]) -> list[str]:
    return [str(record.get("file", "?")) for record in seeds]


def _test_notes(test: RankTest, sets: int) -> list[str]:
    notes = ["Mean rank over data sets, 1 is the best."]
    if test.p_value is None or test.critical_difference is None:
        notes.append("Fewer than three methods: ranks alone, for Friedman's test wants three.")
    elif test.p_value < ALPHA:
        notes.append(
            f"Friedman's test finds that methods differ (p = {test.p_value:.2g}); mean "
            "ranks closer "
            f"than {test.critical_difference:.2f} are not significantly different at 5 % (Nemenyi)."
        )
    else:
        notes.append(
            "Friedman's test finds no difference between methods (p = "
            f"{test.p_value:.2g}), so none "
            "is significantly different from another."
        )
    if sets < MIN_DATASETS:
        notes.append(f"WARNING: {sets} data sets are few; below {MIN_DATASETS} ranks say little.")
    return notes


def _missing_notes(entrants: Sequence[RankedMethod], sets: Sequence[str]) -> list[str]:
    lacking = {
        method.name: [
            s
            for s, dataset_rank in zip(sets, method.dataset_ranks, strict=True)
            if dataset_rank.value is None
        ]
        for method in entrants
    }
    missing = [f"{name} on {', '.join(where)}" for name, where in lacking.items() if where]
    return [f"Without a figure, and so the worst: {'; '.join(missing)}."] if missing else []


def _unranked_notes(names: Sequence[str]) -> list[str]:
    listed = ", ".join(names)
    return [f"Without a figure on any of them, and so without a rank: {listed}."] if names else []


def _seed_notes(counts: set[int]) -> list[str]:
    if counts == {1}:
        return []
    return [f"Means over seeds, {' or '.join(map(str, sorted(counts)))} for a method."]
