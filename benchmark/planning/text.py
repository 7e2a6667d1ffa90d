"""What is to come, in lines: each cell's stages, then the time, room and memory of all of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..store.inventory import format_age, format_size
from ..store.key_text import describe_field, short_field

PreviewRow = Mapping[str, Any]

DIGEST = re.compile('"[0-9a-f]{16,64}"')


def format_preview(rows: Sequence[PreviewRow], store: Path, device: str) -> list[str]:
    """Of all rows of `foresee`; what is wholly cached is one line."""
    told = [line for row in rows for line in _experiment_lines(row)]
    return told + format_totals(rows, free_bytes(store), total_memory_mb(device))


def format_totals(
    rows: Sequence[PreviewRow], free_space: int | None, device_memory_mb: float | None
) -> list[str]:
    """free_space: free bytes where the store lies. device_memory_mb: MB of memory that the device
    has"""
    every = {(s["kind"], s["key"]): s for row in rows for s in row["stages"]}
    todo = [stage for stage in every.values() if stage["state"] != "cached"]
    count = f"{len(rows)} cell{'s' * (len(rows) != 1)}"
    head = f"{count}: {len(every) - len(todo)} stages cached, {len(todo)} to do"
    if not todo:
        return [head]
    seconds = [s["seconds"] for s in todo if s["seconds"] is not None]
    blind = len(todo) - len(seconds)
    time = format_age(sum(seconds)) if seconds else "unknown"
    if blind and seconds:
        time += f", and {blind} of unknown length"
    if any(s["seconds"] is None and s["kind"] != "record" for s in todo):
        time += " (--measure tries those that nothing like was run of)"
    return [
        head,
        f"time    {time}, one after another",
        _disk_line(todo, free_space),
        _memory_line(todo, device_memory_mb),
    ]


def free_bytes(folder: Path) -> int | None:
    """Bytes free where a folder lies, or will lie."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def total_memory_mb(device: str) -> float | None:
    """MB that a device has in all."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e6
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    except (ValueError, OSError):
        return None


def _experiment_lines(row: PreviewRow) -> list[str]:
    if row["skip"]:
        return [row["cell"], f"  skipped: {row['skip']}"]
    if all(stage["state"] == "cached" for stage in row["stages"]):
        return [f"{row['cell']}  cached"]
    made, said = [row["cell"]], set[str]()
    for stage in row["stages"]:
        if stage["state"] == "cached":
            made.append(f"  {stage['stage']:<14} cached")
            continue
        why = [
            line for line in map(_describe_difference, stage["why"]) if line and line not in said
        ]
        said |= set(why)
        known = f"{format_age(stage['seconds'])}" if stage["seconds"] is not None else "unknown"
        made.append(
            f"  {stage['stage']:<14} to do  {known:>8}  {'; '.join(why) or 'follows from that'}"
        )
    return made


def _describe_difference(line: str) -> str:
    """A line of Store.explain, for people; empty of one that only counts further ones."""
    field, colon, values = line.partition(": ")
    if not colon:
        return "" if line.startswith("and ") else line
    stored, _, asked = values.partition(" -> ")
    words = describe_field(short_field(field))
    if DIGEST.fullmatch(stored) and DIGEST.fullmatch(asked):
        return f"{words} changed"
    return f"{words}: {stored} -> {asked}"


def _disk_line(todo: Sequence[PreviewRow], room: int | None) -> str:
    known = [s["bytes"] for s in todo if s["bytes"] is not None]
    blind = sum(s["bytes"] is None and s["kind"] != "record" for s in todo)
    told = f"disk    about {format_size(sum(known))}" if known else "disk    unknown"
    told += f", and {blind} of unknown size" if blind and known else ""
    if room is None:
        return told
    short = " - NOT ENOUGH (adbench cache gc)" if sum(known) > room else ""
    return f"{told}; {format_size(room)} free{short}"


def _memory_line(todo: Sequence[PreviewRow], most: float | None) -> str:
    known = [s["memory_mb"] for s in todo if s["memory_mb"] is not None]
    if not known:
        told = "memory  unknown"
    else:
        told = f"memory  {format_size(max(known) * 1e6)} at its peak, as far as is known"
    if most is None:
        return told
    short = (
        " - MORE THAN THERE IS: smaller batches will be tried"
        if max(known, default=0) > most
        else ""
    )
    return f"{told}; the device has {format_size(most * 1e6)}{short}"
