"""Methods over data sets: which boards may be ranked together, and what their ranks say.

Ranked together are boards of one protocol and one profile, none of them partial, real data apart
from made-up. A data set is what is repeated, so it stands once: of boards that have its name, and
differ in its arguments or in what lay on the disk, only the one that most methods were judged on.
A method is known by its name and arguments; of its seeds the mean is taken. Where it has no
figure, for it failed, was skipped or was never run, it is the worst. Baselines are ranked too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from ..evaluation.metrics.ranking import LOWER_IS_BETTER
from ..evaluation.statistics.rank_tests import ALPHA, RankTest, rank_test
from .leaderboard import METRIC_NAMES, Leaderboard, build_leaderboards, entry_names
from .records import Record, metric_value

RANKED_METRICS = ("pixel_ap", "image_auroc")
MIN_DATASETS = 5
"""Data sets below which ranks say little (Demsar, 2006)."""

SINGLE_DATASET_NOTE = (
    "Ranks over data sets want at least two data sets with a result, judged whole by the same "
    "protocol in the same profile; here there are not."
)

Key = tuple[str, str]


class DatasetRank(NamedTuple):
    """A method on a data set. value: None where it counts as the worst; files: of its records"""

    value: float | None
    rank: float
    files: list[str]


@dataclass(frozen=True)
class RankedMethod:
    """name: as on a board; dataset_ranks: one for each data set; mean: rank over them, 1 is the
    best"""

    name: str
    baseline: bool
    mean: float
    dataset_ranks: list[DatasetRank]


@dataclass(frozen=True)
class CrossDatasetRanking:
    """Methods over data sets in one metric, the best mean rank first.

    p, critical_difference: as in ranks.py     cliques: of indices into the entrants, that cannot
    be told apart
    notes: sentences to print beneath
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
    """One for each metric of each protocol and profile with two data sets or more."""
    groups: dict[tuple[bool, str, str], list[tuple[Leaderboard, list[Record]]]] = {}
    for board in build_leaderboards(records):
        if not board.done or board.done[0].record["partial"]:
            continue
        record = board.done[0].record
        for profile in sorted({str(row.record["profile"]) for row in board.entries}):
            own = [row.record for row in board.entries if str(row.record["profile"]) == profile]
            key = bool(record["dataset"]["synthetic"]), record["protocol"]["id"], profile
            groups.setdefault(key, []).append((board, own))
    return [
        league
        for key, found in sorted(groups.items(), key=lambda item: item[0])
        for league in _rankings_of_group(key, found)
    ]


def _rankings_of_group(
    key: tuple[bool, str, str], found: Sequence[tuple[Leaderboard, list[Record]]]
) -> Iterator[CrossDatasetRanking]:
    synthetic, protocol, profile = key
    for metric in RANKED_METRICS:
        held = [own for _, own in found if any(metric_value(r, metric) is not None for r in own)]
        sets, left_out = _unique_datasets(held)
        if len(sets) < 2:
            continue
        made_up = "SYNTHETIC data sets" if synthetic else "data sets"
        title = f"{METRIC_NAMES[metric]} over {len(sets)} {made_up}, profile {profile}"
        yield _build_ranking(title, metric, sets, [f"Protocol {protocol}.", *left_out])


def _unique_datasets(found: Sequence[list[Record]]) -> tuple[dict[str, list[Record]], list[str]]:
    """The records of each data set by its name, and what is said of boards that are left out."""
    chosen: dict[str, list[Record]] = {}
    other: dict[str, int] = {}
    for own in found:
        name = _dataset_name(own)
        if name in chosen:
            other[name] = other.get(name, 0) + 1
        if name not in chosen or _evaluated_samples(own) > _evaluated_samples(chosen[name]):
            chosen[name] = own
    said = [
        f"{name} stands once: the board that most methods were judged on; left out: {count} more."
        for name, count in sorted(other.items())
    ]
    return dict(sorted(chosen.items())), said


