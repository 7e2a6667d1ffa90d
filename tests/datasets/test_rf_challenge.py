"""RF Challenge: windows of frames, shared out by frame, in every way that files hold them."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from adbench.datasets.base import DataError, content_hash, manifest
from adbench.datasets.rf_challenge import RFChallenge

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore:values beyond scale"),
    pytest.mark.filterwarnings("ignore:.*windows that were cut"),
]
SPLITS = ("train", "held_out", "val", "test")


@pytest.fixture
def root(tmp_path, arrays) -> Path:
    return arrays.radio(tmp_path / "data")


def radio(root: Path, **more) -> RFChallenge:
    return RFChallenge(**{"root": str(root), "window": 32, **more})


def parts(data: RFChallenge) -> dict[str, list]:
    return {part: [*data.get_split(part)] for part in SPLITS}


def refused(data: RFChallenge) -> str:
    with pytest.raises(DataError) as caught:
        data.prepare()
    return str(caught.value)


def file(root: Path, signal: str = "CommSignal2", part: str = "raw_data") -> Path:
    folder = "testset1_frame" if part.startswith("test") else "interferenceset_frame"
    return root / "dataset" / folder / f"{signal}_{part}.h5"


def test_frames_are_cut_and_shared_out_whole(root) -> None:
    data = radio(root)
    results = parts(data)
    assert data.spec.channels == 2 and data.spec.shape == (32,)
    assert not data.spec.labels and not data.spec.masks
    normal = {part: sum(not s.label for s in held) for part, held in results.items()}
    abnormal = {part: sum(s.label for s in held) for part, held in results.items()}
    assert normal == {"train": 6, "held_out": 2, "val": 2, "test": 6}  # 4 frames of 2 windows
    assert abnormal == {"train": 0, "held_out": 0, "val": 6, "test": 18}  # of 3 other kinds
    groups = [{s.group for s in held} for held in results.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert all(s.label == (s.tags["signal"] != "CommSignal2") for s in results["test"])
    assert all(s.mask is None and s.key.startswith(s.group + "/") for s in results["test"])
    keys = [s.key for held in results.values() for s in held]
    assert len(keys) == len(set(keys)) and "CommSignal2/train/00000/0001" in keys


def test_a_window_is_what_its_frame_holds_there(root, arrays) -> None:
    signal = arrays.frames("CommSignal2", "raw_data", 4)
    rms = np.sqrt((np.abs(signal.astype(np.complex128)) ** 2).mean(1, keepdims=True))
    for norm, scale, by in (("rms", 4.0, rms), ("none", 3.0, 1.0)):
        for sample in radio(root, norm=norm, scale=scale).train():
            _, _, frame, window = sample.key.split("/")
            at = slice(32 * int(window), 32 * int(window) + 32)
            cut = (signal / by)[int(frame), at] / scale
            expected = np.stack([0.5 + cut.real / 2, 0.5 + cut.imag / 2])
            assert np.allclose(sample.x.numpy(), expected, atol=1e-6)


def test_unit_power_takes_the_difference_of_power_away(root) -> None:
    def power(data) -> set[float]:
        return {round(float((s.x - 0.5).square().mean()) * 8 * 16, 1) for s in data.test()}

    assert len(power(radio(root, norm="none", scale=4.0))) > 3
    assert all(abs(p - 1) < 0.3 for p in power(radio(root)))


@pytest.mark.parametrize("form", ["r i", "real imag", "first", "last"])
def test_every_way_to_write_a_complex_number_is_read_alike(tmp_path, arrays, form) -> None:
    plain = radio(arrays.radio(tmp_path / "plain"))
    other = radio(arrays.radio(tmp_path / "other", form=form))
    for part in SPLITS:
        mine, theirs = plain.get_split(part), other.get_split(part)
        assert [content_hash(s) for s in mine] == [content_hash(s) for s in theirs]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros((4, 70), np.float32), "where is the imaginary part?"),
        (np.zeros((4, 2, 2), np.float32), "either axis may be real and imaginary part"),
        (np.zeros((4, 70, 3), np.float32), "where is the imaginary part?"),
        (np.zeros((4, 20), np.complex64), "frames of 20 samples, shorter than window=32"),
        (np.zeros((4, 3, 70), np.complex64), "not (frames, samples)"),
        (np.zeros((0, 70), np.complex64), "is empty"),
        (np.zeros((4, 70), [("a", "f4"), ("b", "f4")]), "not of r and i"),
    ],
    ids=["real", "2x2", "three", "short", "deep", "empty", "records"],
)
def test_what_is_no_frame_of_complex_samples_is_refused(root, arrays, values, expected) -> None:
    arrays.h5(file(root), dataset=values)
    text = refused(radio(root))
    assert expected in text and "interferenceset_frame/CommSignal2_raw_data.h5" in text


@pytest.mark.parametrize("damage", ["truncated", "html", "nan", "inf", "missing", "key", "type"])
def test_damage_is_reported_with_the_file(root, arrays, damage) -> None:
    path = file(root, "CommSignal3", "test1_raw_data")
    values = arrays.frames("CommSignal3", "test1_raw_data", 4)
    expected = "CommSignal3_test1_raw_data.h5"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "html":
        path.write_text("<!DOCTYPE html><html>")
    elif damage in ("nan", "inf"):
        values[2, 5] = np.nan if damage == "nan" else np.inf
        arrays.h5(path, dataset=values)
        expected = "CommSignal3/test1/00002 holds"
    elif damage == "missing":
        path.unlink()
        expected = "CommSignal3 has no file in testset1_frame"
    elif damage == "key":
        arrays.h5(path, data=values)
        expected = "holds no dataset 'dataset' (there is data)"
    else:
        arrays.h5(path, dataset=values, sig_type="EMISignal1")
        expected = "holds EMISignal1, as its sig_type says"
    assert expected in refused(radio(root))


def test_all_that_is_bad_is_reported_at_once(root, arrays) -> None:
    values = arrays.frames("CommSignal2", "raw_data", 4)
    values[1, 3] = np.nan
    arrays.h5(file(root), dataset=values)
    file(root, "EMISignal1", "test1_raw_data").write_bytes(b"")
    results = radio(root).verify()
    assert len(results.problems) == 2
    assert "CommSignal2/train/00001" in " ".join(results.problems)
    assert "EMISignal1_test1_raw_data.h5" in " ".join(results.problems)


def test_a_frame_in_two_splits_is_refused(root, arrays) -> None:
    values = arrays.frames("CommSignal2", "test1_raw_data", 4)
    values[3] = arrays.frames("CommSignal2", "raw_data", 4)[0]
    arrays.h5(file(root, part="test1_raw_data"), dataset=values)
    text = refused(radio(root))
    assert "CommSignal2/test1/00003" in text and "is a copy of CommSignal2/train/00000" in text


def test_a_silent_frame_is_not_trained_on(root, arrays) -> None:
    values = arrays.frames("CommSignal2", "raw_data", 4)
    values[:3] = 0
    arrays.h5(file(root), dataset=values)
    data = radio(root, fractions=(0.5, 0.5))
    text = " ".join(data.verify().notes) + " ".join(data.verify().problems)
    assert "CommSignal2/train/00002 holds one value only" in text
    assert sum(data.verify().samples.get(p, 0) for p in ("train", "held_out")) == 2


def test_what_is_cut_off_or_too_small_is_counted(root) -> None:
    assert not radio(root).verify().notes
    (loud,) = radio(root, scale=0.5).verify().notes
    assert loud.startswith("values beyond scale=0.5 that were cut off: ")
    (quiet,) = radio(root, norm="none", scale=500.0).verify().notes
    assert "fill less than 2% of the range" in quiet and quiet.endswith(": 20")  # all frames


def test_windows_can_be_capped_evenly(root) -> None:
    data = radio(root, window=8, windows=3)
    mine = [s.key.rpartition("/")[2] for s in data.train()]
    assert sorted(set(mine)) == ["0001", "0004", "0006"]  # of 8


def test_other_kinds_are_chosen_by_name(root) -> None:
    data = radio(root, signal="EMISignal1", others=["CommSignal3"])
    assert {s.tags["signal"] for s in data.test()} == {"EMISignal1", "CommSignal3"}
    assert "no file of Nothing is there" in refused(radio(root, others=["Nothing"]))
    assert "there is CommSignal2, CommSignal3" in refused(radio(root, signal="X"))
    with pytest.raises(ValueError, match="normal and abnormal"):
        RFChallenge(others=["CommSignal2"])


@pytest.mark.parametrize("last", [False, True])
def test_windows_that_were_cut_before_are_read_with_a_warning(tmp_path, arrays, last) -> None:
    root = arrays.cut(tmp_path / "data", last=last)
    data = radio(root)
    with pytest.warns(UserWarning, match="CommSignal2: windows cut and assigned to splits before"):
        data.prepare()
    counts = {part: len(held) for part, held in parts(data).items()}
    assert counts == {"train": 7, "held_out": 1, "val": 4, "test": 12}
    assert data.train()[0].group.startswith("CommSignal2/train/")


def test_the_cache_follows_the_content_and_the_arguments(root, tmp_path, monkeypatch) -> None:
    first = radio(root)
    first.prepare()
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved / "deep")
    for place in (moved / "deep", moved / "deep/dataset", moved / "deep/dataset/testset1_frame"):
        again = radio(place)
        again.prepare()
        assert again._prepared_path == first._prepared_path
    monkeypatch.chdir(moved)
    relative = radio(Path("deep"))
    relative.prepare()
    assert relative._prepared_path == first._prepared_path
    for other in (radio(root, seed=1), radio(root, norm="none")):
        other.prepare()
        assert other._prepared_path != first._prepared_path


def test_good_data_make_no_warning_and_junk_is_passed_over(root) -> None:
    (root / "dataset/interferenceset_frame/._CommSignal2_raw_data.h5").write_bytes(b"\0\5\26\7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        radio(root).prepare()


def test_a_large_file_is_read_frame_by_frame(tmp_path, arrays, monkeypatch) -> None:
    """No read spans more than one frame of a file."""
    root = arrays.radio(tmp_path / "data")
    taken: list[object] = []
    whole = h5py.Dataset.__getitem__

    def spy(self, index, **more):
        if self.name == "/dataset" and self.ndim == 2 and self.file.filename.startswith(str(root)):
            taken.append(index)
        return whole(self, index, **more)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    data = radio(root)
    data.prepare()
    assert taken and all(isinstance(index, int) for index in taken)
    assert len(manifest(data.train())) == 6
