"""A changed line is another result; a changed comment is not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adbench.benchmark.registry.code_fingerprint import (
    Fingerprint,
    code_fingerprint,
    folder_digest,
)
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Dataset
from adbench.methods.base import Method

FILES = {
    "plugin.py": """
        '''A plugin.'''
        from typing import TYPE_CHECKING
        from . import near
        from .deep import middle
        from .base import Base
        if TYPE_CHECKING:
            from .typed import T
        class Mine(Base):
            '''What it is.'''
            def go(self, x):
                from .inner import late
                total = x + 1  # why
                return total
    """,
    "base.py": "from .under import LOW\nclass Base:\n    low = LOW\n",
    "under.py": "LOW = 1\n",
    "near.py": "NEAR = 1\n",
    "typed.py": "T = int\n",
    "inner.py": "from .lowest import X\ndef late(): return X\n",
    "lowest.py": "X = 1\n",
    "deep/__init__.py": "",
    "deep/middle.py": "from ..far import FAR\nfrom .beside import B\n",
    "deep/beside.py": "B = 1\n",
    "far.py": "FAR = 1\n",
    "stranger.py": "NOBODY = 'imports me'\n",
}

Packages = Callable[[str], type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(outdented(text))
    return tmp_path / "theirs"


@pytest.fixture(params=["a package", "a folder of files"])
def mine(request: pytest.FixtureRequest, folder: Path) -> Iterator[type]:
    """The plugin's class, from an importable package, or by its file through a registry."""
    if request.param == "a package":
        (folder / "__init__.py").touch()
        sys.path.insert(0, str(folder.parent))
        importlib.invalidate_caches()
        yield importlib.import_module("theirs.plugin").Mine
        sys.path.remove(str(folder.parent))
        for name in [name for name in sys.modules if name.split(".")[0] == "theirs"]:
            del sys.modules[name]
    else:
        (folder / "r.yaml").write_text('methods: {mine: {class: "plugin.py:Mine"}}')
        yield Registry.read(folder / "r.yaml").method("mine").load()


def outdented(text: str) -> str:
    return "\n".join(line.removeprefix(" " * 8) for line in text.splitlines())


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def names(fingerprint: Fingerprint) -> set[str]:
    return {name.removeprefix("theirs.") for name in fingerprint.modules}


def test_what_is_reached(mine: type) -> None:
    results = names(code_fingerprint(mine)) - {"__init__", "theirs", "theirs.__init__"}
    assert results == {
        "plugin", "base", "under", "near", "typed", "inner", "lowest",
        "deep.__init__", "deep.middle", "deep.beside", "far",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"plugin.py", "stranger.py"}))
def test_an_edit_of_anything_reached_changes_it(mine: type, folder: Path, name: str) -> None:
    before = code_fingerprint(mine)
    (folder / name).write_text((folder / name).read_text() + "\nMORE = 1\n")
    after = code_fingerprint(mine)
    assert after.digest != before.digest
    changed = [key for key in before.modules if before.modules[key] != after.modules[key]]
    assert [key.removeprefix("theirs.") for key in changed] == [
        name.removesuffix(".py").replace("/", ".")
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# for another reason"),
        ("'''What it is.'''", "'''What it was, at greater length.'''"),
        ("'''What it is.'''", ""),
        ("'''A plugin.'''", "\n\n"),
        ("total = x + 1", "total = (\n            x\n            + 1)"),
        ("total = x + 1", "total=x+1"),
        ("class Mine(Base):", "class Mine(Base):\n    'Another.'\n"),
        ("return total", "'''On what comes next.'''\n        return total"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(
    mine: type, folder: Path, old: str, new: str
) -> None:
    before = code_fingerprint(mine)
    edit(folder / "plugin.py", old, new)
    assert code_fingerprint(mine) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total", "result"),
        ("x + 1", "x + 1.0"),
        ("x + 1", "x + True"),
        ("x + 1", "x - 1"),
        ("def go(self, x)", "def go(self, x=None)"),
        ("total = x + 1", "total = 'x + 1'"),
    ],
)
def test_everything_else_counts(mine: type, folder: Path, old: str, new: str) -> None:
    before = code_fingerprint(mine)
    edit(folder / "plugin.py", old, new)
    assert code_fingerprint(mine).digest != before.digest