def _dataset_name(own: Sequence[Record]) -> str:
    return str(own[0]["dataset"]["name"])


def _evaluated_samples(own: Sequence[Record]) -> int:
    return len({_key(record) for record in own if record["status"] == "ok"})


def _key(record: Record) -> Key:
    method = record["method"]
    return str(method["name"]), json.dumps(method["args"], sort_keys=True)


def _build_ranking(
    title: str, metric: str, sets: dict[str, list[Record]], notes: Sequence[str]
) -> CrossDatasetRanking:
    methods: dict[Key, Record] = {}
    for own in sets.values():
        for record in own:
            methods.setdefault(_key(record), {**record, "seed": ""})
    keys = sorted(methods)
    called = entry_names(list(methods.values()))
    by_set = [{key: [r for r in own if _key(r) == key] for key in keys} for own in sets.values()]
    table = [[_mean_value(found[key], metric) for key in keys] for found in by_set]
    said = rank_test(table, lower_is_better=metric in LOWER_IS_BETTER)
    order = sorted(
        range(len(keys)), key=lambda i: (said.mean_ranks[i], called[id(methods[keys[i]])])
    )
    entrants = [
        RankedMethod(
            name=called[id(methods[keys[i]])],
            baseline=bool(methods[keys[i]]["method"]["baseline"]),
            mean=float(said.mean_ranks[i]),
            dataset_ranks=[
                DatasetRank(table[d][i], float(said.ranks[d, i]), _files(found[keys[i]]))
                for d, found in enumerate(by_set)
            ],
        )
        for i in order
    ]
    seeds = {len({str(r["seed"]) for r in group}) for f in by_set for group in f.values() if group}
    told = [
        *_test_notes(said, len(sets)),
        *_missing_notes(entrants, list(sets)),
        *_seed_notes(seeds),
        *notes,
    ]
    cliques = [sorted(order.index(i) for i in clique) for clique in said.cliques]
    return CrossDatasetRanking(
        title, metric, list(sets), entrants, said.p_value, said.critical_difference, cliques, told
    )


def _mean_value(seeds: Sequence[Record], metric: str) -> float | None:
    """Over seeds; None where there is none, or one has no figure: missing is the worst."""
    values = [metric_value(r, metric) if r["status"] == "ok" else None for r in seeds]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _files(seeds: Sequence[Record]) -> list[str]:
    return [str(record.get("file", "?")) for record in seeds]


def _test_notes(found: RankTest, sets: int) -> list[str]:
    said = ["Mean rank over data sets, 1 is the best."]
    if found.p_value is None or found.critical_difference is None:
        said.append("Fewer than three methods: ranks alone, for Friedman's test wants three.")
    elif found.p_value < ALPHA:
        said.append(
            f"Friedman's test finds that methods differ (p = {found.p_value:.2g}); mean "
            "ranks closer "
            f"than {found.critical_difference:.2f} cannot be told apart at 5 % (Nemenyi)."
        )
    else:
        said.append(
            "Friedman's test finds no difference between methods (p = "
            f"{found.p_value:.2g}), so none "
            "can be told from another."
        )
    if sets < MIN_DATASETS:
        said.append(f"WARNING: {sets} data sets are few; below {MIN_DATASETS} ranks say little.")
    return said


def _missing_notes(entrants: Sequence[RankedMethod], sets: Sequence[str]) -> list[str]:
    lacking = {
        each.name: [
            s for s, stand in zip(sets, each.dataset_ranks, strict=True) if stand.value is None
        ]
        for each in entrants
    }
    told = [f"{name} on {', '.join(where)}" for name, where in lacking.items() if where]
    return [f"Without a figure, and so the worst: {'; '.join(told)}."] if told else []


def _seed_notes(counts: set[int]) -> list[str]:
    if counts == {1}:
        return []
    return [f"Means over seeds, {' or '.join(map(str, sorted(counts)))} for a method."]
