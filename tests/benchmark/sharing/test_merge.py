"""Folders of several machines in one: what belongs together is there once, the rest is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import adbench
from adbench.benchmark.cli.main import app
from adbench.benchmark.leaderboard.records import record_seal
from adbench.benchmark.sharing.merge import MergeError

pytestmark = pytest.mark.xdist_group("merge")  # what all need is made once

SMALL = {"phantom": {"shape": [8, 8], "train": 8, "held_out": 4, "val": 4, "test": 6}}


def run(out: Path, store: Path, methods: str, **options: Any) -> None:
    every: dict[str, Any] = {"settings": SMALL, "profile": "check", "baselines": False, **options}
    every |= {"progress": False, "executor": "inline", "out": out, "store": store}
    adbench.run(methods, "phantom", **every)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two machines, a and b; both ran pca with seed 0. c has another protocol, d other
    samples."""
    folder = tmp_path_factory.mktemp("machines")
    run(folder / "a", folder / "store", "pca,healthy-mean")
    run(folder / "b", folder / "store", "pca", seeds=[0, 1])
    run(folder / "c", folder / "store", "pca", threshold="healthy@10%")
    run(folder / "d", folder / "store", "pca", settings={"phantom": SMALL["phantom"] | {"test": 8}})
    return folder


@pytest.fixture
def pair(machines: Path, tmp_path: Path) -> Path:
    """Copies of a and b, to change."""
    for name in ("a", "b"):
        shutil.copytree(machines / name, tmp_path / name)
    return tmp_path


