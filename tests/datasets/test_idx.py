"""idx: small images, a set or some classes against others, without a copy in two splits."""

from __future__ import annotations

import gzip
import pickle
import shutil
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbench.datasets.base import DataError
from adbench.datasets.idx import Idx
from adbench.datasets.io.idx import read_idx

pytestmark = pytest.mark.usefixtures("cache")
SPLITS = ("train", "held_out", "val", "test")


@pytest.fixture
def root(tmp_path, arrays) -> Path:
    built = arrays.idx_set(tmp_path / "data", "FashionMNIST", 1)
    return arrays.idx_set(built, "MNIST", 2)


def small(root: Path, **more) -> Idx:
    return Idx(**{"root": str(root), "fractions": (0.8, 0.1, 0.1), **more})


def counts(data: Idx) -> dict[str, tuple[int, int]]:
    """Normal and abnormal samples of each split."""
    results = {}
    for part in SPLITS:
        labels = [sample.label for sample in data.get_split(part)]
        results[part] = (labels.count(False), labels.count(True))
    return results


def refused(data: Idx) -> str:
    with pytest.raises(DataError) as caught:
        data.prepare()
    return str(caught.value)


def images(root: Path, part: str = "train", name: str = "FashionMNIST") -> Path:
    return root / name / "raw" / f"{part}-images-idx3-ubyte.gz"


def test_one_set_against_another(root, arrays) -> None:
    data = small(root)
    assert counts(data) == {
        "train": (32, 0),
        "held_out": (4, 0),
        "val": (4, 4),
        "test": (20, 20),
    }
    assert data.spec.shape == (12, 12) and not data.spec.labels and not data.spec.masks
    pixels, labels = arrays.drawings(2, 40)
    for sample in data.train():
        index = int(sample.key.rpartition("/")[2])
        assert np.array_equal(sample.x[0].numpy(), pixels[index].astype(np.float32) / 255)
        assert sample.tags == {"set": "FashionMNIST", "class": str(labels[index])}
    assert all(s.label == (s.tags["set"] == "MNIST") for s in data.test())
    keys = [s.key for part in SPLITS for s in data.get_split(part)]
    assert len(keys) == len(set(keys))


def test_some_classes_against_the_others(root) -> None:
    data = small(root, normal_classes=[0, 3])
    data.prepare()
    assert data.spec.labels
    assert counts(data)["test"] == (8, 12)
    normal = {s.tags["class"] for s in data.train()}
    both = [sample for sample in data.train(labelled=True)]
    assert normal == {"0", "3"} and any(s.label for s in both)
    assert all(s.label == (s.tags["class"] not in "03") for s in both)
    assert not any(s.label for s in data.calibration())
    assert {s.tags["set"] for s in data.test()} == {"FashionMNIST"}
    for wrong in ([7], [0, 1, 2, 3, 4]):
        assert "are none, or all, of [0, 1, 2, 3, 4]" in refused(small(root, normal_classes=wrong))


