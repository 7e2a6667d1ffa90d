"""A chart drawn with matplotlib: SVG within the page, and SVG, PDF and PNG files.

matplotlib is imported when the first chart is drawn. Nothing depends on colour alone: a line has a
letter, dashes and a colour. Files have the colours of the light theme; within the page they are
variables of its style, so that light and dark mode both show them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from .compact_svg import compact_svg

WIDTH, HEIGHT = 430, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 34, 12, 44
"""Points, 72 in an inch: the size of a chart, and its margins."""

LIGHT_THEME = {
    **{"ink": "#1a1a1a", "faint": "#5c5c5c", "line": "#c9c9c9"},
    **{"c0": "#0b5fa5", "c1": "#b3400f", "c2": "#1b7a4b", "c3": "#8a3b8f"},
    **{"c4": "#7a6000", "c5": "#404040", "c6": "#00707d", "c7": "#b0246a"},
}
"""Variables of the page's style that charts use."""

DASHES = ((), (8, 4), (2, 3), (10, 3, 2, 3), (5, 2), (12, 5), (1, 5), (6, 2, 1, 2, 1, 2))
STYLES = len(DASHES)
"""Colours and dashes before they begin again; letters go on."""

MAX_METHODS = 12
"""Methods of a leaderboard in its charts and pictures, the best; more cannot be distinguished."""

INK, FAINT = LIGHT_THEME["ink"], LIGHT_THEME["faint"]
RC = {
    **{"svg.fonttype": "none", "svg.hashsalt": "adbench", "pdf.fonttype": 42},
    **{"font.size": 12, "axes.titlesize": 12, "axes.labelsize": 12, "text.parse_math": False},
    **{"xtick.labelsize": 12, "ytick.labelsize": 12, "xtick.color": FAINT, "ytick.color": FAINT},
    **{"text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": LIGHT_THEME["line"]},
    "axes.facecolor": "none",
    **{"axes.grid": True, "grid.color": LIGHT_THEME["line"], "grid.linewidth": 0.6},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"lines.scale_dashes": False, "axes.formatter.useoffset": False},
}


@dataclass
class Chart:
    """A matplotlib figure with its title, and what describes it to those who cannot see it.

    name: of its files      about: the text read in place of the figure
    tooltips: what is shown where the pointer is, by the gid of the artist

    >>> from adbench.benchmark.report.html.chart import Chart, draw_line, new_chart
    >>> chart = new_chart("recall", "Recall", "Recall over threshold.", "threshold", "recall")
    >>> draw_line(chart, 0, [0.0, 1.0], [1.0, 0.25])
    >>> chart.artist("A-line").get_ydata().tolist()
    [1.0, 0.25]
    >>> chart.rendered("png")[1:4]
    b'PNG'
    """

    name: str
    title: str
    about: str
    figure: Any
    tooltips: dict[str, str] = field(default_factory=dict)

    @property
    def axes(self) -> Any:
        return self.figure.axes[0]

    def artist(self, gid: str) -> Any:
        """The artist of this gid."""
        (artist,) = self.figure.findobj(lambda each: each.get_gid() == gid)
        return artist

    def inline_svg(self, prefix: str) -> Any:
        """The chart as an element of an HTML page, with ids that begin with the prefix."""
        from markupsafe import Markup

        svg = self.rendered("svg", facecolor="none")
        variables = {colour: f"var(--{name})" for name, colour in LIGHT_THEME.items()}
        root = compact_svg(svg, f"{prefix}-{self.name}-", self.tooltips, variables)
        for name in ("width", "height", "version"):
            root.attrib.pop(name, None)
        root.attrib |= {"role": "img", "aria-label": self.about}
        text = ElementTree.tostring(root, encoding="unicode")  # in which `>` of a text is escaped
        return Markup(text.replace(" />", "/>"))

    def rendered(self, kind: str, facecolor: str = "white") -> bytes:
        """The file of a kind, `svg`, `pdf` or `png`; the same bytes whenever it is drawn."""
        undated: dict[str, dict[str, None]] = {
            "svg": {"Date": None},
            "pdf": {"CreationDate": None},
            "png": {},
        }
        out = io.BytesIO()
        with chart_style():
            self.figure.savefig(
                out, format=kind, facecolor=facecolor, dpi=150, metadata=undated[kind]
            )
        return out.getvalue()


@contextmanager
def chart_style() -> Iterator[None]:
    """Apply matplotlib's settings for charts while drawing or saving; also a decorator.

    >>> import matplotlib
    >>> from adbench.benchmark.report.html.chart import chart_style
    >>> with chart_style():
    ...     matplotlib.rcParams["axes.spines.top"]
    False
    """
    import matplotlib

    with matplotlib.rc_context(RC):  # pyright: ignore[reportArgumentType]
        yield


