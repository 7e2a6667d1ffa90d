"""The writers of reports, from records instead of their leaderboards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from adbench.benchmark.evaluation.sample_results import SampleResults, write_sample_results
from adbench.benchmark.leaderboard.rankings import LeaderboardSet, build_leaderboard_set
from adbench.benchmark.leaderboard.records import Record
from adbench.benchmark.report import export, terminal
from adbench.benchmark.report.latex import latex as latex_of


def _from_records(write: Callable[[LeaderboardSet], str]) -> Callable[..., str]:
    def from_records(records: Sequence[Record], folder: Path | None = None) -> str:
        return write(build_leaderboard_set(records, folder))

    return from_records


markdown, csv, cost_csv, as_json, latex = map(
    _from_records, (export.markdown, export.csv, export.cost_csv, export.as_json, latex_of)
)


def print_leaderboards(
    records: Sequence[Any], console: Console, folder: Path | None = None
) -> None:
    terminal.print_leaderboards(build_leaderboard_set(records, folder), console)


def with_samples(folder: Path, records: Sequence[Any], spread: float = 0.01) -> list[Any]:
    """The records with files of sample results: 40 samples of 20 groups, and replicates of every
    defined metric that differ by `spread` (standard deviation) from its value, drawn for each."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    keys, groups = [f"s{i:02d}" for i in range(40)], [f"g{i // 2:02d}" for i in range(40)]
    label = np.arange(40) % 4 < 2
    named = []
    for k, record in enumerate(records):
        named.append(record | {"file": f"{k}.json"})
        values = {name: metric["value"] for name, metric in record.get("metrics", {}).items()}
        noise = np.random.default_rng(k).normal(0, spread, 2000)
        replicates = {name: value + noise for name, value in values.items() if value is not None}
        results = SampleResults(keys, groups, label, np.arange(40.0), None, values, replicates)
        if record["status"] == "ok":
            write_sample_results(folder / "samples" / f"{k}.h5", record, results)
    return named