def edit(folder: Path, method: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the record of a method with seed 0, and seal it again."""
    for path in sorted((folder / "records").iterdir()):
        record = json.loads(path.read_text())
        if record["method"]["name"] == method and record["seed"] == 0:
            change(record)
            path.write_text(json.dumps(record | {"seal": record_seal(record)}))
            return path
    raise AssertionError


def merge(*argv: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, argv)])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}


def test_a_merge_has_every_record_once_with_its_files(machines: Path, tmp_path: Path) -> None:
    target = tmp_path / "all"
    report = adbench.merge([machines / "a", machines / "b"], target)
    assert len(report.merged) == 3 and not report.present and not report.replaced
    assert len(adbench.load_results(target).leaderboard().done) == 3
    both = files(machines / "a") | files(machines / "b")
    assert files(target) == {
        name: content
        for name, content in both.items()
        if name.split("/")[0] in ("records", "samples", "pictures")
    }
    before = {p: p.stat().st_mtime_ns for p in target.rglob("*")}
    again = adbench.merge([machines / "b", machines / "a"], target)
    assert len(again.present) == 3 and not again.merged
    assert {p: p.stat().st_mtime_ns for p in target.rglob("*")} == before, "nothing is written"


def test_results_of_data_in_another_folder_are_the_same_experiment(pair: Path) -> None:
    """Whose name differs, for it has a hash of where the data lie."""
    path = edit(pair / "b", "pca", lambda record: None)
    path.rename(path.with_name("phantom.pca.check.s0.01234567.json"))
    result = merge(pair / "a", pair / "b", "--to", pair / "all")
    assert result.exit_code == 0 and "3 merged" in result.output, result.output


def test_other_numbers_under_one_key_are_refused_and_nothing_is_written(pair: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["metrics"]["image_auroc"] |= {"value": 0.125, "low": None, "high": None}

    edit(pair / "b", "pca", change)
    result = merge(pair / "a", pair / "b", "--to", pair / "all")
    assert result.exit_code == 2 and not (pair / "all").exists()
    assert "has other numbers in" in result.output and "under one key" in result.output
    assert "and 0.125" in result.output


def test_other_seconds_are_those_of_the_first_folder(pair: Path) -> None:
    edit(pair / "b", "pca", lambda record: record["cost"].update(train_seconds=77.0))
    result = merge(pair / "a", pair / "b", "--to", pair / "all")
    assert result.exit_code == 0 and "the same numbers in" in result.output
    seconds = [r["cost"]["train_seconds"] for r in adbench.load_results(pair / "all").records]
    assert 77.0 not in seconds


def test_another_protocol_or_other_settings_of_the_data_are_refused(
    machines: Path, tmp_path: Path
) -> None:
    result = merge(machines / "a", machines / "c", machines / "d", "--to", tmp_path / "all")
    assert result.exit_code == 2 and not (tmp_path / "all").exists()
    assert "protocol threshold 'healthy@5%' and 'healthy@10%'" in result.output
    assert "test 6 and 8" in result.output and "--separate-boards" in result.output
    apart = [machines / name for name in "acd"]
    report = adbench.merge(apart, tmp_path / "all", separate_boards=True)
    assert len(report.merged) == 4
    assert len(adbench.load_results(tmp_path / "all").leaderboards()) == 3


def test_other_samples_under_the_same_settings_are_refused_always(pair: Path) -> None:
    for seed in (0, 1):
        path = pair / "b/records"
        for record_path in path.glob(f"*.s{seed}.*"):
            record = json.loads(record_path.read_text())
            record["dataset"]["fingerprint"] = "0123456789abcdef"
            record_path.write_text(json.dumps(record | {"seal": record_seal(record)}))
    with pytest.raises(MergeError, match="phantom holds other samples in"):
        adbench.merge([pair / "a", pair / "b"], pair / "all", separate_boards=True)


def test_a_result_replaces_a_failure(pair: Path, machines: Path) -> None:
    def fail(record: dict[str, Any]) -> None:
        fields = ("schema", "method", "dataset", "protocol", "profile", "seed", "partial")
        for name in [name for name in record if name not in fields]:
            del record[name]
        record |= {"status": "failed", "reason": "out of memory"}
        record["dataset"]["fingerprint"] = ""

    edit(pair / "a", "pca", fail)
    report = adbench.merge([pair / "a"], pair / "all")
    assert len(report.merged) == 2
    report = adbench.merge([pair / "a", pair / "b"], pair / "all")
    assert len(report.replaced) == 1 and len(report.merged) == 1
    assert {r["status"] for r in adbench.load_results(pair / "all").records} == {"ok"}
    assert len(adbench.merge([pair / "a"], pair / "all").present) == 3


@pytest.mark.parametrize("damage", ["file", "missing", "record", "elsewhere"])
def test_what_is_damaged_is_named_and_nothing_is_written(pair: Path, damage: str) -> None:
    record = edit(pair / "b", "pca", lambda record: None)
    if damage == "file":
        next((pair / "b/samples").glob("*.s1.*")).write_bytes(b"other")
    elif damage == "missing":
        next((pair / "b/pictures").glob("*.s1.*")).unlink()
    elif damage == "record":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"seed": 2}))
    else:
        path = next((pair / "b/records").glob("*.s1.*"))
        content = json.loads(path.read_text())
        content["files"] = {"../outside.txt": "0"}
        path.write_text(json.dumps(content | {"seal": record_seal(content)}))
    words = {"file": "was damaged or edited", "missing": "cannot be read: No such file",
             "record": "was damaged or edited", "elsewhere": "names a file elsewhere"}  # fmt: skip
    result = merge(pair / "a", pair / "b", "--to", pair / "all")
    assert result.exit_code == 2 and words[damage] in result.output, result.output
    assert not (pair / "all").exists()


def test_wrong_folders_are_one_line(machines: Path, tmp_path: Path) -> None:
    result = merge(machines / "a", tmp_path / "none", "--to", tmp_path / "all")
    assert result.exit_code == 2 and "no records in" in result.output
    (tmp_path / "file").write_text("")
    result = merge(machines / "a", "--to", tmp_path / "file")
    assert result.exit_code == 2 and "cannot write" in result.output, result.output
    assert len(result.output.strip().splitlines()) == 1
