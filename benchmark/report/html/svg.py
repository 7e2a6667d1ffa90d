"""Where the marks of a chart stand, in its own units: numbers and words only, no markup.

A chart is WIDE by HIGH; the template draws it as SVG, and escapes every word. Nothing is told by
colour alone: a line has a letter, dashes and a colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

WIDE, HIGH = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 34, 12, 44
STYLES = 8
"""Colours and dashes before they begin again; letters go on."""


class Tick(NamedTuple):
    at: float
    text: str


class Mark(NamedTuple):
    """shape: `chosen`, `published`, `oracle`, `dot` or `front`; title: what a pointer is told."""

    x: float
    y: float
    shape: str
    title: str


class Bar(NamedTuple):
    """An interval, or a rectangle of a histogram: left, top, width and height."""

    x: float
    y: float
    wide: float
    high: float
    title: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """letter, style: which row of the board; points: of an SVG polyline; bars: intervals."""

    letter: str
    style: int
    points: str = ""
    marks: list[Mark] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    label: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    title: str
    about: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    level: Tick | None = None
    """Height of a line across, and what it stands for."""


@dataclass(frozen=True)
class Axis:
    """From values to places along a side; `log` puts 0 (and below) at its beginning."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        if self.log and value <= 0:
            return self.start
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        first = self.start + (0.08 * (self.end - self.start) if self.log else 0)
        return round(first + share * (self.end - first), 1)

    def ticks(self) -> list[Tick]:
        if not self.log:
            return [Tick(self.at(v), f"{v:g}") for v in steps(self.low, self.high)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        marks = (1, 2, 5) if len(powers) < 4 else (1, 3) if len(powers) < 6 else (1,)
        values = [10.0**p * m for p in powers for m in marks]
        inside = [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]
        return [Tick(self.at(0), "0"), *(Tick(self.at(v), f"{v:g}") for v in inside)]


def steps(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def across(values: Sequence[float], *, log: bool = False) -> Axis:
    """The axis from left to right that holds the values."""
    known = [v for v in values if v > 0] if log else list(values)
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    if log:
        low, high = low / 1.5, high * 1.5
    elif low == high:
        low, high = low - 1, high + 1
    return Axis(low, high, LEFT, WIDE - RIGHT, log)


def upward(values: Sequence[float]) -> Axis:
    """The axis from bottom to top that holds the values of a metric, which lies in 0..1."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = max(0.02, 0.08 * (high - low))
    low, high = max(0.0, low - room), min(1.0, high + room)
    if high <= low:
        low, high = 0.0, 1.0
    return Axis(low, high, HIGH - BOTTOM, TOP)


def apart(heights: Sequence[float], least: float = 12.0) -> list[float]:
    """The heights moved so that letters at them do not overlap; their order is kept."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    found = [0.0] * len(heights)
    last = -math.inf
    for i in order:
        last = found[i] = max(heights[i], last + least)
    over = last - (HIGH - BOTTOM)
    return [height - over if over > 0 else height for height in found]


def polyline(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def letter(index: int) -> str:
    """A, B, … Z, AA, AB, …: what a row of a board is called in its charts."""
    index, last = divmod(index, 26)
    return (letter(index - 1) if index else "") + chr(ord("A") + last)
