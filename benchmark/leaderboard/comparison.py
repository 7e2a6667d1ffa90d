"""Comparison of two methods, or of two results folders, from their records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..evaluation.sample_results import SampleResults
from ..registry.imports import did_you_mean
from .columns import TITLES
from .entry import Entry
from .leaderboard import Leaderboard, build_leaderboards
from .pairwise import (
    WORSE,
    PairedComparison,
    PairError,
    compare_pair,
    sample_results_of,
    shared_metric,
)
from .records import Record, read_records


@dataclass(frozen=True)
class Comparison:
    """Two methods on one leaderboard, each with the records of its seeds, and how they differ.

    >>> from adbench.benchmark.leaderboard.comparison import Comparison
    >>> from adbench.benchmark.leaderboard.pairwise import PairedComparison
    >>> difference = PairedComparison(
    ...     "pixel_ap", 0.46, 0.32, 0.14, 0.05, 0.23, 0.002, 40, 40, "better")
    >>> files = ("anoddpm-brats-0",), ("pddpm-brats-0",)
    >>> print(Comparison("brats", "AnoDDPM", "pDDPM", files, difference).sentence())
    brats: pixel AP of AnoDDPM 0.4600, of pDDPM 0.3200, difference +0.1400 [+0.0500, +0.2300] on 40
    samples of 40 groups: AnoDDPM is better
    """

    board: str
    a: str
    b: str
    files: tuple[tuple[str, ...], tuple[str, ...]]
    difference: PairedComparison

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """The comparison in one sentence."""
        result = self.difference
        bounds = (
            f"[{result.low:+.4f}, {result.high:+.4f}]"
            if result.low is not None and result.high is not None
            else f"no interval, {result.groups} groups are too few"
        )
        return (
            f"{self.board}: {TITLES.get(result.metric, result.metric)} of {self.a} {result.a:.4f}, "
            f"of {self.b} {result.b:.4f}, difference {result.value:+.4f} {bounds} on "
            f"{result.samples} samples of {result.groups} groups: {self.a} is {result.verdict}"
        )


def compare(
    a: str,
    b: str,
    folder: Path,
    records: Sequence[Record] | None = None,
    *,
    dataset: str | None = None,
    metric: str | None = None,
    margin: float = 0.0,
) -> list[Comparison]:
    """Compare methods a and b of one folder, or each method that folders a and b share.

    a, b: a method's name, a record's file (without .json), or a folder with `records`
    folder: of the results of both methods
    records: of that folder; None to read them
    metric: that of the leaderboard if both can be compared by it, else image AUROC, unless named

    Raises PairError where there is nothing to compare.

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.comparison import compare
    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> records = example_records()  # AnoDDPM has an image AUROC of 0.9, pDDPM of 0.6
    >>> (comparison,) = compare("anoddpm", "pddpm", Path(), records, metric="image_auroc")
    >>> round(comparison.difference.value, 6), comparison.difference.verdict
    (0.3, 'better')
    """
    if not 0 <= margin < math.inf:
        raise PairError(f"--margin is a number and at least 0, not {margin:g}")
    folders = [Path(name) for name in (a, b) if (Path(name) / "records").is_dir()]
    if len(folders) == 1:
        other = b if str(folders[0]) == a else a
        raise PairError(f"'{folders[0]}' is a folder of results and '{other}' is not: give two")
    if folders:
        pairs = _pairs_of_folders(*folders)
    else:
        records = read_records(folder / "records") if records is None else records
        pairs = _pairs_of_methods(a, b, folder, records)
    chosen = [
        pair for pair in pairs if dataset in (None, pair[1].entries[0].record["dataset"]["name"])
    ]
    if not chosen:
        where = f" on {dataset}" if dataset else ""
        raise PairError(
            f"'{a}' and '{b}' have no leaderboard in common{where}: both must be run with the "
            "same data, protocol and --limit (adbench report shows what there is)"
        )
    return [_compare_pair(pair, metric, margin) for pair in chosen]


@dataclass(frozen=True)
class _ComparedMethod:
    """One of the two methods: its name, its entries, and the results folder they are from."""

    name: str
    entries: list[Entry]
    folder: Path

    def samples(self) -> list[SampleResults]:
        results = []
        for entry in self.entries:
            samples = sample_results_of(entry.record, self.folder)
            if samples is None:
                raise PairError(
                    f"of {_stem(entry.record) or entry.name} no results of single samples are "
                    "stored: the same `adbench run` evaluates it again, without training"
                )
            results.append(samples)
        return results


Pair = tuple[Leaderboard, _ComparedMethod, _ComparedMethod]


def _pairs_of_methods(a: str, b: str, out: Path, records: Sequence[Record]) -> list[Pair]:
    pairs: list[Pair] = []
    methods: set[str] = set()
    matched: set[str] = set()
    for leaderboard in build_leaderboards(records):
        one, two = (_entries_of_seeds(leaderboard, name) for name in (a, b))
        methods |= {entry.record["method"]["name"] for entry in leaderboard.done}
        matched |= {name for name, entries in ((a, one), (b, two)) if entries}
        if one and two:
            pairs.append(
                (
                    leaderboard,
                    _ComparedMethod(one[0].name, one, out),
                    _ComparedMethod(two[0].name, two, out),
                )
            )
    for name in (a, b):
        if name not in matched:
            guess = did_you_mean(name, methods)
            choices = f"There are {', '.join(sorted(methods))}"
            raise PairError(f"no result of '{name}' in {out}{guess} {choices}")
    return pairs


def _pairs_of_folders(one: Path, two: Path) -> list[Pair]:
    """Leaderboards of both folders' records together; of each method in both, its entries."""
    first, second = (read_records(folder / "records") for folder in (one, two))
    first_ids = {id(record) for record in first}
    pairs = []
    for leaderboard in build_leaderboards([*first, *second]):
        for name in dict.fromkeys(entry.record["method"]["name"] for entry in leaderboard.done):
            entries = _entries_named(leaderboard, name)
            a = _single_method([entry for entry in entries if id(entry.record) in first_ids], name)
            b = _single_method(
                [entry for entry in entries if id(entry.record) not in first_ids], name
            )
            if a and b:
                sides = (
                    _ComparedMethod(f"{name} in {one}", a, one),
                    _ComparedMethod(f"{name} in {two}", b, two),
                )
                pairs.append((leaderboard, *sides))
    return pairs


