"""What every layout of files can rely on, seen on a layout of plain arrays."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adbench.datasets.base import DataError, Sample, Spec
from adbench.datasets.io.directories import find_files, name_conflicts
from adbench.datasets.preparation import file_dataset as files
from adbench.datasets.preparation.cases import CaseSamples, DatasetIndex
from adbench.datasets.preparation.file_dataset import FileDataset
from adbench.datasets.splits.assignment import (
    Case,
    assign_groups,
    assign_pools,
    check_fractions,
    groups_in_several_splits,
)


class Arrays(FileDataset):
    """<root>/{train,test}/<group>-<label>-<number>.npy"""

    name = "arrays"
    expected = "<root>/train/anna-0-1.npy"

    def __init__(self, *, root: str | None = None, seed: int = 0, leaky: bool = False) -> None:
        self.root, self.seed, self.leaky = root, seed, leaky
        self.spec = Spec(1, (4,), masks=False)

    def build_index(self, root: Path) -> DatasetIndex:
        cases = []
        for path in find_files(root, [".npy"]):
            group, label, _ = path.stem.split("-")
            name = path.relative_to(root).as_posix()
            cases.append(Case(name, group, {"image": path}, path.parent.name, label == "1"))
        return DatasetIndex(cases)

    def read(self, case: Case) -> CaseSamples:
        x = np.load(case.files["image"], allow_pickle=False)
        if np.isnan(x).any():
            raise DataError(f"{case.name} holds NaN")
        sample = Sample(torch.from_numpy(x)[None], case.name, case.group, bool(case.label))
        constant = bool((x == x[0]).all())
        return CaseSamples([sample], [f"{case.name} is constant"] if constant else [], not constant)

    def assign_splits(self, cases):
        pools = {"train": {"train": 0.5, "held_out": 0.5}, "test": {"test": 1.0}}
        return assign_pools(cases, pools, self.seed)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ADBENCH_DATA", raising=False)
    return tmp_path / "cache/data"


@pytest.fixture
def root(tmp_path) -> Path:
    built = tmp_path / "data"
    for number, (pool, group, label) in enumerate(
        [*[("train", g, 0) for g in "abcd"], ("train", "e", 1), ("test", "x", 0), ("test", "y", 1)]
    ):
        write(built / pool / f"{group}-{label}-{number}.npy", number)
    return built


def write(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).random(4, np.float32))
    return path


def prepared(root: Path, **more) -> Arrays:
    data = Arrays(root=str(root), **more)
    data.prepare()
    return data


def test_splits_hold_what_their_pools_say(root) -> None:
    data = prepared(root)
    counts = {part: len(data.get_split(part)) for part in ("train", "held_out", "val", "test")}
    assert counts == {"train": 2, "held_out": 2, "val": 0, "test": 2}
    assert len(data.train(labelled=True)) == 3
    assert sorted(s.label for s in data.test()) == [False, True]
    results = data.verify()
    assert not results.problems and results.samples["test"] == 2


def test_the_prepared_file_follows_the_content_not_the_location(root, tmp_path, cache) -> None:
    first = prepared(root)._prepared_path
    other = tmp_path / "elsewhere"
    shutil.copytree(root, other)
    assert prepared(other)._prepared_path == first
    write(next((other / "test").iterdir()), 99)
    assert prepared(other)._prepared_path != first
    assert prepared(root, seed=1)._prepared_path != first
    assert not any(p.suffix in (".npy", ".lock") for p in root.rglob("*.lock"))


def test_all_that_is_bad_is_reported_at_once_and_nothing_is_cached(root, cache) -> None:
    for name in ("a-0-0", "c-0-2"):
        np.save(root / "train" / f"{name}.npy", np.array([np.nan, *name[-1:], 0, 1], np.float32))
    (root / "test/y-1-6.npy").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepared(root)
    text = str(caught.value)
    assert "3 of 7 cases are unusable. Nothing was cached." in text
    assert "train/a-0-0.npy" in text and "train/c-0-2.npy" in text and "test/y-1-6.npy" in text
    assert not list(cache.glob("*.h5")) and not list(cache.glob("*.parts"))
    results = Arrays(root=str(root)).verify()
    assert len(results.problems) == 3 and results.bad_cases == 3 and results.samples["test"] == 1


def test_groups_and_copies_across_splits_are_refused_or_noted(root) -> None:
    write(root / "test/a-0-9.npy", 50)  # somebody of the training pool
    shutil.copy(root / "train/b-0-1.npy", root / "test/z-0-8.npy")
    results = Arrays(root=str(root)).verify()
    assert any(p.startswith("a is in ") for p in results.problems)
    assert any("test/z-0-8.npy" in p and "is a copy of" in p for p in results.problems)
    with warnings.catch_warnings(record=True) as output:
        warnings.simplefilter("always")
        data = prepared(root, leaky=True)
    assert any("is a copy of" in str(w.message) for w in output)
    assert len(data.test()) == 4


def test_copies_within_a_split_are_only_noted(root) -> None:
    shutil.copy(root / "test/x-0-5.npy", root / "test/x-0-7.npy")
    results = Arrays(root=str(root)).verify()
    assert not results.problems and any("is a copy of" in note for note in results.notes)


def test_a_constant_case_is_not_trained_on(root) -> None:
    for path in (root / "train").iterdir():
        if path.stem.startswith("a"):
            np.save(path, np.full(4, 0.5, np.float32))
    data = Arrays(root=str(root))
    with pytest.warns(UserWarning, match="is constant"):
        data.prepare()
    assert len(data.train()) + len(data.calibration()) == 3


def test_an_interrupted_preparation_reads_the_rest_only(root, monkeypatch) -> None:
    monkeypatch.setattr("adbench.datasets.preparation.writer.SHARD_BYTES", 1)
    read: list[str] = []
    whole = Arrays.read

    def spy(self, case):
        read.append(case.name)
        return whole(self, case)

    monkeypatch.setattr(Arrays, "read", spy)
    monkeypatch.setattr(files.os, "cpu_count", lambda: 1)

    def stop(what: str, done: int, total: int) -> None:
        if what == "checking and reading" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Arrays(root=str(root)).prepare(stop)
    before = set(read)
    read.clear()
    data = prepared(root)
    assert len(read) == 7 - 3 and not set(read) <= before  # what was kept is not read again
    assert [s.key for s in data.test()] == [s.key for s in prepared(root).test()]
    assert len(data.train()) + len(data.calibration()) == 4 and len(data.test()) == 2


def test_a_file_that_changes_while_it_is_read_is_noticed(root, monkeypatch) -> None:
    whole = Arrays.read

    def change(self, case):
        built = whole(self, case)
        if case.name == "test/x-0-5.npy":
            write(case.files["image"], 77)
        return built

    monkeypatch.setattr(Arrays, "read", change)
    with pytest.raises(DataError, match=r"x-0-5\.npy has changed since it was first read"):
        prepared(root)


@pytest.mark.parametrize("what", ["unset", "missing", "empty", "file"])
def test_without_data_it_says_what_to_do(tmp_path, what) -> None:
    place = tmp_path / "nothing"
    if what == "empty":
        place.mkdir()
    with pytest.raises(DataError) as caught:
        Arrays(root=None if what == "unset" else str(place)).prepare()
    text = str(caught.value)
    assert text.startswith("dataset 'arrays' found no data: ")
    assert "Expected <root>/train/anna-0-1.npy   (adbench info arrays)" in text


def test_a_root_may_hold_folders_named_after_datasets(root, tmp_path, monkeypatch) -> None:
    shutil.move(root, tmp_path / "all/arrays")
    monkeypatch.setenv("ADBENCH_DATA", str(tmp_path / "all"))
    data = Arrays()
    data.prepare()
    assert len(data.test()) == 2


def test_too_few_cases_are_no_crash(root) -> None:
    for path in (root / "train").iterdir():
        if path.stem[0] != "a":
            path.unlink()
    results = Arrays(root=str(root)).verify()
    assert results.problems == [
        "no sample is left for held_out: there are too few normal training cases to split "
        "(a group stays whole)"
    ]
    with pytest.raises(DataError, match="cannot be split"):
        prepared(root)


# Who is where

NAMES = st.lists(st.text("abc0123", min_size=1, max_size=5), unique=True, max_size=30)
SHARES = st.sampled_from(
    [{"train": 0.8, "held_out": 0.2}, {"train": 0.7, "held_out": 0.1, "val": 0.1, "test": 0.1}]
)


@given(NAMES, SHARES, st.integers(0, 3))
def test_every_split_gets_a_group_while_there_are_any(names, share, seed) -> None:
    split_of_name = assign_groups(names, share, seed)
    assert split_of_name.keys() == set(names)
    assert split_of_name == assign_groups(reversed(names), share, seed)
    results = set(split_of_name.values())
    assert results == set(list(share)[: len(names)])
    if len(names) >= 20:
        counted = sum(split == "held_out" for split in split_of_name.values())
        assert abs(counted - share["held_out"] * len(names)) <= 1


def test_both_kinds_reach_every_split() -> None:
    cases = [Case(f"{k}{i}", f"{k}{i}", {}, "", k == "d") for k in "hd" for i in range(8)]
    split_of = assign_pools(cases, {"": {"train": 0.5, "val": 0.25, "test": 0.25}}, 0)
    for split in ("train", "val", "test"):
        assert {case.label for case in cases if split_of[case.name] == split} == {True, False}
    assert groups_in_several_splits(cases, split_of) == {}
    torn = [Case("n1", "g", {}, "a"), Case("n2", "g", {}, "b")]
    assert groups_in_several_splits(torn, {"n1": "train", "n2": "test"}) == {"g": {"train", "test"}}


def test_shares_are_checked() -> None:
    assert check_fractions([0.9, 0.1], 2) == [0.9, 0.1]
    for wrong in ([0.9, 0.2], [1.0], [0.0, 1.0], [1.5, -0.5]):
        with pytest.raises(ValueError, match="fractions are 2 numbers"):
            check_fractions(wrong, 2)


def test_junk_is_skipped_and_names_that_clash_are_reported(tmp_path) -> None:
    for name in ("a.npy", "._a.npy", ".DS_Store", "Thumbs.db", "sub/.ipynb_checkpoints/a.npy"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [p.name for p in find_files(tmp_path, [".npy"])] == ["a.npy"]
    paths = [tmp_path / "B.png", tmp_path / "b.PNG"]
    assert name_conflicts(paths, tmp_path) == [
        "b.PNG and B.png differ in upper and lower case only: rename one"
    ]
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    assert "is no UTF-8 name" in name_conflicts([odd], tmp_path)[0]
