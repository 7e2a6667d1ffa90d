"""Leaderboards: records that may be compared, in order of their metric, with notes.

A leaderboard never mixes data, protocols, or partial runs with whole ones. Package `report` writes
them out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answer import answer_text
from .entry import Entry
from .entry_names import entry_names
from .metric_names import BUDGET, COST, FALSE_POSITIVE_RATES, METRIC_NAMES, METRICS
from .notes import leaderboard_notes
from .pairwise import damaged_sample_files, worse_than
from .records import Record, metric_value
from .seed_groups import SeedGroup, group_seeds
from .seed_variation import SeedSummary, summarize_seeds
from .subgroup_gaps import subgroup_notes
from .titles import unique_titles
from .training_curves import training_curves

if TYPE_CHECKING:
    import pandas


INTEGER_COLUMNS = ("partial", "rank", "level", "train_steps", "train_samples", "parameters")
"""Columns of integers that may be missing."""


@dataclass(frozen=True)
class Leaderboard:
    """Records that may be compared: the same data, the same protocol, all whole or cut alike.

    metric: what it is sorted by, best first     notes: sentences to print beneath
    seed_summaries: its methods with several seeds, best mean first
    answer: which method is best and whether the difference is real, in words; empty without results

    >>> from adbench.benchmark.leaderboard.leaderboard import Leaderboard
    >>> Leaderboard("brats", "pixel_ap", [])
    <Leaderboard brats: 0 rows>
    """

    title: str
    metric: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)
    seed_summaries: list[SeedSummary] = field(default_factory=list)
    answer: str = ""

    def __repr__(self) -> str:
        """Its title and how many rows it has: all of them would fill many screens."""
        count = len(self.entries)
        return f"<{type(self).__name__} {self.title}: {count} row{'s' * (count != 1)}>"

    def to_frame(self) -> pandas.DataFrame:
        """One row per record, best first: what `rows` gives, as columns."""
        import pandas

        frame = pandas.DataFrame(self.rows())
        integers = [name for name in INTEGER_COLUMNS if name in frame]
        frame = frame.astype(dict.fromkeys(integers, "Int64"))  # which has missing values
        return frame.copy()  # in one piece: pandas warns of a new column in one of many pieces

    def rows(self) -> list[dict[str, Any]]:
        """One row per record, best first, by name of the column: the leaderboard and its data, the
        method, what was chosen, every metric with its interval (`<metric>_low`, `<metric>_high`),
        and what it cost. None where there is nothing.

        >>> from adbench.benchmark.leaderboard.leaderboard import Leaderboard
        >>> Leaderboard("brats", "pixel_ap", []).rows()
        []
        """
        return [_row(self, entry) for entry in self.entries]

    def _repr_html_(self) -> str:
        """Rank, method, what was chosen and the metrics that are defined, for a notebook."""
        names = ["rank", "method", "label", "below_baseline", "profile", "seed", "level", *METRICS]
        frame = self.to_frame()[[*names, "reason"]].dropna(axis="columns", how="all")
        html = frame.to_html(index=False, float_format="{:.3f}".format, na_rep="-")
        return f"<b>{escape(self.title)}</b>{html}"

    @cached_property
    def methods(self) -> list[SeedGroup]:
        """The methods with a result, each with all of its seeds, best mean first."""
        return group_seeds(self.done, self.metric)

    @cached_property
    def method_numbers(self) -> dict[int, int]:
        """The index among `methods` of each record with a result, by the record's id."""
        groups = enumerate(self.methods)
        return {id(entry.record): k for k, group in groups for entry in group.entries}

    @property
    def done(self) -> list[Entry]:
        """The entries with a result."""
        return [entry for entry in self.entries if entry.record["status"] == "ok"]

    @property
    def missing(self) -> list[Entry]:
        """The entries without a result: failed, skipped or broken."""
        return [entry for entry in self.entries if entry.record["status"] != "ok"]


def _row(leaderboard: Leaderboard, entry: Entry) -> dict[str, Any]:
    record = entry.record
    method, data = record["method"], record["dataset"]
    level, threshold, cost = (record.get(part) or {} for part in ("level", "threshold", "cost"))
    values = {
        "board": leaderboard.title,
        "dataset": data["name"],
        "fingerprint": data["fingerprint"],
        "synthetic": data["synthetic"],
        "partial": record["partial"],
        "protocol": record["protocol"]["id"],
        "rank": entry.rank,
        "method": method["name"],
        "label": entry.name,
        "profile": record["profile"],
        "seed": record["seed"],
        "status": record["status"],
        "reason": record["reason"],
        "supervision": method.get("supervision"),
        "baseline": method["baseline"],
        "external": bool(record.get("external")),
        "below_baseline": entry.worse_than_baseline,
        "level": level.get("chosen"),
        "level_rule": level.get("rule"),
        "threshold_rule": threshold.get("rule"),
        "threshold": threshold.get("value"),
    }
    for metric in dict.fromkeys((*METRICS, *(record.get("metrics") or ()))):
        values[metric] = entry.value(metric)
        for part in ("low", "high"):
            values[f"{metric}_{part}"] = metric_value(record, metric, part)
    calibration = record.get("calibration") or {}
    return (
        values
        | {name: calibration.get(name) for name in FALSE_POSITIVE_RATES}
        | {name: cost.get(name) for name in (*BUDGET, *COST)}
        | {"device": record.get("device")}
    )


