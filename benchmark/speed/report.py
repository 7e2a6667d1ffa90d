"""Write results/speed.md from the JSON files of all measurements in the folder beside it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..store.artifact_store import atomic_write
from .growth import exponent

Measurement = Mapping[str, Any]

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
    middle, low, high = (_format_number(spread[key] * factor) for key in ("median", "min", "max"))
    return f"{middle}{unit} [{low}, {high}]"


def _format_percent(measurement: Measurement, key: str) -> str:
    return f"{100 * measurement[key]:.0f} %" if measurement["evaluations_per_image"] else "-"


def _format_number(value: float) -> str:
    """Three significant digits."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"


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
    return f", {few} maps times {_format_number(maps / few)}" if few < maps else ""


def _loading_verdict(ratio: float | None) -> str:
    if ratio is None:
        return "does not train in steps"
    return f"{'yes' if ratio >= 1 else '**no**'}, {_format_number(ratio)}x"


COLUMNS: dict[str, dict[str, Callable[[Measurement], str]]] = {
    "method": {
        "method": _method_name,
        "data": _format_dataset,
        "profile": lambda m: m["profile"],
        "levels": lambda m: ", ".join(map(str, m["levels"])),
        "images": lambda m: str(m["images"]),
        "rows a call": lambda m: str(m["machine"]["batch"]),
        "evaluations / image": lambda m: _format_number(m["evaluations_per_image"]),
        "GFLOP / image": lambda m: _format_number(m["gflops_per_image"]),
        "ms / image": lambda m: _format_spread(m["ms_per_image"]),
        "images / s": lambda m: _format_spread(m["images_per_second"]),
        "of peak": lambda m: _format_spread(
            m["gflops_per_image"] and m["share_of_peak"], 100, " %"
        ),
        "rows filled": lambda m: _format_percent(m, "rows_filled"),
        "time in networks": lambda m: _format_percent(m, "time_in_networks"),
        "memory MB": lambda m: _format_number(m["peak_memory_mb"]),
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
        "first pass": lambda m: _format_number(m["first_pass_per_second"]),
        "samples / s trained": lambda m: _format_number(m["trained_per_second"] or 0),
        "loading keeps up": lambda m: _loading_verdict(m["keeps_up"]),
        "memory MB": lambda m: _format_number(m["peak_memory_mb"]),
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


def _growth_rows(measurement: Measurement) -> list[dict[str, str]]:
    """A row for each size: also its figures per item over those of the first size."""
    sizes, seconds = measurement["sizes"], measurement["seconds"]
    cpu_seconds, memory = measurement["cpu_seconds"], measurement["memory_mb"]
    fitted = measurement["exponent"]
    return [
        {
            "task": measurement["task"],
            "size": f"{size:,}",
            "seconds": _format_number(seconds[k]),
            "CPU s": _format_number(cpu_seconds[k]),
            "CPU ms / item": _format_number(1000 * cpu_seconds[k] / size),
            "seconds / item, of the first": _format_growth(seconds, k, size / sizes[0]),
            "CPU / item, of the first": _format_growth(cpu_seconds, k, size / sizes[0]),
            "memory MB": _format_number(memory[k]),
            "memory, of the first": _format_growth(memory, k, 1),
            "exponent": "-" if fitted is None else f"{fitted:.2f}",
            "of the last step": f"{exponent(sizes[k - 1 : k + 1], cpu_seconds[k - 1 : k + 1]):.2f}"
            if k
            else "-",
        }
        for k, size in enumerate(sizes)
    ]


def _format_growth(values: Sequence[float], k: int, times: float) -> str:
    """The k-th value over the first, divided by how many times as many items there are."""
    return f"{_format_number(values[k] / values[0] / times)}x"


GOALS = (
    ("images: predict", 100_000, "memory_mb", 4000),
    ("images: evaluate", 100_000, "memory_mb", 4000),
    ("records: tables", 1000, "seconds", 2),
    ("records: page", 1000, "seconds", 10),
    ("artifacts: ls", 100_000, "seconds", 3),
    ("artifacts: plan", 100_000, "seconds", 5),
    ("prepare: small images", 200_000, "memory_mb", 1000),
)
"""Task, size, figure, and the highest that it should be."""
PER_ITEM_GOALS = (("images: predict", 1.3), ("images: evaluate", 1.3))
"""Task, and the most CPU seconds per item at the largest size, as a ratio to the smallest."""
MAX_EXTRAPOLATION = 10
"""How many times the largest measured size a straight line says anything about."""
UNITS = {"memory_mb": "MB", "seconds": "s"}


def _goal_rows(measurements: Sequence[Measurement]) -> list[dict[str, str]]:
    """A row for each goal whose task was measured, with the figure at its size.

    At a size beyond all measured ones: a straight line through the two largest, in italics; level
    where the larger took less.
    """
    of_task = {m["task"]: m for m in measurements if m["what"] == "growth"}
    rows = []
    for task, size, key, most in GOALS:
        if task not in of_task:
            continue
        sizes, values = of_task[task]["sizes"], of_task[task][key]
        cpu_seconds = of_task[task]["cpu_seconds"]
        if size in sizes:
            value, cpu = values[sizes.index(size)], cpu_seconds[sizes.index(size)]
            text = f"{_format_number(value)} {UNITS[key]}"
            reached = "yes" if value <= most else "**no**"
            if key == "seconds":
                text += f", {_format_number(cpu)} of CPU"
                reached = "in CPU time only" if cpu <= most < value else reached
        elif len(sizes) > 1 and size > sizes[-1]:
            slope = max(0.0, (values[-1] - values[-2]) / (sizes[-1] - sizes[-2]))
            value = values[-1] + slope * (size - sizes[-1])
            hours = cpu_seconds[-1] / sizes[-1] * size / 3600
            text = (
                f"*{_format_number(value)} {UNITS[key]}, from {sizes[-1]:,}*; not run, "
                f"{_format_number(hours)} h of CPU"
            )
            reached = "yes, by the line" if value <= most else "**no**, by the line"
            if size > MAX_EXTRAPOLATION * sizes[-1]:
                reached = "not established"
        else:
            continue
        rows.append(_goal_row(task, size, f"{most:,} {UNITS[key]}", text, reached))
    for task, ratio in PER_ITEM_GOALS:
        if task in of_task and len(sizes := of_task[task]["sizes"]) > 1:
            first, *_, last = of_task[task]["cpu_seconds"]
            value = last / first / sizes[-1] * sizes[0]
            text = f"{_format_number(value)}x of {sizes[0]:,}'s CPU"
            reached = "yes" if value <= ratio else "**no**"
            rows.append(_goal_row(task, sizes[-1], f"{ratio}x per item", text, reached))
    return rows


def _goal_row(task: str, size: int, most: str, figure: str, reached: str) -> dict[str, str]:
    return {
        "task": task,
        "size": f"{size:,}",
        "goal": f"at most {most}",
        "figure": figure,
        "reached": reached,
    }


def _format_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    table = [[*rows[0]], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return [*(f"| {' | '.join(row)} |" for row in table), ""]


def _growth_section(measurements: Sequence[Measurement]) -> list[str]:
    """The lines of the section; none without a measurement of growth."""
    growth = [m for m in measurements if m["what"] == "growth"]
    if not growth:
        return []
    missing = [
        f"{m['task']} at {', '.join(f'{size:,}' for size in sorted(unmeasured))}"
        for m in growth
        if (unmeasured := {*m.get("asked", ())} - {*m["sizes"]})
    ]
    goals = _goal_rows(growth)
    ours, others = ([m for m in growth if ("how" in m) == apart] for apart in (False, True))
    asked = {m["task"].partition(":")[0]: m.get("asked", m["sizes"]) for m in ours}
    options = [f"--growth {name}={','.join(map(str, sizes))}" for name, sizes in asked.items()]
    return [
        "### Growth", "",
        *([f"    adbench speed {' '.join(options)}", ""] if ours else []),
        GROWTH_TEXT,
        *(f"{m['task']}: measured apart, {m['how']}\n" for m in others),
        *_format_table([row for m in growth for row in _growth_rows(m)]),
        *([f"Not measured yet: {'; '.join(missing)}.", ""] if missing else []),
        *([GOALS_TEXT, *_format_table(goals)] if goals else []),
    ]  # fmt: skip


GROWTH_TEXT = """Made-up data: images of 256 x 256 at nine levels, whose maps are copies of the
input and compress well; records that differ in method and seed; artifacts of a few bytes. Every
row is a process of its own: seconds by the clock, which others on the machine lengthen, seconds of
CPU, and its highest resident memory, which is what `/usr/bin/time -v` calls so. Of images, imports
and a first small run are not counted in the seconds; of records and artifacts the whole command is.
`exponent` is the power of the size with which the seconds of CPU grow, over all sizes: 1 is in
proportion, and what a command takes to start makes it less. `of the last step`: the same from the
size before to this one.
"""
GOALS_TEXT = """Goals, in seconds by the clock. In italics: that size was not run, and the figure is
of a straight line through the two largest sizes, level where the larger took less. Of a size over
ten times the largest measured one nothing is established: evaluation, for one, holds up to 2^26
pixels a level (1,024 images of 256 x 256) in memory and reads blocks beyond, in another regime.
"""


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
        low, high = _format_number(min(peaks)), _format_number(max(peaks))
        span = low if low == high else f"{low} to {high}"
        lines += [f"## {machine}", ""]
        lines += [f"Measured peak of matrix products and convolutions: {span} GFLOP/s.", ""]
        for kind, columns in COLUMNS.items():
            cells = [[text(m) for text in columns.values()] for m in section if m["what"] == kind]
            if cells:
                table = [[*columns], ["---"] * len(columns), *cells]
                lines += [f"### {TITLES[kind]}", ""]
                lines += [*(f"| {' | '.join(row)} |" for row in table), ""]
        lines += _growth_section(section)
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

    growth = [row for m in measurements if m["what"] == "growth" for row in _growth_rows(m)]
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
