"""Stored maps and scores of a split beside its ground truth: what is evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Sample, Split
from .hdf5_arrays import hdf5_dataset, read_array
from .metrics.connected_components import Array
from .packed_masks import PackedMasks
from .predictions import Predictions
from .tile_stitching import (
    NO_IMAGE,
    StitchedMaps,
    StitchedMasks,
    TiledImages,
    samples_without_images,
)

MEMORY_PIXELS = 2**26
"""Pixels of a level that are evaluated in memory; of more, maps are read in blocks."""

MASKS_AT_A_TIME = 64


def load_predictions(split: Split, path: Path, scratch: Path | None = None) -> Predictions:
    """Read the predictions of a split, tiles stitched to whole images, with its ground truth.

    Maps stay on disk until they are asked for; of more than MEMORY_PIXELS pixels masks do, too,
    unless boxes are the truth.

    split: what was predicted
    path: an HDF5 file with levels, and score, map, psnr and ssim, those that the method gave
    scratch: folder of temporary files; None for the system's

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import h5py
    >>> import torch
    >>> from adbench.benchmark.evaluation.load_predictions import load_predictions
    >>> from adbench.datasets.base import Sample
    >>> split = [Sample(torch.zeros(1, 8), name, name, label=name == "b") for name in "ab"]
    >>> with TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/maps.h5", "w") as file:
    ...         file["levels"], file["score"] = [250], [[0.1, 0.9]]
    ...     predictions = load_predictions(split, Path(folder) / "maps.h5")
    >>> predictions.keys, predictions.label.tolist(), predictions.score.tolist(), predictions.map
    (['a', 'b'], [False, True], [[0.1, 0.9]], None)
    """
    file = h5py.File(path, "r", locking=False)  # artifacts do not change
    maps = hdf5_dataset(file, "map") if "map" in file else None
    score = (
        read_array(file, "score") if len(split) else np.zeros((len(read_array(file, "levels")), 0))
    )
    quality = {name: read_array(file, name) for name in ("psnr", "ssim") if name in file}
    if maps is None or math.prod(maps.shape[1:]) <= MEMORY_PIXELS:
        return assemble_predictions(samples_without_images(split), score, maps, **quality)
    samples, mask, roi = _masks_on_disk(split, maps.shape[2:], scratch)
    predictions = assemble_predictions(samples, score, maps, **quality)
    if predictions.boxes is not None:
        return assemble_predictions(samples_without_images(split), score, maps, **quality)
    images = TiledImages(samples)
    if images.tiled:
        mask, roi = (None if m is None else StitchedMasks(m, images) for m in (mask, roi))
    return replace(predictions, mask=mask, roi=roi, streamed=True, scratch=scratch)


def _masks_on_disk(
    split: Split, shape: Sequence[int], scratch: Path | None
) -> tuple[list[Sample], PackedMasks | None, PackedMasks | None]:
    """The samples without images, masks and regions; masks; regions. Reads the split once."""
    samples, size = list[Sample](), len(split)
    files = {name: PackedMasks((size, *shape), scratch) for name in ("mask", "roi")}
    lacking = {name: list[int]() for name in files}
    for first in range(0, size, MASKS_AT_A_TIME):
        block = [split[i] for i in range(first, min(first + MASKS_AT_A_TIME, size))]
        for name, file in files.items():
            tensors = {k: getattr(sample, name) for k, sample in enumerate(block, first)}
            drawn = {k: tensor for k, tensor in tensors.items() if tensor is not None}
            lacking[name] += tensors.keys() - drawn.keys()
            if drawn:
                file.write([*drawn], torch.stack([*drawn.values()]).numpy())
        samples += [
            replace(sample, x=NO_IMAGE, mask=None, roi=None, counterpart=None) for sample in block
        ]
    mask, roi = (files[name] if len(lacking[name]) < size else None for name in files)
    if any(samples[k].label for k in lacking["mask"]):  # as in _masks_of
        mask = None
    if roi is not None:  # as in _regions_of
        for k in lacking["roi"]:
            roi.write([k], np.ones((1, *shape), bool))
    return samples, mask, roi


def assemble_predictions(
    samples: Sequence[Sample],
    score: Array,
    maps: Any,
    *,
    psnr: Array | None = None,
    ssim: Array | None = None,
) -> Predictions:
    """What a method gave for some samples with their ground truth, tiles stitched to whole images.

    samples: N of them; their x is not looked at
    score, psnr, ssim: (L, N)        maps: (L, N, *S), an array or an HDF5 dataset; None without

    >>> import numpy as np
    >>> import torch
    >>> from adbench.benchmark.evaluation.load_predictions import assemble_predictions
    >>> from adbench.datasets.base import Sample, Tile
    >>> tiles = [Sample(torch.zeros(1, 2), f"a{i}", "a", label=False, tile=Tile("a", (i,), (4,)))
    ...          for i in (0, 2)]
    >>> whole = assemble_predictions(tiles, np.array([[0.1, 0.7]]), np.zeros((1, 2, 2)))
    >>> whole.keys, whole.score.tolist(), whole.map.shape
    (['a'], [[0.7]], (1, 1, 4))
    """
    images = TiledImages(samples)
    label = np.array([sample.label for sample in samples], dtype=bool)
    return Predictions(
        keys=images.keys,
        groups=images.take_first([sample.group for sample in samples]),
        label=images.max(label) if samples else label,
        mask=_stitch_tensors(images, _masks_of(samples)),
        roi=_stitch_tensors(images, _regions_of(samples)),
        spacing=samples[0].spacing if samples else None,
        tags=images.take_first([dict(sample.tags) for sample in samples]),
        score=images.max(score) if images.tiled else score,
        map=StitchedMaps(maps, images) if maps is not None and images.tiled else maps,
        psnr=None if psnr is None else images.mean(psnr),
        ssim=None if ssim is None else images.mean(ssim),
        boxes=_boxes(samples),
    )


def _boxes(samples: Sequence[Sample]) -> list[tuple[tuple[int, ...], ...]] | None:
    """The boxes of every sample, or None where nobody drew any; of normal samples there are none.

    Raises ValueError for tiles: a box may lie in several.
    """
    if not any(sample.boxes for sample in samples):
        return None
    if any(sample.tile is not None for sample in samples):
        raise ValueError("boxes are of whole images, not of tiles: leave out tile=")
    return [sample.boxes or () for sample in samples]


def _masks_of(samples: Sequence[Sample]) -> list[Tensor]:
    """The mask of each sample, of a normal one without a mask nothing; none where nobody drew any,
    or where an abnormal sample lacks its own: what is wrong with it is not known then."""
    drawn = next((sample.mask for sample in samples if sample.mask is not None), None)
    if drawn is None or any(sample.mask is None and sample.label for sample in samples):
        return []
    nothing = torch.zeros_like(drawn)
    return [nothing if sample.mask is None else sample.mask for sample in samples]


def _regions_of(samples: Sequence[Sample]) -> list[Tensor]:
    """The region of each sample, of one without a region all of it; none where nobody drew any."""
    drawn = next((sample.roi for sample in samples if sample.roi is not None), None)
    if drawn is None:
        return []
    everything = torch.ones_like(drawn)
    return [everything if sample.roi is None else sample.roi for sample in samples]


def _stitch_tensors(images: TiledImages, tensors: Sequence[Tensor]) -> Array | None:
    """(W, *S) of W whole images from all tiles; None of none."""
    if not tensors:
        return None
    arrays = [tensor.numpy() for tensor in tensors]
    return np.stack(
        [
            images.stitch(image, [arrays[i] for i in members])
            for image, members in enumerate(images.members)
        ]
    )
