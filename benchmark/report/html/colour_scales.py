"""Colours of maps on the page: filters of SVG that colour the grey values of contact sheets.

The usual scale of a method is linear from 0 to one top value, the same at all levels. The common
scale makes methods comparable whatever their units: a colour says what share of the pixels that are
shown of this method at this level is at least as high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...figures.contact_sheet import HIGHEST, LOWEST
from ...figures.sample_sheet import HEAT
from .images import Sheet

COMMON_SCALE = (0.5, 0.005)
"""Shares of the highest pixels at the dark and at the bright end of the common scale, which is
logarithmic between them."""


class ColourScale(NamedTuple):
    """The scale of colours of a method.

    top: the map's value at the bright end of the linear scale
    tables: by level, the position 0 to 1 on the common scale of the grey values 0 to 255

    >>> from adbench.benchmark.report.html.colour_scales import ColourScale
    >>> ColourScale(0.5, {250: "0 1"}).top
    0.5
    """

    top: float
    tables: dict[int, str]


def heat_tables() -> list[str]:
    """The values of red, green and blue of the colours, evenly spaced from dark to bright.

    >>> from adbench.benchmark.report.html.colour_scales import heat_tables
    >>> heat_tables()[0]
    '0 .106 .29 .471 .647 .812 .929 .984 .969 .988'
    """
    return [" ".join(_number(value, 3) for value in HEAT[:, c] / 255) for c in range(3)]


def heat_stops() -> list[tuple[str, str]]:
    """Stops of the same colours for a gradient: where they are and their colour.

    >>> from adbench.benchmark.report.html.colour_scales import heat_stops
    >>> heat_stops()[0], heat_stops()[-1]
    (('0%', '#000004'), ('100%', '#fcffa4'))
    """
    colours = HEAT.astype(int).tolist()
    return [
        (f"{100 * i / (len(colours) - 1):.0f}%", "#" + "".join(f"{part:02x}" for part in colour))
        for i, colour in enumerate(colours)
    ]


def colour_scale(sheet: Sheet) -> ColourScale:
    """The scale of colours of the method of a contact sheet.

    >>> from PIL import Image
    >>> from adbench.benchmark.report.html.colour_scales import colour_scale
    >>> from adbench.benchmark.report.html.images import Sheet
    >>> image = Image.new("L", (2, 1), 1)
    >>> sheet = Sheet("a", image, {"a": {"boxes": {"map 5": [0, 0, 2, 1]}}}, [5], 5, 0.5)
    >>> colour_scale(sheet).top
    0.5
    """
    tables = {}
    for level in sheet.levels:
        tiles = (sheet.tile(key, f"map {level}") for key in sheet.samples)
        counts = np.zeros(HIGHEST + 1)
        for tile in tiles:
            if tile is not None:
                values = np.asarray(tile.convert("L")).ravel()
                counts += np.bincount(values, minlength=HIGHEST + 1)
        tables[level] = " ".join(_number(value, 2) for value in common_positions(counts))
    return ColourScale(sheet.top, tables)


def common_positions(counts: Sequence[float] | np.ndarray) -> list[float]:
    """Positions on the common scale of the grey values 0 to 255 of maps, by how many pixels have
    each; those outside of the region of interest count for nothing.

    >>> import numpy as np
    >>> from adbench.benchmark.report.html.colour_scales import common_positions
    >>> counts = np.zeros(256)
    >>> counts[[1, 100, 255]] = 500, 450, 50
    >>> positions = common_positions(counts)
    >>> positions[1], positions[100], round(positions[255], 2)
    (0.0, 0.0, 0.5)
    """
    inside = np.array(counts, np.float64)
    inside[:LOWEST] = 0
    at_least = np.cumsum(inside[::-1])[::-1] / max(inside.sum(), 1)
    dark, bright = COMMON_SCALE
    return [
        min(1.0, max(0.0, math.log(dark / max(share, 1e-9)) / math.log(dark / bright)))
        if code >= LOWEST and share < dark
        else 0.0
        for code, share in enumerate(at_least.tolist())
    ]


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return text.removeprefix("0") or "0"
