"""What is changed is done again, with all that depends on it and nothing else.

A plugin in a folder is planned by a fresh process each time, as a user does it, beside a store
that holds everything of the plugin as it was. A stage that plan would do is one that run does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("mutations")  # what all need is made once

FILES = {
    "method.py": '''
"""A method."""
from adbench.methods.base import Detection, Method
from .helper import doubled


class Toy(Method):
    """Depends on nothing."""

    inference = frozenset({"power"})
    levels, published = (100, 200), 200

    def __init__(self, spec, *, width=4, power=1.0, steps=3):
        super().__init__(spec)

    def fit(self, train, calibration, context):
        pass

    def detect(self, x, levels, rng):
        return Detection.from_map(doubled(x.mean(1)).expand(len(levels), *x[:, 0].shape))
''',
    "helper.py": '"""Helps."""\nfrom .deeper import TWO\n\n\ndef doubled(x):\n    return TWO * x\n',
    "deeper.py": "TWO = 2  # two\n",
    "stranger.py": "NOBODY = 'imports me'\n",
    "data.py": """
import numpy as np
import torch
from adbench.datasets.base import Dataset, Sample, Spec

FLIPPED = {}
GROUPS = {}
MOVED = {}


class Data(Dataset):
    synthetic = True

    def __init__(self, *, root=None, height=1.0):
        self.spec = Spec(1, (8, 8))

    def _part(self, part, count=3):
        names = [f"{part}{i}" for i in range(count)]
        names = [name for name in names if name not in MOVED]
        names += [name for name, to in MOVED.items() if to == part]
        return [self._sample(name) for name in names]

    def _sample(self, name):
        x = torch.zeros(1, 8, 8)
        x.view(torch.uint8).view(-1)[FLIPPED.get(name, 0)] = name in FLIPPED
        label = name[0] in "vt" and name[:2] != "tr" and name[-1] == "1"
        mask = torch.zeros(8, 8, dtype=torch.bool)
        mask[0, 0] = label
        return Sample(x, name, GROUPS.get(name, name), label, mask)

    def train(self, *, labelled=False):
        return self._part("train")

    def calibration(self):
        return self._part("held_out")

    def val(self):
        return self._part("val")

    def test(self):
        return self._part("test")
""",
    "registry.yaml": """
