"""A case holds its paths as text, and gives them out as a dict of paths does."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from adbench.datasets.splits.assignment import Case
from adbench.datasets.splits.case_files import CaseFiles

FILES = {"image": Path("/data/a.png"), "mask": Path("masks/a.png")}


def test_files_are_those_of_the_dict() -> None:
    files = CaseFiles(FILES)
    assert files == FILES and dict(files) == FILES and [*files] == [*FILES] and len(files) == 2
    assert "mask" in files and files.get("t1") is None
    with pytest.raises(KeyError, match="t1"):
        files["t1"]
    assert pickle.loads(pickle.dumps(files)) == files and CaseFiles(files) == files


def test_a_case_is_as_before_and_small() -> None:
    case = Case("a", "a", FILES, label=False)
    assert case.files == FILES and case.extra == {} and case == replace(case, files=case.files)
    assert replace(case, files={"image": FILES["image"]}).paths == ("/data/a.png",)
    assert not hasattr(case, "__dict__") and sys.getsizeof(case) < 100
    paths = [Path(f"/data/train/good/{i:07}.png") for i in range(1000)]
    texts = [str(path) for path in paths]
    tracemalloc.start()
    cases = [Case(text, text, {"image": path}) for text, path in zip(texts, paths, strict=True)]
    held = tracemalloc.get_traced_memory()[0] / len(cases)
    tracemalloc.stop()
    assert held < 350  # bytes beside the name and the path's text; a dict of a Path takes 800
