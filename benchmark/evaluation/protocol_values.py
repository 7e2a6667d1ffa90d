"""The values of a protocol as text: how one is read, and the error of one that is none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..registry.imports import did_you_mean


class ProtocolError(ValueError):
    """A bad protocol: one line, the value and what would do.

    >>> from adbench.benchmark.evaluation.protocol import Protocol, ProtocolError
    >>> try:
    ...     Protocol(reducer="top2")
    ... except ProtocolError as error:
    ...     print(error)
    unknown protocol reducer 'top2'. Did you mean 'top2%'? It is one of top2%, ...
    """

    exit_code = 2


def unknown_value(kind: str, value: str, choices: Sequence[str]) -> ProtocolError:
    """The error of a value that is none of some choices.

    kind: the field of the protocol; empty of the protocol itself

    >>> from adbench.benchmark.evaluation.protocol import unknown_value
    >>> print(unknown_value("reducer", "men", ["mean", "max"]))
    unknown protocol reducer 'men'. Did you mean 'mean'? It is one of mean, max
    """
    hint, what = did_you_mean(value, choices, cutoff=0.4), f"protocol {kind}".rstrip()
    return ProtocolError(f"unknown {what} {value!r}{hint} It is one of {', '.join(choices)}")


def parse_number(
    field_name: str, rule: str, text: str, low: float = -math.inf, high: float = math.inf
) -> float:
    """Read the number in a value of a protocol.

    field_name: the field, for the error
    rule: the value
    text: the number in it
    low, high: between which it has to lie

    Raises ProtocolError on any other text.

    >>> from adbench.benchmark.evaluation.protocol_values import parse_number
    >>> parse_number("reducer", "top2%", "2", 0, 100)
    2.0
    """
    try:
        number = float(text)
    except ValueError:
        raise ProtocolError(f"{field_name} '{rule}' holds no number: '{text}'") from None
    if not low < number < high:
        raise ProtocolError(
            f"{field_name} '{rule}': {text} does not lie between {low:g} and {high:g}"
        )
    return number