methods: {toy: {class: "method.py:Toy"}, other: {class: "other.py:Other"}}
datasets: {bits: {class: "data.py:Data"}}
""",
    "other.py": "from .method import Toy\n\n\nclass Other(Toy):\n    pass\n",
}

STAGES = ("train", "calibration", "val", "test", "evaluate")
PREDICTED = {"calibration", "val", "test", "evaluate"}
ALL = {"train", *PREDICTED}

SERVER = """
import json, os, sys, yaml
from typer.testing import CliRunner
from adbench.benchmark.evaluation import evaluate
from adbench.benchmark.executors import launch
from adbench.benchmark.experiments import fit_predict
from adbench.benchmark.cli.main import app
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
folder = sys.argv[1]  # a run of something else imports what is slow to import, once
warm = ["run", "-m", "intensity", "-d", "phantom", "--no-baselines", "--limit", "2"]
warm += ["--set", "train=2", "--set", "held_out=2", "--store", folder, "--out", folder]
CliRunner().invoke(app, warm)
for line in sys.stdin:
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        result = CliRunner().invoke(app, line.split())
        with os.fdopen(write, "w") as file:
            json.dump([result.exit_code, result.stdout, result.output], file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(child, 0)
    print(text, flush=True)
"""
"""Each line is a command, done by a fork of a process that has imported adbench and no plugin."""

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path_factory.mktemp("warm"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ADBENCH_EXECUTOR": "inline"},
    )  # fmt: skip
    inputs, output = process.stdin, process.stdout
    assert inputs is not None and output is not None

    def asked(*argv: str) -> str:
        print(*argv, file=inputs, flush=True)
        code, message, all_of_it = json.loads(output.readline())
        assert code == 0, all_of_it
        return message

    yield asked
    process.kill()
    process.wait()
    inputs.close()
    output.close()


class Plugin:
    """A folder of code, and a store that holds all of it that there is."""

    def __init__(self, folder: Path, ask: Ask) -> None:
        self.folder, self.ask = folder, ask
        for name, text in FILES.items():
            (folder / name).write_text(text)
        self.argv = ["-m", "toy", "-d", "bits", "--registry", str(folder / "registry.yaml")]
        self.argv += ["--no-baselines", "--profile", "tiny", "--device", "cpu"]
        self.argv += ["--store", str(folder / "store")]
        self.run()

    def run(self, *more: str) -> None:
        self.ask("run", *self.argv, "--out", str(self.folder / "out"), *more)

    def stages(self, *more: str) -> dict[str, dict[str, Any]]:
        """All stages, by the last word of their names."""
        (row,) = json.loads(self.ask("plan", *self.argv, "--json", *more))
        stages = {stage["stage"].split()[-1]: stage for stage in row["stages"]}
        assert tuple(stages) == STAGES
        assert all(bool(s["why"]) == (s["state"] != "cached") for s in stages.values())
        return stages

    def todo(self, *more: str) -> set[str]:
        """The stages that are not cached."""
        stages = self.stages(*more)
        return {name for name, stage in stages.items() if stage["state"] != "cached"}

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Plugin:
    return Plugin(tmp_path_factory.mktemp("plugin"), ask)


@pytest.fixture
def plugin(package: Plugin) -> Iterator[Plugin]:
    """As it was first, whatever the test before did to it."""
    yield package
    for name, text in FILES.items():
        (package.folder / name).write_text(text)


def test_nothing_changed_is_nothing_done(plugin: Plugin) -> None:
    assert plugin.todo() == set()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("method.py", "Depends on nothing.", "Depends on everything."),
        ("method.py", "class Toy(Method):", "class Toy(Method):  # a toy"),
        ("method.py", "width=4, power=1.0", "width = 4,power=1.0"),
        ("helper.py", '"""Helps."""', '"""Helps a lot."""'),
        ("helper.py", "return TWO * x", "return (\n        TWO * x\n    )"),
        ("deeper.py", "# two", "# one and one"),
        ("stranger.py", "NOBODY", "SOMEBODY"),
        ("other.py", "pass", "power = 2"),
    ],
)
def test_words_and_layout_and_what_is_not_imported_do_not_count(
    plugin: Plugin, name: str, old: str, new: str
) -> None:
    plugin.edit(name, old, new)
    assert plugin.todo() == set()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("method.py", "x.mean(1)", "x.amax(1)"),
        ("helper.py", "TWO * x", "TWO + x"),
        ("deeper.py", "TWO = 2", "TWO = 3"),
    ],
)
def test_code_of_the_method_and_of_whatever_it_imports_counts(
    plugin: Plugin, name: str, old: str, new: str
) -> None:
    plugin.edit(name, old, new)
    assert plugin.todo() == ALL


@pytest.mark.parametrize(
    ("argv", "stages"),
    [
        ("--set toy.width=8", ALL),
        ("--set toy.steps=4", ALL),
        ("--seeds 1", ALL),
        ("--dtype bfloat16", ALL),
        ("--set bits.height=2.0", ALL),
        ("--limit 2", ALL),
        ("--set toy.power=2.0", PREDICTED),
        ("--levels 50,100", PREDICTED),
        ("--threshold val-dice", {"evaluate"}),
        ("--reducer max", {"evaluate"}),
        ("--post median3", {"evaluate"}),
        ("--level-rule published", {"evaluate"}),
        ("--set bits.root=elsewhere", set()),
        ("--levels 100,200", set()),
    ],
)
def test_options_count_for_what_depends_on_them(
    plugin: Plugin, argv: str, stages: set[str]
) -> None:
    assert plugin.todo(*argv.split()) == stages


@pytest.mark.parametrize(
    ("part", "stages"),
    [
        ("train1", ALL),
        ("held_out1", ALL),
        ("val1", {"val", "evaluate"}),
        ("test1", {"test", "evaluate"}),
    ],
)
@pytest.mark.parametrize("how", ["FLIPPED", "GROUPS"])
def test_a_byte_or_a_patient_counts_for_the_stages_that_see_it(
    plugin: Plugin, part: str, stages: set[str], how: str
) -> None:
    value = "200" if how == "FLIPPED" else "'somebody'"
    plugin.edit("data.py", f"{how} = {{}}", f"{how} = {{{part!r}: {value}}}")
    assert plugin.todo() == stages


def test_a_sample_that_moves_counts_for_both_splits(plugin: Plugin) -> None:
    plugin.edit("data.py", "MOVED = {}", "MOVED = {'val1': 'test'}")
    assert plugin.todo() == {"val", "test", "evaluate"}


def test_what_was_planned_is_done_and_then_all_is_there(plugin: Plugin) -> None:
    plugin.edit("helper.py", "TWO * x", "TWO * x * 1.5")
    assert plugin.todo() == ALL
    plugin.run()
    assert plugin.todo() == set()
    plugin.edit("helper.py", "TWO * x * 1.5", "TWO * x")
    assert plugin.todo() == set(), "and what was made before is there still"


def test_what_is_deleted_is_done_and_nothing_else(plugin: Plugin) -> None:
    key = plugin.stages()["train"]["key"]
    path = plugin.folder / "store/checkpoint" / key[:2] / key / "weights.safetensors"
    weights = path.read_bytes()
    path.unlink()
    assert plugin.todo() == {"train"}
    path.write_bytes(weights)
    assert plugin.todo() == set()
