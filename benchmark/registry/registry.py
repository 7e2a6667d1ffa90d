"""Registry of methods and datasets: names, and the class and arguments behind each.

Entries come from registry.yaml, from installed packages (entry points of the groups
"adbench.methods" and "adbench.datasets") and from files that a user names, in this order.
A class is imported only when its entry is loaded, so that listing names needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .entry import PACKAGES, Entry
from .imports import did_you_mean
from .lookup import RegistryError, lookup
from .profile import Profile
from .registry_file import (
    PROFILE_KEYS,
    check_mapping,
    extend_profile,
    line_of,
    parse_entry,
    read_registry_file,
)

REGISTRY_PATH = Path(__file__).parents[2] / "registry.yaml"
"""Beside the packages, in a checkout and in a wheel alike."""

ANOMALIB = "anomalib:"
"""How the name of a method begins that is a model of anomalib."""

ANOMALIB_CLASS = "anomalib_models:AnomalibModel"

BUILT_IN = "registry.yaml"
"""The origin of the entries of REGISTRY_PATH."""

BASES = {"methods": "adbench.methods.base.Method", "datasets": "adbench.datasets.base.Dataset"}
"""The class that each kind of entry inherits from."""


@dataclass(frozen=True)
class Registry:
    """All registered methods, datasets and profiles by name.

    suites: names of methods that are run together, by the suite's name; `all` holds every method
        that is neither a baseline nor a preset

    >>> registry = Registry.read()
    >>> registry.method("anoddpm").class_path
    'anoddpm:AnoDDPM'
    >>> registry.method("anodppm")
    Traceback (most recent call last):
    adbench...RegistryError: unknown method 'anodppm'. Did you mean 'anoddpm'? (adbench list ...)
    """

    methods: dict[str, Entry]
    datasets: dict[str, Entry]
    profiles: dict[str, Profile]
    suites: dict[str, list[str]]
    _places: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False, compare=False)
    """The file and the line in which a suite, or an entry of a profile, is named."""

    @classmethod
    def read(cls, *extra: Path) -> Registry:
        """Read registry.yaml, the entry points of installed packages, then `extra` files.

        A name may be registered once; an extra file may replace it with `replace: true`.

        Raises RegistryError on a file that cannot be read or has an invalid entry.
        """
        registry = cls({}, {}, {}, {})
        registry._add_file(REGISTRY_PATH, BUILT_IN)
        registry._add_installed()
        for entry in _registered.values():
            registry._add(entry)
        for path in dict.fromkeys(Path(path).resolve() for path in extra):
            registry._add_file(path, str(path), late=True)
        for profile in registry.profiles.values():
            registry._check_profile(profile)
        for name, members in registry.suites.items():
            registry._check_suite(name, members)
        registry._resolve_bases()
        registry.suites["all"] = [
            name for name, entry in registry.methods.items() if not (entry.baseline or entry.base)
        ]
        for entries in (registry.methods, registry.datasets):
            for name, entry in entries.items():
                entries[name] = replace(entry, profiles=registry.profiles)
        return registry

    def method(self, name: str) -> Entry:
        """Return the method of this name; "anoddpm@NAME" has the imported weights of that name,
        and "anomalib:NAME" is a model of anomalib.

        Raises RegistryError on an unknown one.
        """
        if name.startswith(ANOMALIB) and name not in self.methods:
            return self._anomalib_model(name)
        base, _, weights = name.partition("@")
        if name in self.methods or base not in self.methods or not weights:
            return lookup(self.methods, name, "method")
        entry = self.methods[base]
        return replace(entry, name=name, label=f"{entry.label} ({weights})", weights=weights)

    def _anomalib_model(self, name: str) -> Entry:
        """The entry of "anomalib:NAME": it is in no list, since anomalib may not be installed."""
        model = name.removeprefix(ANOMALIB)
        return Entry(
            name, "methods", ANOMALIB_CLASS, "anomalib", f"adbench.methods.{ANOMALIB_CLASS}",
            args={"model": model}, label=f"{model} (anomalib)", profiles=self.profiles,
            about=f"the model {model} of anomalib", paper="https://arxiv.org/abs/2202.08341",
        )  # fmt: skip

    def dataset(self, name: str) -> Entry:
        """Return a dataset, or a category of one: "mvtec/hazelnut" has category=hazelnut."""
        base, slash, category = name.partition("/")
        entry = lookup(self.datasets, base, "dataset")
        return replace(entry, name=name, category=category) if slash else entry

    def entry(self, name: str) -> Entry:
        """Return the method or dataset of this name."""
        base = name.partition("/")[0]
        if name not in self.methods and base not in self.datasets:
            lookup({**self.methods, **self.datasets}, name, "method or dataset")
        return self.methods.get(name) or self.dataset(name)

    def profile(self, name: str) -> Profile:
        """Return the profile of this name."""
        return lookup(self.profiles, name, "profile")

    def suite(self, name: str) -> list[str]:
        """Return the names of a suite's methods."""
        return lookup(self.suites, name, "suite")

    def _add(self, entry: Entry, *, again: bool = False) -> None:
        entries: dict[str, Entry] = getattr(self, entry.package)
        if (old := entries.get(entry.name)) and not again:
            raise RegistryError(
                f"{entry.title} is registered twice: in {old.origin} and in {entry.origin}. "
                "Rename one; a file of --registry may also set `replace: true`"
            )
        entries[entry.name] = entry

    def _resolve_bases(self) -> None:
        """Give every preset the class of its base, and its profiles the levels of its base."""
        for name, preset in self.methods.items():
            if not preset.base:
                continue
            base = lookup(self.methods, preset.base, f"base of {preset.title}:")
            if base.base:
                raise RegistryError(
                    f"{preset.title} ({preset.origin}): its base {base.name!r} is a preset itself"
                )
            self.methods[name] = replace(
                preset,
                class_path=base.class_path,
                import_path=base.import_path,
                base_args=base.args,
                paper=preset.paper or base.paper,
            )
            for key, profile in self.profiles.items():
                if name not in profile.levels_by_method and (levels := profile.levels(base.name)):
                    levels_by_method = {**profile.levels_by_method, name: levels}
                    self.profiles[key] = replace(profile, levels_by_method=levels_by_method)

    def _add_installed(self) -> None:
        points = entry_points()  # of every package: each call reads all their files
        for package in PACKAGES:
            for point in points.select(group=f"adbench.{package}"):
                origin = f"the package {point.dist.name if point.dist else point.module!r}"
                path = f"{point.module}:{point.attr}"
                self._add(Entry(point.name, package, path, origin, path, label=point.name))

    def _add_file(self, path: Path, origin: str, *, late: bool = False) -> None:
        top = read_registry_file(path, origin, own=path == REGISTRY_PATH)
        for package in PACKAGES:
            rows = check_mapping(top.get(package), f"{origin}: {package}")
            for name, row in rows.items():
                entry = parse_entry(name, package, row, origin, path.parent, line_of(rows, name))
                self._add(entry, again=late and row.get("replace", False))
        suites = check_mapping(top.get("suites"), f"{origin}: suites")
        for name, members in suites.items():
            at, line = f"{origin}: suite {name!r}", line_of(suites, name)
            if name == "all" or name in self.suites:
                raise RegistryError(f"{at} is there already; choose another name{line}")
            if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
                raise RegistryError(f"{at} is a list of methods, not {members!r}{line}")
            self.suites[name], self._places[f"suite {name}"] = members, (origin, line)
        profiles = check_mapping(top.get("profiles"), f"{origin}: profiles")
        for name, row in profiles.items():
            at, line = f"{origin}: profile {name}", line_of(profiles, name)
            old = self.profiles.get(name, Profile(name, origin=origin))
            row = check_mapping(row, at, PROFILE_KEYS, line)
            if old.origin == BUILT_IN != origin:
                self._check_addition(row, at, line)
            self.profiles[name] = extend_profile(old, row, at)
            parts = [row.get(part) for part in (*PACKAGES, "levels")]
            for rows in filter(None, parts):
                for key in rows if isinstance(rows, dict) else ():
                    self._places[f"profile {name} {key}"] = origin, line_of(rows, key)

    def _check_addition(self, row: Mapping[str, Any], at: str, line: str) -> None:
        """Raise RegistryError where a file changes a built-in profile for built-in entries."""
        levels = row.get("levels") or {}
        names = list(levels) if isinstance(levels, dict) else ["*"]
        for package in PACKAGES:
            names += check_mapping(row.get(package), f"{at}: {package}")
        entries = [*self.methods.values(), *self.datasets.values()]
        fixed = {"*", *(entry.name for entry in entries if entry.origin == BUILT_IN)}
        changed = [name for name in names if name.partition("/")[0] in fixed]
        if changed or "about" in row:
            raise RegistryError(
                f"{at} is there already: a file adds its own methods and datasets to it, and does "
                f"not change {changed[0] if changed else 'about'!r}; choose another name{line}"
            )

    def _check_suite(self, name: str, members: list[str]) -> None:
        origin, line = self._places[f"suite {name}"]
        for member in members:
            if member not in self.methods:
                kind = "a dataset, not a method" if member in self.datasets else "not registered"
                raise RegistryError(
                    f"{origin}: suite {name!r} names the method {member!r}, which is {kind}"
                    f"{did_you_mean(member, self.methods).rstrip('.')}{line}"
                )

    def _check_profile(self, profile: Profile) -> None:
        for package, entries in (("methods", self.methods), ("datasets", self.datasets)):
            names = [
                *profile.args.get(package, {}),
                *(profile.levels_by_method if package == "methods" else ()),
            ]
            for name in names:
                if name != "*" and (base := name.partition("/")[0]) not in entries:
                    place = self._places.get(f"profile {profile.name} {name}")
                    origin, line = place or (profile.origin, "")
                    raise RegistryError(
                        f"{origin}: profile {profile.name!r} names the {PACKAGES[package]} "
                        f"{name!r}, which is not registered"
                        f"{did_you_mean(base, entries).rstrip('.')}{line}"
                    )


_registered: dict[tuple[str, str], Entry] = {}
"""Entries of classes that were registered in this process, by package and name."""


def register_class(name: str, cls: type, *, label: str = "", about: str = "") -> None:
    """Register a class in this process, for `Registry.read` to return; see adbench.register.

    name: of the entry; an earlier registration in this process is replaced
    cls: a subclass of Method or Dataset, defined at the top level of its module
    label, about: texts of the entry

    Raises RegistryError on another class, and on a name that is registered elsewhere.

    >>> from adbench.methods.dae import DAE
    >>> register_class("my-dae", DAE)
    >>> Registry.read().method("my-dae").class_path
    'adbench.methods.dae:DAE'
    >>> del _registered["methods", "my-dae"]
    """
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
            raise RegistryError(f"{entry.title} is registered already: choose another name")
    except RegistryError:
        if before is not None:
            _registered[package, name] = before
        raise
    _registered[package, name] = entry