def test_an_unrelated_module_does_not_count(mine: type, folder: Path) -> None:
    before = code_fingerprint(mine)
    edit(folder / "stranger.py", "NOBODY", "SOMEBODY")
    assert code_fingerprint(mine) == before


def test_it_does_not_depend_on_where_the_plugin_lies(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.py").write_text("class Mine: ...\n")
        (tmp_path / place / "r.yaml").write_text('methods: {mine: {class: "mine.py:Mine"}}')
        cls = Registry.read(tmp_path / place / "r.yaml").method("mine").load()
        digests.add(code_fingerprint(cls).digest)
    assert len(digests) == 1


def test_a_plugin_outside_is_followed_into_adbench_and_no_further(folder: Path) -> None:
    (folder / "out.py").write_text(
        "import torch\nfrom adbench.methods.base import Method\nclass Out(Method): ...\n"
    )
    (folder / "r.yaml").write_text('methods: {out: {class: "out.py:Out"}}')
    results = code_fingerprint(Registry.read(folder / "r.yaml").method("out").load())
    assert {
        "out",
        "adbench.methods.base",
        "adbench.engine.runtime.context",
        "adbench.datasets.base",
    } <= set(results.modules)
    assert not any("torch" in name.split(".")[0] for name in results.modules)


def test_a_base_in_another_package_counts_if_it_is_one_of_ours(tmp_path: Path) -> None:
    for package, text in {
        "lib_one": "from adbench.methods.base import Method\nclass One(Method): ...\n",
        "lib_two": "from lib_one.mod import One\nclass Two(One): ...\n",
    }.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "mod.py").write_text(text)
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    try:
        two = importlib.import_module("lib_two.mod").Two
    finally:
        sys.path.remove(str(tmp_path))
    assert {"lib_two.mod", "lib_one.mod"} <= set(code_fingerprint(two).modules)


def test_a_module_alone_among_installed_ones_does_not_count_its_neighbours(
    tmp_path: Path,
) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "alone_mod.py").write_text("import stranger_mod\nclass Alone: ...\n")
    (site / "stranger_mod.py").write_text("")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    try:
        alone = importlib.import_module("alone_mod").Alone
    finally:
        sys.path.remove(str(site))
    assert set(code_fingerprint(alone).modules) == {"alone_mod"}


def test_the_bases_of_adbench_reach_what_they_import() -> None:
    assert set(code_fingerprint(Dataset).modules) == {"adbench.datasets.base"}
    assert set(code_fingerprint(Method).modules) == {
        "adbench.methods.base",
        "adbench.datasets.base",
        "adbench.engine.runtime.__init__",
        "adbench.engine.runtime.rng",
        "adbench.engine.runtime.compilation",
        "adbench.engine.runtime.compiled_kernels",
        "adbench.engine.runtime.context",
        "adbench.engine.runtime.determinism",
        "adbench.engine.runtime.distributed",
        "adbench.engine.runtime.learning_curve",
        "adbench.engine.runtime.memory_format",
        "adbench.engine.runtime.out_of_memory",
        "adbench.engine.runtime.precision",
        "adbench.engine.runtime.search_space",
        "adbench.engine.runtime.setting_types",
        "adbench.engine.runtime.transfer",
        "adbench.engine.runtime.weight_names",
        "adbench.engine.training.__init__",
        "adbench.engine.training.data_loading",
        "adbench.engine.training.finite_check",
        "adbench.engine.training.loop",
        "adbench.engine.training.loss",
        "adbench.engine.training.optimizer_state",
        "adbench.engine.training.selection",
        "adbench.engine.training.state_writer",
    }, "nor does the root's __init__ count, which names the whole API for checkers"


def test_the_digest_of_a_folder_is_blind_to_comments(folder: Path) -> None:
    before = folder_digest(folder)
    edit(folder / "far.py", "FAR = 1", "FAR = 1  # far")
    assert folder_digest(folder) == before
    edit(folder / "far.py", "FAR = 1", "FAR = 2")
    assert folder_digest(folder) != before


def test_the_lazy_root_of_adbench_counts_for_nothing() -> None:
    """It names the whole public API: an edit of it must not train everything anew."""
    for cls in (
        Registry.read().method("anoddpm").load(),
        Registry.read().dataset("phantom").load(),
    ):
        modules = code_fingerprint(cls).modules
        assert "adbench.__init__" not in modules
        assert not [name for name in modules if name.startswith("adbench.benchmark")]
        assert "adbench.methods.base" in modules or "adbench.datasets.base" in modules
