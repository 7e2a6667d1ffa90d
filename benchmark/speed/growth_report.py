"""The section of results/speed.md on growth: figures over the size of made-up data, and goals."""

from __future__ import annotations

from collections.abc import Sequence

from .growth import exponent
from .tables import Measurement, format_number, format_table


def growth_section(measurements: Sequence[Measurement]) -> list[str]:
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
        *format_table([row for m in growth for row in growth_rows(m)]),
        *([f"Not measured yet: {'; '.join(missing)}.", ""] if missing else []),
        *([GOALS_TEXT, *format_table(goals)] if goals else []),
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
pixels a level (1,024 images of 256 x 256) in memory and reads blocks beyond, in another regime,
and beyond 2^30 pixels (16,384 images) it counts bins in place of sorting.
"""


def growth_rows(measurement: Measurement) -> list[dict[str, str]]:
    """A row for each size: also its figures per item over those of the first size."""
    sizes, seconds = measurement["sizes"], measurement["seconds"]
    cpu_seconds, memory = measurement["cpu_seconds"], measurement["memory_mb"]
    fitted = measurement["exponent"]
    return [
        {
            "task": measurement["task"],
            "size": f"{size:,}",
            "seconds": format_number(seconds[k]),
            "CPU s": format_number(cpu_seconds[k]),
            "CPU ms / item": format_number(1000 * cpu_seconds[k] / size),
            "seconds / item, of the first": _format_growth(seconds, k, size / sizes[0]),
            "CPU / item, of the first": _format_growth(cpu_seconds, k, size / sizes[0]),
            "memory MB": format_number(memory[k]),
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
    return f"{format_number(values[k] / values[0] / times)}x"


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
            text = f"{format_number(value)} {UNITS[key]}"
            reached = "yes" if value <= most else "**no**"
            if key == "seconds":
                text += f", {format_number(cpu)} of CPU"
                reached = "in CPU time only" if cpu <= most < value else reached
        elif len(sizes) > 1 and size > sizes[-1]:
            slope = max(0.0, (values[-1] - values[-2]) / (sizes[-1] - sizes[-2]))
            value = values[-1] + slope * (size - sizes[-1])
            hours = cpu_seconds[-1] / sizes[-1] * size / 3600
            text = (
                f"*{format_number(value)} {UNITS[key]}, from {sizes[-1]:,}*; not run, "
                f"{format_number(hours)} h of CPU"
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
            text = f"{format_number(value)}x of {sizes[0]:,}'s CPU"
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
