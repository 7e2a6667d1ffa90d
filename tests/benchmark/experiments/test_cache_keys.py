"""The code that evaluates is every file of evaluation/, and nothing but its code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adbench.benchmark import evaluation
from adbench.benchmark.experiments.cache_keys import evaluation_code
from adbench.benchmark.registry.code_fingerprint import folder_digest

FOLDER = Path(evaluation.__path__[0])
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(FOLDER, tmp_path / "evaluation", ignore=ignore))


def test_the_key_is_of_the_folder_wherever_it_lies(copy: Path) -> None:
    evaluation_code.cache_clear()
    assert folder_digest(copy) == evaluation_code()
    assert {"evaluate.py", "metrics/ranking.py", "statistics/bootstrap.py"} <= {*FILES}


@pytest.mark.parametrize("name", FILES)
def test_an_edit_of_any_file_changes_the_key_and_of_a_comment_or_docstring_does_not(
    name: str, copy: Path
) -> None:
    path, before = copy / name, folder_digest(copy)
    source = path.read_text()
    assert source.startswith('"""')
    path.write_text('"""Another docstring.' + source.removeprefix('"""') + "\n# a comment\n")
    assert folder_digest(copy) == before
    path.write_text(source + "\nADDED = 1\n")
    assert folder_digest(copy) != before


def test_a_new_file_a_missing_one_and_one_that_moved_change_the_key(copy: Path) -> None:
    digests = {folder_digest(copy)}
    (copy / "new.py").write_text("ADDED = 1\n")
    digests.add(folder_digest(copy))
    (copy / "new.py").rename(copy / "metrics" / "new.py")
    digests.add(folder_digest(copy))
    (copy / "metrics" / "new.py").write_text("")
    (copy / "metrics" / "lesions.py").unlink()
    digests.add(folder_digest(copy))
    assert len(digests) == 4
