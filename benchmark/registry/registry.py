"""The names that can be run, and the class and arguments behind each.

They come from registry.yaml, from installed packages (entry points of the groups
"adbench.methods" and "adbench.datasets") and from files that a user names, in this order.
Nothing is imported before it is asked for, so that listing names needs no torch.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from .imports import did_you_mean, import_code
from .settings import build, setting_parameters

REGISTRY_PATH = Path(__file__).parents[2] / "registry.yaml"
"""Beside the rooms, in a checkout and in a wheel alike."""

PACKAGES = {"methods": "method", "datasets": "dataset"}
BASES = {"methods": "adbench.methods.base.Method", "datasets": "adbench.datasets.base.Dataset"}
PROFILE_KEYS = {"about", "levels", *PACKAGES}
ENTRY_KEYS = {"class", "label", "about", "paper", "args", "replace"}
EXTRA_KEYS = {"methods": {"baseline"}, "datasets": {"licence", "where", "tree", "counts"}}


class RegistryError(ValueError):
    """A name, an argument or a registry file that cannot be run: one line, and what would do."""

    exit_code = 2


@dataclass(frozen=True)
class Entry:
    """One name. `load` gives its class; `arguments` what the class is to be built with.

    class_path: module:Class in its room; package.module:Class anywhere; or file.py:Class
    origin: the file or the package that names it
    extra: what only people read: licence, where to get the data, which files are expected, counts
    """

    name: str
    package: str
    class_path: str
    origin: str
    import_path: str  # as `where`, but absolute: what to import
    args: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    about: str = ""
    paper: str = ""
    baseline: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    category: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        return f"{PACKAGES[self.package]} {self.name!r}"

    def load(self) -> Any:
        """The class. Raises RegistryError with the cause if it cannot be imported."""
        module, _, name = self.import_path.rpartition(":")
        try:
            found = import_code(module)
        except Exception as error:  # a plugin may fail in any way while it is imported
            cause = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            raise RegistryError(
                f"{self.title} ({self.origin}): cannot import {self.class_path!r}: {cause}"
            ) from error
        cls = getattr(found, name, None)
        if not isinstance(cls, type):
            classes = [key for key, value in vars(found).items() if isinstance(value, type)]
            raise RegistryError(
                f"{self.title} ({self.origin}): {self.class_path!r} names no class"
                f"{did_you_mean(name, classes)}"
            )
        return cls

    def build(self, *positional: Any, **settings: Any) -> Any:
        """Return an instance of the class, built with flat settings such as `arguments` returns.

        positional: of a method the Spec of its samples.
        settings: values by name.
        """
        return build(self.load(), *positional, **settings)

    def parameters(self) -> dict[str, inspect.Parameter]:
        """What the class can be built with, by name; not the Spec, which the dataset gives."""
        known = setting_parameters(self.load())
        if self.package == "methods":
            known.pop("spec", None)
        return known

    def arguments(
        self, profile: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Every argument that the class is built with, defaults included, as JSON knows it.

        The constructor's defaults, then the entry's, the profile's for all ("*"), the profile's
        for this name, the category, the overrides.
        """
        known = self.parameters()
        made = {k: p.default for k, p in known.items() if p.default is not p.empty}
        for source, given in self._argument_sources(profile, overrides or {}):
            for key, value in given.items():
                if key not in known:
                    raise RegistryError(
                        f"{self.title} takes no {key!r} ({source}){did_you_mean(key, known)} "
                        f"It takes {', '.join(sorted(known)) or 'nothing'}"
                    )
                made[key] = self._coerce_number(key, known[key].default, value)
        if missing := [key for key in known if key not in made]:
            raise RegistryError(f"{self.title} needs a value for {', '.join(missing)}")
        return {key: self._to_json(key, value) for key, value in made.items()}

    def _argument_sources(
        self, profile: str | None, overrides: Mapping[str, Any]
    ) -> Iterable[tuple[str, Mapping[str, Any]]]:
        yield self.origin, self.args
        if profile is not None:
            chosen = _lookup(self.profiles, profile, "profile")
            rows, known = chosen.args.get(self.package, {}), self.parameters()
            yield "", {key: value for key, value in rows.get("*", {}).items() if key in known}
            for name in dict.fromkeys([self.name.partition("/")[0], self.name]):
                yield f"profile {profile}", rows.get(name, {})
        if self.category is not None:
            yield f"the part of {self.name!r} after the slash", {"category": self.category}
        yield "asked for", overrides

    def _coerce_number(self, key: str, default: Any, value: Any) -> Any:
        """A number where the default is one, so that 1, 1.0 and YAML's text "1e-4" are alike."""
        if not isinstance(default, float) or type(value) not in (int, str):
            return value
        try:
            return float(value)
        except ValueError:
            raise RegistryError(
                f"{self.title}: {key} is a number such as {default}, not {value!r}"
            ) from None

    def _to_json(self, key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): self._to_json(key, item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._to_json(key, item) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted(self._to_json(key, item) for item in value)
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise RegistryError(f"{self.title}: {key} must be finite, not {value}")
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise RegistryError(f"{self.title}: {key} cannot be written as JSON: {value!r}")


@dataclass(frozen=True)
class Profile:
    """A named size of things: arguments for methods and datasets, by name or for all ("*").

    args: {"methods": {name: {argument: value}}, "datasets": the same}
    levels_by_method: noise levels by method or for all ("*"), for which a method's own are too many
    """

    name: str
    about: str = ""
    args: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    levels_by_method: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def levels(self, method: str) -> tuple[int, ...] | None:
        """The noise levels this method sweeps in this profile; None for its own."""
        return self.levels_by_method.get(method, self.levels_by_method.get("*"))


@dataclass(frozen=True)
class Registry:
    """All names there are. suites: methods that go together, by a name; `all` is every one."""

    methods: dict[str, Entry]
    datasets: dict[str, Entry]
    profiles: dict[str, Profile]
    suites: dict[str, list[str]]

    @classmethod
    def read(cls, *extra: Path) -> Registry:
        """registry.yaml, what is installed, then `extra` files.

        A name may be given once; an extra file may give one anew if it says `replace: true`.
        """
        made = cls({}, {}, {}, {})
        made._add_file(REGISTRY_PATH, "registry.yaml")
        made._add_installed()
        for entry in _registered.values():
            made._add(entry)
        for path in dict.fromkeys(Path(path).resolve() for path in extra):
            made._add_file(path, str(path), late=True)
        for profile in made.profiles.values():
            made._check_profile(profile)
        for name, members in made.suites.items():
            for member in members:
                _lookup(made.methods, member, f"method of the suite {name!r}:")
        made.suites["all"] = [n for n, entry in made.methods.items() if not entry.baseline]
        for entries in (made.methods, made.datasets):
            for name, entry in entries.items():
                entries[name] = replace(entry, profiles=made.profiles)
        return made

    def method(self, name: str) -> Entry:
        return _lookup(self.methods, name, "method")

    def dataset(self, name: str) -> Entry:
        """A dataset, or one category of it: "mvtec/hazelnut" is mvtec with category=hazelnut."""
        base, slash, category = name.partition("/")
        entry = _lookup(self.datasets, base, "dataset")
        return replace(entry, name=name, category=category) if slash else entry

    def entry(self, name: str) -> Entry:
        """A method or a dataset."""
        base = name.partition("/")[0]
        if name not in self.methods and base not in self.datasets:
            _lookup({**self.methods, **self.datasets}, name, "method or dataset")
        return self.methods.get(name) or self.dataset(name)

    def profile(self, name: str) -> Profile:
        return _lookup(self.profiles, name, "profile")

    def suite(self, name: str) -> list[str]:
        """The names of its methods."""
        return _lookup(self.suites, name, "suite")

    def _add(self, entry: Entry, *, again: bool = False) -> None:
        entries: dict[str, Entry] = getattr(self, entry.package)
        if (old := entries.get(entry.name)) and not again:
            raise RegistryError(
                f"{entry.title} is there twice: in {old.origin} and in {entry.origin}. "
                "Rename one; a file given with --registry may also say `replace: true`"
            )
        entries[entry.name] = entry

    def _add_installed(self) -> None:
        for room in PACKAGES:
            for point in entry_points(group=f"adbench.{room}"):
                origin = f"the package {point.dist.name if point.dist else point.module!r}"
                where = f"{point.module}:{point.attr}"
                self._add(Entry(point.name, room, where, origin, where, label=point.name))

    def _add_file(self, path: Path, origin: str, *, late: bool = False) -> None:
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"{origin}: cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise RegistryError(f"{origin}: not YAML: {' '.join(str(error).split())}") from error
        top = _check_mapping(raw, f"{origin}: the file", {*PACKAGES, "profiles", "suites"})
        for room in PACKAGES:
            for name, row in _check_mapping(top.get(room), f"{origin}: {room}").items():
                entry = _parse_entry(name, room, row, origin, path.parent)
                self._add(entry, again=late and row.get("replace", False))
        for name, members in _check_mapping(top.get("suites"), f"{origin}: suites").items():
            if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
                raise RegistryError(f"{origin}: suite {name!r} is a list of methods")
            self.suites[name] = members
        for name, row in _check_mapping(top.get("profiles"), f"{origin}: profiles").items():
            old = self.profiles.get(name, Profile(name))
            self.profiles[name] = _parse_profile(old, row, f"{origin}: profile {name}")

    def _check_profile(self, profile: Profile) -> None:
        for room, entries in (("methods", self.methods), ("datasets", self.datasets)):
            names = [
                *profile.args.get(room, {}),
                *(profile.levels_by_method if room == "methods" else ()),
            ]
            for name in names:
                if name != "*" and (base := name.partition("/")[0]) not in entries:
                    raise RegistryError(
                        f"profile {profile.name!r} names the {PACKAGES[room]} {name!r}, "
                        "which is not "
                        f"there{did_you_mean(base, entries)}"
                    )


_registered: dict[tuple[str, str], Entry] = {}
"""Entries of classes that this process has registered, by package and name."""


def register_class(name: str, cls: type, *, label: str = "", about: str = "") -> None:
    """Add a class to what `Registry.read` returns in this process; see adbench.register."""
    bases = {f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__}
    package = next((package for package, base in BASES.items() if base in bases), None)
    if package is None:
        raise RegistryError(f"{cls.__name__} is a subclass of neither Method nor Dataset")
    if "." in cls.__qualname__:
        raise RegistryError(f"{cls.__qualname__} is defined inside of something: define it apart")
    path = f"{cls.__module__}:{cls.__name__}"
    entry = Entry(name, package, path, "this process", path, label=label or name, about=about)
    before = _registered.pop((package, name), None)
    try:
        if name in getattr(Registry.read(), package):
            raise RegistryError(f"{entry.title} is there already: register it under another name")
    except RegistryError:
        if before is not None:
            _registered[package, name] = before
        raise
    _registered[package, name] = entry


def _parse_entry(name: str, room: str, row: Any, origin: str, folder: Path) -> Entry:
    at = f"{origin}: {PACKAGES[room]} {name!r}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise RegistryError(f"{at}: a name is made of letters, digits and . _ + -")
    row = _check_mapping(row, at, ENTRY_KEYS | EXTRA_KEYS[room])
    where = row.get("class")
    if not isinstance(where, str) or not re.fullmatch(r"(\w+(\.\w+)*|.+\.py):\w+", where):
        raise RegistryError(
            f"{at}: class must read module:Class, package.module:Class or file.py:Class, "
            f"not {where!r}"
        )
    for key, kind in (("replace", bool), ("baseline", bool), ("label", str), ("about", str)):
        if not isinstance(row.get(key, kind()), kind):
            raise RegistryError(f"{at}: {key} must be {kind.__name__}, not {row[key]!r}")
    module, _, attribute = where.rpartition(":")
    if module.endswith(".py"):
        target = f"{(folder / module).resolve()}:{attribute}"
    else:
        target = where if "." in module else f"adbench.{room}.{where}"
    return Entry(
        name,
        room,
        where,
        origin,
        target,
        args=_check_mapping(row.get("args"), f"{at}: args"),
        label=row.get("label", name),
        about=row.get("about", ""),
        paper=str(row.get("paper", "")),
        baseline=row.get("baseline", False),
        extra={key: row[key] for key in ("licence", "where", "tree", "counts") if key in row},
    )


def _parse_profile(old: Profile, row: Any, at: str) -> Profile:
    """`old` with what another file adds to it: arguments for names it said nothing of."""
    row = _check_mapping(row, at, PROFILE_KEYS)
    args: dict[str, dict[str, Mapping[str, Any]]] = {}
    for room in PACKAGES:
        had, new = old.args.get(room, {}), _check_mapping(row.get(room), f"{at}: {room}")
        if both := had.keys() & new.keys():
            raise RegistryError(f"{at}: {room} {min(both)!r} has arguments in this profile already")
        args[room] = {**had, **{k: _check_mapping(v, f"{at}: {room} {k}") for k, v in new.items()}}
    sweep = dict(old.levels_by_method)
    levels = row.get("levels") or {}
    for name, given in ({"*": levels} if isinstance(levels, list) else levels).items():
        if not isinstance(given, list) or not all(type(v) is int and 0 <= v <= 1000 for v in given):
            raise RegistryError(f"{at}: levels of {name!r} are integers in 0..1000, not {given!r}")
        sweep[name] = tuple(given)
    return Profile(old.name, row.get("about", old.about), args, sweep)


def _check_mapping(raw: Any, at: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    """`raw` if it maps text to something (nothing maps nothing), and only known keys."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise RegistryError(f"{at}: should be `name: …` lines, not {type(raw).__name__}")
    for key in raw:
        if not isinstance(key, str):
            raise RegistryError(f"{at}: {key!r} is read as {type(key).__name__}; put it in quotes")
        if known is not None and key not in known:
            raise RegistryError(
                f"{at}: unknown key {key!r}{did_you_mean(key, known)} "
                f"Known are {', '.join(sorted(known))}"
            )
    return raw


def _lookup(names: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in names:
        raise RegistryError(
            f"unknown {kind} {name!r}{did_you_mean(name, names)} "
            f"(adbench list{'' if ' ' in kind else f' {kind}s'})"
        )
    return names[name]
