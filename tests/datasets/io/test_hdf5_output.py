"""HDF5 files are written whole or not at all, and a full disk is an OSError, never a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from adbench.datasets.io.hdf5_output import HDF5Output, write_hdf5

SIZES = [0, 1, 96, 100, 500, 800, 2000, 2048, 5000, *range(10_000, 290_000, 20_000)]
"""Bytes that fit; the whole file has 295 500."""

AT_EVERY_SIZE = """
import os, resource, sys
from pathlib import Path
import h5py, numpy as np
from adbench.benchmark.evaluation.sample_results import SampleResults, write_sample_results
from adbench.datasets.io.hdf5_output import write_hdf5

def arrays(path):
    with write_hdf5(path) as file:
        file["record"] = "x" * 5000
        names = [f"name {i}" for i in range(2000)]
        file.create_dataset("key", data=names, dtype=h5py.string_dtype())
        file.create_dataset("a", data=np.random.default_rng(0).random(5000), compression="gzip")
        growing = file.create_dataset("b", (0, 999), maxshape=(None, 999), chunks=(1, 999))
        for index in range(100):
            growing.resize(index + 1, 0)
            growing[index] = index

def results(path):
    names, values = [f"name {i}" for i in range(9000)], np.random.default_rng(0).random(9000)
    samples = SampleResults(names, names, values > 0.5, values, None, {}, {"auroc": values})
    write_sample_results(path, {"metrics": {}}, samples)

write, path, sizes = globals()[sys.argv[1]], Path(sys.argv[2]), sys.argv[3:]
for size in sizes:
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
        try:
            write(path)
        except OSError:
            os._exit(7)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("write", ["arrays", "results"])
def test_a_file_that_does_not_fit_is_an_oserror_at_every_size(tmp_path: Path, write) -> None:
    command = [sys.executable, "-c", AT_EVERY_SIZE, write, tmp_path / "a.h5", *map(str, SIZES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["7"] * len(SIZES), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with write_hdf5(path) as file:
        file["x"] = [1]
    with pytest.raises(ZeroDivisionError), write_hdf5(path) as file:
        file["x"] = [1 // 0]
    with h5py.File(path) as file:
        assert list(file) == ["x"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_is_raised_before_the_file_is_closed(tmp_path: Path, monkeypatch) -> None:
    output = HDF5Output(tmp_path / "a.h5")
    output._raw.error = OSError(28, "No space left on device")
    output.file["x"] = np.zeros(100_000)
    with pytest.raises(OSError, match="No space left"):
        output.check()
    output.discard()
    assert list(tmp_path.iterdir()) == []
