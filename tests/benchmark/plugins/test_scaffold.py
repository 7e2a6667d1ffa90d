"""What `adbench new method` writes keeps the contract, runs, and is refused where it would harm."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.registry.registry import Registry


def new(*argv: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["new", "method", *argv])
    return done.exit_code, done.output


def test_it_keeps_the_contract_as_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "my-method"
    code, text = new("my-method", "--out", str(folder))
    assert code == 0 and f"adbench check my-method --registry {folder}/registry.yaml" in text
    listed = str(folder / "registry.yaml")
    done = CliRunner().invoke(app, ["check", "my-method", "--registry", listed, "--axes", "1"])
    assert done.exit_code == 0, done.output


def test_a_package_of_it_names_the_same_class(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    assert new("two-words", "--out", str(folder))[0] == 0
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    point = project["project"]["entry-points"]["adbench.methods"]["two-words"]
    module, _, cls = point.partition(":")
    assert project["tool"]["setuptools"]["py-modules"] == [module]
    defined = {n.name for n in ast.parse((folder / f"{module}.py").read_text()).body
               if isinstance(n, ast.ClassDef)}  # fmt: skip
    assert cls in defined
    row = yaml.safe_load((folder / "registry.yaml").read_text())["methods"]["two-words"]
    assert row["class"] == f"{module}.py:{cls}" and row["label"] == "Two Words"
    loaded = Registry.read(folder / "registry.yaml").method("two-words").load()
    assert loaded.__name__ == cls
    ast.parse((folder / f"test_{module}.py").read_text())


@pytest.mark.parametrize("name", ["Caps", "a b", "../up", "class", "9lives", "", "x_y"])
def test_a_name_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    code, text = new(name, "--out", str(tmp_path / "f"))
    assert code == 2 and "a method's name is made of" in text
    assert not (tmp_path / "f").exists()


def test_a_taken_name_and_a_taken_place_are_refused(tmp_path: Path) -> None:
    code, text = new("anoddpm", "--out", str(tmp_path / "f"))
    assert code == 2 and "'anoddpm' is taken" in text
    (tmp_path / "mine.txt").write_text("mine")
    code, text = new("other", "--out", str(tmp_path))
    assert code == 2 and "is there already" in text
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_may_be_filled_and_a_file_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert new("other", "--out", str(tmp_path / "empty"))[0] == 0
    (tmp_path / "file").write_text("")
    code, text = new("other", "--out", str(tmp_path / "file" / "deep"))
    assert code == 2 and "cannot write" in text and "Traceback" not in text
