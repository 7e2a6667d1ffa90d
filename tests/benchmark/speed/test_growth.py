"""Growth: every size is written as it is measured, and an interrupted call goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adbench.benchmark.api import growth
from adbench.benchmark.api.growth import measure_growth
from adbench.benchmark.speed.growth import (
    Process,
    growth_measurement,
    run_process,
    run_task,
    scratch_folder,
)
from adbench.benchmark.speed.report import format_page, read_measurements, write_report

MACHINE = {
    "device": "A Machine (R)", "kind": "cpu", "threads": 1, "torch": "2", "dtype": "float32",
    "compile": False, "batch": 32, "peak_gflops": 50.0, "peak_of": {},
}  # fmt: skip


class Subject:
    """Stands for a subject; interrupted at one size, and counts the sizes that it measures."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        self.interrupted_at = interrupted_at
        self.sizes: list[int] = []

    def __call__(self, size: int, scratch: Path) -> dict[str, Process]:
        (scratch / "data").write_bytes(b"made up")
        if size == self.interrupted_at:
            raise KeyboardInterrupt
        self.sizes.append(size)
        return {"list": Process(size / 2, size / 4, 50.0), "plan": Process(size, size, 60.0)}


def measure(out: Path, asked: Sequence[int], machine: Mapping[str, Any] = MACHINE) -> Any:
    return measure_growth(
        {"records": asked}, out, machine,
        earlier=read_measurements(out), save=lambda part: write_report(part, out),
    )  # fmt: skip


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the third of three sizes was interrupted."""
    monkeypatch.setitem(growth._MEASURE, "records", Subject(interrupted_at=30))
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, [10, 20, 30])
    return tmp_path


def test_an_interrupted_call_leaves_a_table_and_no_data(interrupted: Path) -> None:
    text = (interrupted / "speed.md").read_text()
    assert "\n    adbench speed --growth records=10,20,30\n" in text
    assert "| records: list | 10 | 5 | 2.5 |" in text and "| records: plan | 20 |" in text
    assert "Not measured yet: records: list at 30; records: plan at 30." in text
    assert sorted(path.name for path in interrupted.iterdir()) == ["speed", "speed.md"]


def test_the_same_call_goes_on(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(growth._MEASURE, "records", subject := Subject())
    listed, planned = measure(interrupted, [10, 20, 30])
    assert subject.sizes == [30]
    assert (listed["sizes"], listed["seconds"]) == ([10, 20, 30], [5, 10, 15])
    assert planned["cpu_seconds"] == [10, 20, 30] and planned["exponent"] == pytest.approx(1)
    assert "Not measured yet" not in (interrupted / "speed.md").read_text()
    assert read_measurements(interrupted) == [listed, planned]


def test_a_complete_table_is_measured_again_and_replaced(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(growth._MEASURE, "records", subject := Subject())
    measure(interrupted, [10, 20, 30])
    measure(interrupted, [10, 20, 30])
    assert subject.sizes == [30, 10, 20, 30]


@pytest.mark.parametrize("change", ["code", "sizes", "machine"])
def test_figures_of_other_circumstances_are_not_mixed(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setitem(growth._MEASURE, "records", subject := Subject())
    if change == "code":
        monkeypatch.setattr(growth, "_code_digest", lambda: "edited")
    asked = [10, 20, 30, 40] if change == "sizes" else [10, 20, 30]
    measure(interrupted, asked, MACHINE | ({"torch": "3"} if change == "machine" else {}))
    assert subject.sizes == asked


def test_a_task_whose_size_was_not_written_is_measured_again(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next((interrupted / "speed").glob("*plan*.json"))
    facts = json.loads(path.read_text())
    names = ("sizes", "seconds", "cpu_seconds", "memory_mb")
    path.write_text(json.dumps(facts | {name: facts[name][:1] for name in names}))
    monkeypatch.setitem(growth._MEASURE, "records", subject := Subject())
    listed, planned = measure(interrupted, [10, 20, 30])
    assert subject.sizes == [20, 30] and listed["sizes"] == planned["sizes"] == [10, 20, 30]


def test_data_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, os, pathlib\n"
        "from adbench.benchmark.speed.growth import scratch_folder\n"
        "with scratch_folder(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    with scratch_folder(tmp_path) as first:
        assert not left.exists()
        with scratch_folder(tmp_path):
            assert first.is_dir()
    assert not list(tmp_path.iterdir())


def test_sigterm_ends_the_measured_process_too_and_removes_its_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adbench", "speed", "--growth", "images=20,500000"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    first: set[Path] = set()
    while not (tmp_path / "speed.md").exists() or not {*tmp_path.glob(".growth-*/")} - first:
        if not (tmp_path / "speed.md").exists():
            first |= {*tmp_path.glob(".growth-*/")}
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted; the same command goes on"
    text = (tmp_path / "speed.md").read_text()
    assert "| images: predict | 20 |" in text and "predict at 500,000" in text
    time.sleep(0.5)  # a process that lived on would write again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed", "speed.md"]


def test_the_system_tells_the_memory_of_the_process_alone() -> None:
    here = bytearray(300 * 10**6)
    process = run_process([sys.executable, "-S", "-c", "x = bytearray(10**8)"])
    assert 100 < process.memory_mb < 200 and len(here)


def test_a_failing_process_says_why() -> None:
    with pytest.raises(RuntimeError, match="no such file of mine"):
        run_process([sys.executable, "-c", "raise SystemExit('no such file of mine')"])


def test_a_killed_launcher_is_an_error_of_its_own() -> None:
    code = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    with pytest.raises(RuntimeError, match="failed"):
        run_process([sys.executable, "-S", "-c", code])


def test_made_up_images_are_judged_as_they_are_predicted(tmp_path: Path) -> None:
    assert run_task("predict", 20, tmp_path).cpu_seconds > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held_out.h5", "test.h5", "val.h5"]
    assert run_task("evaluate", 20, tmp_path).seconds > 0


def facts_of(task: str, sizes: Sequence[int], processes: Sequence[Process]) -> dict[str, Any]:
    return growth_measurement(task, sizes, processes, MACHINE)


def test_every_figure_stands_beside_its_ratio_to_the_first() -> None:
    sizes = [100, 1000]
    text = format_page(
        [facts_of("images: predict", sizes, [Process(2, 1, 500), Process(30, 5, 600)])]
    )
    row, _ = (line for line in text.splitlines() if line.startswith("| images: predict | 1,000 |"))
    assert (
        row == "| images: predict | 1,000 | 30 | 5 | 5 | 1.5x | 0.5x | 600 | 1.2x | 0.70 | 0.70 |"
    )


def test_a_goal_beyond_the_measured_sizes_is_called_extrapolated() -> None:
    sizes = [5000, 20_000]
    measurements = [
        facts_of("images: predict", sizes, [Process(20, 10, 500), Process(80, 40, 515)]),
        facts_of("images: evaluate", sizes, [Process(20, 10, 500), Process(80, 72, 1500)]),
        facts_of("records: tables", [100, 1000], [Process(2, 1, 500), Process(2.5, 1.5, 509)]),
        facts_of("records: page", [100, 1000], [Process(2, 1, 500), Process(10.5, 10.2, 509)]),
        facts_of("artifacts: plan", [100, 1000], [Process(2, 1, 500), Process(2.5, 1.5, 509)]),
    ]
    lines = format_page(measurements).splitlines()
    goals = [line.strip("| ").split(" | ") for line in lines if "at most" in line]
    most = ["at most 4,000 MB", "at most 1.3x per item"]
    predict = "*595 MB, from 20,000*; not run, 0.0556 h of CPU"  # 1 MB for each 1,000 images
    evaluate = "*6,833 MB, from 20,000*; not run, 0.1 h of CPU"  # 1,000 MB for each 15,000
    plan = "*57.5 s, from 1,000*; not run, 0.0417 h of CPU"
    assert goals == [
        ["images: predict", "100,000", most[0], predict, "yes, by the line"],
        ["images: evaluate", "100,000", most[0], evaluate, "**no**, by the line"],
        ["records: tables", "1,000", "at most 2 s", "2.5 s, 1.5 of CPU", "in CPU time only"],
        ["records: page", "1,000", "at most 10 s", "10.5 s, 10.2 of CPU", "**no**"],
        ["artifacts: plan", "100,000", "at most 5 s", plan, "not established"],
        ["images: predict", "20,000", most[1], "1x of 5,000's CPU", "yes"],
        ["images: evaluate", "20,000", most[1], "1.8x of 5,000's CPU", "**no**"],
    ]


def test_what_was_measured_apart_says_how() -> None:
    facts = facts_of(
        "prepare: small images", [2000, 200_000], [Process(2, 1, 800), Process(9, 9, 900)]
    )
    text = format_page([facts | {"how": "by `adbench data prepare folder`"}])
    assert "\nprepare: small images: measured apart, by `adbench data prepare folder`\n" in text
    assert "adbench speed --growth" not in text
    assert "| prepare: small images | 200,000 | at most 1,000 MB | 900 MB | yes |" in text


def test_files_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    facts = facts_of("records: page", [10], [Process(2, 1, 500)])
    del facts["asked"], facts["code"]
    write_report([facts], tmp_path)
    assert "| records: page | 10 | 2 | 1 |" in (tmp_path / "speed.md").read_text()
    assert os.listdir(tmp_path / "speed")
