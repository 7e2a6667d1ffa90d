"""A picture with its heat map laid over it, the outline of what is abnormal, and a colour bar."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..figures.sample_sheet import EDGE, INK, PAPER, heat_colours, outline

Array = np.ndarray[Any, Any]

OPACITY = 0.65
"""How much of the picture the brightest heat hides."""


def draw_overlay(
    picture: Array, map: Array, mask: Array | None, window: float, threshold: float | None
) -> Image.Image:
    """Return a picture at its own size under its heat map, and a colour bar to the right of it.

    picture: (C, H, W) in 0..1, C 1 or 3
    map: (H, W)        mask: (H, W) bool, whose outline is drawn; None for none
    window: the value shown brightest, one for all pictures that are to be compared
    threshold: is marked on the colour bar; None where there is none

    >>> import numpy as np
    >>> from adbench.benchmark.prediction.overlays import draw_overlay
    >>> overlay = draw_overlay(np.zeros((1, 40, 30)), np.zeros((40, 30)), None, 1.0, None)
    >>> overlay.height, overlay.width > 30
    (40, True)
    """
    colours = np.moveaxis(np.clip(picture, 0, 1), 0, -1) * 255
    colours = np.broadcast_to(colours, (*map.shape, 3))
    heat = np.clip(map / window, 0, 1)
    share = (OPACITY * heat)[..., None]
    blended = ((1 - share) * colours + share * heat_colours(heat)).round().astype(np.uint8)
    if mask is not None:
        blended[_thick_outline(mask)] = EDGE
    bar = _colour_bar(map.shape[0], window, threshold)
    page = Image.new("RGB", (map.shape[1] + bar.width, map.shape[0]), PAPER)
    page.paste(Image.fromarray(blended), (0, 0))
    page.paste(bar, (map.shape[1], 0))
    return page


def _thick_outline(mask: Array) -> Array:
    """The border of a mask, inside it, wide enough to be seen in a large picture."""
    from scipy import ndimage

    width = max(1, round(min(mask.shape) / 300))
    line = outline(mask)
    return line if width == 1 else ndimage.binary_dilation(line, iterations=width - 1) & mask


def _colour_bar(height: int, window: float, threshold: float | None) -> Image.Image:
    """The colours from 0, at the bottom, to the window, with its numbers."""
    size = int(np.clip(height / 16, 8, 28))
    font = ImageFont.load_default(size=size)
    marks = {0.0: "0", window: f"{window:.3g}"}
    if threshold is not None and 0 < threshold < window:
        marks[threshold] = f"{threshold:.3g}"
    strip, gap = size, max(2, size // 4)
    text_width = max(int(font.getlength(text)) for text in marks.values())
    bar = Image.new("RGB", (strip + 3 * gap + text_width + 1, height), PAPER)
    ramp = heat_colours(np.linspace(1, 0, height))
    bar.paste(Image.fromarray(np.repeat(ramp[:, None], strip, 1)), (gap, 0))
    pen = ImageDraw.Draw(bar)
    for value, text in marks.items():
        row = round((1 - value / window) * (height - 1))
        colour = EDGE if value == threshold else INK
        pen.line((gap, row, gap + strip - 1, row), fill=colour)
        top = min(max(row - size // 2, 0), max(0, height - size - 2))
        pen.text((2 * gap + strip, top), text, fill=colour, font=font)
    return bar
