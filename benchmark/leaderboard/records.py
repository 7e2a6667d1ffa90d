"""Records of experiments: reads the files of a results folder, and values from them.

A file that cannot be read, or holds no sound record, becomes a record of status `broken` that says
why, so that one bad file never hides the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


SCHEMA = 1


class ReportError(ValueError):
    """There is nothing to report: one line, and the command that mends it."""


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder, each with the name of its `file`; one that cannot be read becomes a
    record of status `broken`."""
    paths = sorted(Path(folder).glob("[!.]*.json"))
    if not paths:
        raise ReportError(f"no records in {folder}: make some with `adbench run` first")
    return [_read_record(path) for path in paths]


def _read_record(path: Path) -> dict[str, Any]:
    """A record, or one that says why there is none."""
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise ValueError("it holds no object")
        if record["schema"] != SCHEMA:
            raise ValueError(f"it has schema {record['schema']}, and this adbench reads {SCHEMA}")
        needed = ["reason", "profile", "seed", "partial"]
        if record["status"] == "ok":
            needed += ["level", "threshold", "metrics", "reference", "counts", "cost"]
        parts = {
            "method": ("name", "label", "baseline", "args"),
            "dataset": ("name", "args", "fingerprint", "synthetic"),
            "protocol": ("id", "text"),
        }
        [record[key] for key in needed]
        [record[part][key] for part, keys in parts.items() for key in keys]
        _check_record(record)
        return record | {"file": path.name}
    except KeyError as error:
        reason = f"it says nothing of {error.args[0]!r}"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error)
    return {
        "schema": SCHEMA,
        "status": "broken",
        "reason": f"{path.name} is no record: {reason}",
        "method": {"name": path.stem, "label": path.stem, "baseline": False, "args": {}},
        "dataset": {"name": "", "args": {}, "fingerprint": "", "synthetic": False},
        "protocol": {"id": "", "text": ""},
        "profile": "-",
        "seed": "-",
        "partial": None,
        "file": path.name,
    }


def _check_record(record: Mapping[str, Any]) -> None:
    """Raises ValueError on a figure that is neither a finite number nor missing."""
    figures = {
        f"{part}.{name}": value
        for part in ("cost", "reference", "at_published", "at_oracle")
        for name, value in (record.get(part) or {}).items()
    }
    for name, figure in (record.get("metrics") or {}).items():
        figures |= {f"metrics.{name}.{part}": figure.get(part) for part in ("value", "low", "high")}
    figures["pixel_error"] = record.get("pixel_error")
    for stratum, found in (record.get("strata") or {}).items():
        figures |= {f"strata.{stratum}.{name}": value for name, value in found.items()}
    for level, parts in (record.get("sweep") or {}).items():
        int(level)
        for part, found in parts.items():
            figures |= {f"sweep.{level}.{part}.{name}": value for name, value in found.items()}
    for name, value in figures.items():
        if value is None or isinstance(value, dict | list):  # those are for who knows them
            continue
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}, no number")


def metric_value(record: Record, metric: str, part: str = "value") -> float | None:
    value = ((record.get("metrics") or {}).get(metric) or {}).get(part)
    return value if isinstance(value, int | float) else None


def number_text(value: float | None, unit: float = 1) -> str:
    return "-" if value is None else f"{value / unit:.3f}"
