"""A preview of a run as text: each experiment's stages, then the time, disk and memory of all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..store.atomic_files import free_bytes
from ..store.inventory import format_age, format_size
from ..store.key_text import describe_field, short_field

PreviewRow = Mapping[str, Any]

DIGEST = re.compile('"[0-9a-f]{16,64}"')


def format_preview(rows: Sequence[PreviewRow], store: Path, device: str) -> list[str]:
    r"""Lines for all rows of `preview_run`, then the totals; a fully cached experiment is one line.

    store: the folder of the store, to compare with the space on its disk
    device: the torch device, to compare with its memory

    >>> from pathlib import Path
    >>> from adbench.benchmark.planning.text import format_preview
    >>> row = {"experiment": "phantom.pca.check.s0", "skip": "it takes images, not signals",
    ...        "stages": []}
    >>> print("\n".join(format_preview([row], Path("no/such/store"), "cpu")))
    phantom.pca.check.s0
      skipped: it takes images, not signals
    1 experiment: 0 stages cached, 0 to do
    """
    lines = [line for row in rows for line in _experiment_lines(row)]
    return lines + format_totals(rows, free_bytes(store), total_memory_mb(device))


def format_totals(
    rows: Sequence[PreviewRow], free_space: int | None, device_memory_mb: float | None
) -> list[str]:
    """Lines with the number of stages, and the time, disk and memory that the missing ones need.

    free_space: bytes free where the store lies
    device_memory_mb: MB of memory that the device has

    >>> from adbench.benchmark.planning.text import format_totals
    >>> cached = {"kind": "record", "key": "a", "state": "cached"}
    >>> format_totals([{"stages": [cached]}], None, None)
    ['1 experiment: 1 stages cached, 0 to do']
    """
    stages = {(s["kind"], s["key"]): s for row in rows for s in row["stages"]}
    missing = [stage for stage in stages.values() if stage["state"] != "cached"]
    count = f"{len(rows)} experiment{'s' * (len(rows) != 1)}"
    head = f"{count}: {len(stages) - len(missing)} stages cached, {len(missing)} to do"
    if not missing:
        return [head]
    seconds = [s["seconds"] for s in missing if s["seconds"] is not None]
    unknown = len(missing) - len(seconds)
    time = format_age(sum(seconds)) if seconds else "unknown"
    if unknown and seconds:
        time += f", and {unknown} of unknown length"
    if any(s["seconds"] is None and s["kind"] != "record" for s in missing):
        time += " (--measure measures stages without similar earlier work)"
    return [
        head,
        f"time    {time}, one after another",
        _disk_line(missing, free_space),
        _memory_line(missing, device_memory_mb),
    ]


def total_memory_mb(device: str) -> float | None:
    """MB of memory that a torch device has; None if the system does not say.

    >>> from adbench.benchmark.planning.text import total_memory_mb
    >>> total_memory_mb("cpu") > 100
    True
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e6
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    except (ValueError, OSError):
        return None


def _experiment_lines(row: PreviewRow) -> list[str]:
    name = row["experiment"]
    if row["skip"]:
        return [name, f"  skipped: {row['skip']}"]
    if all(stage["state"] == "cached" for stage in row["stages"]):
        return [f"{name}  cached"]
    lines, reasons = [name], set[str]()
    for stage in row["stages"]:
        if stage["state"] == "cached":
            lines.append(f"  {stage['stage']:<14} cached")
            continue
        why = [line for line in map(_describe_difference, stage["why"]) if line]
        why = [line for line in why if line not in reasons]
        reasons |= set(why)
        time = format_age(stage["seconds"]) if stage["seconds"] is not None else "unknown"
        cause = "; ".join(why) or "follows from that"
        lines.append(f"  {stage['stage']:<14} to do  {time:>8}  {cause}")
    return lines


def _describe_difference(line: str) -> str:
    """A line of Store.explain_miss in words; empty for one that only counts further lines."""
    field, colon, values = line.partition(": ")
    if not colon:
        return "" if line.startswith("and ") else line
    stored, _, requested = values.partition(" -> ")
    words = describe_field(short_field(field))
    if DIGEST.fullmatch(stored) and DIGEST.fullmatch(requested):
        return f"{words} changed"
    return f"{words}: {stored} -> {requested}"


def _disk_line(missing: Sequence[PreviewRow], free_space: int | None) -> str:
    sizes = [s["bytes"] for s in missing if s["bytes"] is not None]
    unknown = sum(s["bytes"] is None and s["kind"] != "record" for s in missing)
    line = f"disk    about {format_size(sum(sizes))}" if sizes else "disk    unknown"
    line += f", and {unknown} of unknown size" if unknown and sizes else ""
    if free_space is None:
        return line
    warning = " - NOT ENOUGH (adbench cache gc)" if sum(sizes) > free_space else ""
    return f"{line}; {format_size(free_space)} free{warning}"


def _memory_line(missing: Sequence[PreviewRow], device_memory_mb: float | None) -> str:
    peak = max((s["memory_mb"] for s in missing if s["memory_mb"] is not None), default=None)
    line = "memory  unknown"
    if peak is not None:
        line = f"memory  {format_size(peak * 1e6)} at its peak, as far as is known"
    if device_memory_mb is None:
        return line
    exceeds = peak is not None and peak > device_memory_mb
    warning = " - MORE THAN THERE IS: smaller batches will be tried" if exceeds else ""
    return f"{line}; the device has {format_size(device_memory_mb * 1e6)}{warning}"
