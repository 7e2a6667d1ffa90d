"""Read a registry file: YAML with methods, datasets, suites and profiles, checked line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .entry import PACKAGES, Entry
from .imports import did_you_mean
from .lookup import RegistryError
from .profile import Profile
from .setting_types import convert_setting
from .yaml_lines import YAMLFileError, copy_lined, read_yaml_file

PROFILE_KEYS = {"about", "levels", *PACKAGES}
"""Keys of a profile."""

Levels = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=1000)]], msgspec.Meta(min_length=1)]
"""Type of the noise levels of a method in a profile."""

ENTRY_KEYS = {"class", "label", "about", "paper", "args", "replace"}
"""Keys of every entry."""

EXTRA_KEYS = {
    "methods": {"baseline", "base", "batch_dependent"},
    "datasets": {"licence", "where", "tree", "counts"},
}
"""Further keys of an entry, by its package."""

ENTRY_TYPES = {"replace": bool, "baseline": bool, "batch_dependent": bool, "base": str,
    "label": str, "about": str}  # fmt: skip
"""Types of an entry's optional keys."""


def read_registry_file(path: Path, origin: str, *, own: bool = False) -> dict[str, Any]:
    """Return the top level of a registry file: its methods, datasets, suites and profiles.

    origin: what errors call the file
    own: it is adbench's own file, which is read faster, and once in a process

    Raises RegistryError on a file that cannot be read, is no YAML, or has other keys.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "registry.yaml")
    ...     _ = path.write_text("methods: {mine: {class: 'mine.py:Mine'}}")
    ...     read_registry_file(path, "registry.yaml")["methods"]
    {'mine': {'class': 'mine.py:Mine'}}
    """
    return copy_lined(_read_own(path, origin)) if own else _read(path, origin)


def _read(path: Path, origin: str, *, own: bool = False) -> dict[str, Any]:
    try:
        raw = read_yaml_file(path, origin, own=own)
    except YAMLFileError as error:
        raise RegistryError(str(error)) from error
    return check_mapping(raw, f"{origin}: the file", {*PACKAGES, "profiles", "suites"})


@cache
def _read_own(path: Path, origin: str) -> dict[str, Any]:
    return _read(path, origin, own=True)


def parse_entry(name: str, package: str, row: Any, origin: str, folder: Path, line: str) -> Entry:
    """Return the entry that a row of a registry file describes.

    package: "methods" or "datasets"
    row: its keys and values
    origin: what errors call the file
    folder: the file's, to which a path of a plugin is relative
    line: where the row stands, for an error, such as " (line 3)"

    Raises RegistryError on an invalid name, an unknown key, and a value of another type.

    >>> row = {"class": "dae:DAE", "args": {"steps": 9}}
    >>> parse_entry("dae", "methods", row, "registry.yaml", Path(), "").import_path
    'adbench.methods.dae:DAE'
    """
    at = f"{origin}: {PACKAGES[package]} {name!r}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise RegistryError(f"{at}: a name is made of letters, digits and . _ + -{line}")
    row = check_mapping(row, at, ENTRY_KEYS | EXTRA_KEYS[package], line)
    base, path = row.get("base", ""), row.get("class")
    if base and path is None:
        path = ":"  # the base's, which may stand in a file that is read later
    elif base:
        raise RegistryError(
            f"{at}: a preset has the class of its base: leave out class or base{line}"
        )
    elif not isinstance(path, str) or not re.fullmatch(r"(\w+(\.\w+)*|.+\.py):\w+", path):
        raise RegistryError(
            f"{at}: class must read module:Class, package.module:Class or file.py:Class, "
            f"not {path!r}{line}"
        )
    for key, kind in ENTRY_TYPES.items():
        if not isinstance(row.get(key, kind()), kind):
            raise RegistryError(
                f"{at}: {key} must be {kind.__name__}, not {row[key]!r}{line_of(row, key)}"
            )
    module, _, attribute = path.rpartition(":")
    if module.endswith(".py"):
        target = f"{(folder / module).resolve()}:{attribute}"
    else:
        target = path if "." in module else f"adbench.{package}.{path}"
    return Entry(
        name,
        package,
        path,
        origin,
        target,
        args=check_mapping(row.get("args"), f"{at}: args"),
        label=row.get("label", name),
        about=row.get("about", ""),
        paper=str(row.get("paper", "")),
        baseline=row.get("baseline", False),
        base=base,
        batch_dependent=row.get("batch_dependent", False),
        extra={key: row[key] for key in ("licence", "where", "tree", "counts") if key in row},
    )


