"""adbench cache gc: what goes, in which order, and what never does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from adbench.benchmark.cli.cache import app
from adbench.benchmark.store import garbage_collection, leases
from adbench.benchmark.store.artifact_store import Store, cache_key
from adbench.benchmark.store.atomic_files import folder_size
from adbench.benchmark.store.garbage_collection import (
    RemovalCriteria,
    collect_garbage,
    parse_age,
    parse_size,
)
from adbench.benchmark.store.marker import MARKER
from stored import fill_store, maps_inputs, training_inputs

DAY = 86400.0


def dated(path: Path, when: float) -> None:
    os.utime(path, (when, when))


def never(path: Path) -> dict[str, Any]:
    raise AssertionError("created again")


def payload(path: Path) -> dict[str, Any]:
    path.write_bytes(b"." * 1000)
    return {}


def aged(store: Store, kind: str, key: str, days: float) -> Path:
    """Have an artifact last used so many days ago."""
    folder = store.folder(kind, key)
    dated(folder, time.time() - days * DAY)
    return folder


def store_of(root: Path, days: dict[int, float]) -> Store:
    """A store of checkpoints, by seed, and the days since each was used."""
    store = Store(root)
    for seed, old in days.items():
        store.get_or_create("checkpoint", {"seed": seed}, payload, name="x")
        aged(store, "checkpoint", cache_key({"seed": seed}), old)
    return store


def seeds(store: Store) -> list[int]:
    return sorted(artifact.key_inputs["seed"] for artifact in store.artifacts(verify=True))


def size_of(store: Store) -> int:
    index = sum(path.stat().st_size for path in store.root.glob("index.sqlite*"))
    return folder_size(store.root) - (store.root / MARKER).stat().st_size - index


def test_the_least_recently_used_goes_first_until_there_is_room(tmp_path: Path) -> None:
    store = store_of(tmp_path, {0: 5, 1: 50, 2: 1, 3: 20})
    each = size_of(store) // 4
    report = collect_garbage(store, RemovalCriteria(max_bytes=2 * each + 50))
    assert [g.item.key for g in report.removed] == [cache_key({"seed": s}) for s in (1, 3)]
    assert seeds(store) == [0, 2] and report.bytes_left == size_of(store) <= 2 * each + 50
    assert collect_garbage(store, RemovalCriteria(max_bytes=2 * each + 50)).removed == []
    store.get_or_create("checkpoint", {"seed": 0}, never, name="x")  # a hit
    collect_garbage(store, RemovalCriteria(max_bytes=each + 50))
    assert seeds(store) == [0], "what was used just now outlives what was used yesterday"


@settings(max_examples=15)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(0, 7))
def test_what_goes_is_older_than_what_stays(
    tmp_path_factory: pytest.TempPathFactory, days: list[int], share: int
) -> None:
    store = store_of(tmp_path_factory.mktemp("store"), dict(enumerate(map(float, days))))
    most = size_of(store) * share // 7
    dry = collect_garbage(store, RemovalCriteria(max_bytes=most), dry_run=True)
    assert len(seeds(store)) == len(days), "a dry run removes nothing"
    report = collect_garbage(store, RemovalCriteria(max_bytes=most))
    assert [g.item.key for g in report.removed] == [g.item.key for g in dry.removed]
    staying = [days[seed] for seed in seeds(store)]
    leaving = [day for seed, day in enumerate(days) if seed not in seeds(store)]
    assert max(staying, default=0) <= min(leaving, default=400)
    assert size_of(store) == report.bytes_left <= most
    assert all(
        collect_garbage(store, RemovalCriteria(max_bytes=most)).removed == [] for _ in range(2)
    )


def test_what_was_not_used_for_long_goes(tmp_path: Path) -> None:
    store = store_of(tmp_path, {0: 5, 1: 50, 2: 31})
    collect_garbage(store, RemovalCriteria(max_idle_seconds=parse_age("30d")))
    assert seeds(store) == [0]


def test_what_no_record_stands_on_goes(tmp_path: Path) -> None:
    store, out = Store(tmp_path / "store"), tmp_path / "out"
    fill_store(store, out, training_inputs(), "brats.anoddpm.s0")
    fill_store(store, out, training_inputs(seed=1), "brats.anoddpm.s1")
    staying = {p for p in store.folders() if "s0" in (next(p.glob("*.bin"))).read_text()}
    (out / "records/brats.anoddpm.s1.json").unlink()
    argv = ["gc", "--unused", "--store", str(store.root), "--json"]
    assert CliRunner().invoke(app, [*argv, "--out", str(tmp_path / "none")]).exit_code == 2
    assert len(store.folders()) == 8, "no record at all is a wrong folder"
    output = json.loads(CliRunner().invoke(app, [*argv, "--out", str(out)]).stdout)
    assert len(output["removed"]) == 4 and {g["why"] for g in output["removed"]} == {
        "no record uses it"
    }
    assert set(store.folders()) == staying


def test_what_is_locked_stays(tmp_path: Path) -> None:
    store = store_of(tmp_path, {0: 50, 1: 50})
    with store.lock("checkpoint", cache_key({"seed": 0})):
        report = collect_garbage(store, RemovalCriteria(max_bytes=0))
        assert seeds(store) == [0]
        assert [g.reason for g in report.retained] == ["a process holds its lock"]
        assert store.lock_file("checkpoint", cache_key({"seed": 0})).exists()
    collect_garbage(store, RemovalCriteria(max_bytes=0))
    assert seeds(store) == [] and not [*tmp_path.glob("locks/*.lock")]


@contextmanager
def a_run(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has recalled seed 0 and goes on with something else."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from adbench.benchmark.store.artifact_store import Store\n"
        "Store(Path(sys.argv[1])).get_or_create('checkpoint', {'seed': 0}, None, name='x')\n"
        "print('recalled', flush=True)\nsys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "recalled\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_what_a_living_run_has_used_stays_until_it_dies(tmp_path: Path) -> None:
    store = store_of(tmp_path, {0: 50, 1: 50})
    with a_run(tmp_path):
        report = collect_garbage(store, RemovalCriteria(max_bytes=0))
        assert seeds(store) == [0]
        assert [g.reason for g in report.retained] == ["a running process may need it"]
        assert report.locks_removed == 0, "over NFS, who waits for one may not see that it is gone"
    collect_garbage(store, RemovalCriteria(max_bytes=0))  # it was killed, and said nothing
    assert seeds(store) == []
    assert len([*leases.lease_folder(tmp_path).glob("*")]) == 1, "this process's own"


def test_a_run_whose_clock_is_ahead_may_have_used_anything(tmp_path: Path) -> None:
    store = store_of(tmp_path, {0: 50, 1: 50})
    with a_run(tmp_path):
        for path in leases.lease_folder(tmp_path).glob("*"):
            dated(path, time.time() + 9 * DAY)
        collect_garbage(store, RemovalCriteria(max_bytes=0))
        assert seeds(store) == [0, 1]


def test_times_in_the_future_count_as_now(tmp_path: Path) -> None:
    store = store_of(tmp_path, {0: -400, 1: 3})
    assert collect_garbage(store, RemovalCriteria(max_idle_seconds=DAY * 2), dry_run=True).removed[
        0
    ].item.key == cache_key({"seed": 1})
    collect_garbage(store, RemovalCriteria(max_idle_seconds=DAY * 2))
    assert seeds(store) == [0]
    collect_garbage(store, RemovalCriteria(max_bytes=0))
    assert seeds(store) == [], "and it is no way to live for ever"


def test_what_is_used_while_gc_looks_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, {0: 50})

    def used_meanwhile(*args: Any) -> str:
        store.find("checkpoint", {"seed": 0})
        return ""

    monkeypatch.setattr(garbage_collection, "_retention_reason", used_meanwhile)
    report = collect_garbage(store, RemovalCriteria(max_bytes=0))
    assert seeds(store) == [0] and [g.reason for g in report.retained] == [
        "was used during the garbage collection"
    ]


def test_half_finished_work_has_a_rule_of_its_own(tmp_path: Path) -> None:
    store = store_of(tmp_path, {0: 1})
    for seed, days in ((0, 0), (1, 3), (2, 40), (3, 40)):
        partial = store.partial_state("checkpoint", {"seed": seed})
        partial.save("train", {"a": torch.ones(3)})
        for path in (partial.folder, *partial.folder.iterdir()):
            dated(path, time.time() - days * DAY)
    with store.lock("checkpoint", cache_key({"seed": 3})):
        report = collect_garbage(store, RemovalCriteria(max_idle_seconds=2 * DAY))
    reasons = {g.item.key: g.reason for g in report.removed}
    assert reasons[cache_key({"seed": 0})] == "the checkpoint is complete"
    assert reasons[cache_key({"seed": 2})] == "not used for 40 d"
    assert len(reasons) == 2 and [g.reason for g in report.retained] == ["a process is creating it"]
    collect_garbage(store, RemovalCriteria(max_bytes=0))
    assert store.partial_state("checkpoint", {"seed": 1}).load("train") is not None


def test_what_was_set_aside_goes_first_and_what_a_kill_left_goes_after_a_day(
    tmp_path: Path,
) -> None:
    store = store_of(tmp_path, {0: 50, 1: 50})
    path = store.folder("checkpoint", cache_key({"seed": 1})) / "x"
    path.write_bytes(b"," * 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.find("checkpoint", {"seed": 1})
    old, new = (store.folder("maps", key).with_name(f".{key}.1234") for key in ("a" * 32, "b" * 32))
    for part, days in ((old, 2.0), (new, 0.1)):
        part.mkdir(parents=True)
        (part / "x").write_bytes(b"half")
        for path in (part / "x", part):
            dated(path, time.time() - days * DAY)
    report = collect_garbage(store, RemovalCriteria(max_bytes=size_of(store) - len(b"half")))
    assert [g.item.kind for g in report.removed] == ["half-made"]
    report = collect_garbage(store, RemovalCriteria(max_bytes=size_of(store) - 10))
    assert [g.item.kind for g in report.removed] == ["corrupt"] and seeds(store) == [0]
    assert new.exists() and not old.exists()


def run_gc(*argv: str) -> Result:
    return CliRunner().invoke(app, ["gc", *argv])


def test_from_the_command_line(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", {0: 50, 1: 1})
    here = ["--store", str(store.root)]
    dry = run_gc("--older", "30d", "--dry-run", *here)
    assert dry.exit_code == 0 and "would remove 1, " in dry.stdout and seeds(store) == [0, 1]
    assert "not used for 50 d" in run_gc("--older", "30d", *here).stdout and seeds(store) == [1]
    for argv in ([], ["--older", "30d", "--max-size", "1GB"], ["--older", "old"], ["--max-size=x"]):
        result = run_gc(*argv, *here)
        assert result.exit_code == 2 and result.output.startswith("error: "), argv
    assert seeds(store) == [1]


@pytest.mark.parametrize(
    ("text", "number"),
    [("20GB", 20e9), ("1.5 TiB", 1.5 * 2**40), ("300M", 300e6), ("512", 512), ("2kb", 2000)],
)
def test_sizes_are_read(text: str, number: float) -> None:
    assert parse_size(text) == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * DAY), ("2w", 14 * DAY), ("12h", DAY / 2), ("90min", 5400)]
)
def test_ages_are_read(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


def test_maps_of_a_checkpoint_that_went_are_hits_still(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill_store(store, tmp_path / "out", training_inputs(), "brats.anoddpm.s0")
    aged(store, "checkpoint", cache_key(training_inputs()), 50)
    collect_garbage(store, RemovalCriteria(max_idle_seconds=30 * DAY))
    assert store.find("checkpoint", training_inputs()) is None and store.find(
        "maps", maps_inputs(training_inputs())
    )
