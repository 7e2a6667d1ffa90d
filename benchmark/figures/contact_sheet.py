"""A contact sheet: the maps of many test samples at all levels as grey values, the same samples for
every method.

A report has no maps, only images, and which samples methods disagree on is known only once all of
them have run, perhaps days apart. So each run draws the same samples, chosen by their names alone,
with those of its gallery and its own worst mistakes. The page colours and scales the values, draws
the outline of the mask on each map, and chooses among the samples (report/html/samples.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ..evaluation.metrics.connected_components import Array
from ..store.artifact_store import atomic_path
from .sample_sheet import LAYOUT, DisplayedSample, map_range, middle_slice

MAX_SAMPLES = 32
"""Samples that all methods share, two thirds of them abnormal where there are so many."""
THUMBNAIL_SIDE, GALLERY_SIDE = 96, 256
"""Pixels across a sample, and one of the gallery, at most: larger images are averaged down by a
whole factor."""

OUTSIDE, LOWEST, HIGHEST = 0, 1, 255
"""Grey values of pixels outside the region of interest, of a map's 0, and of its top."""


def choose_samples(keys: Sequence[str], label: Array) -> list[int]:
    """Choose up to 32 samples by a hash of their keys, and return their indices in order.

    The choice hardly depends on which other samples are in the split, or on their order. Two thirds
    are abnormal where there are so many.

    keys, label: (N,) of the samples

    >>> import numpy as np
    >>> from adbench.benchmark.figures.contact_sheet import choose_samples
    >>> chosen = choose_samples([f"s{i}" for i in range(100)], np.arange(100) < 50)
    >>> len(chosen), sum(i < 50 for i in chosen)
    (32, 21)
    """
    order = sorted(range(len(keys)), key=lambda i: blake2b(keys[i].encode()).digest())
    abnormal, normal = ([i for i in order if bool(label[i]) == kind] for kind in (True, False))
    many = max(MAX_SAMPLES * 2 // 3, MAX_SAMPLES - len(normal))
    abnormal = abnormal[:many]
    return sorted(abnormal + normal[: MAX_SAMPLES - len(abnormal)])


def thumbnail(sample: DisplayedSample, side: int = THUMBNAIL_SIDE) -> DisplayedSample:
    """Return a sample of at most so many pixels a side: of a volume one slice, of a photograph its
    three colours, of any other its first channel.

    Pixels are averaged over blocks; a pixel of the mask is set where any that it averages is.

    >>> import numpy as np
    >>> from adbench.benchmark.figures.contact_sheet import thumbnail
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample
    >>> mask = np.zeros((192, 96), bool)
    >>> mask[0, 0] = True
    >>> small = thumbnail(DisplayedSample("a", np.full((1, 192, 96), 0.5), mask=mask))
    >>> small.x.shape, float(small.x.mean()), int(small.mask.sum())
    ((1, 96, 48), 0.5, 1)
    """
    colours = range(3 if len(sample.x) == 3 else 1)
    channels = [middle_slice(sample, channel) for channel in colours]
    first = channels[0]
    by = -(-max(first.x.shape) // side)

    def mean(values: Array | None) -> Array | None:
        return None if values is None else _block_mean(values.astype(np.float64), by).mean((1, 3))

    def means(arrays: Sequence[Array | None]) -> Array | None:
        small = [each for each in map(mean, arrays) if each is not None]
        return np.stack(small) if len(small) == len(arrays) else None

    def some(pixels: Array | None) -> Array | None:
        return None if pixels is None else _block_mean(pixels > 0, by).max((1, 3))

    x = means([each.x for each in channels])
    assert x is not None
    return replace(
        first, x=x, map=mean(first.map), mask=some(first.mask), roi=some(first.roi),
        reconstruction=means([each.reconstruction for each in channels]), counterpart=None,
    )  # fmt: skip


def _block_mean(values: Array, by: int) -> Array:
    """(H, W) to (H / by, by, W / by, by); the last row and column are repeated to fit."""
    high, wide = values.shape
    padded = np.pad(values, ((0, -high % by), (0, -wide % by)), mode="edge")
    return padded.reshape(padded.shape[0] // by, by, padded.shape[1] // by, by)


def write_contact_sheet(
    path: Path, samples: Sequence[DisplayedSample], maps: Mapping[int, Sequence[Array]], chosen: int
) -> None:
    """Write a PNG with a row per sample: input, mask, reconstruction if any, a map for each level.

    Grey values of maps are from LOWEST for 0 to HIGHEST for `top`, which is one value for all
    levels: below it lie 99.5 % of what is shown at the chosen one. Pixels outside of the region of
    interest are OUTSIDE. The layout in the PNG says where each of them is.

    samples: images (C, H, W), as `thumbnail` gives them
    maps: by level, (H, W) of each sample      chosen: one of these levels

    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from PIL import Image
    >>> from adbench.benchmark.figures.contact_sheet import write_contact_sheet
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample
    >>> sample = DisplayedSample("a", np.full((1, 8, 8), 0.5))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.contact.png"
    ...     write_contact_sheet(path, [sample], {250: [np.ones((8, 8))]}, chosen=250)
    ...     with Image.open(path) as image:
    ...         layout = json.loads(image.text["adbench layout"])
    >>> layout["chosen"], layout["top"], layout["samples"][0]["boxes"]
    (250, 1.0, {'input': [0, 0, 8, 8], 'map 250': [8, 0, 8, 8]})
    """
    at_chosen = [replace(s, map=m) for s, m in zip(samples, maps[chosen], strict=True)]
    top = map_range(at_chosen)
    rows, facts, height = [], [], 0
    for i, sample in enumerate(samples):
        inside = np.ones(sample.x.shape[1:], bool) if sample.roi is None else sample.roi > 0
        tiles = {"input": _grey(sample.x)}
        if sample.mask is not None:
            tiles["truth"] = _grey(sample.mask[None] > 0)
        if sample.reconstruction is not None:
            tiles["reconstruction"] = _grey(sample.reconstruction)
        for level, values in maps.items():
            share = np.clip(np.nan_to_num(values[i] / top, posinf=1.0), 0, 1)
            grey = np.where(inside, LOWEST + np.round(share * (HIGHEST - LOWEST)), OUTSIDE)
            tiles[f"map {level}"] = np.repeat(grey.astype("u1")[..., None], 3, -1)
        high, wide = sample.x.shape[1:]
        boxes = {name: [wide * k, height, wide, high] for k, name in enumerate(tiles)}
        facts.append(
            {
                "key": sample.key,
                "caption": sample.caption,
                "abnormal": bool(sample.label),
                "tags": dict(sample.tags),
                "boxes": boxes,
            }
        )
        rows.append(np.concatenate([*tiles.values()], 1))
        height += high
    page = np.zeros((height, max(row.shape[1] for row in rows), 3), "u1")
    for row, fact in zip(rows, facts, strict=True):
        start = fact["boxes"]["input"][1]
        page[start : start + row.shape[0], : row.shape[1]] = row
    image = Image.fromarray(page)
    if all(len(sample.x) == 1 for sample in samples):
        image = image.convert("L")
    layout = {"samples": facts, "levels": [*maps], "chosen": chosen, "top": top}
    png_info = PngImagePlugin.PngInfo()
    png_info.add_text(LAYOUT, json.dumps(layout))
    with atomic_path(path) as part:
        image.save(part, format="PNG", compress_level=4, pnginfo=png_info)


def _grey(values: Array) -> Array:
    """(1 or 3, H, W) in [0, 1] as grey values or colours (H, W, 3) uint8; others are clipped."""
    small = (np.clip(values, 0, 1) * 255).round().astype("u1")
    return np.moveaxis(np.broadcast_to(small, (3, *small.shape[1:])), 0, -1)
