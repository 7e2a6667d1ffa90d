"""Users' own images, split by them or not, with masks or without."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adbench.datasets.base import DataError, Spec
from adbench.datasets.folder import Folder
from adbench.datasets.splits.assignment import Case
from adbench.datasets.splits.published import assign_unpublished
from trees_images import counts, labels, loose, mvtec, put, samples, shared, square, texture

pytestmark = pytest.mark.usefixtures("cache")


def build_dataset(root: Path, **how) -> Folder:
    data = Folder(**{"root": str(root), "size": None, **how})
    data.prepare()
    return data


def refused(root: Path, **how) -> str:
    with pytest.raises(DataError) as caught:
        build_dataset(root, **how)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The simplest form: normal images lie in train/ itself; nobody drew masks."""
    home = tmp_path / "mine"
    for i in range(8):
        put(home / f"train/{i}.png", texture(i))
    for i in range(3):
        put(home / f"test/ok/{i}.png", texture(20 + i))
        put(home / f"test/scratched/{i}.png", texture(30 + i))
    return home


def test_the_simplest_folders_work(root) -> None:
    data = build_dataset(root)
    assert counts(data) == {"train": 7, "held_out": 1, "val": 0, "test": 6}
    assert data.spec == Spec(1, (24, 24), labels=False, masks=False)
    test = samples(data, "test")
    assert sum(labels(test)) == 3 and all(sample.mask is None for sample in test)
    assert {s.tags.get("kind") for s in test if s.label} == {"scratched"}


def test_nothing_needs_to_be_split(tmp_path) -> None:
    data = build_dataset(loose(tmp_path))
    results = counts(data)
    assert sum(results.values()) == 18 and shared(data) == set()
    for part in ("val", "test"):
        assert {*labels(samples(data, part))} == {True, False}
    assert not data.spec.labels and len(data.train(labelled=True)) == results["train"]
    taught = build_dataset(tmp_path, labels=True)
    assert taught.spec.labels and len(taught.train(labelled=True)) > len(taught.train())
    assert build_dataset(tmp_path, seed=1)._prepared_path != data._prepared_path


def test_its_own_layout_of_mvtec_is_read(tmp_path) -> None:
    mvtec(tmp_path)
    for place in (tmp_path / "hazelnut", tmp_path):  # itself, or the one folder in it
        data = build_dataset(place)
        assert counts(data) == {"train": 9, "held_out": 1, "val": 0, "test": 6}
        assert data.spec == Spec(3, (24, 24), masks=True)
    for sample in samples(data, "test"):
        assert sample.mask is not None and bool(sample.mask.any()) == sample.label


@pytest.mark.parametrize(
    "place", ["masks/{}.png", "masks/scratched/{}.png", "ground_truth/test/scratched/{}_mask.png"]
)
def test_masks_are_read_from_several_folders(root, place) -> None:
    for i in range(3):
        put(root / place.format(i), square(at=4 + i))
    data = build_dataset(root)
    assert data.spec.masks
    for sample in samples(data, "test"):
        at = 4 + int(Path(sample.key).stem)
        expected = square(at=at) > 0 if sample.label else square() < 0
        assert sample.mask is not None and (sample.mask.numpy() == expected).all()


def test_masks_of_images_that_nobody_split(tmp_path) -> None:
    loose(tmp_path)
    for i in range(6):
        put(tmp_path / f"masks/broken/{100 + i}.png", square())
    data = build_dataset(tmp_path, labels=True)
    assert data.spec.masks and data.spec.labels
    assert all(s.mask is None for s in samples(data, "train"))


def test_a_published_val_is_used(root) -> None:
    for i in range(2):
        put(root / f"val/good/{i}.png", texture(40 + i))
    assert counts(build_dataset(root)) == {
        "train": 8,
        "held_out": 2,
        "val": 0,
        "test": 6,
    }  # normal only
    put(root / "val/scratched/1.png", texture(50))
    assert counts(build_dataset(root)) == {"train": 7, "held_out": 1, "val": 3, "test": 6}


def test_abnormal_training_images_are_for_methods_that_take_labels(root) -> None:
    for i in range(8):
        put(root / f"train/scratched/{i}.png", texture(60 + i))
    data = build_dataset(root)
    assert data.spec.labels and len(data.train(labelled=True)) > len(data.train())
    assert {*labels(samples(data, "val"))} == {True, False}  # assigned from training
    assert counts(data)["test"] == 6 and shared(data) == set()


def test_group_says_who_is_shown(tmp_path) -> None:
    for i in range(12):
        for n in range(3):
            put(tmp_path / f"normal/cow{i}_{n}.png", texture(100 + 10 * i + n))
            if i < 6:
                put(tmp_path / f"lame/cow{i}_leg{n}.png", texture(500 + 10 * i + n))
    data = build_dataset(tmp_path, group=r"(cow\d+)_")
    assert shared(data) == set()
    assert {s.group for part in counts(data) for s in samples(data, part)} == {
        f"cow{i}" for i in range(12)
    }
    text = refused(tmp_path, group="(pig)")  # equal problems are one line
    assert "lame/cow0_leg0.png: group='(pig)' does not find whom it shows (54 times: " in text