def new_chart(name: str, title: str, about: str, x_title: str, y_title: str) -> Chart:
    """An empty chart of the usual size with one pair of axes.

    >>> from adbench.benchmark.report.html.chart import new_chart
    >>> chart = new_chart("recall", "Recall", "Recall over threshold.", "threshold", "recall")
    >>> chart.axes.get_xlabel(), (chart.figure.get_size_inches() * 72).tolist()
    ('threshold', [430.0, 270.0])
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
    wide, high = (WIDTH - LEFT - RIGHT) / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, wide, high))
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    axes.tick_params(length=0)
    return Chart(name, title, about, figure)


def draw_line(chart: Chart, k: int, x: Sequence[float], y: Sequence[float]) -> None:
    """Draw the line of entry `k` of a leaderboard through points, in its colour and dashes.

    k: index of the entry, which is 0 for the line with gid `A-line`

    >>> from adbench.benchmark.report.html.chart import draw_line, new_chart
    >>> chart = new_chart("recall", "Recall", "Recall over threshold.", "threshold", "recall")
    >>> draw_line(chart, 1, [100, 250], [0.4, 0.5])
    >>> chart.artist("B-line").get_xydata().tolist()
    [[100.0, 0.4], [250.0, 0.5]]
    """
    dashes = DASHES[k % STYLES]
    chart.axes.plot(
        *(x, y),
        **{"color": LIGHT_THEME[f"c{k % STYLES}"], "linewidth": 2, "gid": f"{letter(k)}-line"},
        linestyle=(0, dashes) if dashes else "-",
    )


MARKERS = {
    "chosen": ("o", 8, True),
    "published": ("s", 14, False),
    "oracle": ("D", 15, False),
    "point": ("o", 8, True),
    "front": ("o", 18, False),
}
"""Marker, its size in points, and whether it is filled."""


def draw_mark(
    chart: Chart, k: int, x: float, y: float, shape: str, tooltip: str, number: str = ""
) -> None:
    """Draw a mark of entry `k` with its tooltip; the gid is `A-chosen` for k = 0, shape `chosen`.

    shape: of MARKERS      number: appended to the gid where an entry has several marks of a shape

    >>> from adbench.benchmark.report.html.chart import draw_mark, new_chart
    >>> chart = new_chart("recall", "Recall", "Recall over threshold.", "threshold", "recall")
    >>> draw_mark(chart, 0, 250, 0.5, "chosen", "AnoDDPM: 0.500 at level 250")
    >>> chart.tooltips
    {'A-chosen': 'AnoDDPM: 0.500 at level 250'}
    """
    marker, size, filled = MARKERS[shape]
    colour = LIGHT_THEME[f"c{k % STYLES}"]
    gid = f"{letter(k)}-{shape}{number}"
    chart.axes.plot(
        *([x], [y], marker),
        **{"color": colour, "markersize": size, "gid": gid, "clip_on": False, "zorder": 3},
        markerfacecolor=colour if filled else "none",
        markeredgewidth=0 if filled else 1.6,
    )
    chart.tooltips[gid] = tooltip


def draw_interval(chart: Chart, k: int, x: float, low: float, high: float, tooltip: str) -> None:
    """Draw the vertical interval of entry `k` at x, with its tooltip, under the gid `A-interval`.

    >>> from adbench.benchmark.report.html.chart import draw_interval, new_chart
    >>> chart = new_chart("recall", "Recall", "Recall over threshold.", "threshold", "recall")
    >>> draw_interval(chart, 0, 250, 0.4, 0.6, "AnoDDPM: 0.400 to 0.600")
    >>> chart.artist("A-interval").get_ydata().tolist()
    [0.4, 0.6]
    """
    gid = f"{letter(k)}-interval"
    style = {"marker": "_", "markersize": 8, "linewidth": 1.4, "clip_on": False, "gid": gid}
    chart.axes.plot([x, x], [low, high], color=LIGHT_THEME[f"c{k % STYLES}"], **style)
    chart.tooltips[gid] = tooltip


def draw_seeds(chart: Chart, k: int, points: Sequence[tuple[float, float]], tooltip: str) -> None:
    """Draw the single seeds of method `k` as small points (x, y), under the gid `A-seeds`.

    >>> from adbench.benchmark.report.html.chart import draw_seeds, new_chart
    >>> chart = new_chart("cost", "Cost", "Metric over cost.", "evaluations", "pixel AP")
    >>> draw_seeds(chart, 0, [(4, 0.4), (4, 0.6)], "AnoDDPM: single seeds")
    >>> chart.artist("A-seeds").get_ydata().tolist()
    [0.4, 0.6]
    """
    gid = f"{letter(k)}-seeds"
    style = {"markersize": 3.5, "markeredgewidth": 0, "alpha": 0.7, "clip_on": False, "zorder": 4}
    x, y = zip(*points, strict=True)
    chart.axes.plot(x, y, "o", color=LIGHT_THEME[f"c{k % STYLES}"], gid=gid, **style)
    chart.tooltips[gid] = tooltip


def draw_letters(
    chart: Chart, ends: Sequence[tuple[int, float, float]], offset: float = 10.0
) -> None:
    """Draw the letters of entries at the right of points (k, x, y), without overlaps.

    The limits of the axes must be set before.

    offset: of the letters from the points, in points of 1/72 inch

    >>> from adbench.benchmark.report.html.chart import draw_letters, new_chart
    >>> chart = new_chart("recall", "Recall", "Recall over threshold.", "threshold", "recall")
    >>> draw_letters(chart, [(0, 1.0, 0.5), (1, 1.0, 0.5)])
    >>> [text.get_text() for text in chart.axes.texts]
    ['A', 'B']
    >>> float(chart.axes.texts[1].xyann[1] - chart.axes.texts[0].xyann[1])  # points
    12.0
    """
    low, high = chart.axes.get_ylim()
    points = HEIGHT - TOP - BOTTOM
    heights = [(y - low) / (high - low) * points for _, _, y in ends]
    for (k, x, y), height, moved in zip(ends, heights, spread_apart(heights), strict=True):
        chart.axes.annotate(
            *(letter(k), (x, y), (offset, moved - height)),
            **{"textcoords": "offset points", "va": "center", "ha": "center", "weight": "bold"},
            **{"color": LIGHT_THEME[f"c{k % STYLES}"], "annotation_clip": False},
        )


def set_log_axis(axes: Any, values: Sequence[float]) -> None:
    """Make x logarithmic over the positive values, with 0 at its beginning where it occurs.

    >>> from adbench.benchmark.report.html.chart import new_chart, set_log_axis
    >>> chart = new_chart("cost", "Cost", "Metric over cost.", "evaluations", "pixel AP")
    >>> set_log_axis(chart.axes, [10.0, 1000.0])
    >>> chart.axes.get_xticks().tolist()
    [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    positive = [value for value in values if value > 0]
    low, high = min(positive) / 1.5, max(positive) * 1.5
    zero = min(values) <= 0
    axes.set_xscale("symlog", linthresh=low, linscale=0.2)
    axes.set_xlim(0 if zero else low, high)
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 3 else (1, 3) if decades < 4 else (1,)
    ticks = [v for v in LogLocator(subs=steps).tick_values(low, high) if low <= v <= high]
    axes.xaxis.set_major_locator(FixedLocator([0.0, *ticks] if zero else ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def metric_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis that shows values of a metric: a margin of 8 %, within [0, 1].

    >>> from adbench.benchmark.report.html.chart import metric_limits
    >>> [round(limit, 3) for limit in metric_limits([0.25, 0.75])]
    [0.21, 0.79]
    >>> [round(limit, 3) for limit in metric_limits([0.0, 1.0])]
    [0.0, 1.0]
    """
    low, high = min(values), max(values)
    margin = max(0.02, 0.08 * (high - low))
    low, high = max(0.0, low - margin), min(1.0, high + margin)
    return (low, high) if high > low else (0.0, 1.0)


def spread_apart(heights: Sequence[float], distance: float = 12.0) -> list[float]:
    """The heights moved so that letters at them do not overlap, in the same order.

    >>> spread_apart([30.0, 29.0, 100.0])
    [41.0, 29.0, 100.0]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = [0.0] * len(heights)
    last = -math.inf
    for i in order:
        last = moved[i] = max(heights[i], last + distance)
    excess = max(0.0, last - (HEIGHT - TOP - BOTTOM))
    return [height - excess for height in moved]


def letter(index: int) -> str:
    """A, B, … Z, AA, AB, …: what an entry of a leaderboard is called in its charts.

    >>> letter(1), letter(26)
    ('B', 'AA')
    """
    index, last = divmod(index, 26)
    return (letter(index - 1) if index else "") + chr(ord("A") + last)


def printable(text: str) -> str:
    """The text with what fonts cannot show replaced by a question mark.

    >>> printable("a\\x00b")
    'a?b'
    """
    return "".join(c if c.isprintable() else "?" for c in text)