def test_flipped_copies_of_the_normal_images(root) -> None:
    data = small(root, flips=["vertical", "horizontal"])
    assert counts(data)["test"] == (20, 40) and counts(data)["val"] == (4, 8)
    results = {s.key: s for s in data.test()}
    one = results["FashionMNIST/test/00003"]
    for flip, axis in (("vertical", 1), ("horizontal", 2)):
        other = results[f"FashionMNIST/test/00003/{flip}"]
        assert (other.x == one.x.flip(axis)).all() and other.group == one.group and other.label
    groups = [{s.group for s in data.get_split(part)} for part in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_sizes_and_numbers_can_be_made_smaller(root) -> None:
    data = small(root, size=8, most=10)
    data.prepare()
    assert data.spec.shape == (8, 8) and data.train()[0].x.shape == (1, 8, 8)
    assert counts(data)["test"] == (10, 10)
    assert sum(sum(pair) for part, pair in counts(data).items() if part != "test") == 10 + 1
    other = small(root, size=8, most=10, seed=1)
    assert {s.key for s in data.test()} != {s.key for s in other.test()}


def test_images_of_the_test_set_are_not_trained_on(root, arrays) -> None:
    train, test = arrays.drawings(2, 40)[0], arrays.drawings(3, 20)[0]
    train[7], train[9] = test[4], train[8]
    images(root).write_bytes(gzip.compress(arrays.idx(train)))
    data = small(root)
    with pytest.warns(
        UserWarning, match="1 images removed from the training set.*FashionMNIST/train/00007"
    ):
        data.prepare()
    results = {s.key: (part, s.group) for part in SPLITS for s in data.get_split(part)}
    assert "FashionMNIST/train/00007" not in results
    assert results["FashionMNIST/train/00008"] == results["FashionMNIST/train/00009"]
    published = small(root, split="published")
    with pytest.warns(UserWarning, match="LEAKY as published: 1 images of the training set"):
        published.prepare()
    assert sum(counts(published)[part][0] for part in SPLITS[:3]) == 40


def test_a_symmetric_image_is_no_anomaly_when_flipped(root, arrays) -> None:
    test = arrays.drawings(3, 20)[0]
    test[0] = test[0] // 2 + test[0][::-1] // 2
    images(root, "t10k").write_bytes(gzip.compress(arrays.idx(test)))
    assert counts(small(root, flips=["vertical"]))["test"] == (20, 19)


def test_a_blank_image_is_not_trained_on(root, arrays) -> None:
    train = arrays.drawings(2, 40)[0]
    train[:] = np.where(np.arange(40)[:, None, None] < 30, train, np.arange(40)[:, None, None])
    images(root).write_bytes(gzip.compress(arrays.idx(train)))
    data = small(root)
    with pytest.warns(UserWarning, match="no method trains on: "):
        data.prepare()
    assert counts(data)["train"][0] + counts(data)["held_out"][0] <= 30


@pytest.mark.parametrize("layout", ["packed", "plain", "flat", "numpy"])
def test_every_form_of_a_set_holds_the_same(tmp_path, arrays, layout) -> None:
    root = tmp_path / layout
    for seed, name in ((1, "FashionMNIST"), (2, "MNIST")):
        if layout == "numpy":
            arrays.numpy_set(root, name, seed)
        else:
            arrays.idx_set(root, name, seed, packed=layout == "packed", raw=layout != "flat")
    data = small(root)
    results = {s.key: s.x for part in SPLITS for s in data.get_split(part)}
    pixels = arrays.drawings(3, 20)[0]
    for index in range(20):
        x = results[f"FashionMNIST/test/{index:05d}"][0].numpy()
        assert np.array_equal(x, pixels[index].astype(np.float32) / 255)


def test_colours_in_numpy_files_and_sets_that_are_unlike(tmp_path, arrays) -> None:
    root = arrays.numpy_set(tmp_path / "data", "CIFAR10", 1, channels=3)
    data = small(root, inside="CIFAR10", flips=["both"])
    data.prepare()
    assert data.spec.channels == 3 and data.test()[0].x.shape == (3, 12, 12)
    arrays.idx_set(root, "MNIST", 2)
    assert "CIFAR10 of (3, 12, 12)" in refused(small(root, inside="CIFAR10"))
    assert "has no labels" in refused(small(root, inside="CIFAR10", normal_classes=[1]))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("truncated", "is a truncated gzip file"),
        (
            "checksum",
            "is corrupt (Error -3 while decompressing data: incorrect data check)",
        ),
        ("html", "it looks like an HTML page"),
        ("lfs", "it looks like a git-lfs pointer"),
        ("plain", "an uncompressed idx file (take .gz off its name)"),
        ("short", "is truncated (expected 5776 bytes for (40, 12, 12), found 5676)"),
        ("long", "is too long"),
        ("magic", "is no idx file of bytes"),
        ("labels", "train-labels-idx1-ubyte.gz labels 39 images, not 40"),
        ("absent", "FashionMNIST has no train set"),
    ],
)
def test_damage_is_reported_with_the_file(root, arrays, damage, expected) -> None:
    path = images(root)
    whole = path.read_bytes()
    plain = gzip.decompress(whole)
    built = {
        "truncated": whole[:-50],
        "checksum": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        "html": b"<!DOCTYPE html><html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "plain": plain,
        "short": gzip.compress(plain[:-100]),
        "long": gzip.compress(plain + b"0"),
        "magic": gzip.compress(plain[1:]),
    }
    if damage == "labels":
        path = path.with_name("train-labels-idx1-ubyte.gz")
        path.write_bytes(gzip.compress(arrays.idx(np.zeros(39, np.uint8))))
    elif damage == "absent":
        path.unlink()
    else:
        path.write_bytes(built[damage])
    text = refused(small(root))
    assert expected in text and "FashionMNIST" in text
    assert damage == "absent" or path.name in text