def build_leaderboards(records: Sequence[Record], folder: Path | None = None) -> list[Leaderboard]:
    """Leaderboards of records: real data first, then synthetic data, partial runs, broken records.

    An experiment that failed before its data was read is an entry of every leaderboard of a dataset
    of that name and protocol.

    folder: of the results, where `samples` lies, by which methods are compared with a baseline

    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> build_leaderboards([])
    []
    """
    whole = [record for record in records if record["status"] != "broken"]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in whole:
        if record["dataset"]["fingerprint"]:
            groups.setdefault(_leaderboard_key(record), []).append(record)
    comparable: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for key in groups:
        comparable.setdefault(_comparable_key(key), []).append(key)
    for record in whole:
        if not record["dataset"]["fingerprint"]:
            of_record = _leaderboard_key(record)
            for key in comparable.get(_comparable_key(of_record), [of_record]):
                groups.setdefault(key, []).append(record)
    ordered = [groups[key] for key in sorted(groups)]
    titles = unique_titles([_titled_record(group) for group in ordered])
    leaderboards = [
        _build_leaderboard(group, title, folder)
        for group, title in zip(ordered, titles, strict=True)
    ]
    broken = [record for record in records if record["status"] == "broken"]
    entries = [Entry(record, None, record["method"]["label"]) for record in broken]
    return leaderboards + (
        [Leaderboard("Records that could not be read", "", entries)] if entries else []
    )


def _leaderboard_key(record: Record) -> tuple[Any, ...]:
    """What distinguishes leaderboards, and orders them: whole runs first, real data first."""
    data = record["dataset"]
    return (
        record["partial"] or 0,
        bool(data["synthetic"]),
        data["name"],
        json.dumps(data["args"], sort_keys=True),
        record["protocol"]["id"],
        data["fingerprint"],
    )


def _comparable_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The part of a leaderboard's key that does not depend on reading its data."""
    return key[0], key[2], key[3], key[4]


def _build_leaderboard(records: Sequence[Record], title: str, folder: Path | None) -> Leaderboard:
    results = [record for record in records if record["status"] == "ok"]
    missing = [record for record in records if record["status"] != "ok"]
    has_pixels = any(metric_value(record, "pixel_ap") is not None for record in results)
    metric = "pixel_ap" if has_pixels else "image_auroc"

    def order(record: Record) -> tuple[Any, ...]:
        value = metric_value(record, metric)
        baseline = bool(record["method"]["baseline"])  # of equals, methods come first
        return (value is None, -(value or 0), baseline, *_method_key(record))

    results.sort(key=order)
    names = entry_names(records)
    baseline = next((each for each in results if each["method"]["baseline"]), None)  # the best
    worse: Mapping[int, bool | None] = {}
    if baseline is not None and metric_value(baseline, metric) is not None:
        compared = [
            record
            for record in results
            if not record["method"]["baseline"] and metric_value(record, metric) is not None
        ]
        worse = worse_than(compared, baseline, metric, folder)
    label = baseline["method"]["label"] if baseline else None
    ranks: dict[float | None, int] = {}  # equals share one
    for rank, record in enumerate(results, 1):
        ranks.setdefault(metric_value(record, metric), rank)
    entries = [
        Entry(
            record,
            None if metric_value(record, metric) is None else ranks[metric_value(record, metric)],
            names[id(record)],
            label if worse.get(id(record)) else None,
        )
        for record in results
    ]
    entries += [
        Entry(record, None, names[id(record)]) for record in sorted(missing, key=_method_key)
    ]
    summaries = summarize_seeds(
        [entry for entry in entries if entry.record["status"] == "ok"], metric
    )
    notes = leaderboard_notes(entries, metric, summaries)
    notes += training_curves(results, metric, METRIC_NAMES[metric])
    notes += subgroup_notes(results, metric, METRIC_NAMES[metric])
    unknown = sum(verdict is None for verdict in worse.values())
    if unknown:
        notes.append(
            f"Whether {unknown} of {len(worse)} entries are worse than the baseline {label} in "
            f"{METRIC_NAMES[metric]} is unknown: paired intervals need the results of the same "
            "single samples (folder samples), in enough groups."
        )
    if damaged := damaged_sample_files(results, folder):
        notes.append(f"{'; '.join(damaged)}. What needs it is left out.")
    answer = answer_text(entries, metric, folder)
    return Leaderboard(title, metric, entries, notes, summaries, answer)


def _method_key(record: Record) -> tuple[Any, ...]:
    method = record["method"]
    args = json.dumps(method["args"], sort_keys=True)
    return method["label"], method["name"], str(record["profile"]), str(record["seed"]), args


def _titled_record(records: Sequence[Record]) -> Record:
    """The record that a leaderboard is named by: one that knows its data, for one that failed early
    may not."""
    return max(records, key=lambda record: bool(record["dataset"]["fingerprint"]))
