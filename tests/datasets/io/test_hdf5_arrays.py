"""A user's HDF5 arrays: values scaled to 0..1, and files that fail with one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbench.datasets.base import DataError
from adbench.datasets.io.hdf5_arrays import open_hdf5, require_dataset, scale_to_unit_range


@pytest.mark.parametrize(
    ("kind", "most"), [(np.uint8, 255), (np.uint16, 65535), (np.int16, 32767), (np.bool_, 1)]
)
def test_integers_are_read_by_the_ends_of_their_type(kind, most) -> None:
    raw = np.array([[0, 1, most // 2, most]]).astype(kind)
    x, constant = scale_to_unit_range(raw, "range", "it")
    assert x.dtype == np.float32 and not constant
    assert np.allclose(x, raw.astype(float) / most, atol=1e-7)


def test_a_dark_image_stays_dark() -> None:
    x, _ = scale_to_unit_range(np.array([[0, 1]], np.uint8), "range", "it")
    assert x.max() == np.float32(1 / 255)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.array([[0, 1j]]), "is complex"),
        (np.array([["a", "b"]]), "no numbers"),
        (np.array([[0, np.nan]]), "holds 1 NaN"),
        (np.array([[0, np.inf]]), "holds 1 inf"),
        (np.array([[0.0, 1.5]]), "lies in 0..1.5, outside 0..1"),
        (np.array([[-0.1, 1.0]]), "lies in -0.1..1, outside 0..1"),
        (np.array([[-3, 1]], np.int16), "lies in -3..1, outside 0..32767"),
        (np.array([[0, 9]], np.int64), "of what range?"),
    ],
    ids=["complex", "text", "nan", "inf", "above", "below", "negative", "wide"],
)
def test_numbers_without_a_known_range_are_refused(raw, message) -> None:
    with pytest.raises(DataError, match=r"^it ") as caught:
        scale_to_unit_range(raw, "range", "it")
    assert message in str(caught.value)


def test_one_value_becomes_zeros() -> None:
    for how in ("range", "minmax", "p1p99"):
        x, constant = scale_to_unit_range(np.full((1, 4), 7, np.uint8), how, "it")
        assert constant and not x.any()


@given(st.integers(0, 1000), st.floats(0.01, 1e3), st.floats(-1e3, 1e3))
def test_scaling_by_a_samples_own_values_forgets_gain_and_offset(seed, gain, offset) -> None:
    raw = np.random.default_rng(seed).normal(size=(2, 50))
    for how in ("minmax", "p1p99"):
        one, _ = scale_to_unit_range(raw, how, "it")
        other, _ = scale_to_unit_range(gain * raw + offset, how, "it")
        assert np.allclose(one, other, atol=1e-4)
        assert one.min() == 0 and one.max() == 1


def test_percentiles_are_those_of_the_region_only() -> None:
    raw = np.concatenate([np.zeros(900), np.linspace(100, 200, 101)])[None]
    x, _ = scale_to_unit_range(raw, "p1p99", "it", raw[0] > 0)
    assert np.allclose(x[0, 900:][[1, 50, 99]], [0, 0.5, 1], atol=1e-6) and not x[0, :900].any()


def test_what_hdf5_cannot_read_is_one_error(tmp_path: Path, arrays) -> None:
    path = arrays.h5(tmp_path / "a.h5", x=np.zeros(100))
    with open_hdf5(path, "a.h5") as file, pytest.raises(DataError, match=r"'y' \(there is x\)"):
        require_dataset(file, "y", "a.h5")
    path.write_bytes(path.read_bytes()[:-300])
    message = "a.h5 is truncated, corrupt or no HDF5 file"
    with pytest.raises(DataError, match=message), open_hdf5(path, "a.h5"):
        pass
