"""Half-finished work comes back whole, or as it was before."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adbench.benchmark.store.artifact_store import Store, StoreWarning
from stores import KEY_INPUTS, flip_bit, start_process, stored_files, truncate, wait_for_mark


def state(value: float) -> dict[str, torch.Tensor]:
    whole = torch.full((4, 4), value)
    return {
        "step": torch.tensor(7),
        "weight": whole,
        "tied": whole,
        "part": whole[1:, 1:],
        "half": torch.full((2,), value, dtype=torch.bfloat16),
        "none": torch.zeros(0),
    }


def test_a_half_finished_state_comes_back_as_it_was(tmp_path: Path) -> None:
    partial = Store(tmp_path).partial_state("checkpoint", KEY_INPUTS)
    assert partial.load("train") is None
    for value in (1.0, 2.0):
        partial.save("train", state(value))
    partial.save("other/name.0", {"a": torch.arange(3)})
    loaded = Store(tmp_path).partial_state("checkpoint", KEY_INPUTS).load("train")
    assert loaded is not None and loaded.keys() == state(0).keys()
    for key, tensor in state(2.0).items():
        assert loaded[key].dtype == tensor.dtype and torch.equal(loaded[key], tensor)
    other = partial.load("other/name.0")
    assert other is not None and other["a"].tolist() == [0, 1, 2]
    assert len(stored_files(tmp_path)) == 4  # the state that was replaced is gone
    partial.clear()
    assert partial.load("train") is None and stored_files(tmp_path) == set()
    partial.clear()


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", [truncate, lambda path: flip_bit(path, -20), Path.unlink])
def test_a_damaged_half_finished_state_is_none(
    tmp_path: Path, suffix: str, damage: Callable[[Path], None]
) -> None:
    partial = Store(tmp_path).partial_state("checkpoint", KEY_INPUTS)
    partial.save("train", state(1.0))
    damage(next(partial.folder.glob(f"*{suffix}")))
    if suffix == ".json" and damage is Path.unlink:
        assert partial.load("train") is None
    else:
        with pytest.warns(StoreWarning, match="cannot continue"):
            assert partial.load("train") is None
    partial.save("train", state(3.0))
    assert partial.load("train") is not None


@pytest.mark.parametrize(
    "moment", ["safetensors.torch.save_file", "adbench.benchmark.store.artifact_store.Path.replace"]
)
def test_a_kill_while_keeping_leaves_the_state_before(tmp_path: Path, moment: str) -> None:
    """Killed while the new tensors are being written, or before the pointer to them is replaced."""
    process = start_process(
        tmp_path,
        f"""
import torch
from unittest.mock import patch
partial = store.partial_state("checkpoint", KEY_INPUTS)
partial.save("train", {{"a": torch.ones(3)}})
def hang(first, path):
    if isinstance(first, dict):
        Path(path).write_bytes(b"half of a state")
    (marks / "hangs").touch()
    time.sleep(600)
with patch({moment!r}, hang):
    partial.save("train", {{"a": torch.zeros(3)}})
""",
    )
    wait_for_mark(tmp_path, "hangs", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    partial = Store(tmp_path / "store").partial_state("checkpoint", KEY_INPUTS)
    loaded = partial.load("train")
    assert loaded is not None and loaded["a"].tolist() == [1, 1, 1]
    partial.save("train", {"a": torch.full((3,), 2.0)})
    assert (
        len(stored_files(partial.folder)) <= 3
    )  # at most the unfinished name beside state and pointer
