"""How time and memory grow with images, records and artifacts, all of them made up."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..experiments.run_config import OptionError
from ..registry.code_fingerprint import ADBENCH_FOLDER, folder_digest
from ..speed.growth import (
    Process,
    growth_measurement,
    make_artifacts,
    run_process,
    run_task,
    scratch_folder,
)

SUBJECTS = ("images", "records", "artifacts")
ADBENCH = (sys.executable, "-m", "adbench")
SAME_MACHINE = ("device", "threads", "torch", "dtype")
"""What a machine must share with that of an earlier measurement, which is then not repeated."""


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
        sizes[subject] = sorted(set(map(int, parts)))
    return sizes


def measure_growth(
    sizes: Mapping[str, Sequence[int]],
    folder: Path,
    machine: Mapping[str, Any],
    *,
    earlier: Sequence[Mapping[str, Any]] = (),
    save: Callable[[Sequence[Mapping[str, Any]]], object] = len,
) -> list[dict[str, Any]]:
    """Measure every task of each subject at its sizes, each in a process of its own.

    images: predicting them at nine levels, and evaluating the maps
    records: the leaderboards as text, and the page
    artifacts: the first `cache ls`, which makes the index, a later one, `plan`, `status`, `gc`

    folder: on whose disk the data is made up        machine: from `describe_machine`, of the CPU
    earlier: measurements of an interrupted call; the same sizes by the same code are not repeated
    save: called with the measurements of a subject as soon as one more size is measured

    >>> measure_growth({}, Path("results"), {})
    []
    """
    code = _code_digest() if sizes else ""
    measurements = []
    for subject, asked in sizes.items():
        tasks = _unfinished(subject, asked, code, machine, earlier)
        of_subject = list[dict[str, Any]]()
        for size in asked:
            if all(size in processes for processes in tasks.values()) and tasks:
                continue
            with scratch_folder(folder) as scratch:
                for task, process in _MEASURE[subject](size, scratch).items():
                    tasks.setdefault(task, {})[size] = process
                of_subject = [
                    growth_measurement(
                        f"{subject}: {task}", sorted(processes),
                        [processes[done] for done in sorted(processes)], machine,
                        asked=asked, code=code,
                    )
                    for task, processes in tasks.items()
                ]  # fmt: skip
                save(of_subject)  # before the data is removed, which may take minutes
        measurements += of_subject
    return measurements


def _code_digest() -> str:
    """The digests of adbench's own packages, without its tests and what is installed beside."""
    packages = ("engine", "datasets", "methods", "benchmark")
    return " ".join(folder_digest(ADBENCH_FOLDER.folder / name) for name in packages)


def _unfinished(
    subject: str,
    asked: Sequence[int],
    code: str,
    machine: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]],
) -> dict[str, dict[int, Process]]:
    """For each task the sizes measured by an interrupted call; none if all tasks are complete."""
    same = [
        measurement
        for measurement in earlier
        if measurement["what"] == "growth"
        and measurement["task"].startswith(f"{subject}: ")
        and (measurement.get("asked"), measurement.get("code")) == ([*asked], code)
        and all(measurement["machine"][name] == machine[name] for name in SAME_MACHINE)
    ]
    if all(measurement["sizes"] == [*asked] for measurement in same):
        return {}
    return {
        measurement["task"].partition(": ")[2]: {
            size: Process(*figures)
            for size, *figures in zip(
                *(measurement[name] for name in ("sizes", "seconds", "cpu_seconds", "memory_mb")),
                strict=True,
            )
        }
        for measurement in same
    }


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
