"""Which package may import which: arrows point down only, no two packages or files form a circle.

The table below is the rule; imports inside functions and those for type checkers count. A plugin (a
method, a dataset) is known to nobody by import: the registry names it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = ("engine", "datasets", "methods", "benchmark")

RUNTIME = {"engine.runtime"}
BASES = {"datasets.base", "methods.base"}
NOISE = RUNTIME | {"engine.noise", "engine.training", "engine.features"}
DIFFUSION = NOISE | {"engine.diffusion", "engine.transforms"}
NETWORKS = DIFFUSION | {"engine.networks", "engine.sampling", "engine.profiling"}
ENGINE = NETWORKS | {"engine.codecs", "engine.checkpoints"}
DATA = {"datasets.base", "datasets.io", "datasets.splits", "datasets.transforms"}
PREPARATION = DATA | {"datasets.layouts", "datasets.preparation"}
METRICS = {"benchmark.evaluation.metrics"}
EVALUATION = METRICS | {"benchmark.evaluation.statistics", "benchmark.evaluation"}
EXPERIMENTS = EVALUATION | BASES | ENGINE | {
    "benchmark.registry", "benchmark.store", "benchmark.figures", "benchmark.experiments",
    "datasets.io",
}  # fmt: skip
SCHEDULING = EXPERIMENTS | {"benchmark.leaderboard.records", "benchmark.scheduling"}

MAY_IMPORT: dict[str, set[str]] = {
    "engine.runtime": set(),
    "engine.noise": RUNTIME,
    "engine.training": RUNTIME,
    "engine.features": RUNTIME,
    "engine.diffusion": NOISE,
    "engine.transforms": NOISE,
    "engine.sampling": DIFFUSION,
    "engine.networks": DIFFUSION,
    "engine.profiling": DIFFUSION,
    "engine.codecs": NETWORKS,
    "engine.checkpoints": ENGINE,
    "datasets.base": set(),
    "datasets.io": {"datasets.base"},
    "datasets.splits": {"datasets.base"},
    "datasets.transforms": {"datasets.base", "datasets.io"},
    "datasets.layouts": {"datasets.base", "datasets.io", "datasets.splits"},
    "datasets.preparation": DATA | {"datasets.layouts"},
    "datasets.synthbrain": PREPARATION,
    "datasets": PREPARATION,
    "methods.base": {"datasets.base", "engine.training", *RUNTIME},
    "methods": ENGINE | BASES,
    "benchmark.registry": BASES | ENGINE,
    "benchmark.store": {"datasets.io"},
    "benchmark.evaluation.metrics": set(),
    "benchmark.evaluation.statistics": METRICS,
    "benchmark.evaluation": EVALUATION
    | {
        "datasets.base",
        "datasets.io",
        "benchmark.registry.setting_types",
        "benchmark.registry.imports",
    },
    "benchmark.figures": EVALUATION | {"benchmark.store", "datasets.base"},
    "benchmark.audit": EVALUATION | {"datasets.base"},
    "benchmark.leaderboard": EVALUATION | {"benchmark.registry"},
    "benchmark.report": EVALUATION
    | {"benchmark.leaderboard", "benchmark.figures", "benchmark.store", "benchmark.report.html"},
    "benchmark.report.html": EVALUATION
    | {"benchmark.leaderboard", "benchmark.figures", "benchmark.store"},
    "benchmark.experiments": EXPERIMENTS,
    "benchmark.external": EXPERIMENTS
    | {"benchmark.leaderboard.records", "datasets.preparation", "datasets.transforms"},
    "benchmark.speed": EXPERIMENTS,
    "benchmark.prediction": EXPERIMENTS | PREPARATION | {"benchmark.leaderboard"},
    "benchmark.tracking": EXPERIMENTS | {"benchmark.leaderboard.records"},
    "benchmark.scheduling": SCHEDULING | {"benchmark.tracking"},
    "benchmark.executors": SCHEDULING,
    "benchmark.planning": SCHEDULING | {"benchmark.executors", "benchmark.speed", "datasets.io"},
    "benchmark.sharing": EXPERIMENTS
    | {"benchmark.leaderboard", "benchmark.report", "benchmark.report.html"},
    "benchmark.tuning": EXPERIMENTS,
    "benchmark.plugins": BASES | ENGINE | {"benchmark.registry"},
}
"""What each package may import beside itself."""

UNRESTRICTED = {"benchmark.api", "benchmark.cli"}
"""Packages that may import every other one but `cli`."""

HEAVY = {"torch", "monai", "diffusers", "pandas", "sklearn", "matplotlib"}
CHECKED = [path for top in TOP for path in sorted((ROOT / top).rglob("*.py"))]


def modules() -> dict[str, Path]:
    """Every module below the root by its dotted name: a package by the name of its folder."""
    named = {}
    for path in CHECKED:
        parts = path.relative_to(ROOT).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


MODULES = modules()


def package_of(module: str) -> str:
    """The folder of a module; the two `base` modules are packages of their own."""
    if module in BASES or module not in MODULES or MODULES[module].name == "__init__.py":
        return module
    return module.rpartition(".")[0]


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name below adbench) of each import in a file of `package`; "" where it is
    absolute or leads above the root."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] == "adbench" for alias in node.names):
                yield node.lineno, ""
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                if node.module and node.module.split(".")[0] == "adbench":
                    yield node.lineno, ""
                continue
            parts = package.split(".")
            if node.level > len(parts) + 1:
                yield node.lineno, ""
                continue
            base = parts[: len(parts) - node.level + 1]
            for alias in node.names:
                dotted = ".".join([*base, *(node.module or "").split("."), alias.name])
                dotted = ".".join(part for part in dotted.split(".") if part)
                parent = dotted.rpartition(".")[0]
                yield node.lineno, parent if dotted not in MODULES and parent in MODULES else dotted


def allowed(package: str, target: str) -> bool:
    """Whether a file of `package` may import the module `target`."""
    home = package_of(target)
    if home == package or (package in UNRESTRICTED and home != "benchmark.cli"):
        return target in MODULES
    rule = MAY_IMPORT.get(package, set())
    return home in rule or target in rule


def wrong(source: str, package: str, plugins: Mapping[str, set[str]]) -> list[str]:
    """What a file of `package` imports and may not, a line each."""
    problems = []
    folder = package.removesuffix(".base") if package in BASES else package
    for line, target in imports(source, folder):
        top, _, rest = target.partition(".")
        if not target:
            problems.append(f"line {line}: within adbench, import relatively")
        elif rest.partition(".")[0] in plugins.get(top, ()) and package.partition(".")[2] != rest:
            inside = package.startswith(f"{top}.{rest.partition('.')[0]}")
            if not inside:
                problems.append(f"line {line}: {target} is a plugin: it is known by name only")
        elif not allowed(package, target):
            problems.append(f"line {line}: {package} may not import {target}")
    return problems


def plugin_names() -> dict[str, set[str]]:
    """The files (and folders) of methods/ and datasets/ that are plugins: all but the base and, of
    datasets, the packages that datasets share."""
    shared = {name.partition(".")[2] for name in MAY_IMPORT if name.startswith("datasets.")}
    return {
        "methods": {path.stem for path in (ROOT / "methods").glob("*.py")} - {"base", "__init__"},
        "datasets": {path.stem for path in (ROOT / "datasets").glob("*.py")} - {"base"}
        | {"synthbrain"} - shared
        | {"synthbrain"},
    }


PLUGINS = plugin_names()


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_its_package_may(path: Path) -> None:
    module = next(name for name, place in MODULES.items() if place == path)
    folder = module if path.name == "__init__.py" else module.rpartition(".")[0]
    package = package_of(module) if module in BASES else folder
    assert wrong(path.read_text(), package, PLUGINS) == []


def test_every_package_stands_in_the_table() -> None:
    folders = {package_of(name) for name, path in MODULES.items() if path.name != "__init__.py"}
    assert folders - UNRESTRICTED - {"benchmark"} == set(MAY_IMPORT)
    mentioned = set().union(*MAY_IMPORT.values()) - {
        "benchmark.leaderboard.records",
        "benchmark.registry.setting_types",
        "benchmark.registry.imports",
    }
    assert mentioned <= set(MAY_IMPORT)


def test_the_table_has_no_circle() -> None:
    graph = {
        package: {t for t in targets if t in MAY_IMPORT} - {package}
        for package, targets in MAY_IMPORT.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(MAY_IMPORT)


def test_no_two_files_form_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for name, path in MODULES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] |= {t for _, t in imports(path.read_text(), package) if t in MODULES} - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(f"a circle of files: {circle.args[1]}")


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("engine.runtime", "from ...datasets.base import Spec"),
        ("engine.runtime", "from ..diffusion.schedule import Schedule"),
        ("engine.noise", "from ... import methods"),
        ("engine.diffusion", "from ..sampling import solvers"),
        ("datasets.io", "from ...engine.runtime.rng import Rng"),
        ("datasets.io", "from ..preparation.writer import anything"),
        ("datasets", "from .brats import BraTS"),
        ("datasets", "from . import brats"),
        ("datasets", "from .synthbrain.anatomy import anything"),
        ("methods", "from .pddpm import helper"),
        ("methods", "from . import pddpm"),
        ("methods", "from ..datasets.brats import BraTS"),
        ("methods", "from ..datasets.io.nifti import read_volume"),
        ("methods", "from ..benchmark.evaluation.metrics.ranking import auroc"),
        ("methods", "from adbench.engine.runtime.rng import Rng"),
        ("methods", "import adbench.engine.runtime.rng"),
        ("methods", "def f():\n    from ..benchmark.evaluation import protocol"),
        ("benchmark.evaluation.metrics", "from ..protocol import Protocol"),
        ("benchmark.leaderboard", "from ..store.atomic_files import atomic_write"),
        ("benchmark.experiments", "from ..scheduling.job import Job"),
        ("benchmark.scheduling", "from ..executors.local import Local"),
        ("benchmark.scheduling", "from ..cli.main import app"),
        ("benchmark.experiments", "from ...methods.anoddpm import AnoDDPM"),
        ("benchmark.cli", "from ...tests import anything"),
        ("benchmark.cli", "from ....outside import anything"),
    ],
)
def test_a_wrong_import_is_seen(package: str, line: str) -> None:
    assert len(wrong(line, package, PLUGINS)) == 1


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("engine.runtime", "from .rng import Rng"),
        ("engine.sampling", "from ..diffusion.denoiser import Denoiser"),
        ("datasets", "from .base import Sample"),
        ("datasets", "from .io.nifti import read_volume"),
        ("datasets.synthbrain", "from .anatomy import Brain"),
        ("methods", "from ..engine.runtime import rng"),
        ("methods", "from .base import Method"),
        ("methods", "from ..datasets.base import Spec"),
        ("benchmark.experiments", "from ...methods.base import Method"),
        ("benchmark.experiments", "from ..store.artifact_store import Store"),
        ("benchmark.scheduling", "from ..store.leases import lease"),
        ("benchmark.cli", "from ..report.export import anything"),
        ("benchmark.cli", "import torch"),
    ],
)
def test_a_right_import_is_not(package: str, line: str) -> None:
    assert wrong(line, package, PLUGINS) == []


@pytest.mark.parametrize(
    "module",
    [
        "cli.main", "registry.registry", "registry.code_fingerprint", "store.artifact_store",
        "experiments.matrix", "report.export", "leaderboard.leaderboard",
    ],
)  # fmt: skip
def test_what_only_names_things_loads_nothing_heavy(module: str) -> None:
    """`adbench --help`, `list` and `report` answer at once, and without a GPU library."""
    script = f"import sys, adbench.benchmark.{module}; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert HEAVY & set(process.stdout.split()) == set()
