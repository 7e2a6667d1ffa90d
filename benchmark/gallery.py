"""What is shown of a method's work: a few test samples, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from .pictures import Shown, sheet
from .plan import Cell
from .stitch import Wholes, truths

SIZE = 6
"""Samples in a gallery; their reconstructions are kept with the maps."""


def gallery(split: Any) -> list[int]:
    """The samples of up to SIZE whole images to show: abnormal ones of as many strata as there
    are, one normal."""
    samples = truths(split)
    wholes = Wholes(samples)
    by_stratum: dict[str, int] = {}
    for whole, sample in enumerate(wholes.first(samples)):
        stratum = "normal" if not sample.label else "/".join(
            sample.tags[k] for k in sorted(sample.tags) if k in ("lesion", "size", "defect")
        )  # fmt: skip
        by_stratum.setdefault(stratum, whole)
    abnormal = [i for stratum, i in sorted(by_stratum.items()) if stratum != "normal"]
    step = max(1, len(abnormal) / (SIZE - 1))
    chosen = {abnormal[int(k * step)] for k in range(min(SIZE - 1, len(abnormal)))}
    chosen |= {by_stratum["normal"]} if "normal" in by_stratum else set()
    return sorted(i for whole in chosen for i in wholes.members[whole])


def draw(cell: Cell, split: Any, maps: Path, level: int, path: Path) -> None:
    """A picture of the gallery at one level: input, reconstruction, map, truth."""
    with h5py.File(maps, "r") as file:
        at = array(file, "levels").tolist().index(level)
        shown = array(file, "gallery").tolist()
        samples = [split[i] for i in shown]
        wholes = Wholes(samples)

        def put(whole: int, values: Sequence[np.ndarray | None]) -> np.ndarray | None:
            """The whole image of what its samples have, if they have it."""
            mine = [values[k] for k in wholes.members[whole]]
            there = [value for value in mine if value is not None]
            return wholes.join(whole, there) if len(there) == len(mine) else None

        x = [sample.x.numpy() for sample in samples]
        made = [_at(file, "reconstruction", at, k) for k in range(len(shown))]
        heat = [_at(file, "map", at, i) for i in shown]
        truth = [[_numpy(t) for t in (s.mask, s.roi, s.twin)] for s in samples]
        rows = [
            Shown(
                key=key,
                x=wholes.join(whole, [x[k] for k in wholes.members[whole]]),
                reconstruction=put(whole, made),
                map=put(whole, heat),
                mask=put(whole, [t[0] for t in truth]),
                roi=put(whole, [t[1] for t in truth]),
                twin=put(whole, [t[2] for t in truth]),
                caption=" ".join(samples[wholes.members[whole][0]].tags.values()),
            )
            for whole, key in enumerate(wholes.keys)
        ]
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
