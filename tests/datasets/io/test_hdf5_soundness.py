"""HDF5 files whose values lie elsewhere, were never written, or cannot be unpacked are refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from adbench.datasets.base import DataError
from adbench.datasets.hdf5_file import HDF5
from adbench.datasets.io.hdf5_arrays import find_dataset, open_hdf5

pytestmark = pytest.mark.usefixtures("cache")
X = np.random.default_rng(0).integers(1, 255, (40, 16, 16), dtype=np.uint8)
LABEL = np.arange(40) >= 30


def refused(path: Path) -> str:
    """The one problem of a file; nothing may have been read from beside it."""
    (problem,) = HDF5(root=str(path)).verify().problems
    assert "\n" not in problem and problem.startswith(f"{path.name}: ")
    return problem


def virtual(folder: Path, source: str) -> None:
    layout = h5py.VirtualLayout(X.shape, np.uint8)
    layout[:] = h5py.VirtualSource(source, "x", X.shape)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize("there", [True, False])
def test_a_virtual_dataset_is_refused_and_a_missing_source_is_named(tmp_path, there) -> None:
    with h5py.File(tmp_path / "part.dat", "w") as file:
        file["x"] = X
    virtual(tmp_path, "part.dat" if there else "gone.dat")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["label"] = LABEL
    expected = "a virtual dataset of part.dat" if there else "values from gone.dat, not there"
    assert expected in refused(tmp_path / "a.h5")


@pytest.mark.parametrize("through", ["link", "group", "soft link"])
def test_links_into_other_files_are_refused_without_opening_them(tmp_path, through) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["label"] = LABEL
        if through == "link":
            file["x"] = h5py.ExternalLink("/etc/other.h5", "x")
        elif through == "group":
            file["other"] = h5py.ExternalLink("/etc/other.h5", "/")
            file["x"] = h5py.SoftLink("/other/x")
        else:
            file["in/link"] = h5py.ExternalLink("/etc/other.h5", "x")
            file["in/soft"] = h5py.SoftLink("link")
            file["x"] = h5py.SoftLink("in/soft")
    assert "is a link into /etc/other.h5" in refused(tmp_path / "a.h5")


def test_every_role_is_checked(tmp_path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["label"] = X, LABEL
        file["mask"] = h5py.ExternalLink("other.h5", "mask")
    assert "mask is a link into other.h5" in refused(tmp_path / "a.h5")


def test_values_in_a_raw_file_are_refused(tmp_path) -> None:
    (tmp_path / "raw").write_bytes(X.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["label"] = LABEL
        file.create_dataset("x", X.shape, np.uint8, external=[(tmp_path / "raw", 0, X.nbytes)])
    assert "lies in other files" in refused(tmp_path / "a.h5")


def test_soft_links_within_a_file_are_followed_but_not_in_circles(tmp_path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["in/x"], file["label"] = X, LABEL
        file["in/y"], file["x"] = h5py.SoftLink("x"), h5py.SoftLink("/in/y")
    assert HDF5(root=str(tmp_path / "a.h5")).verify().problems == []
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"], file["label"] = h5py.SoftLink("x"), LABEL
    assert "more than 16 links" in refused(tmp_path / "b.h5")


@pytest.mark.parametrize(("code", "label"), [(32001, "32001 (blosc)"), (40000, "unregistered")])
def test_a_missing_filter_is_named_with_what_helps(tmp_path, code, label) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["label"] = LABEL
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk(X.shape)
        layout.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (0,))
        space = h5py.h5s.create_simple(X.shape)
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, layout)
        file["x"].id.write_direct_chunk((0, 0, 0), X.tobytes())
    problem = refused(tmp_path / "a.h5")
    assert label in problem and "which this HDF5 lacks" in problem and "hdf5plugin" in problem


@pytest.mark.parametrize("chunks", [None, (10, 16, 16)])
def test_what_was_never_written_is_no_zero(tmp_path, chunks) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["label"] = LABEL
        x = file.create_dataset("x", X.shape, np.uint8, chunks=chunks)
        if chunks:
            x[:20] = X[:20]
    expected = "lacks 2 of 4 chunks" if chunks else "was never written"
    assert expected in refused(tmp_path / "a.h5")
    with open_hdf5(tmp_path / "a.h5", "a.h5") as file:
        assert find_dataset(file, "x", "a.h5", sparse=True) is not None


def test_a_chunk_that_unpacks_to_far_more_than_its_file_is_refused(tmp_path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["label"] = np.zeros(1)
        shape = (1, 20_000, 20_000)
        x = file.create_dataset("x", shape, np.uint8, chunks=shape, compression="gzip")
        x.id.write_direct_chunk((0, 0, 0), b"x" * 1000)
    with open_hdf5(tmp_path / "a.h5", "a.h5") as file, pytest.raises(DataError, match="381 MiB of"):
        find_dataset(file, "x", "a.h5")
