"""results/speed.md, from the JSON of every measurement that lies beside it; never typed by hand."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..store.artifact_store import atomic_write

Measurement = Mapping[str, Any]

INTRODUCTION = """# Speed

Written by `adbench speed` from `speed/*.json`. All levels named are swept in one pass, and what
is said of an image is said of all of them together. Weights are random: speed does not depend on
what was learnt. Medians of interleaved rounds, warm-up excluded; in brackets the least and the
most of any round. A ratio is taken within a round: how many times as long the other way took.
GFLOP: convolutions, matrix products and attention of every network, counted as they were made.
A network is shown the same number of rows at every call, filled up where there are fewer: with
few images, levels and repeats that is most of its work. Memory on a CPU is what the process grew
by, on a GPU all that torch had allocated. Loading keeps up if its slowest pass through the same
samples does. Judging is on the CPU; its rivals are given a few maps, and their seconds multiplied
as far as is said beside them.
"""


class Column(NamedTuple):
    """head: of a column; format: its text for a measurement."""

    head: str
    format: Callable[[Measurement], str]


def _format_spread(fact: Any, factor: float = 1.0, unit: str = "") -> str:
    if not fact:
        return "-"
    if "unfit" in fact:
        return f"*{fact['unfit']}*"
    middle, low, high = (_format_number(fact[key] * factor) for key in ("median", "min", "max"))
    return f"{middle}{unit} [{low}, {high}]"


def _format_percent(fact: Measurement, key: str) -> str:
    return f"{100 * fact[key]:.0f} %" if fact["evaluations_per_image"] else "-"


def _format_number(value: float) -> str:
    """Three that count."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"


def _format_ratio(name: str) -> Callable[[Measurement], str]:
    def text(fact: Measurement) -> str:
        found = fact["against"].get(name)
        return _format_spread(found.get("ratio", found) if found else None, unit="x")

    return text


def _format_dataset(fact: Measurement) -> str:
    data = fact["dataset"]
    return f"{data['name']} {data['channels']} x {' x '.join(map(str, data['shape']))}"


COLUMNS = {
    "method": (
        Column("method", lambda f: f["method"]["label"] or f["method"]["name"]),
        Column("data", _format_dataset),
        Column("profile", lambda f: f["profile"]),
        Column("levels", lambda f: ", ".join(map(str, f["levels"]))),
        Column("images", lambda f: str(f["images"])),
        Column("rows a call", lambda f: str(f["machine"]["batch"])),
        Column("evaluations / image", lambda f: _format_number(f["evaluations_per_image"])),
        Column("GFLOP / image", lambda f: _format_number(f["gflops_per_image"])),
        Column("ms / image", lambda f: _format_spread(f["ms_per_image"])),
        Column("images / s", lambda f: _format_spread(f["images_per_second"])),
        Column(
            "of peak",
            lambda f: _format_spread(f["gflops_per_image"] and f["share_of_peak"], 100, " %"),
        ),
        Column("rows filled", lambda f: _format_percent(f, "rows_filled")),
        Column("time in networks", lambda f: _format_percent(f, "time_in_networks")),
        Column("memory MB", lambda f: _format_number(f["peak_memory_mb"])),
        Column("batch-1 loop", _format_ratio("loop")),
        Column("levels apart", _format_ratio("separate")),
        Column("every step", _format_ratio("fewer")),
    ),
    "loading": (
        Column("data", _format_dataset),
        Column("training of", lambda f: f["method"]["label"] or f["method"]["name"]),
        Column("profile", lambda f: f["profile"]),
        Column("workers", lambda f: str(f["workers"])),
        Column("samples / s loaded", lambda f: _format_spread(f["loaded_per_second"])),
        Column("first pass", lambda f: _format_number(f["first_pass_per_second"])),
        Column("samples / s trained", lambda f: _format_number(f["trained_per_second"] or 0)),
        Column("loading keeps up", lambda f: _loading_verdict(f["keeps_up"])),
        Column("memory MB", lambda f: _format_number(f["peak_memory_mb"])),
    ),
    "noise": (
        Column("field", lambda f: f"simplex {f['size']} x {f['size']}, {f['octaves']} octaves"),
        Column("at a time", lambda f: str(f["images"])),
        Column("ms / field", lambda f: _format_spread(f["ms_per_field"])),
        Column("opensimplex ms / field", lambda f: _format_spread(f["opensimplex_ms_per_field"])),
        Column("ratio", lambda f: _format_spread(f["ratio"], unit="x")),
        Column("largest difference", lambda f: f"{f['largest_difference']:.1g}"),
    ),
    "metrics": (
        Column("maps", lambda f: f"{f['maps']} of {f['size']} x {f['size']}"),
        Column("all pixel metrics, s", lambda f: _format_spread(f["seconds"])),
        Column("from bins, s", lambda f: _format_spread(f["binned_seconds"])),
        Column(
            "scikit-learn, s", lambda f: _format_spread(f["sklearn_seconds"]) + _scaling_note(f)
        ),
        Column("AUPRO loop, s", lambda f: _format_spread(f["loop_seconds"]) + _scaling_note(f)),
        Column("ratio to both", lambda f: _format_spread(f["ratio"], unit="x")),
        Column(
            "ratio on few",
            lambda f: f"{_format_spread(f['ratio_of_few'], unit='x')}, {f['few']} maps",
        ),
        Column("largest difference", lambda f: f"{f['largest_difference']:.1g}"),
        Column("memory, of the maps", lambda f: f"{f['memory_of_maps']:.1f}x"),
        Column(
            "adeval, s", lambda f: _format_spread(f["adeval_seconds"]) if _has_adeval(f) else "-"
        ),
        Column(
            "of adeval's",
            lambda f: _format_spread(f["of_adeval"], unit="x") if _has_adeval(f) else "-",
        ),
        Column("adeval off by", lambda f: f"{f['adeval_off']:.1g}" if _has_adeval(f) else "-"),
    ),
}
MAX_COLUMNS = 3
"""Measurements side by side on a terminal."""

