"""Leaderboards: records that may be compared, in order of their metric, with notes.

A leaderboard never mixes data, protocols, or partial runs with whole ones. Package `report` writes
them out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from ..evaluation.metrics.streaming_histogram import TOLERANCE
from .entry import Entry
from .records import Record, metric_value, number_text
from .seed_variation import SeedSummary, sentences, summarize_seeds

if TYPE_CHECKING:
    import pandas


BINNED_METRICS = ("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice_oracle")
"""Metrics of pixels that are sorted, or counted in bins where they are too many."""

METRIC_NAMES = {"pixel_ap": "pixel AP", "image_auroc": "image AUROC"}


@dataclass(frozen=True)
class Leaderboard:
    """Records that may be compared: the same data, the same protocol, all whole or cut alike.

    metric: what it is sorted by, best first     notes: sentences to print beneath
    seed_summaries: its methods with several seeds, best mean first
    """

    title: str
    metric: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)
    seed_summaries: list[SeedSummary] = field(default_factory=list)

    def to_frame(self) -> pandas.DataFrame:
        """One row per record, best first: rank, method, label, status, what was chosen, and every
        metric with its interval (`<metric>_low`, `<metric>_high`)."""
        import pandas

        return pandas.DataFrame([_frame_row(entry) for entry in self.entries])

    def _repr_html_(self) -> str:
        """The defined columns, for a notebook."""
        frame = self.to_frame().dropna(axis="columns", how="all")
        columns = [name for name in frame if not str(name).endswith(("_low", "_high"))]
        html = frame[columns].to_html(index=False, float_format="{:.3f}".format, na_rep="-")
        return f"<b>{escape(self.title)}</b>{html}"

    @property
    def done(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.record["status"] == "ok"]

    @property
    def missing(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.record["status"] != "ok"]


def _frame_row(entry: Entry) -> dict[str, Any]:
    record = entry.record
    values = {
        "rank": entry.rank,
        "method": record["method"]["name"],
        "label": entry.name,
        "dataset": record["dataset"]["name"],
        "profile": record["profile"],
        "seed": record["seed"],
        "status": record["status"],
        "reason": record["reason"],
        "level": (record.get("level") or {}).get("chosen"),
        "threshold": (record.get("threshold") or {}).get("value"),
    }
    for name, metric in (record.get("metrics") or {}).items():
        values |= {
            name: metric["value"],
            f"{name}_low": metric["low"],
            f"{name}_high": metric["high"],
        }
    return values


def build_leaderboards(records: Sequence[Record]) -> list[Leaderboard]:
    """Leaderboards of records: real data first, then synthetic data, partial runs, broken records.

    An experiment that failed before its data was read is an entry of every leaderboard of a dataset
    of that name and protocol.

    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> build_leaderboards([])
    []
    """
    whole = [record for record in records if record["status"] != "broken"]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in whole:
        if record["dataset"]["fingerprint"]:
            groups.setdefault(_leaderboard_key(record), []).append(record)
    for record in whole:
        if not record["dataset"]["fingerprint"]:
            of_record = _leaderboard_key(record)
            same = [
                key
                for key in groups
                if _comparable_key(key) == _comparable_key(of_record) and key[5]
            ]
            for key in same or [of_record]:
                groups.setdefault(key, []).append(record)
    leaderboards = [_build_leaderboard(groups[key]) for key in sorted(groups)]
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


def _build_leaderboard(records: Sequence[Record]) -> Leaderboard:
    results = [record for record in records if record["status"] == "ok"]
    missing = [record for record in records if record["status"] != "ok"]
    has_pixels = any(metric_value(record, "pixel_ap") is not None for record in results)
    metric = "pixel_ap" if has_pixels else "image_auroc"

    def order(record: Record) -> tuple[Any, ...]:
        value = metric_value(record, metric)
        return (value is None, -(value or 0), *_method_key(record))

    results.sort(key=order)
    names = entry_names(records)
    baseline = next((each for each in results if each["method"]["baseline"]), None)  # the best
    baseline_value = None if baseline is None else metric_value(baseline, metric)
    entries = []
    for rank, record in enumerate(results, 1):
        value = metric_value(record, metric)
        low = value is not None and baseline_value is not None and value < baseline_value
        below = (
            baseline["method"]["label"]
            if baseline and low and not record["method"]["baseline"]
            else None
        )
        entries.append(Entry(record, None if value is None else rank, names[id(record)], below))
    entries += [
        Entry(record, None, names[id(record)]) for record in sorted(missing, key=_method_key)
    ]
    summaries = summarize_seeds(
        [entry for entry in entries if entry.record["status"] == "ok"], metric
    )
    return Leaderboard(
        _leaderboard_title(records), metric, entries, _notes(entries, metric, summaries), summaries
    )


def _method_key(record: Record) -> tuple[Any, ...]:
    method = record["method"]
    args = json.dumps(method["args"], sort_keys=True)
    return method["label"], method["name"], str(record["profile"]), str(record["seed"]), args


def entry_names(records: Sequence[Record]) -> dict[int, str]:
    """What each record's method is called, by the record's id: its label; those that would read
    alike get the arguments in which they differ."""
    names = {}
    for record in records:
        method = record["method"]
        alike = [
            other["method"]["args"]
            for other in records
            if _method_key(other)[:4] == _method_key(record)[:4]
        ]
        differs = [
            f"{key}={value}"
            for key, value in sorted(method["args"].items())
            if any(other.get(key) != value for other in alike)
        ]
        marks = ["baseline"] if method["baseline"] else []
        if method.get("supervision") not in (None, "normal"):
            marks.append(method["supervision"])
        name = " ".join([method["label"], *differs])
        names[id(record)] = name + (f" ({', '.join(marks)})" if marks else "")
    return names


def _leaderboard_title(records: Sequence[Record]) -> str:
    """Of the record that knows its data, for one that failed early may not."""
    record = max(records, key=lambda record: bool(record["dataset"]["fingerprint"]))
    data = record["dataset"]
    args = ", ".join(f"{key}={value}" for key, value in sorted(data["args"].items()))
    title = data["name"] + (f" ({args})" if args else "")
    if data["synthetic"]:
        title += ", SYNTHETIC data"
    if record["partial"]:
        title += f", PARTIAL: at most {record['partial']} samples of each split, no result"
    return title


def _notes(
    entries: Sequence[Entry], metric: str, seed_summaries: Sequence[SeedSummary]
) -> list[str]:
    record = entries[0].record
    notes = [f"Protocol {record['protocol']['id']}: {record['protocol']['text']}"]
    if record["status"] != "ok":
        return notes
    counts, reference = record["counts"], record["reference"]
    notes.append(
        f"Data {record['dataset']['fingerprint']}: {counts['test']} test samples, "
        f"{counts['test_abnormal']} of them abnormal, of {counts['test_groups']} groups; "
        f"{counts['val']} for validation, {counts['calibration']} normal ones for calibration."
    )
    if reference["prevalence"] is not None:
        notes.append(
            f"Abnormal: {number_text(reference['prevalence'])} of all pixels, which is "
            "also what pixel "
            f"AP is by chance; calling every pixel abnormal has Dice "
            f"{number_text(reference['dice_floor'])}."
        )
    notes.append(
        f"Sorted by {METRIC_NAMES[metric]}; in brackets 95 % intervals from resampling groups; "
        f"⌈Dice⌉ takes its threshold from test and is no result."
    )
    if any(
        entry.record["status"] == "ok" and not entry.record["method"]["baseline"]
        for entry in entries
    ):
        notes += sentences(seed_summaries, METRIC_NAMES[metric])
    if any(binning_error(entry.record, "pixel_ap") for entry in entries):
        notes.append(
            "±: read from bins, for there are more pixels than the protocol sorts (--budget); the "
            "figure is off by no more than this at the chosen level, and by no more than "
            f"{TOLERANCE:g} at any other."
        )
    profiles = {str(entry.record["profile"]) for entry in entries if entry.record["status"] == "ok"}
    if len(profiles) > 1:
        notes.append(f"Profiles {', '.join(sorted(profiles))} spend different budgets.")
    for baseline in dict.fromkeys(
        entry.worse_than_baseline for entry in entries if entry.worse_than_baseline
    ):
        below = "; ".join(
            f"{r.name}, {profile_and_seed(r)}" for r in entries if r.worse_than_baseline == baseline
        )
        notes.append(f"▼ worse than the baseline {baseline} in {METRIC_NAMES[metric]}: {below}.")
    return notes


def binning_error(record: Record, metric: str) -> float:
    """The largest error of a metric that was computed from a histogram; 0 for an exact one."""
    error = record.get("pixel_error")
    return error if metric in BINNED_METRICS and isinstance(error, int | float) else 0.0


def binning_error_text(record: Record, metric: str) -> str:
    """` ± 0.0004`, rounded up to one digit, beside a metric from a histogram; or empty."""
    error = binning_error(record, metric)
    if error <= 0 or metric_value(record, metric) is None:
        return ""
    unit = 10.0 ** math.floor(math.log10(error))
    return f" ± {math.ceil(error / unit - 1e-9) * unit:.1g}"


def profile_and_seed(entry: Entry) -> str:
    return f"{entry.record['profile']}, seed {entry.record['seed']}"
