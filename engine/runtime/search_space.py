"""Search spaces: which values of an argument are worth trying, as methods declare them.

A method names them in its class attribute `search_space`, beside its constructor:

    search_space = SearchSpace(lr=Interval(1e-5, 1e-3, log=True), noise=Choice("simplex", "coarse"))

They are narrower than what the constructor takes: an argument that only spends more, such as the
number of steps, is in none, since all methods are to have the same budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included; whole ones where both ends are.

    log: of equal density in their logarithms
    Raises ValueError where the ends are not in order, or a logarithm does not exist.

    >>> Interval(1, 8).is_integer, 2.5 in Interval(1, 8), 8 in Interval(1.0, 8.0)
    (True, False, True)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"an interval rises, from above 0 if log: {self.low}, {self.high}")

    @property
    def is_integer(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        """Whether a value lies in it, and is whole if it must be."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self.low <= value <= self.high and (not self.is_integer or value == int(value))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


class Choice:
    """One of several values, without an order.

    >>> "max" in Choice("max", "mean"), str(Choice("max", "mean"))
    (True, 'max or mean')
    """

    def __init__(self, *values: str | float | bool | None) -> None:
        if len(values) < 2:
            raise ValueError("a choice is between two values at least")
        self.values = values

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(each) and value == each for each in self.values)

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


class SearchSpace(Mapping[str, Interval | Choice]):
    """What may be tried, by the name of the argument; empty of a method that is not tuned.

    >>> dict(SearchSpace(lr=Interval(1e-5, 1e-3, log=True)))
    {'lr': Interval(low=1e-05, high=0.001, log=True)}
    """

    def __init__(self, **parts: Interval | Choice) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> Interval | Choice:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)
