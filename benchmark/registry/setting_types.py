"""Types and ranges of settings: convert a value to its annotation, describe an annotation in words.

An annotation is whatever msgspec converts to: int, float, bool, str, Literal, Sequence, Mapping and
unions of them. A range stands in `Annotated[int, msgspec.Meta(ge=1)]`, or in the classes of the
package annotated-types, which are read by the names of their attributes.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import msgspec

from .imports import constructor_parameters, did_you_mean

BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
"""Attributes of an annotation's metadata that restrict a value."""

_NAMES = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    NoneType: ("null", "null"),
}


def convert_setting(value: Any, annotation: Any) -> Any:
    """Return a value as its annotation has it: text or 3.0 as the number that it stands for.

    value: of JSON types
    annotation: of the setting; with `inspect.Parameter.empty` or Any, every value is allowed

    Raises ValueError where the value is of another type or out of range, and TypeError on an
    annotation that cannot be checked.

    >>> convert_setting("1e3", int), convert_setting([1, "2"], list[float])
    (1000, [1.0, 2.0])
    """
    if annotation in (inspect.Parameter.empty, Any):
        return value
    target, problem = _msgspec_type(annotation), None
    value = _convert_leaves(value, _unsigned_zero)
    numbers = _convert_leaves(value, _parse_number)
    for candidate in (value, numbers, _convert_leaves(numbers, _whole_number)):
        try:
            converted = msgspec.convert(candidate, target)
        except msgspec.ValidationError as error:
            problem = error
            continue
        for rule in _rules(annotation):
            if converted is not None and not rule["check"](converted):
                raise ValueError(f"not {rule['words']}")
        return converted
    raise ValueError(str(problem)) from problem


def describe_type(annotation: Any) -> str:
    """Return in words which values an annotation allows.

    >>> describe_type(Annotated[int, msgspec.Meta(ge=1)] | None)
    'a whole number of at least 1 or null'
    >>> describe_type(Annotated[list[Literal["t1", "t2"]], msgspec.Meta(max_length=2)])
    "a list of 0 to 2 words among 't1', 't2'"
    """
    return _any_of(_describe(annotation))


def explain_refusal(value: Any, annotation: Any, example: Any = None) -> str:
    """Return in words what an annotation allows, that a value is not that, and a suggestion.

    The range is named where the type is right.

    example: a valid value, shown unless the annotation lists its values; None for none

    >>> explain_refusal("abc", int, 300100)
    "a whole number such as 300100, not 'abc'"
    >>> explain_refusal("Cosine", Literal["none", "cosine"])
    "'none' or 'cosine', not 'Cosine'. Did you mean 'cosine'?"
    """
    words = [word for word in _literals(annotation) if isinstance(word, str)]
    such_as = "" if example is None or words or annotation is bool else f" such as {example}"
    plain = _without_ranges(annotation)
    allowed = describe_type(annotation if _is_allowed(value, plain) else plain)
    text = f"{allowed}{such_as}, not {reprlib.repr(value)}"
    if isinstance(value, str) and words:
        return text + did_you_mean(value, words).rstrip(".")
    alternative = _list_of(value)
    if _is_allowed(alternative, annotation):
        return f"{text}; write {alternative}"
    if isinstance(value, (int, float)) and _is_allowed(str(value), annotation):
        return f"{text}; write it in quotes"
    return text


def convert_fields(instance: Any, describe: Callable[[str], str] = str) -> None:
    """Convert every field of a frozen dataclass to its annotation, in place.

    A tuple or a list keeps its type.

    instance: of a dataclass, as in its `__post_init__`
    describe: what errors call a field, from its name

    Raises ValueError on the first field of another type or out of its range.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Window:
    ...     size: Annotated[int, msgspec.Meta(ge=1)] = 3
    ...     def __post_init__(self):
    ...         convert_fields(self)
    >>> Window("1e2")
    Window(size=100)
    >>> Window(0)
    Traceback (most recent call last):
    ValueError: size is a whole number of at least 1 such as 3, not 0
    """
    annotations = constructor_parameters(type(instance))
    for field in fields(instance):
        annotation, value = annotations[field.name].annotation, getattr(instance, field.name)
        example = field.default if isinstance(field.default, (int, float, str)) else None
        try:
            if _is_config_class(annotation) and not isinstance(value, annotation):
                raise ValueError("another type")  # msgspec would build one of a mapping
            plain = list(value) if isinstance(value, range) else _plain_number(value)
            converted = _finite(convert_setting(plain, annotation))
        except ValueError:
            reason = explain_refusal(value, annotation, example)
            raise ValueError(f"{describe(field.name)} is {reason}") from None
        if isinstance(value, (tuple, list)):
            converted = type(value)(converted)
        object.__setattr__(instance, field.name, converted)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _plain_number(value: Any) -> Any:
    """A number of another library, such as numpy's, as Python's."""
    if isinstance(value, (bool, int, float)) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _list_of(value: Any) -> list[Any]:
    """What a list would be that was written without brackets."""
    if not isinstance(value, str):
        return [value]
    parts = [part.strip() for part in value.strip("()[] ").split(",")]
    return [_parse_number(part) for part in parts if part]


