"""What is shown of a method's work: a few test samples, the same for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from .pictures import Shown, sheet
from .plan import Cell

SIZE = 6
"""Samples in a gallery; their reconstructions are kept with the maps."""


def gallery(split: Any) -> list[int]:
    """Up to SIZE samples to show: abnormal ones of as many strata as there are, one normal."""
    by_stratum: dict[str, int] = {}
    for i in range(len(split)):
        sample = split[i]
        stratum = "normal" if not sample.label else "/".join(
            sample.tags[k] for k in sorted(sample.tags) if k in ("lesion", "size")
        )  # fmt: skip
        by_stratum.setdefault(stratum, i)
    abnormal = [i for stratum, i in sorted(by_stratum.items()) if stratum != "normal"]
    step = max(1, len(abnormal) / (SIZE - 1))
    chosen = [abnormal[int(k * step)] for k in range(min(SIZE - 1, len(abnormal)))]
    return sorted({*chosen, *([by_stratum["normal"]] if "normal" in by_stratum else [])})


def draw(cell: Cell, split: Any, maps: Path, level: int, path: Path) -> None:
    """A picture of the gallery at one level: input, reconstruction, map, truth."""
    rows = []
    with h5py.File(maps, "r") as file:
        at = array(file, "levels").tolist().index(level)
        for k, i in enumerate(array(file, "gallery").tolist()):
            sample = split[i]
            rows.append(
                Shown(
                    key=sample.key,
                    x=sample.x.numpy(),
                    reconstruction=_at(file, "reconstruction", at, k),
                    map=_at(file, "map", at, i),
                    mask=_numpy(sample.mask),
                    roi=_numpy(sample.roi),
                    twin=_numpy(sample.twin),
                    caption=" ".join(f"{v}" for v in sample.tags.values()),
                )
            )
    title = f"{cell.method.label} on {cell.dataset.name}, profile {cell.profile}"
    sheet(path, rows, title=title + (f", level {level}" if level else ""))


def array(file: h5py.File, name: str) -> np.ndarray:
    """The whole of a dataset in an open file."""
    return np.asarray(stored(file, name)[()])


def stored(file: h5py.File, name: str) -> h5py.Dataset:
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise TypeError(f"{file.filename}: {name} is not a dataset")
    return found


def _at(file: h5py.File, name: str, level: int, i: int) -> np.ndarray | None:
    return np.asarray(stored(file, name)[level, i]) if name in file else None


def _numpy(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.numpy()
