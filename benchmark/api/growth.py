"""How time and memory grow with images, records and artifacts, all of them made up."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..experiments.run_config import OptionError
from ..speed.growth import Process, growth_measurement, make_artifacts, run_process, run_task

SUBJECTS = ("images", "records", "artifacts")
ADBENCH = (sys.executable, "-m", "adbench")


def parse_growth(texts: Sequence[str]) -> dict[str, list[int]]:
    """The sizes of each subject from texts such as `images=1000,3000`.

    Raises OptionError on another text.

    >>> parse_growth(["images=100,300", "records=10"])
    {'images': [100, 300], 'records': [10]}
    """
    sizes: dict[str, list[int]] = {}
    for text in texts:
        subject, _, numbers = text.partition("=")
        parts = numbers.split(",")
        if subject not in SUBJECTS or not all(part.isdigit() and int(part) > 9 for part in parts):
            names = ", ".join(SUBJECTS)
            raise OptionError(
                f"--growth takes images=1000,3000 or another of {names}, not {text!r}"
            )
        sizes[subject] = sorted(map(int, parts))
    return sizes


def measure_growth(
    sizes: Mapping[str, Sequence[int]], folder: Path, machine: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Measure every task of each subject at its sizes, each in a process of its own.

    images: predicting them at nine levels, and evaluating the maps
    records: the leaderboards as text, and the page
    artifacts: the first `cache ls`, which makes the index, a later one, `plan` and `status`

    folder: on whose disk the data is made up        machine: from `describe_machine`, of the CPU

    >>> measure_growth({}, Path("results"), {})
    []
    """
    measurements = []
    for subject, numbers in sizes.items():
        tasks: dict[str, list[Process]] = {}
        for size in numbers:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                for task, process in _MEASURE[subject](size, Path(scratch)).items():
                    tasks.setdefault(task, []).append(process)
        measurements += [
            growth_measurement(f"{subject}: {task}", numbers, processes, machine)
            for task, processes in tasks.items()
        ]
    return measurements


def _images(size: int, folder: Path) -> dict[str, Process]:
    return {task: run_task(task, size, folder) for task in ("predict", "evaluate")}


def _records(size: int, folder: Path) -> dict[str, Process]:
    from ..leaderboard.example_records import example_record, write_example_records
    from ..leaderboard.records import record_seal

    records = []
    for number in range(size):
        label = f"Method-{number % 50}"
        record = copy.deepcopy(example_record(label, 1 + number % 19, seed=number // 50))
        record["seal"] = record_seal({k: v for k, v in record.items() if k != "file"})
        records.append(record)
    write_example_records(folder, records)
    code = f"import adbench; adbench.load_results({str(folder)!r}).to_markdown()"
    return {
        "tables": run_process([sys.executable, "-c", code]),
        "page": run_process([*ADBENCH, "report", "--out", str(folder)]),
    }


def _artifacts(size: int, folder: Path) -> dict[str, Process]:
    make_artifacts(size, folder)
    store = ["--store", str(folder)]
    plan = ["plan", "-m", "pca,dae", "-d", "phantom", "--seeds", "0,1,2", "--json", *store]
    return {
        "first ls": run_process([*ADBENCH, "cache", "ls", *store]),
        "ls": run_process([*ADBENCH, "cache", "ls", *store]),
        "plan": run_process([*ADBENCH, *plan]),
        "status": run_process([*ADBENCH, "status", "--out", str(folder / "none"), *store]),
        "gc --dry-run": run_process(
            [*ADBENCH, "cache", "gc", "--older", "30d", "--dry-run", *store]
        ),
    }


_MEASURE = {"images": _images, "records": _records, "artifacts": _artifacts}
