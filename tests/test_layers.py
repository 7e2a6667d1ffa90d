"""Who may import whom. Arrows point down only; a plugin knows its room's base and what is below."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "engine": set(),
    "datasets": set(),
    "methods": {"engine", "datasets"},
    "benchmark": {"engine", "datasets", "methods"},
}
PLUGINS = {"methods": "Method", "datasets": "Dataset"}
"""The rooms of plugins, and the class that makes one a plugin."""

HEAVY = {"torch", "monai", "diffusers", "pandas", "sklearn"}
FILES = [path for room in BELOW for path in sorted((ROOT / room).glob("*.py"))]


class Import(NamedTuple):
    """line, and what is imported: a room of adbench and a module in it; "" where not told."""

    line: int
    room: str
    module: str


def imports(source: str, room: str) -> Iterator[Import]:
    """Every import of something in adbench that stands in a file of `room`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "adbench":
                    yield Import(node.lineno, "adbench", "absolutely")
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                path = [*parts, alias.name]
                if node.level == 0 and path[0] == "adbench":
                    yield Import(node.lineno, "adbench", "absolutely")
                elif node.level == 1:
                    yield Import(node.lineno, room, path[0])
                elif node.level == 2:
                    yield Import(node.lineno, path[0], path[1] if len(path) > 1 else "")
                elif node.level > 2:
                    yield Import(node.lineno, "", "above the root")


def plugins(sources: dict[str, str], base: str) -> set[str]:
    """The modules that define a class deriving, in however many steps, from `base`; an abstract
    one between (it leaves methods to those that derive from it) makes no plugin."""
    known, found, before = {base}, set[str](), -1
    while len(known) != before:
        before = len(known)
        for name, source in sources.items():
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef) and known & {
                    part.id if isinstance(part, ast.Name) else getattr(part, "attr", "")
                    for part in node.bases
                }:
                    known.add(node.name)
                    if not abstract(node):
                        found.add(name)
    return found


def abstract(node: ast.ClassDef) -> bool:
    """Whether a class says that it is a part of one: by an abstract method, or by its own words."""
    marked = [
        getattr(mark, "id", getattr(mark, "attr", ""))
        for part in node.body
        if isinstance(part, ast.FunctionDef)
        for mark in part.decorator_list
    ]
    return "abstractmethod" in marked or any(getattr(b, "id", "") == "ABC" for b in node.bases)


def wrong(source: str, room: str, plugin_modules: dict[str, set[str]]) -> list[str]:
    """What a file of `room` imports and may not."""
    found = []
    for line, other, module in imports(source, room):
        if other == "adbench":
            found.append(f"line {line}: within adbench, import relatively")
        elif other != room and other not in BELOW[room]:
            found.append(f"line {line}: {room} may not know {other or module}")
        elif other != room and room == "methods" and other == "datasets" and module != "base":
            found.append(f"line {line}: methods may know datasets/base.py only")
        elif room == other == "methods" and module != "base":
            found.append(f"line {line}: methods share methods/base.py and the engine, no more")
        elif other in PLUGINS and module in plugin_modules[other]:
            found.append(f"line {line}: {other}/{module}.py is a plugin: it is known by name only")
    return found


@pytest.fixture(scope="module")
def plugin_modules() -> dict[str, set[str]]:
    return {
        room: plugins({p.stem: p.read_text() for p in (ROOT / room).glob("*.py")}, base)
        for room, base in PLUGINS.items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_arrows_point_down_and_plugins_stand_alone(
    path: Path, plugin_modules: dict[str, set[str]]
) -> None:
    assert wrong(path.read_text(), path.parent.name, plugin_modules) == []


def test_plugins_are_found(plugin_modules: dict[str, set[str]]) -> None:
    assert {"anoddpm", "pddpm", "autoddpm"} <= plugin_modules["methods"]
    for modules in plugin_modules.values():
        assert "base" not in modules
    sources = {"a": "class A(base.Dataset): ...", "b": "class B(A): ...", "c": "class C: ..."}
    assert plugins(sources, "Dataset") == {"a", "b"}
    between = "class P(Dataset):\n    @abstractmethod\n    def f(self): ..."
    assert plugins({"p": between, "q": "class Q(P): ..."}, "Dataset") == {"q"}
    assert plugins({"p": "class P(Dataset, ABC): ...", "q": "class Q(P): ..."}, "Dataset") == {"q"}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("engine", "from ..datasets.base import Spec"),
        ("engine", "from .. import methods"),
        ("datasets", "from ..engine.rng import Rng"),
        ("datasets", "from .brats import BraTS"),
        ("datasets", "from . import brats"),
        ("methods", "from .other import helper"),
        ("methods", "from . import other"),
        ("methods", "from ..datasets.brats import BraTS"),
        ("methods", "from ..datasets.nifti import read_volume"),
        ("methods", "from ..benchmark.metrics import auroc"),
        ("methods", "from adbench.engine.rng import Rng"),
        ("methods", "import adbench.engine.rng"),
        ("methods", "def f():\n    from ..benchmark import metrics"),
        ("benchmark", "from ..methods.anoddpm import AnoDDPM"),
        ("benchmark", "from ..tests import anything"),
        ("benchmark", "from ...outside import anything"),
    ],
)
def test_a_wrong_import_is_seen(room: str, line: str, plugin_modules: dict[str, set[str]]) -> None:
    made_up = {"methods": {"anoddpm"}, "datasets": {"brats"}}
    assert len(wrong(line, room, made_up)) == 1


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("engine", "from .rng import Rng"),
        ("datasets", "from .base import Sample"),
        ("datasets", "from .nifti import read_volume"),
        ("methods", "from ..engine import rng"),
        ("methods", "from .base import Method"),
        ("methods", "from ..datasets.base import Spec"),
        ("benchmark", "from ..methods.base import Method"),
        ("benchmark", "from .store import Store"),
        ("benchmark", "import torch"),
    ],
)
def test_a_right_import_is_not(room: str, line: str) -> None:
    assert wrong(line, room, {"methods": {"anoddpm"}, "datasets": {"brats"}}) == []


@pytest.mark.parametrize("module", ["cli", "registry", "fingerprint", "store", "plan", "report"])
def test_what_only_names_things_loads_nothing_heavy(module: str) -> None:
    """`adbench --help`, `list` and `report` answer at once, and without a GPU library."""
    script = f"import sys, adbench.benchmark.{module}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert HEAVY & set(told.stdout.split()) == set()
