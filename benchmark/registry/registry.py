"""Registry of methods and datasets: names, and the class and arguments behind each.

Entries come from registry.yaml, from installed packages (entry points of the groups
"adbench.methods" and "adbench.datasets") and from files that a user names, in this order.
A class is imported only when its entry is loaded, so that listing names needs no torch.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from .imports import did_you_mean, import_code
from .setting_types import convert_setting, explain_refusal
from .settings import build, setting_parameters
from .yaml_lines import DuplicateKey, load_lined

REGISTRY_PATH = Path(__file__).parents[2] / "registry.yaml"
"""Beside the packages, in a checkout and in a wheel alike."""

BUILT_IN = "registry.yaml"
"""The origin of the entries of REGISTRY_PATH."""

OVERRIDES = "asked for"
"""The source of arguments that the user names."""

PACKAGES = {"methods": "method", "datasets": "dataset"}
BASES = {"methods": "adbench.methods.base.Method", "datasets": "adbench.datasets.base.Dataset"}
Levels = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=1000)]], msgspec.Meta(min_length=1)]
PROFILE_KEYS = {"about", "levels", *PACKAGES}
ENTRY_KEYS = {"class", "label", "about", "paper", "args", "replace"}
EXTRA_KEYS = {
    "methods": {"baseline", "base", "batch_dependent"},
    "datasets": {"licence", "where", "tree", "counts"},
}

ENTRY_TYPES = {"replace": bool, "baseline": bool, "batch_dependent": bool, "base": str,
    "label": str, "about": str}  # fmt: skip
"""Types of an entry's optional keys."""


class RegistryError(ValueError):
    """A name, an argument or a registry file is invalid; one line, with a suggestion."""

    exit_code = 2


