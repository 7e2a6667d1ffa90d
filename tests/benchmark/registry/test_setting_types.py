"""Every argument of every method, dataset, protocol and executor is checked before it is used."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
import msgspec
import numpy as np
import pytest

from adbench.benchmark.cli.run_options import OPTIONS
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.executors.selection import ExecutorSelection
from adbench.benchmark.executors.slurm_options import SUBMITIT_TYPES, parse_options
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.registry.imports import constructor_parameters
from adbench.benchmark.registry.registry import Entry, Registry, RegistryError
from adbench.benchmark.registry.setting_types import (
    convert_setting,
    describe_type,
    explain_refusal,
)

REGISTRY = Registry.read()
ENTRIES = {**REGISTRY.methods, **REGISTRY.datasets}
FOUR: Any = Annotated[int, annotated_types.Interval(ge=4, lt=5)]
OPEN_TEXTS = {
    "root", "category", "group", "x", "label", "mask", "roi", "split", "task", "others", "inside",
    "outside", "signal", "modalities", "range",
}  # fmt: skip
"""Settings that name files, folders or what stands in them: any text is one."""


def leaves(annotation: Any, bounds: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """(type, metadata) of every scalar inside of an annotation."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from leaves(parts[0], parts[1:])
    elif origin is Literal or not parts:
        yield annotation, bounds
    else:
        for part in parts:
            yield from leaves(part)