def test_a_pickle_is_refused_with_the_way_out(tmp_path) -> None:
    folder = tmp_path / "data/CIFAR10"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": [1]}))
    text = refused(small(tmp_path / "data", inside="CIFAR10", flips=["both"]))
    assert "stored as pickle" in text and "CIFAR10/numpy/train/0.npy" in text


def test_numpy_files_that_are_no_images_are_listed(tmp_path, arrays) -> None:
    root = arrays.numpy_set(tmp_path / "data", "MNIST", 1)
    folder = root / "MNIST/numpy/train"
    np.save(folder / "MNIST_3.npy", np.zeros((12, 12)))
    np.save(folder / "MNIST_5.npy", np.zeros((9, 12), np.uint8))
    np.save(folder / "MNIST_6.npy", np.array([{}]), allow_pickle=True)
    (folder / "MNIST_7.npy").write_bytes((folder / "MNIST_8.npy").read_bytes()[:-9])
    text = refused(small(root, inside="MNIST", flips=["both"]))
    for name, expected in (
        ("3", "float64"),
        ("5", "(1, 9, 12)"),
        ("6", "plain numbers"),
        ("7", "truncated"),
    ):
        assert any(f"MNIST_{name}.npy" in line and expected in line for line in text.splitlines())


def test_a_set_that_is_a_copy_of_another_is_refused(root) -> None:
    shutil.copy(images(root), images(root, name="MNIST"))
    assert "is a copy of" in refused(small(root))


def test_roots_above_and_below_and_elsewhere_hold_the_same(root, tmp_path, monkeypatch) -> None:
    first = small(root)
    first.prepare()
    shutil.copytree(root, tmp_path / "deep/er")
    monkeypatch.chdir(tmp_path)
    for place in ("deep/er", "deep", "deep/er/FashionMNIST", str(tmp_path / "deep/er")):
        again = small(Path(place))
        again.prepare()
        assert again._prepared_path == first._prepared_path
    text = refused(small(root, outside=["KMNIST"]))
    assert "no images of KMNIST lie in" in text and "adbench info idx" in text


def test_good_data_make_no_warning(root) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(root).prepare()


def test_arguments_that_contradict_are_refused() -> None:
    wrongs: list[dict[str, Any]] = [
        {"flips": ["diagonal"]},
        {"outside": ["FashionMNIST"]},
        {"size": 0},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            Idx(**wrong)
    assert Idx().outside == ["MNIST"] and Idx(flips=["both"]).outside == []


@given(st.integers(0, 2**31 - 1))
def test_no_flipped_byte_passes_unseen(tmp_path_factory, arrays, seed) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, (3, 5, 4)).astype(np.uint8)
    whole = bytearray(gzip.compress(arrays.idx(array), mtime=0))
    whole[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
    path = tmp_path_factory.getbasetemp() / "flipped-images-idx3-ubyte.gz"
    path.write_bytes(bytes(whole))
    try:
        assert np.array_equal(read_idx(path), array)  # a byte that says nothing of the content
    except DataError as error:
        assert path.name in str(error)


@pytest.mark.parametrize(
    ("count", "expected"), [(400_000, "declares 299 MiB"), (40, "is too long")]
)
def test_an_idx_file_that_unpacks_to_far_too_much_is_not_unpacked(
    tmp_path, count, expected
) -> None:
    head = b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + bytes(64 << 20), 9))
    tracemalloc.start()
    with pytest.raises(DataError, match=expected):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
