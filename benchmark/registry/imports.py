"""Import modules and files of plugins, read constructors' parameters, suggest similar names."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, get_type_hints
from weakref import WeakKeyDictionary

FOLDER_PACKAGE_PREFIX = "adbench_folder_"
"""Modules of a plugin that is a file live in a package of this name and a hash of their folder."""


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class's constructor by name, without `self`.

    Where the constructor takes **kwargs, those of its base classes' constructors too. Annotations
    are the types that they name; one that names what its module does not have stays a text.

    >>> class Window:
    ...     def __init__(self, size, *, step=1): ...
    >>> list(constructor_parameters(Window))
    ['size', 'step']
    """
    parameters: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        own = _own_parameters(vars(base)["__init__"])
        for p in own:
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD):
                parameters.setdefault(p.name, p)
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return parameters


def _own_parameters(constructor: Any) -> tuple[inspect.Parameter, ...]:
    """The parameters of one constructor, without `self`."""
    if isinstance(constructor, FunctionType) and constructor in _OF_FUNCTION:
        return _OF_FUNCTION[constructor]
    names = getattr(constructor, "__globals__", {})
    parameters = tuple(
        p.replace(annotation=resolve_annotation(p.annotation, names))
        for p in list(inspect.signature(constructor).parameters.values())[1:]
    )
    unnamed = any(isinstance(p.annotation, str) for p in parameters)  # its module may name it yet
    if isinstance(constructor, FunctionType) and not unnamed:
        _OF_FUNCTION[constructor] = parameters
    return parameters


_OF_FUNCTION = WeakKeyDictionary[FunctionType, tuple[inspect.Parameter, ...]]()
"""Reading annotations takes ten times as long as all else that an entry's arguments take."""


def resolve_annotation(annotation: Any, names: Mapping[str, Any]) -> Any:
    """Return the type that an annotation names, or the annotation where that is not defined.

    names: the globals of its module

    >>> resolve_annotation("int | None", {})
    int | None
    """
    holder = SimpleNamespace(__annotations__={"setting": annotation})
    try:
        return get_type_hints(holder, dict(names), include_extras=True)["setting"]
    except NameError:
        return annotation


def import_code(name: str) -> Any:
    """Import and return a module, by its dotted name or the path of its .py file.

    A file becomes a module of a package that stands for its folder, so that it may import files
    beside it relatively, and its module name is the same in every process.

    name: a dotted name, or a path that ends in .py

    Raises FileNotFoundError on a missing file.

    >>> import_code("json").loads("[1]")
    [1]
    """
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    package = FOLDER_PACKAGE_PREFIX + sha256(str(path.parent).encode()).hexdigest()[:12]
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(path.parent)]
        sys.modules[package] = module_from_spec(spec)
    importlib.invalidate_caches()
    return importlib.import_module(f"{package}.{path.stem}")


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ". Did you mean …?" where one of the names is similar, else a full stop.

    name: what was asked for
    names: the valid ones
    cutoff: how similar the two are at least, 0..1

    >>> did_you_mean("anodppm", ["anoddpm", "ddad"])
    ". Did you mean 'anoddpm'?"
    """
    folded = {key.casefold(): key for key in names if key != "*"}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return f". Did you mean {folded[near[0]]!r}?" if near else "."
