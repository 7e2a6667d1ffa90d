"""Which records `adbench compare` sets against each other, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..evaluation.sample_results import SampleResults
from .columns import TITLES
from .entry import Entry
from .leaderboard import Leaderboard, build_leaderboards
from .pairwise import (
    WORSE,
    PairedComparison,
    PairError,
    comparable_metrics,
    compare_pair,
    sample_results_of,
)
from .records import Record, read_records

DEFAULT_METRICS = ("pixel_ap", "image_auroc")


@dataclass(frozen=True)
class Comparison:
    """Two sets of records of one board, a set's records differing in their seeds alone."""

    board: str
    a: str
    b: str
    files: tuple[tuple[str, ...], tuple[str, ...]]
    difference: PairedComparison

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        found = self.difference
        bounds = (
            f"[{found.low:+.4f}, {found.high:+.4f}]"
            if found.low is not None and found.high is not None
            else f"no interval, {found.groups} groups are too few"
        )
        return (
            f"{self.board}: {TITLES.get(found.metric, found.metric)} of {self.a} {found.a:.4f}, of "
            f"{self.b} {found.b:.4f}, difference {found.value:+.4f} {bounds} on {found.samples} "
            f"samples of {found.groups} groups: {self.a} is {found.verdict}"
        )


def compare(
    a: str,
    b: str,
    folder: Path,
    *,
    dataset: str | None = None,
    metric: str | None = None,
    margin: float = 0.0,
) -> list[Comparison]:
    """Methods a and b of one folder, or each method that folders a and b share.

    a, b: a method's name, a record's file (without .json), or a folder with `records`
    metric: pixel AP if it can be resampled, else image AUROC, unless named
    """
    if margin < 0:
        raise PairError(f"--margin is at least 0, not {margin:g}")
    folders = [Path(name) for name in (a, b) if (Path(name) / "records").is_dir()]
    if len(folders) == 1:
        other = b if str(folders[0]) == a else a
        raise PairError(f"'{folders[0]}' is a folder of results and '{other}' is not: give two")
    pairs = _pairs_of_folders(*folders) if folders else _pairs_of_methods(a, b, folder)
    kept = [
        pair for pair in pairs if dataset in (None, pair[1].entries[0].record["dataset"]["name"])
    ]
    if not kept:
        where = f" on {dataset}" if dataset else ""
        raise PairError(
            f"'{a}' and '{b}' have no board in common{where}: both must be run with the same data, "
            "protocol and --limit (adbench report shows what there is)"
        )
    return [_compare_pair(pair, metric, margin) for pair in kept]


@dataclass(frozen=True)
class ComparedMethod:
    """What stands on one side: its name, its rows of the board, and the folder they are from."""

    name: str
    entries: list[Entry]
    folder: Path

    def samples(self) -> list[SampleResults]:
        found = []
        for row in self.entries:
            rows = sample_results_of(row.record, self.folder)
            if rows is None:
                raise PairError(
                    f"of {_stem(row.record) or row.name} no rows of single samples are kept: the "
                    "same `adbench run` judges it anew, without training"
                )
            found.append(rows)
        return found


Pair = tuple[Leaderboard, ComparedMethod, ComparedMethod]


def _pairs_of_methods(a: str, b: str, out: Path) -> list[Pair]:
    found: list[Pair] = []
    known: set[str] = set()
    seen: set[str] = set()
    for board in build_leaderboards(read_records(out / "records")):
        one, two = (_entries_of_seeds(board, name) for name in (a, b))
        known |= {row.record["method"]["name"] for row in board.done}
        seen |= {name for name, rows in ((a, one), (b, two)) if rows}
        if one and two:
            found.append(
                (
                    board,
                    ComparedMethod(one[0].name, one, out),
                    ComparedMethod(two[0].name, two, out),
                )
            )
    for name in (a, b):
        if name not in seen:
            raise PairError(f"no result of '{name}' in {out}: there are {', '.join(sorted(known))}")
    return found


def _pairs_of_folders(one: Path, two: Path) -> list[Pair]:
    """Boards of both folders' records together: what may be compared meets there."""
    first, second = (read_records(folder / "records") for folder in (one, two))
    mine = {id(record) for record in first}
    found = []
    for board in build_leaderboards([*first, *second]):
        for name in dict.fromkeys(row.record["method"]["name"] for row in board.done):
            rows = _entries_named(board, name)
            a = _single_method([row for row in rows if id(row.record) in mine], name)
            b = _single_method([row for row in rows if id(row.record) not in mine], name)
            if a and b:
                sides = (
                    ComparedMethod(f"{name} in {one}", a, one),
                    ComparedMethod(f"{name} in {two}", b, two),
                )
                found.append((board, *sides))
    return found


def _entries_of_seeds(board: Leaderboard, name: str) -> list[Entry]:
    exact = [row for row in board.done if _stem(row.record) == name.removesuffix(".json")]
    return exact or _single_method(_entries_named(board, name), name)


def _entries_named(board: Leaderboard, name: str) -> list[Entry]:
    return [row for row in board.done if name in (row.record["method"]["name"], row.name)]


def _single_method(rows: list[Entry], name: str) -> list[Entry]:
    """The rows, if they are one method with one setting; raises PairError if there are several."""
    settings = {
        (str(row.record["method"]["args"]), str(row.record["profile"])): _stem(row.record)
        for row in rows
    }
    if len(settings) > 1:
        raise PairError(
            f"'{name}' was run with {len(settings)} settings: name a record instead, "
            f"{' or '.join(sorted(settings.values()))}"
        )
    return rows


def _stem(record: Record) -> str:
    return str(record.get("file", "")).removesuffix(".json")


def _compare_pair(pair: Pair, metric: str | None, margin: float) -> Comparison:
    board, *sides = pair
    one, two = (side.samples() for side in sides)
    known = comparable_metrics([*one, *two])
    usual = next((name for name in DEFAULT_METRICS if name in known), DEFAULT_METRICS[-1])
    found = compare_pair(one, two, metric or usual, margin=margin)
    a, b = (tuple(_stem(row.record) for row in side.entries) for side in sides)
    return Comparison(board.title, sides[0].name, sides[1].name, (a, b), found)


def gate_fails(found: Sequence[Comparison], fail_if: str | None) -> bool:
    """Whether the gate fails: `worse` anywhere, or anything but better with `not-better`."""
    if fail_if not in (None, "worse", "not-better"):
        raise PairError(f"--fail-if is worse or not-better, not '{fail_if}'")
    verdicts = [comparison.difference.verdict for comparison in found]
    if fail_if == "not-better":
        return any(verdict != "better" for verdict in verdicts)
    return fail_if == "worse" and WORSE in verdicts
