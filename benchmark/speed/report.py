"""Write results/speed.md from the JSON files of all measurements in the folder beside it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..store.artifact_store import atomic_write
from .growth_report import growth_rows, growth_section
from .tables import Measurement, format_number

INTRODUCTION = """# Speed

Written by `adbench speed` from `speed/*.json`. All levels of a row are swept in one pass, and the
figures per image are of all of them together. Weights are random: speed does not depend on what
was learnt. Medians of interleaved rounds without the first, which warms up; in brackets the least
and the most of any round. A ratio is taken within a round: how many times as long the reference
took. GFLOP: convolutions, matrix products and attention of every network, counted as they were
computed. A network gets the same number of rows at every call, filled up if there are fewer: with
few images, levels and repeats that is most of its work. Memory on a CPU is what the process grew
by, on a GPU all that torch had allocated. Loading keeps up if its slowest pass through the same
samples does. Metrics are computed on the CPU; the reference implementations get a few maps, and
their seconds are multiplied by the factor beside them.
"""


def _format_spread(spread: Any, factor: float = 1.0, unit: str = "") -> str:
    if not spread:
        return "-"
    if "unfit" in spread:
        return f"*{spread['unfit']}*"
    middle, low, high = (format_number(spread[key] * factor) for key in ("median", "min", "max"))
    return f"{middle}{unit} [{low}, {high}]"


def _format_percent(measurement: Measurement, key: str) -> str:
    return f"{100 * measurement[key]:.0f} %" if measurement["evaluations_per_image"] else "-"


def _format_ratio(name: str) -> Callable[[Measurement], str]:
    def text(measurement: Measurement) -> str:
        reference = measurement["against"].get(name)
        return _format_spread(reference.get("ratio", reference) if reference else None, unit="x")

    return text


def _format_dataset(measurement: Measurement) -> str:
    data = measurement["dataset"]
    return f"{data['name']} {data['channels']} x {' x '.join(map(str, data['shape']))}"


def _method_name(measurement: Measurement) -> str:
    return measurement["method"]["label"] or measurement["method"]["name"]


def _has_adeval(measurement: Measurement) -> bool:
    """Whether adeval was installed for this measurement."""
    return measurement.get("of_adeval") is not None


def _scaling_note(measurement: Measurement) -> str:
    few, maps = measurement["few"], measurement["maps"]
    return f", {few} maps times {format_number(maps / few)}" if few < maps else ""


def _loading_verdict(ratio: float | None) -> str:
    if ratio is None:
        return "does not train in steps"
    return f"{'yes' if ratio >= 1 else '**no**'}, {format_number(ratio)}x"


COLUMNS: dict[str, dict[str, Callable[[Measurement], str]]] = {
    "method": {
        "method": _method_name,
        "data": _format_dataset,
        "profile": lambda m: m["profile"],
        "levels": lambda m: ", ".join(map(str, m["levels"])),
        "images": lambda m: str(m["images"]),
        "rows a call": lambda m: str(m["machine"]["batch"]),
        "evaluations / image": lambda m: format_number(m["evaluations_per_image"]),
        "GFLOP / image": lambda m: format_number(m["gflops_per_image"]),
        "ms / image": lambda m: _format_spread(m["ms_per_image"]),
        "images / s": lambda m: _format_spread(m["images_per_second"]),
        "of peak": lambda m: _format_spread(
            m["gflops_per_image"] and m["share_of_peak"], 100, " %"
        ),
        "rows filled": lambda m: _format_percent(m, "rows_filled"),
        "time in networks": lambda m: _format_percent(m, "time_in_networks"),
        "memory MB": lambda m: format_number(m["peak_memory_mb"]),
        "batch-1 loop": _format_ratio("loop"),
        "levels apart": _format_ratio("separate"),
        "every step": _format_ratio("fewer"),
    },
    "loading": {
        "data": _format_dataset,
        "training of": _method_name,
        "profile": lambda m: m["profile"],
        "workers": lambda m: str(m["workers"]),
        "samples / s loaded": lambda m: _format_spread(m["loaded_per_second"]),
        "first pass": lambda m: format_number(m["first_pass_per_second"]),
        "samples / s trained": lambda m: format_number(m["trained_per_second"] or 0),
        "loading keeps up": lambda m: _loading_verdict(m["keeps_up"]),
        "memory MB": lambda m: format_number(m["peak_memory_mb"]),
    },
    "noise": {
        "field": lambda m: f"simplex {m['size']} x {m['size']}, {m['octaves']} octaves",
        "at a time": lambda m: str(m["images"]),
        "ms / field": lambda m: _format_spread(m["ms_per_field"]),
        "opensimplex ms / field": lambda m: _format_spread(m["opensimplex_ms_per_field"]),
        "ratio": lambda m: _format_spread(m["ratio"], unit="x"),
        "largest difference": lambda m: f"{m['largest_difference']:.1g}",
    },
    "metrics": {
        "maps": lambda m: f"{m['maps']} of {m['size']} x {m['size']}",
        "all pixel metrics, s": lambda m: _format_spread(m["seconds"]),
        "from bins, s": lambda m: _format_spread(m["binned_seconds"]),
        "scikit-learn, s": lambda m: _format_spread(m["sklearn_seconds"]) + _scaling_note(m),
        "AUPRO loop, s": lambda m: _format_spread(m["loop_seconds"]) + _scaling_note(m),
        "ratio to both": lambda m: _format_spread(m["ratio"], unit="x"),
        "ratio on few": lambda m: f"{_format_spread(m['ratio_of_few'], unit='x')}, {m['few']} maps",
        "largest difference": lambda m: f"{m['largest_difference']:.1g}",
        "memory, of the maps": lambda m: f"{m['memory_of_maps']:.1f}x",
        "adeval, s": lambda m: _format_spread(m["adeval_seconds"]) if _has_adeval(m) else "-",
        "of adeval's": lambda m: (
            _format_spread(m["of_adeval"], unit="x") if _has_adeval(m) else "-"
        ),
        "adeval off by": lambda m: f"{m['adeval_off']:.1g}" if _has_adeval(m) else "-",
    },
}
"""For each kind of measurement the columns of its table: the heading, and the text of a cell."""


MAX_COLUMNS = 3
"""Measurements side by side on a terminal."""

TITLES = {"method": "Prediction", "loading": "Loading", "noise": "Noise", "metrics": "Metrics"}


def write_report(measurements: Sequence[Measurement], out: Path) -> list[Path]:
    """Write a JSON file for each measurement to out/speed, and speed.md from all files there.

    Returns the paths of the written files; an older file of the same measurement is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (path,) = write_report([], Path(folder))
    ...     path.name, path.read_text().splitlines()[0]
    ('speed.md', '# Speed')
    """
    paths = [out / "speed" / f"{file_name(measurement)}.json" for measurement in measurements]
    for path, measurement in zip(paths, measurements, strict=True):
        atomic_write(path, json.dumps(measurement, indent=1, sort_keys=True) + "\n")
    atomic_write(out / "speed.md", format_page(read_measurements(out)))
    return [*paths, out / "speed.md"]


def read_measurements(out: Path) -> list[dict[str, Any]]:
    """Return all measurements of the files in out/speed, ordered by file name.

    >>> read_measurements(Path("/no/such/folder"))
    []
    """
    return [json.loads(path.read_text()) for path in sorted((out / "speed").glob("*.json"))]


def file_name(measurement: Measurement) -> str:
    """Return the name of a measurement's file.

    There is one for each method, dataset, profile, sweep and machine.

    >>> from adbench.benchmark.speed.report import file_name
    >>> machine = dict(batch=8, device="A CPU", threads=2, dtype="float32", compile=False)
    >>> file_name({"what": "noise", "size": 256, "machine": machine})
    'noise.256.b8.a-cpu.t2.float32'
    """
    machine = measurement["machine"]
    parts = [measurement["what"]]
    if "dataset" in measurement:
        data = measurement["dataset"]
        parts += [data["name"], "x".join(map(str, data["shape"]))]
        parts += [measurement["method"]["name"], measurement["profile"]]
    parts += [measurement["task"]] if "task" in measurement else []
    if "size" in measurement:
        parts += [str(measurement["size"])]
    parts += [f"n{measurement['maps']}"] if "maps" in measurement else []
    parts += [f"l{'-'.join(map(str, measurement['levels']))}"] if "levels" in measurement else []
    parts += [f"b{machine['batch']}", machine["device"], f"t{machine['threads']}", machine["dtype"]]
    parts += ["compiled"] if machine["compile"] else []
    return ".".join(re.sub(r"[^a-z0-9_]+", "-", part.lower()).strip("-") for part in parts)


def format_page(measurements: Sequence[Measurement]) -> str:
    """Return the page as Markdown: a section for each machine, in it a table for each kind.

    >>> from adbench.benchmark.speed.report import format_page
    >>> format_page([]).splitlines()[0]
    '# Speed'
    """
    lines = [INTRODUCTION]
    ordered = sorted(measurements, key=_format_machine)
    for machine, group in itertools.groupby(ordered, key=_format_machine):
        section = list(group)
        peaks = [m["machine"]["peak_gflops"] for m in section]
        low, high = format_number(min(peaks)), format_number(max(peaks))
        span = low if low == high else f"{low} to {high}"
        lines += [f"## {machine}", ""]
        lines += [f"Measured peak of matrix products and convolutions: {span} GFLOP/s.", ""]
        for kind, columns in COLUMNS.items():
            cells = [[text(m) for text in columns.values()] for m in section if m["what"] == kind]
            if cells:
                table = [[*columns], ["---"] * len(columns), *cells]
                lines += [f"### {TITLES[kind]}", ""]
                lines += [*(f"| {' | '.join(row)} |" for row in table), ""]
        lines += growth_section(section)
    return "\n".join(lines)


def print_tables(measurements: Sequence[Measurement], console: Any) -> None:
    """Print a table for each kind to a rich console, a column for each measurement.

    >>> import io
    >>> from rich.console import Console
    >>> machine = dict(device="A CPU", kind="cpu", threads=2, dtype="float32", compile=False)
    >>> second = {"median": 1.0, "min": 1.0, "max": 1.0}
    >>> measurement = {
    ...     "what": "noise", "size": 256, "octaves": 6, "images": 8, "ms_per_field": second,
    ...     "opensimplex_ms_per_field": second, "ratio": second, "largest_difference": 0.0,
    ...     "machine": machine | {"torch": "2.9"},
    ... }
    >>> console = Console(file=io.StringIO(), width=80)
    >>> print_tables([measurement], console)
    >>> console.file.getvalue().splitlines()[0]
    'Noise: A CPU, 2 threads, float32, torch 2.9'
    """
    from rich.markup import escape
    from rich.table import Table

    growth = [row for m in measurements if m["what"] == "growth" for row in growth_rows(m)]
    if growth:
        table = Table(*growth[0])
        for row in growth:
            table.add_row(*row.values())
        console.print(table)
    for kind, columns in COLUMNS.items():
        of_kind = [m for m in measurements if m["what"] == kind]
        for start in range(0, len(of_kind), MAX_COLUMNS):
            group = of_kind[start : start + MAX_COLUMNS]
            table = Table(show_header=False)
            for heading, text in columns.items():
                table.add_row(heading, *(escape(text(m)) for m in group))
            console.print(
                f"{TITLES[kind]}: {_format_machine(group[0])}", markup=False, soft_wrap=True
            )
            console.print(table)


def _format_machine(measurement: Measurement) -> str:
    machine = measurement["machine"]
    count = machine["threads"]
    threads = f", {count} thread{'s' * (count > 1)}" if machine["kind"] == "cpu" else ""
    compiled = ", compiled" if machine["compile"] else ""
    cores = f", {machine['cores']}" if machine.get("cores") else ""
    return (
        f"{machine['device']}{cores}{threads}, {machine['dtype']}{compiled}, "
        f"torch {machine['torch']}"
    )