TITLES = {"method": "Looking", "loading": "Loading", "noise": "Noise", "metrics": "Judging"}


def _has_adeval(fact: Measurement) -> bool:
    """Whether adeval was there to be measured against."""
    return fact.get("of_adeval") is not None


def _scaling_note(fact: Measurement) -> str:
    few, maps = fact["few"], fact["maps"]
    return f", {few} maps times {_format_number(maps / few)}" if few < maps else ""


def _loading_verdict(ratio: float | None) -> str:
    if ratio is None:
        return "does not train in steps"
    return f"{'yes' if ratio >= 1 else '**no**'}, {_format_number(ratio)}x"


def write_report(measurements: Sequence[Measurement], out: Path) -> list[Path]:
    """Each measurement into out/speed, over an older one of the same; then the page, of all."""
    paths = [out / "speed" / f"{file_name(fact)}.json" for fact in measurements]
    for path, fact in zip(paths, measurements, strict=True):
        atomic_write(path, json.dumps(fact, indent=1, sort_keys=True) + "\n")
    found = [json.loads(path.read_text()) for path in sorted((out / "speed").glob("*.json"))]
    atomic_write(out / "speed.md", format_page(found))
    return [*paths, out / "speed.md"]


def file_name(measurement: Measurement) -> str:
    """Of its file: one for each method, dataset, profile, shape, sweep and machine."""
    where = measurement["machine"]
    parts = [measurement["what"]]
    if "dataset" in measurement:
        parts += [
            measurement["dataset"]["name"],
            "x".join(map(str, measurement["dataset"]["shape"])),
        ]
        parts += [measurement["method"]["name"], measurement["profile"]]
    if "size" in measurement:
        parts += [str(measurement["size"])]
    parts += [f"n{measurement['maps']}"] if "maps" in measurement else []
    parts += [f"l{'-'.join(map(str, measurement['levels']))}"] if "levels" in measurement else []
    parts += [f"b{where['batch']}", where["device"], f"t{where['threads']}", where["dtype"]]
    parts += ["compiled"] if where["compile"] else []
    return ".".join(re.sub(r"[^a-z0-9_]+", "-", part.lower()).strip("-") for part in parts)


def format_page(measurements: Sequence[Measurement]) -> str:
    """Markdown: a part for each machine and precision, in it a table for each kind."""
    lines = [INTRODUCTION]
    for where, group in itertools.groupby(
        sorted(measurements, key=_format_machine), key=_format_machine
    ):
        lines += [f"## {where}", ""]
        each = list(group)
        peaks = [f["machine"]["peak_gflops"] for f in each]
        low, high = _format_number(min(peaks)), _format_number(max(peaks))
        span = low if low == high else f"{low} to {high}"
        lines += [f"Measured peak of matrix products and convolutions: {span} GFLOP/s.", ""]
        for kind, columns in COLUMNS.items():
            rows = [f for f in each if f["what"] == kind]
            if rows:
                lines += [f"### {TITLES[kind]}", "", *_markdown_table(columns, rows), ""]
    return "\n".join(lines)


def print_tables(measurements: Sequence[Measurement], console: Any) -> None:
    """A table for each kind, a column for each measurement, a few side by side."""
    from rich.markup import escape
    from rich.table import Table

    for kind, columns in COLUMNS.items():
        found = [fact for fact in measurements if fact["what"] == kind]
        for i in range(0, len(found), MAX_COLUMNS):
            some = found[i : i + MAX_COLUMNS]
            table = Table(show_header=False)
            for column in columns:
                table.add_row(column.head, *(escape(column.of(fact)) for fact in some))
            console.print(
                f"{TITLES[kind]}: {_format_machine(some[0])}", markup=False, soft_wrap=True
            )
            console.print(table)


def _format_machine(fact: Measurement) -> str:
    where = fact["machine"]
    count = where["threads"]
    threads = f", {count} thread{'s' * (count > 1)}" if where["kind"] == "cpu" else ""
    compiled = ", compiled" if where["compile"] else ""
    return f"{where['device']}{threads}, {where['dtype']}{compiled}, torch {where['torch']}"


def _markdown_table(columns: Sequence[Column], rows: Sequence[Measurement]) -> list[str]:
    head = [column.head for column in columns]
    lines = [head, ["---"] * len(head), *([c.format(row) for c in columns] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