def _is_allowed(value: Any, annotation: Any) -> bool:
    try:
        convert_setting(value, annotation)
    except ValueError:
        return False
    return True


def _without_ranges(annotation: Any) -> Any:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _without_ranges(parts[0])
    return annotation if origin is Literal else _with_parts(annotation, _without_ranges)


def _with_parts(annotation: Any, convert: Callable[[Any], Any]) -> Any:
    """The annotation with every part of it converted."""
    origin, parts = get_origin(annotation), tuple(map(convert, get_args(annotation)))
    if not parts:
        return annotation
    if origin in (Union, UnionType):
        return Union[parts]  # noqa: UP007 - of a computed tuple
    return origin[parts] if origin is not None else annotation


def _msgspec_type(annotation: Any) -> Any:
    """The annotation with all ranges as msgspec.Meta."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[_msgspec_type(parts[0]), msgspec.Meta(**_bounds(parts[1:]))]
    return annotation if origin is Literal else _with_parts(annotation, _msgspec_type)


def _bounds(metadata: Iterable[Any]) -> dict[str, Any]:
    return {
        name: bound
        for item in metadata
        for name in BOUNDS
        if (bound := getattr(item, name, None)) is not None
    }


def _rules(annotation: Any) -> list[Mapping[str, Any]]:
    """What else holds for a value as a whole: `Meta(extra={"check": function, "words": text})`."""
    if get_origin(annotation) in (Union, UnionType):
        return [rule for part in get_args(annotation) for rule in _rules(part)]
    extras = (getattr(item, "extra", None) for item in getattr(annotation, "__metadata__", ()))
    return [extra for extra in extras if extra and "check" in extra]


def _convert_leaves(value: Any, convert: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_convert_leaves(item, convert) for item in value]
    if isinstance(value, Mapping):
        return {key: _convert_leaves(item, convert) for key, item in value.items()}
    return convert(value)


def _parse_number(value: Any) -> Any:
    """The number that a text stands for, such as YAML's 1e3; anything else as it is."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _unsigned_zero(value: Any) -> Any:
    """0.0 for -0.0, which is the same setting and would have another cache key."""
    return 0.0 if isinstance(value, float) and value == 0 else value


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _literals(part)]


def _any_of(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))


def _describe(
    annotation: Any, bounds: Mapping[str, Any] | None = None, plural: int = 0
) -> list[str]:
    """The allowed values in words, one text for each kind. plural: 1 for several of them."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        words = [rule["words"] for rule in _rules(annotation)]
        return [" ".join([_any_of(_describe(parts[0], _bounds(parts[1:]), plural)), *words])]
    if origin is Literal:
        words = ["null" if word is None else repr(word) for word in parts]
        return [f"words among {', '.join(words)}"] if plural else words
    if origin in (Union, UnionType):
        return [text for part in parts for text in _describe(part, plural=plural)]
    if annotation in _NAMES:
        return [_NAMES[annotation][plural] + _describe_range(bounds or {})]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [f"names with {_any_of(_describe(parts[1], plural=1))}"]
    if isinstance(origin, type) and issubclass(origin, Iterable):
        items = [part for part in parts if part is not Ellipsis]
        fixed = origin is tuple and Ellipsis not in parts
        length = {"min_length": len(items), "max_length": len(items)} if fixed else bounds
        item = _any_of(_describe(items[0], plural=1))
        return [f"a list of {_describe_length(length or {})}{item}"]
    if _is_config_class(annotation):
        return [f"a {annotation.__name__}"]
    anything = annotation in (Any, object, inspect.Parameter.empty)
    return ["any value" if anything else str(annotation)]


def _describe_length(bounds: Mapping[str, Any]) -> str:
    low, high = bounds.get("min_length", 0), bounds.get("max_length")
    if high is None:
        return f"at least {low} " if low > 1 else ""
    return f"{low} " if low == high else f"{low} to {high} "


def _describe_range(bounds: Mapping[str, Any]) -> str:
    if bounds.keys() >= {"ge", "le"}:
        return f" from {bounds['ge']} to {bounds['le']}"
    signs = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    ranges = [f"{sign} {bounds[name]}" for name, sign in signs.items() if name in bounds]
    if "multiple_of" in bounds:
        ranges.append(f"divisible by {bounds['multiple_of']}")
    return "".join([" " + " and ".join(ranges)] if ranges else [])


def _is_config_class(annotation: object) -> TypeGuard[type[object]]:
    return isinstance(annotation, type) and is_dataclass(annotation)
