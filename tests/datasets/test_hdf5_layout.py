"""A user's own HDF5 files: every shape, what may be missing, and all that can be wrong."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adbench.datasets.base import DataError
from adbench.datasets.hdf5_file import HDF5

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore:.*each counts as a patient of its own"),
    pytest.mark.filterwarnings("ignore:a/000015 holds one value only"),
]
SPLITS = ("train", "held_out", "val", "test")
N = 24


def held(*S: int, **more: Any) -> dict[str, Any]:
    """24 samples of 12 patients, of whom the last four have an anomaly."""
    rng = np.random.default_rng(len(S))
    label = np.arange(N) >= 16
    x = rng.integers(0, 200, (N, *S)).astype(np.uint8)
    return {"x": x, "label": label, "group": [f"p{n // 2:02d}" for n in range(N)], **more}


def flags(*S: int) -> np.ndarray:
    """A mask of a corner of every abnormal sample."""
    mask = np.zeros((N, *S), np.uint8)
    mask[(slice(16, None), *[slice(0, 2)] * len(S))] = 1
    return mask


def counts(data: HDF5) -> dict[str, tuple[int, int]]:
    results = {}
    for part in SPLITS:
        labels = [sample.label for sample in data.get_split(part)]
        results[part] = (labels.count(False), labels.count(True))
    return results


def refused(root: Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        HDF5(root=str(root), **more).prepare()
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "masked", "channels", "S"),
    [
        ((50,), None, 1, (50,)),
        ((2, 50), None, 2, (50,)),
        ((8, 9), None, 1, (8, 9)),
        ((3, 8, 9), None, 3, (8, 9)),
        ((6, 8, 9), None, 1, (6, 8, 9)),
        ((2, 6, 8, 9), None, 2, (6, 8, 9)),
        ((6, 8), (8,), 6, (8,)),
        ((3, 8), (3, 8), 1, (3, 8)),
        ((6, 8, 9), (8, 9), 6, (8, 9)),
        ((1, 8, 9), (1, 8, 9), 1, (8, 9)),
        ((1, 8, 9), (8, 9), 1, (8, 9)),
    ],
)
def test_channels_and_axes_follow_from_shapes(tmp_path, arrays, shape, masked, channels, S) -> None:
    inputs = held(*shape)
    if masked is not None:
        inputs["mask"] = flags(*masked)
    data = HDF5(root=str(arrays.h5(tmp_path / "a.h5", **inputs)))
    data.prepare()
    assert (data.spec.channels, data.spec.shape) == (channels, S)
    assert data.spec.masks == (masked is not None)
    pixels = inputs["x"].reshape(N, channels, *S)
    for sample in data.test():
        index = int(sample.key.rpartition("/")[2])
        assert np.array_equal(sample.x.numpy(), pixels[index].astype(np.float32) / 255)
        assert sample.group == inputs["group"][index] and sample.label == inputs["label"][index]
        assert sample.mask is None or bool(sample.mask.any()) == sample.label


def test_in_doubt_the_user_says(tmp_path, arrays) -> None:
    path = arrays.h5(tmp_path / "a.h5", **held(3, 4))
    assert "say axes=1 or axes=2" in refused(path)
    for data, channels, S in (
        (HDF5(root=str(path), axes=1), 3, (4,)),
        (HDF5(root=str(path), axes=2), 1, (3, 4)),
    ):
        data.prepare()
        assert (data.spec.channels, data.spec.shape) == (channels, S)
    assert "is its last axis channels" in refused(arrays.h5(tmp_path / "b.h5", **held(50, 2)))
    assert "not 1 axes" in refused(arrays.h5(tmp_path / "c.h5", **held(3, 8, 9)), axes=1)


def test_patients_are_shared_out_whole(tmp_path, arrays) -> None:
    data = HDF5(root=str(arrays.h5(tmp_path / "d/a.h5", **held(8, 9))))
    results = counts(data)
    assert sum(a for a, _ in results.values()) == 16 and sum(b for _, b in results.values()) == 8
    assert all(results[part][0] for part in SPLITS)
    assert not results["train"][1] and results["val"][1] == 2 and results["test"][1] == 6
    groups = [{s.group for s in data.get_split(part)} for part in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    other = HDF5(root=str(tmp_path / "d"), seed=1)
    assert {s.key for s in data.test()} != {s.key for s in other.test()}
    labelled = HDF5(root=str(tmp_path / "d"), abnormal=(0.5, 0.25, 0.25))
    labelled.prepare()
    assert labelled.spec.labels and sum(s.label for s in labelled.train(labelled=True)) == 4


@pytest.mark.parametrize("count", [3, 4, 5])
def test_of_few_patients_val_is_the_one_to_go_without(tmp_path, arrays, count) -> None:
    x = np.random.default_rng(0).random((count, 8, 9)).astype(np.float32)
    data = HDF5(root=str(arrays.h5(tmp_path / "a.h5", x=x, label=np.zeros(count))))
    results = {part: normal for part, (normal, _) in counts(data).items()}
    assert results["train"] and results["held_out"] and results["test"]
    assert bool(results["val"]) == (count > 3)


def test_splits_of_the_file_stay(tmp_path, arrays) -> None:
    split = ["train"] * 10 + ["valid"] * 4 + ["test"] * 10
    label = np.zeros(N, int)
    label[[8, 9, 12, 20, 21, 22, 23]] = 1
    path = arrays.h5(tmp_path / "a.h5", **held(8, 9, split=split, label=label))
    data = HDF5(root=str(path))
    data.prepare()
    assert data.spec.labels
    results = counts(data)
    assert results["val"] == (3, 1) and results["test"] == (6, 4)
    assert results["train"][0] + results["held_out"][0] == 8 and results["held_out"][0] == 2
    assert sum(s.label for s in data.train(labelled=True)) == 2
    torn = ["train"] * 9 + ["val"] * 5 + ["test"] * 10
    text = refused(arrays.h5(path, **held(8, 9, split=torn)))
    assert "group p04 is in train (1) and val (1)" in text
    out = ["train"] * 10 + ["test"] * 6 + ["held_out"] * 8
    assert "a/000016 is abnormal, and its split is held_out" in refused(
        arrays.h5(path, **held(8, 9, split=out))
    )


def test_names_and_folders_are_free(tmp_path, arrays) -> None:
    inputs = held(8, 9)
    mine = {f"my {name}": values for name, values in inputs.items()}
    called: dict[str, Any] = {name: f"my {name}" for name in inputs}
    first, rest = ({k: v[cut] for k, v in mine.items()} for cut in (slice(10), slice(10, None)))
    arrays.h5(tmp_path / "d/one.h5", **first)
    arrays.h5(tmp_path / "d/in/two.hdf5", **rest)
    (tmp_path / "d/._one.h5").write_bytes(b"\0")
    data = HDF5(root=str(tmp_path / "d"), **called)
    assert sum(map(sum, counts(data).values())) == N
    keys = {s.key for part in SPLITS for s in data.get_split(part)}
    assert "one/000009" in keys and "in/two/000013" in keys
    assert "holds no dataset 'x' (there is my group, my label, my x)" in refused(tmp_path / "d")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x": np.zeros((N, 8, 9), [("a", "f4"), ("b", "f4")])}, "holds records of a, b in x"),
        ({"x": np.zeros(N)}, "not (N, C, *S)"),
        ({"label": np.arange(N) % 3}, "label holds '2' (8); it may hold 0 and 1"),
        ({"label": np.linspace(0, 1, N)}, "label holds fractions or NaN"),
        ({"label": np.zeros(N - 1)}, "label has shape (23,), not (24,)"),
        ({"split": ["trian"] * N}, "split holds 'trian' (24); it may hold train, held_out"),
        ({"mask": flags(8, 8)}, "has mask of shape (24, 8, 8)"),
        ({"mask": flags(8, 9) * 0}, "the mask of a/000016 is empty"),
        ({"mask": flags(8, 9) * 0 + 1}, "the mask of a/000000 marks an anomaly"),
        ({"mask": flags(8, 9) * 0.99}, "the mask of a/000016 holds fractions"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_reported_with_its_position(tmp_path, arrays, change, told) -> None:
    assert told in refused(arrays.h5(tmp_path / "a.h5", **held(8, 9, **change)))


def test_every_bad_sample_is_listed_and_nothing_is_cached(tmp_path, arrays, cache) -> None:
    x = np.random.default_rng(0).random((N, 8, 9)).astype(np.float32)
    x[3, 2, 2], x[5, 0, 0], x[17, 1, 1] = np.nan, np.inf, 1.5
    path = arrays.h5(tmp_path / "a.h5", **held(8, 9, x=x))
    problems = HDF5(root=str(path)).verify().problems
    assert sorted(p.split()[0] for p in problems) == ["a/000003", "a/000005", "a/000017"]
    for number, told in (("03", "1 NaN"), ("05", "1 inf"), ("17", "outside 0..1")):
        assert any(f"a/0000{number}" in line and told in line for line in problems)
    assert "Nothing was cached" in refused(path) and not list(cache.glob("hdf5-*.h5"))
    x[5, 0, 0] = 0
    arrays.h5(path, **held(8, 9, x=x))
    data = HDF5(root=str(path), nan="zero", scale="minmax")
    samples = {s.key: s.x for part in SPLITS for s in data.get_split(part)}
    assert len(samples) == N and samples["a/000003"][0, 2, 2] == 0


def test_an_empty_mask_can_be_allowed(tmp_path, arrays) -> None:
    path = arrays.h5(tmp_path / "a.h5", **held(8, 9, mask=flags(8, 9) * 0))
    data = HDF5(root=str(path), allow_empty_mask=True)
    assert not any(s.mask is None or s.mask.any() for s in data.test())


def test_regions_are_read(tmp_path, arrays) -> None:
    roi = np.zeros((N, 8, 9), np.uint8)
    roi[:, 1:7, 1:8] = 1
    data = HDF5(root=str(arrays.h5(tmp_path / "a.h5", **held(8, 9, roi=roi))), scale="p1p99")
    regions = [s.roi for s in data.test() if s.roi is not None]
    assert len(regions) == len(data.test())
    assert all(np.array_equal(region.numpy(), roi[0] > 0) for region in regions)


def test_a_damaged_file_is_reported(tmp_path, arrays) -> None:
    arrays.h5(tmp_path / "d/a.h5", **held(8, 9))
    bad = arrays.h5(tmp_path / "d/b.h5", **held(8, 9))
    bad.write_bytes(bad.read_bytes()[:-100])
    assert "b.h5 is truncated, corrupt or no HDF5 file" in refused(tmp_path / "d")
    bad.write_text("<html>")
    assert "b.h5 is truncated, corrupt or no HDF5 file" in refused(tmp_path / "d")
    (tmp_path / "empty").mkdir()
    assert "no .h5 file lies under" in refused(tmp_path / "empty")


def test_files_that_are_unlike_are_reported(tmp_path, arrays) -> None:
    arrays.h5(tmp_path / "d/a.h5", **held(8, 9))
    arrays.h5(tmp_path / "d/b.h5", **held(8, 8, mask=flags(8, 8)))
    text = refused(tmp_path / "d")
    assert "b.h5 has samples of (1, 8, 8), a.h5 of (1, 8, 9)" in text
    assert "b.h5 has 'mask', a.h5 has not" in text


def test_copies_across_splits_are_found_by_content(tmp_path, arrays) -> None:
    inputs = held(8, 9, split=["train"] * 10 + ["val"] * 4 + ["test"] * 10)
    inputs["x"][20] = inputs["x"][1]
    inputs["x"][23] = inputs["x"][22]
    text = refused(arrays.h5(tmp_path / "a.h5", **inputs))
    assert "is a copy of" in text and "a/000001" in text and "a/000020" in text
    assert "a/000022" not in text


def test_a_constant_sample_is_not_trained_on(tmp_path, arrays) -> None:
    inputs = held(8, 9, split=["train"] * 10 + ["val"] * 4 + ["test"] * 10)
    inputs["x"][[2, 15]] = 7
    data = HDF5(root=str(arrays.h5(tmp_path / "a.h5", **inputs)))
    with pytest.warns(UserWarning, match="a/000002 holds one value only"):
        data.prepare()
    results = counts(data)
    assert results["train"][0] + results["held_out"][0] == 9 and results["test"] == (2, 8)


def test_the_cache_follows_the_content_not_the_location(tmp_path, arrays, monkeypatch) -> None:
    arrays.h5(tmp_path / "here/a.h5", **held(8, 9))
    first = HDF5(root=str(tmp_path / "here"))
    first.prepare()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    for place in ("there", "there/a.h5", str(tmp_path / "there")):
        again = HDF5(root=place)
        again.prepare()
        assert again._prepared_path == first._prepared_path
    arrays.h5(tmp_path / "there/a.h5", **held(8, 9, label=np.arange(N) >= 14))
    changed = HDF5(root="there")
    changed.prepare()
    assert changed._prepared_path != first._prepared_path


def test_good_data_make_no_warning(tmp_path, arrays) -> None:
    path = arrays.h5(tmp_path / "a.h5", **held(8, 9, mask=flags(8, 9)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HDF5(root=str(path)).prepare()


def test_arguments_that_make_no_sense_are_refused() -> None:
    wrongs: list[dict[str, Any]] = [{"scale": "max"}, {"axes": 4}, {"nan": "one"}]
    for wrong in [*wrongs, {"fractions": (1, 1, 0, 0)}]:
        with pytest.raises(ValueError):
            HDF5(**wrong)
