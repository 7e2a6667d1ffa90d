"""Grouped constructor arguments are flat settings, and no name stands twice."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import pytest

from adbench.benchmark.registry.lookup import RegistryError
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


@dataclass(frozen=True)
class Renamed:
    height: int = field(default=1, metadata={"former_names": ("tall",)})


class HasRenamed:
    def __init__(self, *, sizes: Renamed = Renamed()) -> None:
        self.sizes = sizes


def test_a_former_name_sets_the_present_one_and_both_are_refused() -> None:
    assert build(HasRenamed, tall=3).sizes == build(HasRenamed, height=3).sizes == Renamed(3)
    with pytest.raises(ValueError, match="'tall' is the former name of 'height': set one"):
        group_settings(HasRenamed, {"tall": 3, "height": 3})
    ddad = METHODS["ddad"]
    assert ddad.arguments(overrides={"kept": 0.3}) == ddad.arguments(
        overrides={"distillation_weight": 0.3}
    )
    with pytest.raises(RegistryError, match=r"'ddad': 'kept' is the former name"):
        ddad.arguments(overrides={"kept": 0.3, "distillation_weight": 0.3})
