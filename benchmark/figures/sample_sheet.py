"""A sheet of a method's predictions: input, reconstruction, map and truth of a few samples.

Windows are fixed, so that sheets can be compared: values are shown from 0 to 1 whatever they
hold, and all maps of a sheet share one window. Letters: C channels, S one to three axes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from ..evaluation.metrics.ranking import Array
from ..store.artifact_store import atomic_path

TILE_PIXELS = 160
"""Pixels across a tile, about; small images are enlarged by a whole factor."""

GAP, TITLE, HEAD, CAPTION, SIGNAL = 6, 26, 20, 18, 320
LAYOUT = "adbench layout"
"""The text in a PNG that says, as JSON, where on the sheet each tile is; the page reads it."""

INK, FAINT, PAPER, EDGE = (235, 235, 235), (150, 150, 150), (18, 18, 18), (0, 230, 118)

HEAT = np.array(
    [
        *((0, 0, 4), (27, 12, 65), (74, 12, 107), (120, 28, 109), (165, 44, 96)),
        *((207, 68, 70), (237, 105, 37), (251, 155, 6), (247, 209, 61), (252, 255, 164)),
    ],
    np.float64,
)
"""Black through purple and orange to pale yellow: brightness grows steadily, also in print."""


@dataclass(frozen=True)
class DisplayedSample:
    """A test sample and what a method made of it.

    x: (C, *S) in [0, 1]                 reconstruction, counterpart: (C, *S) or None
    map, mask, roi: (*S) or None         caption: its strata, in words
    label: whether it is abnormal        tags: its strata, by their names

    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample
    >>> sample = DisplayedSample("a", np.zeros((1, 8, 8)), map=np.ones((8, 8)), caption="tumour")
    >>> sample.map.shape, sample.reconstruction is None
    ((8, 8), True)
    """

    key: str
    x: Array
    reconstruction: Array | None = None
    map: Array | None = None
    mask: Array | None = None
    roi: Array | None = None
    counterpart: Array | None = None
    caption: str = ""
    label: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


def write_sheet(
    path: Path,
    samples: Sequence[DisplayedSample],
    *,
    title: str = "",
    channel: int = 0,
    tile: int = TILE_PIXELS,
) -> None:
    """Write a PNG with a row per sample, and a column for whatever any of them has.

    Of volumes the slice with most of the mask is shown, or the middle one; signals are drawn as
    curves. The position of each tile is written into the PNG, so that a report can show those of
    several methods side by side.

    channel: the one shown      tile: pixels across a tile, about
    Raises ValueError without a sample.

    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from PIL import Image
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample, LAYOUT, write_sheet
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "sheet.png"
    ...     write_sheet(path, [DisplayedSample("a", np.zeros((1, 8, 8)), map=np.ones((8, 8)))])
    ...     with Image.open(path) as image:
    ...         print(list(json.loads(image.text[LAYOUT])["columns"]))
    ['input', 'map']
    """
    if not samples:
        raise ValueError("a sheet wants at least one sample to show")
    samples = [middle_slice(sample, channel) for sample in samples]
    window = map_range(samples)
    if samples[0].x.ndim == 1:
        page, layout = _draw_curves(samples, window, title)
    else:
        page, layout = _draw_tiles(samples, window, title, tile)
    png_info = PngImagePlugin.PngInfo()
    if layout:
        png_info.add_text(LAYOUT, json.dumps(layout))
    with atomic_path(path) as part:
        page.save(part, format="PNG", compress_level=4, pnginfo=png_info)  # 9 takes seconds


def heat_colours(values: Array) -> Array:
    """Return colours (..., 3) uint8 of values in [0, 1], black to pale yellow; others are clipped.

    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import heat_colours
    >>> heat_colours(np.array([0.0, 1.0, 2.0])).tolist()
    [[0, 0, 4], [252, 255, 164], [252, 255, 164]]
    """
    at = np.clip(values, 0, 1) * (len(HEAT) - 1)
    steps = np.arange(len(HEAT))
    return np.stack([np.interp(at, steps, HEAT[:, c]) for c in range(3)], -1).round().astype("u1")


def grey_colours(values: Array) -> Array:
    """Return grey values (..., 3) uint8 of values in [0, 1]; others are clipped.

    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import grey_colours
    >>> grey_colours(np.array([0.0, 1.0, 2.0])).tolist()
    [[0, 0, 0], [255, 255, 255], [255, 255, 255]]
    """
    level = (np.clip(values, 0, 1) * 255).round().astype("u1")
    return np.repeat(level[..., None], 3, -1)


def outline(mask: Array) -> Array:
    """Return the pixels of a mask (H, W) that have a side in common with the outside or the border.

    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import outline
    >>> outline(np.ones((3, 3), bool)).astype(int).tolist()
    [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    from scipy import ndimage

    return mask & np.logical_not(ndimage.binary_erosion(mask))


def middle_slice(sample: DisplayedSample, channel: int) -> DisplayedSample:
    """Return one channel of a sample, and of a volume the slice with most of the mask.

    Without a mask it is the middle slice.

    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample, middle_slice
    >>> mask = np.zeros((4, 2, 2), bool)
    >>> mask[3] = True
    >>> sample = middle_slice(DisplayedSample("a", np.zeros((1, 4, 2, 2)), mask=mask), channel=0)
    >>> sample.x.shape, sample.caption
    ((2, 2), 'slice 3')
    """
    at: tuple[int, ...] = ()
    if sample.x.ndim == 4:
        depth = sample.x.shape[1]
        per_slice = np.zeros(depth) if sample.mask is None else sample.mask.sum((1, 2))
        at = (int(per_slice.argmax()) if per_slice.any() else depth // 2,)

    def cut(array: Array | None, *first: int) -> Array | None:
        return None if array is None else np.asarray(array)[(*first, *at)]

    return replace(
        sample,
        x=np.asarray(sample.x)[(channel, *at)],
        reconstruction=cut(sample.reconstruction, channel),
        map=cut(sample.map),
        mask=cut(sample.mask),
        roi=cut(sample.roi),
        counterpart=cut(sample.counterpart, channel),
        caption=", ".join(filter(None, [sample.caption, f"slice {at[0]}" if at else ""])),
    )


def map_range(samples: Sequence[DisplayedSample]) -> float:
    """Return the value shown brightest: 99.5 % of all that is shown of maps lie below it.

    It is 1 where nothing lies above 0.

    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample, map_range
    >>> map_range([DisplayedSample("a", np.zeros((8, 8)), map=np.full((8, 8), 3.0))])
    3.0
    """
    values = [s.map[_inside(s)] for s in samples if s.map is not None]
    top = float(np.quantile(np.concatenate(values), 0.995)) if values else 0.0
    return top if top > 0 else 1.0


def _inside(sample: DisplayedSample) -> Array:
    shape = sample.x.shape if sample.map is None else sample.map.shape
    return np.ones(shape, bool) if sample.roi is None else sample.roi.astype(bool)


def _columns(
    samples: Sequence[DisplayedSample], window: float
) -> dict[str, Callable[[DisplayedSample, int], Array]]:
    """What is shown, each a way to colour a sample (H, W, 3) enlarged by a factor."""

    def enlarged(colours: Array, by: int) -> Array:
        return colours.repeat(by, 0).repeat(by, 1)

    def nothing(sample: DisplayedSample, by: int) -> Array:
        return enlarged(np.full((*sample.x.shape, 3), PAPER, "u1"), by)

    def map_(sample: DisplayedSample, by: int) -> Array:
        if sample.map is None:
            return nothing(sample, by)
        return enlarged(heat_colours(np.where(_inside(sample), sample.map, 0) / window), by)

    def truth(sample: DisplayedSample, by: int) -> Array:
        colours = enlarged(grey_colours(sample.x), by)
        if sample.mask is not None:
            big = sample.mask.astype(bool).repeat(by, 0).repeat(by, 1)
            colours[outline(big)] = EDGE
        return colours

    def plain(name: str) -> Callable[[DisplayedSample, int], Array]:
        def values(sample: DisplayedSample, by: int) -> Array:
            array = getattr(sample, name)
            return nothing(sample, by) if array is None else enlarged(grey_colours(array), by)

        return values

    columns = {
        "input": plain("x"),
        "reconstruction": plain("reconstruction"),
        "map": map_,
        "truth": truth,
        "without anomaly": plain("counterpart"),
    }
    present = {
        "reconstruction": any(s.reconstruction is not None for s in samples),
        "map": any(s.map is not None for s in samples),
        "truth": any(s.mask is not None for s in samples),
        "without anomaly": any(s.counterpart is not None for s in samples),
    }
    return {name: colour for name, colour in columns.items() if present.get(name, True)}


def _draw_tiles(
    samples: Sequence[DisplayedSample], window: float, title: str, tile: int
) -> tuple[Image.Image, dict[str, Any]]:
    columns = _columns(samples, window)
    side = max(max(s.x.shape) for s in samples)
    by = max(1, round(tile / side))
    high, wide = (by * max(s.x.shape[axis] for s in samples) for axis in (0, 1))
    wide = max(wide, tile // 2)
    page, pen = _page(
        (GAP + len(columns) * (wide + GAP), len(samples) * (high + CAPTION + GAP)), title
    )
    for c, (name, colour) in enumerate(columns.items()):
        x = GAP + c * (wide + GAP)
        text = f"map, 0 to {window:.3g}" if name == "map" else name
        _text(pen, (x, TITLE), text, wide, INK, 13)
        for r, sample in enumerate(samples):
            y = TITLE + HEAD + r * (high + CAPTION + GAP)
            page.paste(Image.fromarray(colour(sample, by)), (x, y))
    for r, sample in enumerate(samples):
        y = TITLE + HEAD + r * (high + CAPTION + GAP) + high
        _text(pen, (GAP, y + 2), _caption(sample), page.width - 2 * GAP, FAINT, 12)
    layout = {
        "columns": {name: GAP + c * (wide + GAP) for c, name in enumerate(columns)},
        "rows": [
            {
                "key": sample.key,
                "caption": sample.caption,
                "top": TITLE + HEAD + r * (high + CAPTION + GAP),
                "size": [by * side for side in reversed(sample.x.shape)],
            }
            for r, sample in enumerate(samples)
        ],
        "enlarged": by,
        "window": window,
    }
    return page, layout


def _draw_curves(
    samples: Sequence[DisplayedSample], window: float, title: str
) -> tuple[Image.Image, dict[str, Any]]:
    """Each signal with its reconstruction and, below, its map; the truth is shaded."""
    high, low, wide = TILE_PIXELS // 2, TILE_PIXELS // 4, 3 * SIGNAL
    step = high + low + CAPTION + 3 * GAP
    page, pen = _page((wide + 2 * GAP, len(samples) * step), title)
    legend = (("input", INK), ("reconstruction", (90, 170, 255)), ("without anomaly", FAINT))
    x = GAP
    for name, colour in (*legend, (f"map, 0 to {window:.3g}", (237, 105, 37)), ("truth", EDGE)):
        x += 16 + _text(pen, (x, TITLE), name, wide, colour, 13)
    for r, sample in enumerate(samples):
        y = TITLE + HEAD + r * step
        length = sample.x.size
        if sample.mask is not None:
            for i in np.flatnonzero(sample.mask).tolist():
                left, right = GAP + i * wide // length, GAP + (i + 1) * wide // length
                pen.rectangle((left, y, max(left, right - 1), y + high + GAP + low), (0, 60, 34))
        for array, (_, colour) in zip(
            (sample.counterpart, sample.reconstruction, sample.x),
            (legend[2], legend[1], legend[0]),
            strict=True,
        ):
            if array is not None:
                _line(pen, array, (GAP, y, wide, high), colour)
        if sample.map is not None:
            place = (GAP, y + high + GAP, wide, low)
            _line(pen, np.where(_inside(sample), sample.map, 0) / window, place, (237, 105, 37))
        _text(pen, (GAP, y + high + low + 2 * GAP), _caption(sample), wide, FAINT, 12)
    return page, {}


def _line(
    pen: ImageDraw.ImageDraw,
    values: Array,
    place: tuple[int, int, int, int],
    colour: tuple[int, int, int],
) -> None:
    """A curve of values in [0, 1] in the box (left, top, width, height), 1 at the top."""
    left, top, wide, high = place
    x = left + (np.arange(values.size) + 0.5) * wide / values.size
    y = top + (1 - np.clip(values, 0, 1)) * (high - 1)
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    pen.line(points, fill=colour, width=1)


def _page(size: tuple[int, int], title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (size[0], TITLE + HEAD + size[1]), PAPER)
    pen = ImageDraw.Draw(page)
    _text(pen, (GAP, 5), title, size[0] - 2 * GAP, INK, 15)
    return page, pen


def _text(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    wide: int,
    colour: tuple[int, int, int],
    size: int,
) -> int:
    """Write on one line what fits into a width; how wide it became."""
    font = ImageFont.load_default(size=size)
    while text and pen.textlength(text, font=font) > wide:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    pen.text(at, text, fill=colour, font=font)
    return int(pen.textlength(text, font=font))


def _caption(sample: DisplayedSample) -> str:
    return f"{sample.key}   {sample.caption}".strip()
