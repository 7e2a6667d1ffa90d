"""An entry of the registry: the class and the settings behind the name of a method or dataset."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .imports import did_you_mean, import_code
from .lookup import RegistryError, lookup
from .profile import Profile
from .setting_types import convert_setting, explain_refusal
from .settings import build, rename_settings, setting_parameters

PACKAGES = {"methods": "method", "datasets": "dataset"}
"""The two kinds of entries: the package of their classes, and the word for one of them."""

OVERRIDES = "asked for"
"""The source of arguments that the user names."""


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
    weights_args: the arguments that these weights were imported with
    networks: by part, the architecture of networks that take the place of the method's own
    extra: facts for readers: licence, where to get the data, which files are expected, counts

    >>> from adbench.benchmark.registry.registry import Registry
    >>> dae = Registry.read().method("dae")
    >>> dae.load().__name__, dae.arguments("tiny", {"steps": 9})["steps"]
    ('DAE', 9)
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
    weights_args: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Any] = field(default_factory=dict, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)
    category: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """Its kind and name, such as "method 'dae'", for an error."""
        return f"{PACKAGES[self.package]} {self.name!r}"

    def load(self) -> Any:
        """Import and return the class. Raises RegistryError with the cause where that fails."""
        module, _, name = self.import_path.rpartition(":")
        try:
            imported = import_code(module)
        except (Exception, SystemExit) as error:  # a plugin may fail in any way at its import
            text = " ".join(str(error).split())[:300].encode(errors="backslashreplace").decode()
            cause = f"{type(error).__name__}: {text}".removesuffix(": ")
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

        A dataset of files is called as its entry, so that errors and the folder below --data have
        the name that the user gave, although several entries may have one class.
        """
        built = build(self.load(), *positional, **settings)
        if self.package == "datasets" and getattr(built, "name", None):
            built.name = self.name.partition("/")[0]
        return built

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
            for key, value in self._renamed(arguments, source).items():
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
            rows = lookup(self.profiles, profile, "profile").args.get(self.package, {})
        yield self.origin, self.base_args if self.base else self.args
        parameters = self.parameters() if "*" in rows else {}
        for_all = self._renamed(rows["*"], f"profile {profile}") if "*" in rows else {}
        common = {key: value for key, value in for_all.items() if key in parameters}
        yield f"profile {profile}", common
        if self.base:
            yield f"profile {profile}", rows.get(self.base, {})
            yield self.origin, self.args
        for name in dict.fromkeys([re.split("[/@]", self.name)[0], self.name]):
            yield f"profile {profile}", rows.get(name, {})
        if self.category is not None:
            yield f"the part of {self.name!r} after the slash", {"category": self.category}
        yield f"the import of {self.name!r}", self.weights_args
        yield OVERRIDES, overrides

    def _renamed(self, arguments: Mapping[str, Any], source: str) -> dict[str, Any]:
        """The arguments of a source by their present names."""
        try:
            return rename_settings(self.load(), arguments)
        except ValueError as error:
            raise RegistryError(f"{self.title}: {error} ({source})") from None

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
