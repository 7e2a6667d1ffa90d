"""Images of a method's predictions: a gallery of test samples, the same for every method; its worst
mistakes; and a contact sheet of the maps of many samples at all levels, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Sample
from ..evaluation.hdf5_arrays import hdf5_dataset, read_array
from ..evaluation.sample_results import SampleResults
from ..evaluation.tile_stitching import TiledImages, sample_metadata
from .contact_sheet import (
    GALLERY_SIDE,
    THUMBNAIL_SIDE,
    choose_samples,
    thumbnail,
    write_contact_sheet,
)
from .sample_sheet import DisplayedSample, write_sheet

GALLERY_SAMPLES = 6
"""Samples in a gallery; their reconstructions are stored with the maps."""

MAX_LEVELS = 9
"""Levels whose maps are on a contact sheet, at most."""

MISTAKES_PER_KIND = 3
"""Of the worst misses, and of the worst false alarms."""


def gallery_samples(split: Any) -> list[int]:
    """Choose samples for the gallery: of abnormal ones one per stratum, and one normal.

    Returns the indices of the tiles of up to 6 whole images. Strata are values of the tags
    `lesion`, `size` and `defect`.

    >>> import torch
    >>> from adbench.benchmark.figures.gallery import gallery_samples
    >>> from adbench.datasets.base import Sample
    >>> lesions = ["stroke", "stroke", None, "tumour"]
    >>> split = [
    ...     Sample(torch.zeros(1, 8), f"{i}", f"{i}", label=bool(lesion), tags={"lesion": lesion})
    ...     for i, lesion in enumerate(lesions)]
    >>> gallery_samples(split)
    [0, 2, 3]
    """
    samples = sample_metadata(split)
    wholes = TiledImages(samples)
    by_stratum: dict[str, int] = {}
    for whole, sample in enumerate(wholes.take_first(samples)):
        stratum = "normal" if not sample.label else "/".join(
            sample.tags[k] for k in sorted(sample.tags) if k in ("lesion", "size", "defect")
        )  # fmt: skip
        by_stratum.setdefault(stratum, whole)
    abnormal = [i for stratum, i in sorted(by_stratum.items()) if stratum != "normal"]
    step = max(1, len(abnormal) / (GALLERY_SAMPLES - 1))
    chosen = {abnormal[int(k * step)] for k in range(min(GALLERY_SAMPLES - 1, len(abnormal)))}
    chosen |= {by_stratum["normal"]} if "normal" in by_stratum else set()
    return sorted(i for whole in chosen for i in wholes.members[whole])


def write_figures(
    title: str, split: Any, maps: Path, level: int, rows: SampleResults, path: Path
) -> list[Path]:
    """Write the images of an experiment at one level, and return their paths.

    Beside the gallery at `path` are the worst mistakes (.worst.png) where there are any, and the
    contact sheet (.contact.png) of images.

    title: of the images, to which the level is added      split: that was predicted
    maps: the HDF5 file of the predictions      rows: sample results of the split at this level

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import h5py
    >>> import numpy as np
    >>> import torch
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults
    >>> from adbench.benchmark.figures.gallery import write_figures
    >>> from adbench.datasets.base import Sample
    >>> split = [Sample(torch.zeros(1, 8, 8), name, name, label=name == "b") for name in "ab"]
    >>> rows = SampleResults([*"ab"], [*"ab"], np.array([False, True]), np.array([0.9, 0.1]),
    ...                      None, {}, {})
    >>> with TemporaryDirectory() as folder:
    ...     with h5py.File(Path(folder) / "maps.h5", "w") as file:
    ...         file["levels"], file["gallery"], file["map"] = [250], [0, 1], np.zeros((1, 2, 8, 8))
    ...     paths = write_figures(
    ...         "AnoDDPM", split, Path(folder) / "maps.h5", 250, rows, Path(folder) / "a.png")
    >>> [path.name for path in paths]
    ['a.png', 'a.worst.png', 'a.contact.png']
    """
    images = TiledImages(sample_metadata(split))
    title += f", level {level}" if level else ""
    with h5py.File(maps, "r") as file:
        _write_gallery(file, split, level, path, title)
        paths = [path]
        others = {".worst.png": _write_mistakes, ".contact.png": _write_contact_sheet}
        for ending, other in others.items():
            beside = path.with_name(path.name.removesuffix(".png") + ending)
            if other(file, split, level, beside, title, images, rows):
                paths.append(beside)
            else:
                beside.unlink(missing_ok=True)
    return paths


def _write_gallery(file: h5py.File, split: Any, level: int, path: Path, title: str) -> None:
    """Write the gallery: input, reconstruction, map and truth of each sample."""
    shown = read_array(file, "gallery").tolist()
    write_sheet(path, _displayed_samples(file, split, shown, level), title=title)


def _write_mistakes(
    file: h5py.File,
    split: Any,
    level: int,
    path: Path,
    title: str,
    images: TiledImages,
    rows: SampleResults,
) -> bool:
    """Write the worst mistakes: input, map and truth of `worst_mistakes`, with their sentences.

    Returns whether there are any.
    """
    members = dict(zip(images.keys, images.members, strict=True))
    wrong = worst_mistakes(rows)
    shown = [i for k, _ in wrong for i in members[rows.keys[k]]]
    if not shown:
        return False
    displayed = _displayed_samples(file, split, shown, level)
    named = [
        replace(row, caption=f"{row.caption} {reason}".strip())
        for row, (_, reason) in zip(displayed, wrong, strict=True)
    ]
    write_sheet(path, named, title=f"Worst of {title}")
    return True


def _write_contact_sheet(
    file: h5py.File,
    split: Any,
    level: int,
    path: Path,
    title: str,
    images: TiledImages,
    rows: SampleResults,
) -> bool:
    """Write the contact sheet: inputs, masks and the maps at all levels of many samples.

    Returns whether one was written: not of signals, whose curves do not get smaller, and not of a
    method without maps.
    """
    if "map" not in file:
        return False
    gallery = {*read_array(file, "gallery").tolist()}
    index = {key: whole for whole, key in enumerate(images.keys)}
    chosen = {*choose_samples(rows.keys, rows.label)} | {k for k, _ in worst_mistakes(rows)}
    chosen |= {
        k for k, key in enumerate(rows.keys) if gallery.intersection(images.members[index[key]])
    }
    levels = _shown_levels(read_array(file, "levels").tolist(), level)
    thumbnails: list[DisplayedSample] = []
    maps: dict[int, list[np.ndarray]] = {shown: [] for shown in levels}
    for k in sorted(chosen):
        number = index[rows.keys[k]]
        tiles = images.members[number]
        (whole,) = _displayed_samples(file, split, tiles, level)
        if whole.x.ndim < 3:
            return False
        side = GALLERY_SIDE if gallery.intersection(tiles) else THUMBNAIL_SIDE
        thumbnails.append(thumbnail(whole, side))
        for shown, of_level in maps.items():
            small = thumbnail(replace(whole, map=_whole_map(file, images, number, shown)), side)
            assert small.map is not None
            of_level.append(small.map)
    if thumbnails:
        write_contact_sheet(path, thumbnails, maps, level)
    return bool(thumbnails)


def _shown_levels(levels: Sequence[int], chosen: int) -> list[int]:
    """At most MAX_LEVELS of the levels, spread evenly, the chosen one among them, in order."""
    step = max(1.0, (len(levels) - 1) / (MAX_LEVELS - 2))
    spread = {levels[round(k * step)] for k in range(len(levels)) if round(k * step) < len(levels)}
    return sorted(spread | {chosen})


def _whole_map(file: h5py.File, images: TiledImages, whole: int, level: int) -> np.ndarray:
    """The map of a whole image at a level, stitched from those of its tiles."""
    at = read_array(file, "levels").tolist().index(level)
    return images.stitch(whole, [hdf5_dataset(file, "map")[at, i] for i in images.members[whole]])


def worst_mistakes(rows: SampleResults) -> list[tuple[int, str]]:
    """Return (index, sentence) of the worst mistakes: missed samples first, then false alarms.

    A missed sample is abnormal, and scores lower than some normal ones.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.sample_results import SampleResults
    >>> from adbench.benchmark.figures.gallery import worst_mistakes
    >>> label, score = np.array([True, True, False, False]), np.array([0.9, 0.2, 0.1, 0.5])
    >>> worst_mistakes(SampleResults([*"abcd"], [*"abcd"], label, score, None, {}, {}))
    [(1, 'missed: 50% of normal samples score higher'), (3, 'false alarm: 50% of abnormal samples
    score lower')]
    """
    score, label = rows.score, rows.label
    if label.all() or not label.any():
        return []
    mistakes = []
    sides = ((label, 1, "missed", "normal"), (~label, -1, "false alarm", "abnormal"))
    for which, sign, kind, others in sides:
        order = np.flatnonzero(which)[np.argsort(sign * score[which], kind="stable")][
            :MISTAKES_PER_KIND
        ]
        for k in order.tolist():
            share = float((sign * score[label != label[k]] > sign * score[k]).mean())
            side = "higher" if sign > 0 else "lower"
            if share > 0:
                mistakes.append((k, f"{kind}: {share:.0%} of {others} samples score {side}"))
    return mistakes


def _displayed_samples(
    file: h5py.File, split: Any, shown: Sequence[int], level: int
) -> list[DisplayedSample]:
    """Samples of a split, whole ones, with what the method made of them."""
    at = read_array(file, "levels").tolist().index(level)
    rows_in_file = {i: k for k, i in enumerate(read_array(file, "gallery").tolist())}
    samples = [split[i] for i in shown]
    wholes = TiledImages(samples)

    def put(whole: int, values: Sequence[np.ndarray | None]) -> np.ndarray | None:
        """The whole image of what its samples have, if they have it."""
        arrays = [values[k] for k in wholes.members[whole]]
        present = [value for value in arrays if value is not None]
        return wholes.stitch(whole, present) if len(present) == len(arrays) else None

    x = [sample.x.numpy() for sample in samples]
    reconstructions = [
        _read_at(file, "reconstruction", at, rows_in_file[i]) if i in rows_in_file else None
        for i in shown
    ]
    heat = [_read_at(file, "map", at, i) for i in shown]
    truth = [[_to_numpy(t) for t in (_drawn_truth(s), s.roi, s.counterpart)] for s in samples]
    return [
        DisplayedSample(
            key=key,
            x=wholes.stitch(whole, [x[k] for k in wholes.members[whole]]),
            reconstruction=put(whole, reconstructions),
            map=put(whole, heat),
            mask=put(whole, [t[0] for t in truth]),
            roi=put(whole, [t[1] for t in truth]),
            counterpart=put(whole, [t[2] for t in truth]),
            caption=" ".join(samples[wholes.members[whole][0]].tags.values()),
            label=any(samples[k].label for k in wholes.members[whole]),
            tags=dict(samples[wholes.members[whole][0]].tags),
        )
        for whole, key in enumerate(wholes.keys)
    ]


def _read_at(file: h5py.File, name: str, level: int, i: int) -> np.ndarray | None:
    return np.asarray(hdf5_dataset(file, name)[level, i]) if name in file else None


def _drawn_truth(sample: Sample) -> Tensor | None:
    """The mask of a sample, or what its boxes hold."""
    if sample.boxes is None:
        return sample.mask
    inside, axes = torch.zeros(sample.x.shape[1:], dtype=torch.bool), sample.x.ndim - 1
    for box in sample.boxes:
        inside[tuple(slice(a, b) for a, b in zip(box[:axes], box[axes:], strict=True))] = True
    return inside


def _to_numpy(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.numpy()
