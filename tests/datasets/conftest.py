"""What the tests of single datasets share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own; the folder that prepared files go to."""
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def beside(name: str) -> ModuleType:
    """A module that lies beside this file."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"adbench_test_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def volumes() -> ModuleType:
    """The writers of small volumes beside this file."""
    return beside("volumes")


@pytest.fixture(scope="session")
def trees() -> ModuleType:
    """The writers of trees of volumes and slices beside this file."""
    return beside("trees_volumes")


@pytest.fixture(scope="session")
def arrays() -> ModuleType:
    """The writers of trees of signals and small images beside this file."""
    return beside("trees_arrays")


@pytest.fixture(scope="session")
def five_cases(tmp_path_factory: pytest.TempPathFactory, volumes: ModuleType) -> Path:
    """A folder of five small cases of BraTS, to be copied before it is changed."""
    root = tmp_path_factory.mktemp("five")
    volumes.tree(root, count=5)
    return root
