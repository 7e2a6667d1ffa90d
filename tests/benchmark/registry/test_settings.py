"""Grouped constructor arguments are flat settings, and no name stands twice."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest

from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.registry.settings import build, group_settings, setting_parameters

METHODS = Registry.read().methods


@dataclass(frozen=True)
class Sizes:
    width: int = 4
    depth: int = 2


class Grouped:
    def __init__(self, *, sizes: Sizes = Sizes(width=8), rate: float = 0.1) -> None:
        self.sizes, self.rate = sizes, rate


class Doubled:
    def __init__(self, *, sizes: Sizes = Sizes(), width: int = 1) -> None:
        self.sizes, self.width = sizes, width


@pytest.mark.parametrize("name", METHODS)
def test_no_setting_stands_twice_and_a_constructor_takes_fifteen_arguments(name: str) -> None:
    cls = METHODS[name].load()
    assert cls.inference <= setting_parameters(cls).keys()
    assert len(inspect.signature(cls).parameters) - 1 <= 15  # besides spec


def test_fields_are_settings_with_the_groups_defaults() -> None:
    defaults = {key: p.default for key, p in setting_parameters(Grouped).items()}
    assert defaults == {"width": 8, "depth": 2, "rate": 0.1}
    assert group_settings(Grouped, {"rate": 1.0}) == {"rate": 1.0}
    built = build(Grouped, depth=5)
    assert built.sizes == Sizes(8, 5) and built.rate == 0.1
    with pytest.raises(TypeError, match="two settings named 'width'"):
        setting_parameters(Doubled)
