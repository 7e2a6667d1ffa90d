"""Whatever is written for a number is that number, or it is refused in one line."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adbench.benchmark.experiments.matrix import resolve_overrides
from adbench.benchmark.experiments.run_config import (
    MAX_NUMBERS,
    OptionError,
    RunConfig,
    parse_settings,
)
from adbench.benchmark.registry.registry import Registry, RegistryError

REGISTRY = Registry.read()
METHOD = REGISTRY.method("anoddpm")
ODD = [
    "1e3", "3.0", "nan", ".nan", "inf", "-.inf", "1_000", "0x10", "0b11", "0o10", "010", "1:30",
    "1:30.5", "-0", "-0.0", "1e400", "1e-400", "9" * 40, "9" * 5000, "+3", " 3 ", "3;", "1E3", "",
    "~", "yes", "٣", "\uff13", "½", "²", "2020-01-01", "!!float 3", "'3'", "[3]", "[", "&x [*x]",
    "[" * 2000, "{a: 1, a: 2}", "3,4", "50:10:50", "10:50:10", "0:2147483648:1", "1:2", "5::1",
]  # fmt: skip
TEXTS = (
    st.sampled_from(ODD)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.text("0123456789_.eE+-x:,٣½nai []{}&*'", max_size=8)
)


def number(text: str) -> Decimal | None:
    """The number that a text stands for; None where that is not plain."""
    text = text.strip().removeprefix("!!float ").strip("'").replace("_", "")
    plain = "".join(str(int(c)) if c.isdecimal() else c for c in text)
    try:
        if plain.lower().lstrip("+-").startswith(("0x", "0b")):
            return Decimal(int(plain, 0))
        value = Decimal(plain)
    except (InvalidOperation, ValueError):
        return None
    return value if value.is_finite() else None


def refusal(call: Any) -> Any:
    """What a call returns, or None if it is refused in one short line."""
    try:
        return call()
    except (OptionError, RegistryError) as error:
        text = str(error)
        assert "\n" not in text and len(text) < 400, text
        return None


def setting(name: str, text: str) -> Any:
    settings = parse_settings([f"anoddpm.{name}={text}"])
    overrides = resolve_overrides(settings, ["anoddpm"], ["phantom"], REGISTRY)
    return METHOD.arguments(None, overrides["anoddpm"])[name]


@pytest.mark.parametrize("name", ["steps", "lr", "eta"])
@given(text=TEXTS)
@example(text="&x [*x]")
@example(text="010")
@example(text="-0.0")
def test_a_setting_is_the_number_that_is_written(name: str, text: str) -> None:
    value = refusal(lambda: setting(name, text))
    if value is None:
        return
    expected = number(text)
    assert expected is not None and float(value) == float(expected)
    assert math.copysign(1, value) == 1 and isinstance(value, int if name == "steps" else float)


@pytest.mark.parametrize("option", ["levels", "seeds"])
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@example(texts=["0:2147483648:1"])
@example(texts=["10:50:10", "20"])
def test_a_list_of_numbers_is_what_is_written(option: str, texts: list[str]) -> None:
    text = ",".join(texts)
    values = refusal(lambda: getattr(RunConfig.from_options(**{option: text}), option))
    if values is None:
        return
    expected: list[int] = []
    for part in filter(None, text.split(",")):
        ends = [number(end) for end in part.split(":")]
        assert all(end is not None and end == int(end) for end in ends)
        first, last, step = [int(end or 0) for end in (ends if len(ends) == 3 else [*ends * 2, 1])]
        expected += range(first, last + 1, step)
    assert list(values) == list(dict.fromkeys(expected))
    assert 0 < len(values) <= MAX_NUMBERS and min(values) >= (1 if option == "levels" else 0)


@pytest.mark.parametrize("option", ["fraction", "contaminate"])
@given(text=TEXTS)
def test_percents_are_what_is_written(option: str, text: str) -> None:
    values = refusal(lambda: getattr(RunConfig.from_options(**{option: text}), option))
    for part, value in zip(filter(None, text.split(",")), values or (), strict=False):
        assert value == float(number(part) or 0) and 0 <= value <= 100
        assert math.copysign(1, value) == 1


@given(text=TEXTS)
def test_single_numbers_of_the_api_are_what_is_written(text: str) -> None:
    for option in ("limit", "slots", "micro", "workers", "timeout", "checkpoint_interval"):
        options: dict[str, Any] = {option: text}
        value = refusal(lambda options=options: RunConfig(**options))
        value = value and getattr(value, option)
        assert value is None or float(value) == float(number(text) or 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("3.0", 3), ("1_000", 1000), ("0x10", 16), ("010", 10), ("+3", 3)],
)
def test_usual_ways_to_write_a_number_are_taken(text: str, value: int) -> None:
    assert setting("steps", text) == value and setting("lr", text) == value


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["anoddpm.clip="], "no value; write null"),
        (["anoddpm.steps=3", "anoddpm.steps=4"], "anoddpm.steps has two values, 3 and 4"),
        (["anoddpm.steps=3", "anoddpm={steps: 4}"], "two values"),
        (["anoddpm={steps: 3, steps: 4}"], "twice"),
        (["anoddpm.steps=&x [*x]"], "nested too deeply, or within themselves"),
        (["anoddpm.steps=" + "[" * 9 + "]" * 9], "nested too deeply"),
    ],
)
def test_settings_that_say_nothing_or_two_things_are_refused(
    settings: list[str], reason: str
) -> None:
    with pytest.raises(OptionError, match=reason):
        parse_settings(settings)
    assert parse_settings(["a.b=3", "a.b=3"]) == {"a": {"b": 3}}
