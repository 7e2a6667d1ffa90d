"""Flat settings of a constructor whose arguments are grouped into dataclasses.

A method groups arguments that belong together: `network: ScaledUNetConfig = NETWORK`. Users,
registry files, profiles and cache keys name the fields alone: `width`, not `network.width`. An
argument is such a group if its default is an instance of a dataclass; a field whose metadata say
`setting=False` is not offered, and one whose metadata list `former_names` is accepted by them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from inspect import Parameter
from typing import Any, get_type_hints

from .imports import constructor_parameters


def setting_parameters(cls: type) -> dict[str, Parameter]:
    """Return the settings of a class by name: its plain arguments and the fields of its groups.

    cls: a class with keyword arguments; a field's default is that of the group's default.

    Raises TypeError where a name stands twice.

    >>> from adbench.methods.dae import DAE
    >>> setting_parameters(DAE)["steps"].default
    67200
    """
    settings: dict[str, Parameter] = {}
    for name, parameter in constructor_parameters(cls).items():
        for key, setting in _settings_of(name, parameter).items():
            if key in settings:
                raise TypeError(f"{cls.__name__} has two settings named {key!r}")
            settings[key] = setting
    return settings


def rename_settings(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat settings by their present names, so that older files and records stay readable.

    cls: the class that they are of.
    settings: values by name, present or former; ValueError where one is set by both.

    >>> from adbench.methods.ddad import DDAD
    >>> rename_settings(DDAD, {"kept": 0.2, "w": 3.0})
    {'distillation_weight': 0.2, 'w': 3.0}
    """
    groups = [p.default for p in constructor_parameters(cls).values() if _is_group(p)]
    present = {
        former: field.name
        for group in groups
        for field in fields(group)
        for former in field.metadata.get("former_names", ())
    }
    for former, name in present.items():
        if former in settings and name in settings:
            raise ValueError(f"{former!r} is the former name of {name!r}: set one of them")
    return {present.get(key, key): value for key, value in settings.items()}


def group_settings(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments for flat settings.

    cls: the class to be built.
    settings: values by name; a field that is not among them keeps its default.

    >>> from adbench.methods.dae import DAE
    >>> group_settings(DAE, {"steps": 10, "size": 32})["training"].steps
    10
    """
    settings = rename_settings(cls, settings)
    arguments = dict(settings)
    for name, parameter in constructor_parameters(cls).items():
        if _is_group(parameter):
            keys = _settings_of(name, parameter).keys() & settings.keys()
            values = {key: arguments.pop(key) for key in sorted(keys)}
            if values:
                arguments[name] = replace(parameter.default, **values)
    return arguments


def build(cls: Any, *positional: Any, **settings: Any) -> Any:
    """Return an instance of a class, built with flat settings.

    cls: the class.
    positional: its positional arguments, of a method the Spec of its samples.
    settings: values by name.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.template_z import TemplateZ
    >>> build(TemplateZ, Spec(1, (8, 8)), floor=0.1).floor
    0.1
    """
    return cls(*positional, **group_settings(cls, settings))


def _is_group(parameter: Parameter) -> bool:
    return is_dataclass(parameter.default) and not isinstance(parameter.default, type)


def _settings_of(name: str, parameter: Parameter) -> dict[str, Parameter]:
    """One argument as settings: itself, or the fields of the group that it is."""
    if not _is_group(parameter):
        return {name: parameter}
    types = _field_types(type(parameter.default))
    return {
        field.name: Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=getattr(parameter.default, field.name),
            annotation=types[field.name],
        )
        for field in fields(parameter.default)
        if field.init and field.metadata.get("setting", True)
    }


@cache
def _field_types(group: type) -> dict[str, Any]:
    """The annotations of a dataclass."""
    return get_type_hints(group, include_extras=True)