def _entries_of_seeds(leaderboard: Leaderboard, name: str) -> list[Entry]:
    exact = [
        entry for entry in leaderboard.done if _stem(entry.record) == name.removesuffix(".json")
    ]
    return exact or _single_method(_entries_named(leaderboard, name), name)


def _entries_named(leaderboard: Leaderboard, name: str) -> list[Entry]:
    return [
        entry for entry in leaderboard.done if name in (entry.record["method"]["name"], entry.name)
    ]


def _single_method(entries: list[Entry], name: str) -> list[Entry]:
    """The entries, if all are of one method and setting; raises PairError otherwise."""
    settings = {
        (str(entry.record["method"]["args"]), str(entry.record["profile"])): _stem(entry.record)
        for entry in entries
    }
    if len(settings) > 1:
        raise PairError(
            f"'{name}' was run with {len(settings)} settings: name a record instead, "
            f"{' or '.join(sorted(settings.values()))}"
        )
    return entries


def _stem(record: Record) -> str:
    return str(record.get("file", "")).removesuffix(".json")


def _compare_pair(pair: Pair, metric: str | None, margin: float) -> Comparison:
    leaderboard, *sides = pair
    results_a, results_b = (side.samples() for side in sides)
    metric = metric or shared_metric([*results_a, *results_b], leaderboard.metric)
    result = compare_pair(results_a, results_b, metric, margin=margin)
    a, b = (tuple(_stem(entry.record) for entry in side.entries) for side in sides)
    return Comparison(leaderboard.title, sides[0].name, sides[1].name, (a, b), result)


def gate_fails(comparisons: Sequence[Comparison], fail_if: str | None) -> bool:
    """Whether the gate fails: `worse` anywhere, or anything but better with `not-better`.

    Raises PairError where `fail_if` is neither of them nor None.

    >>> from adbench.benchmark.leaderboard.comparison import gate_fails
    >>> gate_fails([], "not-better")
    False
    """
    if fail_if not in (None, "worse", "not-better"):
        raise PairError(f"--fail-if is worse or not-better, not '{fail_if}'")
    verdicts = [comparison.difference.verdict for comparison in comparisons]
    if fail_if == "not-better":
        return any(verdict != "better" for verdict in verdicts)
    return fail_if == "worse" and WORSE in verdicts
