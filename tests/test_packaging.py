"""The mapped layout and the lock file, where they could go wrong without anyone noticing."""

from __future__ import annotations

import ast
import multiprocessing
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from adbench.benchmark.registry.registry import REGISTRY_PATH, Registry
from adbench.datasets.base import Spec

ROOT = Path(__file__).parents[1]
PACKAGES = ("methods", "datasets", "engine", "benchmark")
AT_THE_ROOT = ("registry.yaml", "__init__.py", "__main__.py")
NOT_PACKAGES = {"docs", "tests", "results", "build", "dist"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REGISTRY = Registry.read()
LOCK = (ROOT / "requirements.lock").read_text()


def test_every_package_is_declared() -> None:
    """A folder of modules that pyproject.toml does not list is left out of the wheel."""
    folders = {
        ".".join(("adbench", *path.parent.relative_to(ROOT).parts))
        for top in ROOT.glob("[!.]*/")
        if top.name not in NOT_PACKAGES
        for path in top.rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {"adbench"} | folders


def test_every_folder_of_modules_says_what_it_is_for() -> None:
    """An __init__.py with a docstring, everywhere but in datasets/ itself, where it would make
    `import datasets` mean ours wherever the working directory is this folder."""
    assert not (ROOT / "datasets" / "__init__.py").exists()
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        if package != "adbench.datasets":
            path = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_an_init_that_the_code_fingerprint_counts_holds_no_code() -> None:
    """Engine, methods and datasets: a name exported there would change every cache key."""
    for top in ("engine", "methods", "datasets"):
        for path in (ROOT / top).rglob("__init__.py"):
            if path.parent.name != "synthbrain":  # the one dataset that is a package, by its name
                assert len(ast.parse(path.read_text()).body) == 1, path


def test_checkers_see_every_package() -> None:
    links = {path.name: path.resolve() for path in (ROOT / "tests/typings/adbench").iterdir()}
    assert links == {name: (ROOT / name).resolve() for name in (*PACKAGES, "__init__.py")}


def test_the_registry_is_found() -> None:
    assert REGISTRY_PATH.is_file()


@pytest.mark.parametrize("name", [*REGISTRY.methods, *REGISTRY.datasets])
def test_every_name_can_be_built_in_every_profile(name: str) -> None:
    entry = REGISTRY.methods.get(name) or REGISTRY.dataset(name)
    for profile in [None, *REGISTRY.profiles]:
        assert entry.arguments(profile).keys() == entry.parameters().keys()


def test_a_spawned_process_can_unpickle_what_is_ours() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(repr, (Spec(1, (4,)),)) == repr(Spec(1, (4,)))


def test_our_packages_do_not_shadow_anything() -> None:
    """From the root, ./datasets is at most an empty namespace: an installed `datasets` wins."""
    script = "import datasets; print(datasets.__file__)"
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert output == "None" or "site-packages" in output


def test_the_wheel_holds_all_that_is_needed_and_no_more(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "registry.yaml",
        "__init__.py",
        "__main__.py",
    ):
        shutil.copy(ROOT / name, copy)
    (copy / "tests").mkdir()
    (copy / "tests/test_any.py").touch()
    script = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=copy, capture_output=True, text=True
    )
    assert output.returncode == 0, output.stderr
    with zipfile.ZipFile(next(copy.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
        scripts = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert b"adbench = adbench.__main__:main" in wheel.read(scripts)
    expected = {
        f"adbench/{path.relative_to(copy).as_posix()}"
        for folder in PACKAGES
        for path in (copy / folder).rglob("*")
        if path.is_file()
    }
    assert held == expected | {
        f"adbench/{name}" for name in ("registry.yaml", "__init__.py", "__main__.py")
    }


def locked() -> dict[str, list[str]]:
    """The lines of each package in the lock, by its name and version; continuations joined."""
    lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
    blocks = "\n".join(lines).replace("\\\n", " ").strip().splitlines()
    return {block.split()[0]: block.split()[1:] for block in blocks}


def test_every_locked_package_is_pinned_and_hashed() -> None:
    assert len(locked()) > 30
    for pin, rest in locked().items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.!]*", pin), pin  # no local version
        assert any(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in rest), pin


def test_the_lock_tells_of_no_place() -> None:
    """Where packages come from is for whoever installs to say."""
    for sign in ("://", "index-url", "find-links", "file:", " @ ", "-e ", "/"):
        assert sign not in LOCK


@pytest.mark.parametrize(
    "requirement",
    [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["dev"],
    ],
)
def test_every_direct_dependency_is_locked_at_a_version_it_allows(requirement: str) -> None:
    name, _, least = requirement.partition(">=")
    results = [pin.partition("==")[2] for pin in locked() if pin.partition("==")[0] == name.lower()]
    assert results
    for version in results:
        assert number(version) >= number(least)


def number(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def test_the_checked_in_links_are_all_that_leads_elsewhere() -> None:
    outside = [
        path
        for name in (*PACKAGES, "tests")
        for path in (ROOT / name).rglob("*")
        if path.is_symlink() and not path.resolve().is_relative_to(ROOT.resolve())
    ]
    assert outside == []
