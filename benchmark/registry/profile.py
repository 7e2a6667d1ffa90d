"""A profile: a size of experiments under a name, such as "tiny" or "full"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Profile:
    """A named size of experiments: arguments for methods and datasets, by name or for all ("*").

    origin: the file that first names it
    args: {"methods": {name: {argument: value}}, "datasets": the same}
    levels_by_method: noise levels by method or for all ("*"), in place of the method's own

    >>> profile = Profile("mine", levels_by_method={"*": (250,), "dae": (100,)})
    >>> profile.levels("dae"), profile.levels("anoddpm")
    ((100,), (250,))
    """

    name: str
    about: str = ""
    origin: str = ""
    args: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    levels_by_method: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def levels(self, method: str) -> tuple[int, ...] | None:
        """Return the noise levels that are swept for a method; None for the method's own."""
        return self.levels_by_method.get(method, self.levels_by_method.get("*"))
