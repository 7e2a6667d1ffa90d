"""A prediction is written shard by shard: the same bytes whoever made the shards, and whenever."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from adbench.benchmark.evaluation.maps_file import compress_maps, create_maps
from adbench.benchmark.experiments.fit_predict import predict, predict_remaining_shards
from adbench.benchmark.store.partial_state import PartialState
from adbench.datasets.base import Sample, Spec, Split
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Detection, Method

LEVELS = (100, 250)
SPLIT = [
    Sample(torch.rand(1, 9, 8, generator=torch.Generator().manual_seed(i)), f"k{i}", f"k{i}", False)
    for i in range(150)
]


class Scaled(Method):
    """Its map is its input times the level; it ends its process after some calls."""

    calls = 0
    kill_after = 1000

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        pass

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        Scaled.calls += 1
        if Scaled.calls > Scaled.kill_after:
            os.kill(os.getpid(), 9)
        return Detection.from_map(torch.stack([x[:, 0] * level for level in levels]))


def predicted(path: Path, state: Any = None) -> bytes:
    context = TrainingContext(**({} if state is None else {"state_store": state}))
    predict(path, Scaled(Spec(1, (9, 8))), SPLIT, LEVELS, context, name="test", gallery=[3])
    return path.read_bytes()


def test_a_prediction_that_was_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys; from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('streamed', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "module.Scaled.kill_after = 3\n"
        "folder = Path(sys.argv[1])\n"
        "module.predicted(folder / 'a.h5', module.PartialState(folder / 'state'))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9 and not (tmp_path / "a.h5").exists()
    state = PartialState(tmp_path / "state")
    assert [f"shard-{i}" in state for i in range(0, 150, 32)] == [True] * 3 + [False] * 2
    Scaled.calls = 0
    resumed = predicted(tmp_path / "a.h5", state)
    assert Scaled.calls == 2
    assert resumed == predicted(tmp_path / "b.h5")


def test_shards_of_a_helper_make_the_same_bytes(tmp_path: Path) -> None:
    state, method = PartialState(tmp_path / "state"), Scaled(Spec(1, (9, 8)))
    count = predict_remaining_shards(
        method, SPLIT, LEVELS, TrainingContext(), state, lambda: False, 2, name="test", gallery=[3]
    )
    assert count == 150
    assert predicted(tmp_path / "a.h5", state) == predicted(tmp_path / "b.h5")


def test_maps_are_stored_without_loss_in_chunks_of_one_level(tmp_path: Path) -> None:
    predicted(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        maps = file["map"]
        assert isinstance(maps, h5py.Dataset) and maps.shape == (2, 150, 9, 8)
        assert maps.chunks == (1, 32, 9, 8) and maps.compression == "gzip" and maps.shuffle
        expected = np.stack([[sample.x[0].numpy() * level for sample in SPLIT] for level in LEVELS])
        assert np.array_equal(maps[()], expected.astype(np.float32))


def test_values_of_every_kind_come_back_to_the_bit() -> None:
    values = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -3e38, np.nan], np.float32)
    maps = np.resize(values, (1, 5, 7))
    with h5py.File.in_memory() as file:
        create_maps(file, 1, 5, (7,))[...] = maps
        stored = file["map"]
        assert isinstance(stored, h5py.Dataset) and stored[()].tobytes() == maps.tobytes()
    assert compress_maps(maps).tobytes() == compress_maps(maps.copy()).tobytes()


def test_a_full_disk_ends_the_prediction_with_its_cause_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adbench.datasets.io import hdf5_output

    written = 0
    original = hdf5_output._NeverFailingFile.__init__

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            nonlocal written
            written += len(data)
            if written > 50_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def with_little_room(self: Any, path: Path) -> None:
        original(self, path)
        self._file = Full(self._file)

    monkeypatch.setattr(hdf5_output._NeverFailingFile, "__init__", with_little_room)
    Scaled.calls = 0
    with pytest.raises(OSError, match="No space left"):
        predicted(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == [] and 0 < Scaled.calls < 5
