"""`run --skip-recorded`: a sound record of the same inputs stands, whatever the store has lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app

PLUGIN = Path(__file__).parents[2] / "plugin" / "registry.yaml"


def run(folder: Path, *more: str) -> None:
    argv = ["run", "-d", "bumps", "--registry", str(PLUGIN), "-m", "brightness", "--no-baselines"]
    argv += ["--store", str(folder / "store"), "--out", str(folder / "out"), *more]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output


def artifacts(folder: Path) -> int:
    return len([*(folder / "store").glob("*/??/*/")])


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in (folder / "out").rglob("*") if p.is_file() and p.parent.name != "out")
    return {path.name: path.read_bytes() for path in files if path.suffix != ".log"}


@pytest.fixture
def without_store(tmp_path: Path) -> Path:
    run(tmp_path)
    assert artifacts(tmp_path) > 0
    shutil.rmtree(tmp_path / "store")
    return tmp_path


def test_nothing_is_computed_for_a_sound_record(without_store: Path) -> None:
    before = contents(without_store)
    run(without_store, "--skip-recorded")
    assert artifacts(without_store) == 0
    assert contents(without_store) == before


@pytest.mark.parametrize("kind", ["records", "samples", "pictures"])
def test_a_damaged_file_is_computed_again(without_store: Path, kind: str) -> None:
    before = contents(without_store)
    path = min((without_store / "out" / kind).iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    run(without_store, "--skip-recorded")
    assert artifacts(without_store) > 0
    assert contents(without_store)[path.name] == before[path.name] or kind == "records"


def test_other_inputs_and_a_run_without_the_option_compute(without_store: Path) -> None:
    run(without_store, "--skip-recorded", "--seeds", "1")
    other_seed = artifacts(without_store)
    assert other_seed > 0
    run(without_store)
    assert artifacts(without_store) > other_seed
