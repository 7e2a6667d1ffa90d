"""One table of folder names for all datasets: any case, the usual aliases, and what means nothing
is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adbench.benchmark.api.catalogue import load_dataset
from adbench.datasets.base import Dataset
from adbench.datasets.folder import Folder
from adbench.datasets.io.folder_names import ALIASES, meaning_of, resolve_case
from adbench.datasets.mvtec import MVTec
from adbench.datasets.volumes import Volumes
from trees_images import loose, mvtec, put, texture, visa

pytestmark = pytest.mark.usefixtures("cache")


def parts(data: Dataset) -> dict[str, int]:
    return {part: len(data.get_split(part)) for part in ("train", "held_out", "val", "test")}


def renamed(root: Path, **names: str) -> Path:
    """Rename folders anywhere below the root, the deepest first."""
    for path in sorted(root.rglob("*"), key=lambda p: -len(p.parts)):
        if path.is_dir() and path.name in names:
            path.rename(path.with_name(names[path.name]))
    return root


def test_every_alias_means_one_thing() -> None:
    names = [alias for aliases in ALIASES.values() for alias in aliases]
    assert len(names) == len(set(names))
    for meaning, aliases in ALIASES.items():
        for alias in aliases:
            assert {meaning_of(alias.upper()), meaning_of(alias.replace("_", "-"))} == {meaning}


def split_images(root: Path) -> Path:
    for pool, kinds in (("train", ["good"]), ("val", ["good", "bad"]), ("test", ["good", "bad"])):
        for kind in kinds:
            for i in range(6):
                seed = 100 * len(pool) + 10 * len(kind) + i + 1000 * (kind == "bad")
                put(root / f"{pool}/{kind}/{pool}{i}.png", texture(seed))
    return root


NAMES = [
    {"val": "validation", "test": "testing", "train": "training", "good": "normal"},
    {"val": "Valid", "test": "TEST", "train": "Train", "good": "Healthy"},
    {"val": "VAL", "test": "Testing", "train": "Training", "good": "OK"},
]


@pytest.mark.parametrize("names", NAMES)
def test_folders_of_images_in_any_spelling(tmp_path, names) -> None:
    expected = parts(Folder(root=str(split_images(tmp_path / "a"))))
    assert expected == {"train": 5, "held_out": 1, "val": 12, "test": 12}
    other = renamed(split_images(tmp_path / "b"), **names)
    assert parts(Folder(root=str(other))) == expected


@pytest.mark.parametrize("names", NAMES)
def test_volumes_in_any_spelling(tmp_path, trees, names) -> None:
    trees.own(tmp_path)
    shutil.copytree(tmp_path / "test", tmp_path / "val")
    for number, path in enumerate(sorted((tmp_path / "val").rglob("*.nii.gz"))):
        if "mask" not in path.name:
            trees.save(trees.brain(500 + number), path)
    expected = parts(Volumes(root=str(tmp_path), size=24))
    assert expected["val"] == expected["test"] > 0
    names = {**names, "normal": names["good"]}
    assert parts(Volumes(root=str(renamed(tmp_path, **names)), size=24)) == expected


@pytest.mark.parametrize("names", NAMES)
def test_published_layouts_in_any_spelling(tmp_path, names) -> None:
    mvtec(tmp_path / "a")
    expected = parts(MVTec(root=str(tmp_path / "a"), size=24))
    names = {**names, "ground_truth": "GroundTruth", "hazelnut": "Hazelnut"}
    other = renamed(tmp_path / "a", **names)
    assert parts(MVTec(root=str(other), category="hazelnut", size=24)) == expected
    visa(tmp_path / "v")
    before = parts(load_dataset("visa", data=tmp_path / "v", settings={"size": 24}))
    renamed(tmp_path / "v", Images="images", Masks="MASKS", Normal="normal", Data="data")
    assert parts(load_dataset("visa", data=tmp_path / "v", settings={"size": 24})) == before


@pytest.mark.parametrize("name", ["nfbs-edinburgh", "ixi-brats", "decathlon", "oct2017", "idx"])
def test_fixed_names_in_another_case(name, tmp_path, trees, arrays) -> None:
    import trees_images as images

    make = {
        "nfbs-edinburgh": lambda: trees.heads(tmp_path, tested=1),
        "ixi-brats": lambda: trees.ixi(tmp_path),
        "decathlon": lambda: trees.tasks(tmp_path),
        "oct2017": lambda: images.oct2017(tmp_path),
        "idx": lambda: arrays.idx_set(tmp_path, "FashionMNIST", 0),
    }[name]
    make()
    settings = {
        "nfbs-edinburgh": ["slices=[4,12]", "size=24"],
        "ixi-brats": ["pad=24", "size=24"],
        "idx": ["normal_classes=[0,1]"],
    }.get(name, ["size=16"])
    settings = [f"{name}.{text}" for text in settings]
    expected = parts(load_dataset(name, data=tmp_path, settings=settings))
    for path in sorted(tmp_path.rglob("*"), key=lambda p: -len(p.parts)):
        subject = path.name.startswith("A0") or path.parent.name.lower().startswith("task")
        if path.is_dir() and not subject and path.name != tmp_path.name:
            path.rename(path.with_name(path.name.swapcase()))
    assert parts(load_dataset(name, data=tmp_path, settings=settings)) == expected


def test_what_means_nothing_is_named(tmp_path, trees) -> None:
    split_images(tmp_path / "a")
    put(tmp_path / "a/trian/good/1.png", texture(9))
    report = Folder(root=str(tmp_path / "a")).verify()
    assert any("the folder trian/ is left out" in note for note in report.notes)
    assert [list(files.names) for files in report.left_out] == [["trian/good/1.png"]]
    trees.own(tmp_path / "v")
    trees.save(trees.brain(7), tmp_path / "v/extra/a.nii.gz")
    report = Volumes(root=str(tmp_path / "v"), size=24).verify()
    assert any("the folder extra/ is left out" in note for note in report.notes)
    shutil.copytree(tmp_path / "v/test", tmp_path / "v/Testing")
    problems = Volumes(root=str(tmp_path / "v"), size=24).verify().problems
    assert any("two folders that mean test: join them (Testing, test)" in text for text in problems)


def test_the_kinds_are_named_where_none_is_normal(tmp_path) -> None:
    loose(tmp_path)
    (tmp_path / "normal").rename(tmp_path / "fine")
    problems = Folder(root=str(tmp_path)).verify().problems
    assert any("(broken, fine were read as kinds of anomalies)" in text for text in problems)


def test_an_exact_name_wins(tmp_path) -> None:
    for name in ("raw", "Raw"):
        (tmp_path / name).mkdir()
    assert resolve_case(tmp_path, "raw/x") == tmp_path / "raw/x"
    assert resolve_case(tmp_path, "RAW") == tmp_path / "RAW"  # two others: neither