@dataclass(frozen=True)
class Entry:
    """A registered method or dataset: `load` returns its class, `arguments` its settings.

    class_path: module:Class in its package; package.module:Class anywhere; or file.py:Class
    origin: the file or the package that registers it
    import_path: `class_path` with an absolute module or file
    args: settings that differ from the class's defaults
    base: of a preset, the method whose class, arguments, profiles and levels it inherits
    base_args: the arguments of `base`
    batch_dependent: a sample's result depends on the other samples of its batch
    weights: of `method@NAME`, which weights it has in place of a training: their key in a store
    extra: facts for readers: licence, where to get the data, which files are expected, counts
    """

    name: str
    package: str
    class_path: str
    origin: str
    import_path: str
    args: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    about: str = ""
    paper: str = ""
    baseline: bool = False
    base: str = ""
    base_args: Mapping[str, Any] = field(default_factory=dict)
    batch_dependent: bool = False
    weights: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    category: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        return f"{PACKAGES[self.package]} {self.name!r}"

    def load(self) -> Any:
        """Import and return the class. Raises RegistryError with the cause where that fails."""
        module, _, name = self.import_path.rpartition(":")
        try:
            imported = import_code(module)
        except Exception as error:  # a plugin may fail in any way while it is imported
            cause = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            raise RegistryError(
                f"{self.title} ({self.origin}): cannot import {self.class_path!r}: {cause}"
            ) from error
        cls = getattr(imported, name, None)
        if not isinstance(cls, type):
            classes = [key for key, value in vars(imported).items() if isinstance(value, type)]
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
        """The settings of the class by name, without the Spec, which comes from the dataset."""
        parameters = setting_parameters(self.load())
        if self.package == "methods":
            parameters.pop("spec", None)
        return parameters

    def arguments(
        self, profile: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return all arguments that the class is built with, defaults included, as JSON values.

        In rising precedence: the constructor's defaults, the entry's arguments, the profile's for
        all ("*"), the profile's for this name, the category, the overrides. A preset's own
        arguments stand above the profile's for its base, and below the profile's for the preset.

        profile: name of a profile; None for the defaults alone
        overrides: values by name, as of --set

        Raises RegistryError on an argument that the class does not take, one without a value, and a
        value of another type or out of the range that the constructor's annotation has.
        """
        parameters = self.parameters()
        values = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
        sources = dict.fromkeys(values, f" (the default of {self.class_path})")
        for source, arguments in self._argument_sources(profile, overrides or {}):
            for key, value in arguments.items():
                if key not in parameters:
                    raise RegistryError(
                        f"{self.title} takes no {key!r} ({source}){did_you_mean(key, parameters)} "
                        f"It takes {', '.join(sorted(parameters)) or 'nothing'}"
                    )
                values[key], sources[key] = value, "" if source == OVERRIDES else f" ({source})"
        if missing := [key for key in parameters if key not in values]:
            raise RegistryError(f"{self.title} needs a value for {', '.join(missing)}")
        return {
            key: self._convert(key, parameters[key], value, sources[key])
            for key, value in values.items()
        }

    def _argument_sources(
        self, profile: str | None, overrides: Mapping[str, Any]
    ) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Pairs of a source's name and its arguments, in rising precedence."""
        rows: Mapping[str, Mapping[str, Any]] = {}
        if profile is not None:
            rows = _lookup(self.profiles, profile, "profile").args.get(self.package, {})
        yield self.origin, self.base_args if self.base else self.args
        parameters = self.parameters() if "*" in rows else {}
        common = {key: value for key, value in rows.get("*", {}).items() if key in parameters}
        yield f"profile {profile}", common
        if self.base:
            yield f"profile {profile}", rows.get(self.base, {})
            yield self.origin, self.args
        for name in dict.fromkeys([re.split("[/@]", self.name)[0], self.name]):
            yield f"profile {profile}", rows.get(name, {})
        if self.category is not None:
            yield f"the part of {self.name!r} after the slash", {"category": self.category}
        yield OVERRIDES, overrides

    def _convert(self, key: str, parameter: inspect.Parameter, value: Any, source: str) -> Any:
        """The value of a setting as JSON, converted to its annotation. Raises RegistryError."""
        annotation, example = parameter.annotation, parameter.default
        example = None if example is parameter.empty else self._to_json(key, example)
        if annotation is parameter.empty:  # the default tells the type
            annotation = type(example) if isinstance(example, (bool, int, float, str)) else Any
        value = self._to_json(key, value)
        try:
            converted = convert_setting(value, annotation)
        except ValueError:
            reason = explain_refusal(value, annotation, example)
            raise RegistryError(f"{self.title}: {key} is {reason}{source}") from None
        except (TypeError, AttributeError) as error:
            raise RegistryError(
                f"{self.title}: the annotation of {key}, {annotation}, cannot be checked: {error}"
            ) from error
        return self._to_json(key, converted)

    def _to_json(self, key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): self._to_json(key, item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._to_json(key, item) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted(self._to_json(key, item) for item in value)
        if isinstance(value, Path):
            return str(value)
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, Integral):  # of numpy too
            number = int(value)
            if abs(number) >= 2**63:
                raise RegistryError(f"{self.title}: {key} must have 64 bits at most")
            return number
        if isinstance(value, Real):
            if not math.isfinite(value):
                raise RegistryError(f"{self.title}: {key} must be finite, not {value}")
            return float(value)
        raise RegistryError(f"{self.title}: {key} cannot be written as JSON: {value!r}")


@dataclass(frozen=True)
class Profile:
    """A named size of experiments: arguments for methods and datasets, by name or for all ("*").

    origin: the file that first names it
    args: {"methods": {name: {argument: value}}, "datasets": the same}
    levels_by_method: noise levels by method or for all ("*"), in place of the method's own
    """

    name: str
    about: str = ""
    origin: str = ""
    args: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    levels_by_method: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def levels(self, method: str) -> tuple[int, ...] | None:
        """Return the noise levels that are swept for a method; None for the method's own."""
        return self.levels_by_method.get(method, self.levels_by_method.get("*"))


@dataclass(frozen=True)
class Registry:
    """All registered methods, datasets and profiles by name.

    suites: names of methods that are run together, by the suite's name; `all` holds every method
        that is neither a baseline nor a preset
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
        """Return the method of this name; "anoddpm@NAME" has the imported weights of that name.

        Raises RegistryError on an unknown one.
        """
        base, _, weights = name.partition("@")
        if base not in self.methods or not weights:
            return _lookup(self.methods, name, "method")
        entry = self.methods[base]
        return replace(entry, name=name, label=f"{entry.label} ({weights})", weights=weights)

    def dataset(self, name: str) -> Entry:
        """Return a dataset, or a category of one: "mvtec/hazelnut" has category=hazelnut."""
        base, slash, category = name.partition("/")
        entry = _lookup(self.datasets, base, "dataset")
        return replace(entry, name=name, category=category) if slash else entry

    def entry(self, name: str) -> Entry:
        """Return the method or dataset of this name."""
        base = name.partition("/")[0]
        if name not in self.methods and base not in self.datasets:
            _lookup({**self.methods, **self.datasets}, name, "method or dataset")
        return self.methods.get(name) or self.dataset(name)

    def profile(self, name: str) -> Profile:
        """Return the profile of this name."""
        return _lookup(self.profiles, name, "profile")

    def suite(self, name: str) -> list[str]:
        """Return the names of a suite's methods."""
        return _lookup(self.suites, name, "suite")

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
            base = _lookup(self.methods, preset.base, f"base of {preset.title}:")
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
                    swept = {**profile.levels_by_method, name: levels}
                    self.profiles[key] = replace(profile, levels_by_method=swept)

    def _add_installed(self) -> None:
        for package in PACKAGES:
            for point in entry_points(group=f"adbench.{package}"):
                origin = f"the package {point.dist.name if point.dist else point.module!r}"
                path = f"{point.module}:{point.attr}"
                self._add(Entry(point.name, package, path, origin, path, label=point.name))

    def _add_file(self, path: Path, origin: str, *, late: bool = False) -> None:
        try:
            raw = load_lined(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"{origin}: cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise RegistryError(f"{origin}: not YAML: {' '.join(str(error).split())}") from error
        except DuplicateKey as error:
            raise RegistryError(f"{origin}: {error}") from error
        except RecursionError:
            raise RegistryError(f"{origin}: mappings and lists are nested too deeply") from None
        top = _check_mapping(raw, f"{origin}: the file", {*PACKAGES, "profiles", "suites"})
        for package in PACKAGES:
            rows = _check_mapping(top.get(package), f"{origin}: {package}")
            for name, row in rows.items():
                entry = _parse_entry(name, package, row, origin, path.parent, _line(rows, name))
                self._add(entry, again=late and row.get("replace", False))
        suites = _check_mapping(top.get("suites"), f"{origin}: suites")
        for name, members in suites.items():
            at, line = f"{origin}: suite {name!r}", _line(suites, name)
            if name == "all" or name in self.suites:
                raise RegistryError(f"{at} is there already; choose another name{line}")
            if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
                raise RegistryError(f"{at} is a list of methods, not {members!r}{line}")
            self.suites[name], self._places[f"suite {name}"] = members, (origin, line)
        profiles = _check_mapping(top.get("profiles"), f"{origin}: profiles")
        for name, row in profiles.items():
            at, line = f"{origin}: profile {name}", _line(profiles, name)
            old = self.profiles.get(name, Profile(name, origin=origin))
            row = _check_mapping(row, at, PROFILE_KEYS, line)
            if old.origin == BUILT_IN != origin:
                self._check_addition(row, at, line)
            self.profiles[name] = _parse_profile(old, row, at)
            for rows in (row.get(part) for part in (*PACKAGES, "levels")):
                for key in rows if isinstance(rows, dict) else ():
                    self._places[f"profile {name} {key}"] = origin, _line(rows, key)

    def _check_addition(self, row: Mapping[str, Any], at: str, line: str) -> None:
        """Raise RegistryError where a file changes a built-in profile for built-in entries."""
        levels = row.get("levels") or {}
        names = list(levels) if isinstance(levels, dict) else ["*"]
        for package in PACKAGES:
            names += _check_mapping(row.get(package), f"{at}: {package}")
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


def _parse_entry(name: str, package: str, row: Any, origin: str, folder: Path, line: str) -> Entry:
    at = f"{origin}: {PACKAGES[package]} {name!r}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise RegistryError(f"{at}: a name is made of letters, digits and . _ + -{line}")
    row = _check_mapping(row, at, ENTRY_KEYS | EXTRA_KEYS[package], line)
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
                f"{at}: {key} must be {kind.__name__}, not {row[key]!r}{_line(row, key)}"
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
        args=_check_mapping(row.get("args"), f"{at}: args"),
        label=row.get("label", name),
        about=row.get("about", ""),
        paper=str(row.get("paper", "")),
        baseline=row.get("baseline", False),
        base=base,
        batch_dependent=row.get("batch_dependent", False),
        extra={key: row[key] for key in ("licence", "where", "tree", "counts") if key in row},
    )


def _parse_profile(old: Profile, row: Mapping[str, Any], at: str) -> Profile:
    """Return `old` with what another file adds: arguments for names that it does not hold."""
    args: dict[str, dict[str, Mapping[str, Any]]] = {}
    for package in PACKAGES:
        old_rows = old.args.get(package, {})
        new = _check_mapping(row.get(package), f"{at}: {package}", line=_line(row, package))
        if both := old_rows.keys() & new.keys():
            raise RegistryError(
                f"{at}: {package} {min(both)!r} has arguments in this profile already"
                f"{_line(new, min(both))}"
            )
        rows = {
            k: _check_mapping(v, f"{at}: {package} {k}", line=_line(new, k)) for k, v in new.items()
        }
        args[package] = {**old_rows, **rows}
    sweep = dict(old.levels_by_method)
    levels = row.get("levels", {})
    levels = levels if isinstance(levels, dict) else {"*": levels}
    for name, values in levels.items():
        line = _line(levels, name) or _line(row, "levels")
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


def _check_mapping(
    raw: Any, at: str, keys: Iterable[str] | None = None, line: str = ""
) -> dict[str, Any]:
    """Return `raw` if it is a mapping from text, with no keys but `keys`; {} for None.

    line: where it stands, for an error
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
                f"Valid keys are {', '.join(sorted(keys))}{_line(raw, key)}"
            )
    return raw


def _line(mapping: Mapping[str, Any], key: str) -> str:
    """(line N) of a key of a mapping that was read from a file."""
    lines = getattr(mapping, "lines", {})
    return f" (line {lines[key]})" if key in lines else ""


def _lookup(names: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in names:
        raise RegistryError(
            f"unknown {kind} {name!r}{did_you_mean(name, names)} "
            f"(adbench list{'' if ' ' in kind else f' {kind}s'})"
        )
    return names[name]
