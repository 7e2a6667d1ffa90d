"""What is asked of code that adbench did not write: its modules, its arguments, its names."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable
from hashlib import sha256
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

FOLDER_PACKAGE_PREFIX = "adbench_folder_"
"""Modules of a plugin that is a file live in a package of this name and a hash of their folder."""


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """What a constructor can be given by name; through **kwargs, what its bases can, too."""
    made: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        found = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for p in found:
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD):
                made.setdefault(p.name, p)
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            break
    return made


def import_code(name: str) -> Any:
    """Import a module by its dotted name, or a .py file by its path.

    A file becomes a module of a package that stands for its folder, so it may import files
    beside it relatively, as the rooms of adbench do, and its name is the same in every process.
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


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """ " Did you mean …?" where one of the known names is close; else only the full stop."""
    folded = {key.casefold(): key for key in names if key != "*"}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f". Did you mean {folded[near[0]]!r}?" if near else "."