def out_of_range(annotation: Any) -> Iterator[Any]:
    """Values of the right type below and above a range, or in a list of a wrong length."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated and get_origin(parts[0]) is None:
        meta, step = parts[1], 1 if parts[0] is int else 1e-3
        if meta.ge is not None:
            yield meta.ge - step
        if meta.gt is not None:
            yield meta.gt
        if meta.le is not None:
            yield meta.le + step
        if meta.lt is not None:
            yield meta.lt
    elif origin is Annotated:
        yield from out_of_range(parts[0])
        if parts[1].min_length:
            yield []
        if parts[1].max_length:
            yield [1] * (parts[1].max_length + 1)
    elif origin is not Literal and isinstance(origin, type) and issubclass(origin, Mapping):
        yield from ({"train": bad} for bad in out_of_range(parts[1]))
    elif origin is not Literal and isinstance(origin, type) and "abc" in origin.__module__:
        yield from ([bad] for bad in out_of_range(parts[0]))
    elif origin is not Literal:  # a union: what no other member takes
        yield from (bad for part in parts for bad in out_of_range(part))


def refusal(entry: Entry, key: str, value: Any) -> str:
    with pytest.raises(RegistryError) as caught:
        entry.arguments(None, {key: value})
    text = str(caught.value)
    assert "\n" not in text and f"{key} " in text and entry.name in text, text
    return text


def wrong_values(annotation: Any) -> list[Any]:
    """Values of wrong types, below and above the range, and a wrong word."""
    kinds = [kind for kind, _ in leaves(annotation)]
    wrong: list[Any] = [{"no": {"such": "thing"}}, math.nan, *out_of_range(annotation)]
    wrong += [] if str in kinds else ["no such word"]
    wrong += [] if bool in kinds else [True, "true"] if str not in kinds else [True]
    wrong += ["false", 1, 0.5] if kinds == [bool] else []
    wrong += [2.5] if int in kinds and float not in kinds else []
    wrong += [5] if not {int, float} & {*kinds} and 3 not in get_args(annotation) else []
    if 3 in [word for kind in kinds for word in get_args(kind)]:
        wrong.remove(5) if 5 in wrong else None
    return wrong


@pytest.mark.parametrize("name", ENTRIES)
def test_every_wrong_value_of_every_argument_is_refused(name: str) -> None:
    entry = ENTRIES[name]
    for key, parameter in entry.parameters().items():
        annotation = parameter.annotation
        assert annotation is not inspect.Parameter.empty and not isinstance(annotation, str), key
        for value in wrong_values(annotation):
            refusal(entry, key, value)


@pytest.mark.parametrize("cls", [Protocol, RunConfig, ExecutorSelection])
def test_every_wrong_value_of_a_protocol_a_run_and_an_executor_is_refused(cls: Any) -> None:
    required: dict[str, Any] = {"executor": "slurm"} if cls is ExecutorSelection else {}
    for key, parameter in constructor_parameters(cls).items():
        for value in wrong_values(parameter.annotation):
            if key == "settings" and isinstance(value, dict):
                continue  # settings of a method or dataset `no`, which the matrix refuses
            with pytest.raises(ValueError) as caught:
                cls(**(required | {key: value}))
            text, name = str(caught.value), {"datasets": "dataset", "settings": "set"}.get(key, key)
            assert "\n" not in text and name.replace("_", "-") in text, text
            assert cls is ExecutorSelection or getattr(caught.value, "exit_code", None) == 2
        for kind, metadata in leaves(parameter.annotation):
            assert metadata or kind not in (int, float), f"{key}: a range"


def test_numbers_of_a_run_may_be_written_as_text_or_come_from_numpy() -> None:
    config = RunConfig(["pca"], limit=np.int64(3), timeout="1e2", seeds=["1"])  # pyright: ignore[reportArgumentType]
    assert (config.limit, config.timeout, config.seeds) == (3, 100.0, [1])
    assert Protocol(budget="1e6").budget == 10**6  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("key", SUBMITIT_TYPES)
def test_every_wrong_option_of_slurm_is_refused(key: str) -> None:
    for value in ("many", "-1", "2.5", "nan") if SUBMITIT_TYPES[key] is not str else ():
        with pytest.raises(ValueError, match=f"--slurm {key} is a whole number"):
            parse_options([f"{key}={value}"])


def test_the_help_of_a_run_shows_the_ranges_and_words_of_its_options() -> None:
    fields = {**constructor_parameters(Protocol), **constructor_parameters(RunConfig)}
    del fields["level"]
    fields["level_rule"] = constructor_parameters(Protocol)["level"]
    for key, option in OPTIONS.items():
        kind, info = get_args(option)
        for leaf, metadata in leaves(fields[key].annotation) if key in fields else ():
            if kind in (int, float) and metadata:
                low = metadata[0].ge if metadata[0].ge is not None else metadata[0].gt
                assert info.min == low, key
            if get_origin(leaf) is Literal:
                assert all(f"{word}" in info.help for word in get_args(leaf)), (key, info.help)


@pytest.mark.parametrize("name", ENTRIES)
def test_no_number_is_without_a_range_and_no_text_open_by_oversight(name: str) -> None:
    for key, parameter in ENTRIES[name].parameters().items():
        for kind, metadata in leaves(parameter.annotation):
            if kind in (int, float):
                assert metadata, f"{key}: a range, or Unbounded"
            if kind is str:
                assert key in OPEN_TEXTS


def test_every_default_and_every_profile_is_allowed() -> None:
    for entry in ENTRIES.values():
        for profile in (None, *REGISTRY.profiles):
            entry.arguments(profile)


@pytest.mark.parametrize(
    ("value", "annotation", "result"),
    [
        ("1e3", int, 1000),
        (3.0, int, 3),
        ("7", int | None, 7),
        (None, int | None, None),
        (1, float, 1.0),
        ("1e-4", Literal["auto"] | float, 1e-4),
        (["1e2", 3.0], list[int], [100, 3]),
        ("5", str, "5"),
        (4, Annotated[int, annotated_types.Gt(3)], 4),
        (4, FOUR | None, 4),
    ],
)
def test_what_stands_for_a_number_is_one(value: Any, annotation: Any, result: Any) -> None:
    converted = convert_setting(value, annotation)
    assert converted == result and type(converted) is type(result)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (3, Annotated[int, annotated_types.Gt(3)]),
        (5, FOUR | None),
        ([1, 2], Annotated[list[int], annotated_types.Len(3, 3)]),
        ([2, 1], Annotated[list[int], msgspec.Meta(extra={"check": lambda v: v[0] < v[1],
            "words": "that rise"})]),
        (True, int), (1, bool), ("true", bool), (2.5, int), ("abc", int), (8, list[int]),
    ],
)  # fmt: skip
def test_other_values_are_refused(value: Any, annotation: Any) -> None:
    with pytest.raises(ValueError):
        convert_setting(value, annotation)


def test_what_is_refused_says_what_would_do() -> None:
    small: Any = Annotated[int, msgspec.Meta(ge=1)]
    assert explain_refusal("abc", small, 300) == "a whole number such as 300, not 'abc'"
    assert explain_refusal(0, small) == "a whole number of at least 1, not 0"
    assert explain_refusal("1,2", list[int]).endswith("write [1, 2]")
    assert explain_refusal(8, list[int]).endswith("write [8]")
    assert explain_refusal(5, str).endswith("write it in quotes")
    assert explain_refusal("Map", Literal["map", "mean"]).endswith("Did you mean 'map'?")
    assert len(explain_refusal("x" * 10_000, int)) < 100
    assert describe_type(small | None) == "a whole number of at least 1 or null"


def test_numbers_of_numpy_are_numbers() -> None:
    values = ENTRIES["anoddpm"].arguments(None, {"steps": np.int64(5), "lr": np.float32(0.5)})
    assert (values["steps"], values["lr"]) == (5, 0.5)
    with pytest.raises(RegistryError, match="64 bits"):
        ENTRIES["anoddpm"].arguments(None, {"steps": 10**30})
