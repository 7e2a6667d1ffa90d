"""The pictures of a leaderboard as a figure for papers: a row per sample, a column per method."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from ...evaluation.metrics.connected_components import Array
from ...figures.contact_sheet import HIGHEST, LOWEST
from ...figures.sample_sheet import HEAT
from .chart import Chart, chart_style, letter, printable
from .samples import SampleCard, SamplePictures

ROWS, INCHES, NAME = 6, 1.3, 24
"""Samples in the figure; inches across a picture; letters of a name."""
OUTLINE = "#00b060"


@chart_style()
def pictures_chart(pictures: SamplePictures) -> Chart | None:
    """Return the figure of the first samples, with outlines and a colour bar for each method.

    None where there are no samples.

    >>> from adbench.benchmark.report.html.pictures_chart import pictures_chart
    >>> from adbench.benchmark.report.html.samples import SamplePictures
    >>> pictures_chart(SamplePictures()) is None
    True
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    cards = [card for card in pictures.cards if card.input][:ROWS]
    if not cards:
        return None
    entries = [*pictures.scales]
    columns, rows = 2 + len(entries), len(cards) + 1
    figure = Figure(figsize=(INCHES * columns, INCHES * (len(cards) + 0.5)), layout="constrained")
    grid = figure.subplots(
        rows, columns, squeeze=False, gridspec_kw={"height_ratios": [*([1] * len(cards)), 0.12]}
    )
    heat = LinearSegmentedColormap.from_list("heat", [tuple(colour / 255) for colour in HEAT])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, card in enumerate(cards):
        image = _pixels(card.input or "")
        for column in (0, 1):
            grid[row, column].imshow(image, cmap="gray", vmin=0, vmax=255)
        _draw_outline(grid[row, 1], card)
        grid[row, 0].annotate(
            *(printable(card.key), (0, 0.5)),
            **{"xycoords": "axes fraction", "xytext": (-4, 0), "textcoords": "offset points"},
            **{"rotation": 90, "ha": "right", "va": "center", "fontsize": 7},
        )
        for tile in card.maps:
            axes = grid[row, 2 + entries.index(tile.entry)]
            if tile.chosen in tile.images:
                values = _pixels(tile.images[tile.chosen], "L")
                shown = axes.imshow(values, cmap=heat, vmin=LOWEST, vmax=HIGHEST)
                shown.set_gid(f"map-{row}-{letter(tile.entry)}")
                _draw_outline(axes, card)
    titles = ["input", "truth"]
    for k in entries:
        name = printable(pictures.names[k])
        titles.append(f"{letter(k)} {name if len(name) <= NAME else name[: NAME - 1] + '…'}")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    for column, k in enumerate(entries, 2):
        axes = grid[-1, column]
        axes.set_axis_on()
        axes.imshow(np.linspace(0, 1, 64)[None], cmap=heat, aspect="auto")
        axes.set(yticks=[], xticks=[0, 63])
        axes.set_xticklabels(["0", f"{pictures.scales[k].top:.3g}"], fontsize=7)
        axes.grid(visible=False)
    about = "; ".join(f"{card.key}: {card.caption or 'no tags'}" for card in cards)
    return Chart(
        "pictures", "Test samples", f"Maps of the methods at their levels: {about}.", figure
    )


def _pixels(uri: str, mode: str | None = None) -> Array:
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(image.convert(mode) if mode else image)


def _draw_outline(axes: Any, card: SampleCard) -> None:
    """The outline of the mask, from its path in pixels."""
    for part in card.outline.split("M")[1:]:
        step = "h" if "h" in part else "v"
        start, _, length = part.partition(step)
        x, y = (int(word) - 0.5 for word in start.split())
        end = (x + int(length), y) if step == "h" else (x, y + int(length))
        axes.plot([x, end[0]], [y, end[1]], color=OUTLINE, linewidth=0.8)
