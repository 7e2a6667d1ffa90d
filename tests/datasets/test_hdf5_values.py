"""What the numbers of HDF5 files mean: complex x, ranges, and masks with regions to ignore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adbench.datasets.base import DataError, Sample
from adbench.datasets.hdf5_file import HDF5

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore:.*each counts as a patient of its own"),
    pytest.mark.filterwarnings("ignore:values outside range"),
]
N, SHAPE = 20, (6, 7)
LABEL = np.arange(N) >= 12
RNG = np.random.default_rng(0)
X = RNG.integers(0, 200, (N, *SHAPE)).astype(np.uint8)
Z = (RNG.normal(size=(N, *SHAPE)) + 1j * RNG.normal(size=(N, *SHAPE))).astype(np.complex64)


def samples(path: Path, **settings: Any) -> dict[int, Sample]:
    data = HDF5(root=str(path), abnormal=(0, 0, 1), **settings)
    parts = [data.train(), data.calibration(), data.val(), data.test()]
    split = [part[i] for part in parts for i in range(len(part))]
    return {int(sample.key[-6:]): sample for sample in split}


def problems(path: Path, **settings: Any) -> str:
    return "\n".join(HDF5(root=str(path), **settings).verify().problems)


def ternary(ignored: int, kind: type) -> np.ndarray:
    """A mask with an anomaly in a corner of abnormal samples, and a last row to ignore in all."""
    mask = np.zeros((N, *SHAPE), np.int64)
    mask[LABEL, :2, :2] = 1
    mask[:, -1] = ignored
    return mask.astype(kind)


@pytest.mark.parametrize(
    ("ignored", "kind"),
    [(-1, np.int8), (-1, np.float32), (255, np.uint8), (255, np.int16), (-1, np.uint8)],
)
def test_what_nobody_annotated_is_outside_of_the_roi(tmp_path, arrays, ignored, kind) -> None:
    """Neither normal nor abnormal: the anomaly is 4 pixels of 35, not 11 of 42."""
    path = arrays.h5(tmp_path / "a.h5", x=X, label=LABEL, mask=ternary(ignored, kind))
    for sample in [s for i, s in samples(path).items() if LABEL[i]]:
        assert sample.mask is not None and sample.roi is not None
        assert sample.mask.sum() == 4 and sample.mask[:2, :2].all()
        assert sample.roi.sum() == 35 and not sample.roi[-1].any()


def test_a_roi_is_narrowed_by_what_nobody_annotated(tmp_path, arrays) -> None:
    roi = np.zeros((N, *SHAPE), np.uint8)
    roi[:, 1:, :] = 1
    held = {"x": X, "label": LABEL, "mask": ternary(-1, np.int8), "roi": roi}
    for sample in samples(arrays.h5(tmp_path / "a.h5", **held)).values():
        assert sample.roi is not None and sample.roi.sum() == 28
        assert not sample.roi[0].any() and not sample.roi[-1].any()


def test_255_alone_is_an_anomaly(tmp_path, arrays) -> None:
    mask = np.where(ternary(0, np.uint8) == 1, 255, 0).astype(np.uint8)
    path = arrays.h5(tmp_path / "a.h5", x=X, label=LABEL, mask=mask)
    assert all(s.mask.sum() == 4 * LABEL[i] for i, s in samples(path).items() if s.mask is not None)
    assert all(s.roi is None for s in samples(path).values())


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((0, 1, 2), "a.h5: mask holds 0, 1, 2; it may hold 0, one other number, and -1 or 255"),
        ((0, 1, -2), "mask holds -2, 0, 1"),
        ((0, 128, 255), "mask holds 0, 128, 255"),
        ((-1, 1, 255), "mask holds -1, 0, 1, 255"),
        ((0, 1, 65535), "mask holds 0, 1, 65535"),
    ],
)
def test_other_numbers_in_a_mask_are_refused(tmp_path, arrays, numbers, told) -> None:
    mask = np.zeros((N, *SHAPE), np.int32)
    for row, number in enumerate(numbers):
        mask[LABEL, row] = number
    assert told in problems(arrays.h5(tmp_path / "a.h5", x=X, label=LABEL, mask=mask))


def test_a_negative_roi_and_a_sample_with_nothing_to_evaluate_are_refused(tmp_path, arrays) -> None:
    roi = np.full((N, *SHAPE), -1, np.int8)
    path = arrays.h5(tmp_path / "a.h5", x=X, label=LABEL, roi=roi)
    assert "roi holds -1; it may hold 0, one other number above it" in problems(path)
    mask = ternary(-1, np.int8)
    mask[3] = -1
    path = arrays.h5(tmp_path / "b.h5", x=X, label=LABEL, mask=mask)
    assert "b/000003 has nothing to evaluate" in problems(path)


@pytest.mark.parametrize("form", ["complex", "r i", "real imag"])
def test_complex_numbers_are_two_channels(tmp_path, arrays, form) -> None:
    path = arrays.h5(tmp_path / "a.h5", x=arrays.stored(Z, form), label=LABEL)
    for index, sample in samples(path, range="-8,8").items():
        expected = (np.stack([Z[index].real, Z[index].imag]) + 8) / 16
        assert sample.x.shape == (2, *SHAPE) and np.allclose(sample.x.numpy(), expected, atol=1e-6)
    assert "outside 0..1 (range=LOW,HIGH or range=train" in problems(path)
    two = np.stack([Z, 2 * Z], 1)
    path = arrays.h5(tmp_path / "b.h5", x=arrays.stored(two, form), label=LABEL)
    sample = samples(path, range=(-16, 16), axes=2)[0]
    assert np.allclose(sample.x[1], (2 * Z[0].real + 16) / 32, atol=1e-6)
    assert np.allclose(sample.x[2], (Z[0].imag + 16) / 32, atol=1e-6)


def test_records_are_not_called_complex(tmp_path, arrays) -> None:
    x = np.zeros((N, 8), [("time", "f4"), ("value", "f4")])
    text = problems(arrays.h5(tmp_path / "a.h5", x=x, label=LABEL))
    assert "records of time, value" in text


def test_a_range_scales_all_samples_alike_and_counts_what_it_cuts_off(tmp_path, arrays) -> None:
    x = X.astype(np.float32) * 30 - 100
    path = arrays.h5(tmp_path / "a.h5", x=x, label=LABEL)
    for index, sample in samples(path, range=[0, 3000]).items():
        assert np.allclose(sample.x[0].numpy(), np.clip(x[index] / 3000, 0, 1), atol=1e-6)
    report = HDF5(root=str(path), range=[0, 3000]).verify()
    outside = int(((x < 0) | (x > 3000)).sum())
    assert f"values outside range=0,3000 that were cut off: {outside}" in report.notes


def test_the_range_of_the_training_samples_is_one_for_all(tmp_path, arrays) -> None:
    x = X.astype(np.int32)
    x[LABEL] *= 3  # what is abnormal is bright, and stays so
    path = arrays.h5(tmp_path / "a.h5", x=x, label=LABEL)
    data = HDF5(root=str(path), range="train", abnormal=(0, 0, 1))
    train = data.train()
    seen = [int(train[i].key[-6:]) for i in range(len(train))]
    low, high = x[seen].min(), x[seen].max()
    assert min(float(train[i].x.min()) for i in range(len(train))) == 0
    assert max(float(train[i].x.max()) for i in range(len(train))) == 1
    for index, sample in samples(path, range="train").items():
        expected = np.clip((x[index] - low) / (high - low), 0, 1)
        assert np.allclose(sample.x[0].numpy(), expected, atol=1e-6)
    assert "of what range? (range=LOW,HIGH, or range=train)" in problems(path)


@pytest.mark.parametrize("wrong", ["0", "1,0", "a,b", (1, 1), (0, float("inf")), 3, "all"])
def test_what_is_no_range_is_refused_at_once(wrong) -> None:
    with pytest.raises(ValueError, match="range is LOW,HIGH"):
        HDF5(range=wrong)


def test_one_scale_for_all_excludes_one_for_each() -> None:
    with pytest.raises(ValueError, match="scales all samples alike"):
        HDF5(range="train", scale="minmax")


def test_training_samples_of_one_value_have_no_range(tmp_path, arrays) -> None:
    path = arrays.h5(tmp_path / "a.h5", x=np.full((N, *SHAPE), 3.0), label=LABEL)
    with pytest.raises(DataError, match="range=train finds only the number 3"):
        HDF5(root=str(path), range="train").prepare()


def test_numbers_that_use_little_of_their_range_are_warned_of(tmp_path, arrays) -> None:
    """Twelve bits stored in sixteen: 4095 of 65,535."""
    path = arrays.h5(tmp_path / "a.h5", x=X.astype(np.uint16) * 20, label=LABEL)
    (note,) = (n for n in HDF5(root=str(path)).verify().notes if "all values lie in" in n)
    assert "to 0.0607 of 0 to 1" in note and "--set hdf5.range=train" in note
    whole = HDF5(root=str(path), range=(0, 4095)).verify().notes
    assert not any("all values lie in" in note for note in whole)