def test_a_group_in_two_published_sets_is_reported(root) -> None:
    put(root / "test/ok/cow7_1.png", texture(70))
    put(root / "train/cow7_2.png", texture(71))
    output = refused(root, group=r"(cow\d+|^\d+)")
    assert "0 is in " in output and "(4 times: also 1, 2, cow7)" in output


def test_wrong_arguments_are_refused() -> None:
    for group, why in (("cow(", "no regular expression"), ("cow", r"no capture group: try '\(cow")):
        with pytest.raises(ValueError, match=why):
            Folder(group=group)
    with pytest.raises(ValueError, match="fractions are 4 numbers"):
        Folder(fractions=(0.9, 0.1))


def test_images_of_any_size_and_colour_are_fitted(root) -> None:
    put(root / "train/0.png", texture(80, (30, 20), colour=True))
    data = build_dataset(root, size=16, channels=3)
    assert data.spec == Spec(3, (16, 16), masks=False)
    text = refused(root)
    assert "has 24 x 24 pixels, others 30 x 20 (size=256 stretches all to one size)" in text
    assert "has 1 channel, others 3 (channels=1 or channels=3 makes all alike)" in text


def test_the_location_does_not_matter(root, tmp_path, monkeypatch) -> None:
    first = build_dataset(root)._prepared_path
    shutil.copytree(root, tmp_path / "elsewhere")
    assert build_dataset(tmp_path / "elsewhere")._prepared_path == first
    monkeypatch.chdir(root)
    assert build_dataset(Path("."))._prepared_path == first
    monkeypatch.delenv("ADBENCH_DATA", raising=False)
    with pytest.raises(DataError, match="ADBENCH_DATA is not set and --data was not given"):
        Folder().prepare()


def unsorted(root):
    put(root / "test/7.png", texture(90))


def some_masks(root):
    put(root / "masks/0.png", square())


def orphan(root):
    put(root / "masks/scratched/99.png", square())


def several(root):
    put(root / "test/bent/0.png", texture(90))
    put(root / "masks/0.png", square())


def two_masks(root):
    put(root / "masks/0.png", square())
    put(root / "ground_truth/scratched/0.png", square())


def both(root):
    put(root / "testing/ok/77.png", texture(90))


def marked(root):
    put(root / "masks/ok/0.png", square())


CATALOGUE = {
    unsorted: "test/7.png lies in test/ itself: put it in test/good/ or another folder",
    some_masks: "test/scratched/1.png has no mask, and others have one (1.png)",
    orphan: "masks/scratched/99.png is the mask of no image: name it as its image",
    several: "masks/0.png is the mask of 2 images: name it as its image",
    two_masks: "test/scratched/0.png has 2 masks: ground_truth/scratched/0.png and masks/0.png",
    both: "mine/ holds two folders that mean test: join them",
    marked: "marks an anomaly, and its image is called normal",
}


@pytest.mark.parametrize("spoil", CATALOGUE, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_reported(root, cache, spoil) -> None:
    spoil(root)
    assert CATALOGUE[spoil] in refused(root)
    assert not list(cache.glob("*.h5"))


def test_without_normal_images_there_is_nothing_to_learn(tmp_path) -> None:
    for i in range(5):
        put(tmp_path / f"cats/{i}.png", texture(i))
        put(tmp_path / f"dogs/{i}.png", texture(50 + i))
    assert "is called good, normal, ok, healthy, negative: which is normal?" in refused(tmp_path)


# Sharing out, whatever there is

POOLS = st.sampled_from(["train", "val", "test", ""])
SETS = st.lists(st.tuples(POOLS, st.booleans(), st.integers(0, 9)), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SETS, st.integers(0, 2))
def test_published_sets_stay_and_groups_stay_whole(sets, seed) -> None:
    cases = [
        Case(f"{n}", f"{pool} {group}", {}, pool, label)
        for n, (pool, label, group) in enumerate(sets)
    ]
    split_of = assign_unpublished(cases, (0.6, 0.1, 0.1, 0.2), seed)
    assert split_of == assign_unpublished(cases[::-1], (0.6, 0.1, 0.1, 0.2), seed)
    assert split_of.keys() == {case.name for case in cases}
    homes: dict[str, set[str]] = {}
    for case in cases:
        home = split_of[case.name]
        homes.setdefault(case.group, set()).add(home)
        if case.pool == "test":
            assert home == "test"
        if case.pool == "val":
            assert home in ("val", "held_out")
    assert all(len(results) == 1 for results in homes.values())
    in_val = {case.label for case in cases if split_of[case.name] == "val"}
    published = any(case.pool == "val" and case.label for case in cases)
    assert in_val in (set(), {True, False}) or published
    normal = {case.group for case in cases if case.pool in ("train", "") and not case.label}
    if len(normal) >= 2:
        assert {"train", "held_out"} <= set(split_of.values())