def extend_profile(old: Profile, row: Mapping[str, Any], at: str) -> Profile:
    """Return a profile with what another file adds to it: settings and levels of further names.

    row: the profile's row in that file
    at: what errors call the row

    Raises RegistryError where the profile holds such a name already, and on invalid levels.

    >>> row = {"levels": {"dae": [100, 250]}}
    >>> extend_profile(Profile("mine"), row, "my.yaml: profile mine").levels("dae")
    (100, 250)
    """
    args: dict[str, dict[str, Mapping[str, Any]]] = {}
    for package in PACKAGES:
        old_rows = old.args.get(package, {})
        new = check_mapping(row.get(package), f"{at}: {package}", line=line_of(row, package))
        if both := old_rows.keys() & new.keys():
            raise RegistryError(
                f"{at}: {package} {min(both)!r} has arguments in this profile already"
                f"{line_of(new, min(both))}"
            )
        rows = {
            name: check_mapping(settings, f"{at}: {package} {name}", line=line_of(new, name))
            for name, settings in new.items()
        }
        args[package] = {**old_rows, **rows}
    sweep = dict(old.levels_by_method)
    levels = row.get("levels", {})
    levels = levels if isinstance(levels, dict) else {"*": levels}
    for name, values in levels.items():
        line = line_of(levels, name) or line_of(row, "levels")
        if name in old.levels_by_method:
            raise RegistryError(f"{at}: {name!r} has levels in this profile already{line}")
        try:
            sweep[name] = tuple(convert_setting(values, Levels))
        except ValueError:
            raise RegistryError(
                f"{at}: levels of {name!r} are integers in 0..1000, in a list such as [100, 250], "
                f"not {values!r}{line}"
            ) from None
    return Profile(old.name, row.get("about", old.about), old.origin, args, sweep)


def check_mapping(
    raw: Any, at: str, keys: Iterable[str] | None = None, line: str = ""
) -> dict[str, Any]:
    """Return `raw` if it is a mapping from text, with no keys but `keys`; {} for None.

    at: what errors call it
    line: where it stands, for an error

    Raises RegistryError on anything else.

    >>> check_mapping(None, "my.yaml: methods")
    {}
    >>> check_mapping({"stpes": 9}, "my.yaml: args", {"steps"})
    Traceback (most recent call last):
    adbench...RegistryError: my.yaml: args: unknown key 'stpes'. Did you mean 'steps'? Valid keys...
    """
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise RegistryError(f"{at}: should be `name: …` lines, not {type(raw).__name__}{line}")
    for key in raw:
        if not isinstance(key, str):
            raise RegistryError(
                f"{at}: {key!r} is read as {type(key).__name__}; put it in quotes{line}"
            )
        if keys is not None and key not in keys:
            raise RegistryError(
                f"{at}: unknown key {key!r}{did_you_mean(key, keys)} "
                f"Valid keys are {', '.join(sorted(keys))}{line_of(raw, key)}"
            )
    return raw


def line_of(mapping: Mapping[str, Any], key: str) -> str:
    """Return " (line N)" for a key of a mapping that was read from a file; else "".

    >>> from adbench.benchmark.registry.yaml_lines import load_lined
    >>> line_of(load_lined("steps: 9"), "steps")
    ' (line 1)'
    """
    lines = getattr(mapping, "lines", {})
    return f" (line {lines[key]})" if key in lines else ""
