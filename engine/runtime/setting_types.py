"""Types of the settings of methods and of their groups of settings, with their ranges.

The registry checks every setting against its annotation before any data are read, and `adbench
info` shows the range. A number with `Unbounded` may have any value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

T = TypeVar("T")

Count = Annotated[int, Meta(ge=1)]
Several = Annotated[int, Meta(ge=2)]
"""A number of things of which one alone would not do, such as samples of a deviation."""

Depth = Annotated[int, Meta(ge=1, le=100)]
"""A number of layers or blocks, one after another; building very many would take minutes."""

Natural = Annotated[int, Meta(ge=0)]
Level = Annotated[int, Meta(ge=1, le=1000)]
"""A noise level on the 1000-step scale."""

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, Meta(gt=0, le=1)]
Decay = Annotated[float, Meta(ge=0, lt=1)]
"""The share of an average, or of what a layer sees, that may be all but everything."""


def _is_odd(value: int) -> bool:
    return value % 2 == 1


def _is_odd_or_zero(value: int) -> bool:
    return value == 0 or value % 2 == 1


def _rises(values: Sequence[float]) -> bool:
    return sorted(values) == list(values)


RISING = {"check": _rises, "words": "that rise"}
"""A rule beside a range, in the `extra` of an annotation: a function of the value, and words."""

ODD_OR_ZERO = {"check": _is_odd_or_zero, "words": "that is odd or 0"}
Odd = Annotated[int, Meta(ge=1, extra={"check": _is_odd, "words": "that is odd"})]
ZeroOrOdd = Annotated[int, Meta(ge=0, extra=ODD_OR_ZERO)]
Unbounded = Annotated[float, Meta(description="any number")]

CompileMode = Literal["auto", "on", "off", "reduce-overhead"]
"""When networks are compiled: auto, on a GPU, in the mode that fits the input's size; on, on any
device, in torch's default mode; reduce-overhead, on a GPU by CUDA graphs, whatever the size."""

Many = Annotated[Sequence[T], Meta(min_length=1)]
Pair = Annotated[Sequence[T], Meta(min_length=2, max_length=2)]
Range = Annotated[Sequence[T], Meta(min_length=2, max_length=2, extra=RISING)]
"""The lowest and the highest."""
