"""Study files: the keyword arguments of `adbench.run` as YAML, checked line by line.

    methods:
      anoddpm: {steps: 20000}
      pddpm:
    datasets: {brats: {size: 96}}
    levels: [100, 250]
    seeds: [0, 1, 2]

Relative paths in a file are those of its folder. Only plain values are read: nothing in it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..evaluation.named_protocols import parse_protocols
from ..evaluation.protocol import Protocol
from ..experiments.run_config import OptionError, parse_settings
from ..registry.imports import did_you_mean
from ..registry.registry import Entry, Registry, RegistryError
from ..registry.setting_types import convert_setting, explain_refusal
from ..registry.yaml_lines import YAMLFileError, read_yaml_file

ENDINGS = (".yaml", ".yml", ".json")
"""How the name of a study file ends."""

MAX_VALUES = 100_000
"""Values in a file, those of repeated YAML anchors counted again, beyond which it is refused."""

Arguments = dict[str, dict[str, Any] | None]
Names = str | list[str] | Arguments
Numbers = int | str | list[int | str]
Count = Annotated[int, Meta(ge=1)]

STUDY_TYPES: dict[str, Any] = {
    "methods": Annotated[Names, Meta(description="Names, or names with their arguments.")],
    "datasets": Annotated[Names, Meta(description="Names, or names with their arguments.")],
    "suite": Annotated[str, Meta(description="Methods that go together.")],
    "baselines": Annotated[bool, Meta(description="Run the cheap baselines too.")],
    "settings": Annotated[
        dict[str, Any] | list[str], Meta(description="Arguments: {anoddpm.steps: 200}.")
    ],
    "profile": Annotated[str, Meta(description="Sizes and budgets: paper, tiny.")],
    "registry": Annotated[str | list[str], Meta(description="Further registry files.")],
    "data": Annotated[str, Meta(description="The folder of the data.")],
    "limit": Annotated[Count, Meta(description="Samples of each split; marks results as partial.")],
    "fraction": Annotated[
        float | str | list[float], Meta(description="Percents of the training patients.")
    ],
    "contaminate": Annotated[
        float | str | list[float], Meta(description="Percents of abnormal training samples.")
    ],
    "levels": Annotated[Numbers, Meta(description="Noise levels: [100, 250] or 50:500:50.")],
    "seeds": Annotated[Numbers, Meta(description="Training seeds.")],
    "protocol": Annotated[
        dict[str, Any] | str, Meta(description="How maps become scores and decisions.")
    ],
    "threshold": Annotated[str, Meta(description="healthy@5%, val-dice, fixed:0.1, oracle.")],
    "level_rule": Annotated[str, Meta(description="auto, val, published, pseudo.")],
    "reducer": Annotated[str, Meta(description="From map to image score: top2%, mean, max.")],
    "post": Annotated[str | list[str], Meta(description="Post-processing: [median5].")],
    "budget": Annotated[Count, Meta(description="Pixels that are sorted.")],
    "device": Annotated[str, Meta(description="auto, cpu, cuda, cuda:1.")],
    "dtype": Annotated[str, Meta(description="auto, float32, tf32, bfloat16.")],
    "skip_recorded": Annotated[
        bool, Meta(description="Leave alone what has a sound record of the same inputs in `out`.")
    ],
    "compile": Annotated[bool | str, Meta(description="auto, on, off, reduce-overhead.")],
    "workers": Annotated[int, Meta(ge=0, description="Processes that read samples ahead.")],
    "micro": Annotated[Count, Meta(description="Samples per forward and backward pass.")],
    "checkpoint_interval": Annotated[float, Meta(description="Seconds between two saves.")],
    "out": Annotated[str, Meta(description="Where records and the leaderboard go.")],
    "store": Annotated[str, Meta(description="Checkpoints and maps.")],
    "log": Annotated[str | list[str], Meta(description="Trackers: [tensorboard, mlflow, wandb].")],
    "tensorboard": Annotated[str, Meta(description="Folder for training curves.")],
    "executor": Annotated[str, Meta(description="local, inline, ray, slurm.")],
    "slots": Annotated[Count, Meta(description="Experiments at a time.")],
    "timeout": Annotated[float, Meta(ge=0, description="Seconds an experiment may take.")],
    "address": Annotated[str, Meta(description="Of a Ray cluster.")],
    "slurm": Annotated[str | list[str], Meta(description="For sbatch: partition=gpu.")],
}
"""The keys of a study file and the types of their values: the keyword arguments of `run`."""

PATHS = ("data", "out", "store", "tensorboard")


class StudyError(OptionError):
    """A study file is invalid: one line with the file, the line, and what would do.

    >>> StudyError("study.yaml, line 2: unknown key 'sedes'").exit_code
    2
    """


def read_study(path: str | Path) -> dict[str, Any]:
    """The keyword arguments of `adbench.run` that a study file holds.

    Arguments that stand under `methods` and `datasets` become `settings`; paths are absolute.

    path: of a YAML or JSON file
    Raises StudyError, with the line, on an unknown or repeated key and on a value of another type.

    >>> from pathlib import Path
    >>> text = "methods: {anoddpm: {steps: 20}, pca: }\\nseeds: [0, 1]\\n"
    >>> _ = Path("study.yaml").write_text(text)
    >>> read_study("study.yaml")
    {'methods': ['anoddpm', 'pca'], 'seeds': [0, 1], 'settings': {'anoddpm': {'steps': 20}}}
    """
    path = Path(path)
    raw = _load(path)
    options = {key: _checked(path, raw, key, STUDY_TYPES) for key in raw}
    settings = _settings(path, raw, options.get("settings", {}))
    for part in ("methods", "datasets"):
        if isinstance(entries := options.get(part), dict):
            for name, arguments in entries.items():
                if both := settings.get(name, {}).keys() & (arguments or {}).keys():
                    raise _error(
                        path, raw["settings"], "", f"{name}.{min(both)} stands under {part}, too"
                    )
                if arguments:
                    settings.setdefault(name, {}).update(arguments)
            options[part] = list(entries)
    if "protocol" in options:
        options["protocol"] = _protocol(path, raw, options["protocol"])
    for name in PATHS:
        if name in options:
            options[name] = _absolute(path, options[name])
    if "registry" in options:
        files = options["registry"]
        files = [files] if isinstance(files, str) else files
        options["registry"] = [_absolute(path, file) for file in files]
    options.pop("settings", None)
    return options | ({"settings": settings} if settings else {})


def check_study(path: str | Path, registry: Registry) -> None:
    """Check the names and arguments of a study file against a registry.

    Raises StudyError with the line of the name or argument that is wrong.

    >>> from pathlib import Path
    >>> from adbench.benchmark.registry.registry import Registry
    >>> _ = Path("study.yaml").write_text("methods:\\n  pca: {componets: 3}\\n")
    >>> check_study("study.yaml", Registry.read())
    Traceback (most recent call last):
    adbench.benchmark.sharing.study_file.StudyError: study.yaml, line 2: method 'pca' takes no ...
    """
    path = Path(path)
    raw = _load(path)
    profile = raw.get("profile")
    if profile is not None:
        _look_up(path, raw, "profile", registry.profile, profile)
    if raw.get("suite") is not None:
        _look_up(path, raw, "suite", registry.suite, raw["suite"])
    for part, find in (("methods", registry.method), ("datasets", registry.dataset)):
        entries = raw.get(part)
        if isinstance(entries, (str, list)):
            texts = [entries] if isinstance(entries, str) else entries
            for name in (name.strip() for text in texts for name in text.split(",")):
                if name and not name.startswith("hub:"):
                    _look_up(path, raw, part, find, name)
        for name, arguments in entries.items() if isinstance(entries, dict) else ():
            if not name.startswith("hub:"):
                entry = _look_up(path, entries, name, find, name)
                _check_arguments(path, entry, profile, arguments or {})


def study_schema(registry: Registry | None = None) -> dict[str, Any]:
    """The JSON schema of a study file, for editors.

    registry: whose names are offered, each with its arguments; None for any name

    >>> sorted(study_schema()["properties"])[:3]
    ['address', 'baselines', 'budget']
    """
    struct = msgspec.defstruct(
        "Study",
        [(name, kind | None, None) for name, kind in STUDY_TYPES.items()],
        forbid_unknown_fields=True,
    )
    _, components = msgspec.json.schema_components([struct])
    content = {**components["Study"]}
    content["properties"] = {k: _without_null(v) for k, v in content["properties"].items()}
    content["properties"]["protocol"] = {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {each.name: {} for each in fields(Protocol)},
                "additionalProperties": False,
            },
        ]
    }
    if registry is not None:
        for part, entries in (("methods", registry.methods), ("datasets", registry.datasets)):
            content["properties"][part] = _names_schema(entries)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def _load(path: Path) -> Any:
    """The mapping of a file, with lines. Raises StudyError on a text that holds none."""
    try:
        raw = read_yaml_file(path)
    except YAMLFileError as error:
        raise StudyError(str(error)) from error
    if not isinstance(raw, dict):
        raise StudyError(
            f"{path} holds no study: `name: value` lines such as methods, datasets and seeds"
        )
    if _count(raw, MAX_VALUES) < 0:
        raise StudyError(f"{path} holds more than {MAX_VALUES} values")
    for key in raw:
        if key not in STUDY_TYPES:
            hint = did_you_mean(str(key), STUDY_TYPES)
            message = f"unknown key {key!r}{hint} Keys are {', '.join(sorted(STUDY_TYPES))}"
            raise _error(path, raw, key, message)
    return raw


def _count(value: Any, left: int) -> int:
    """How many of `left` values remain after those within this one; negative if too few."""
    left -= 1
    parts: Sequence[Any] = ()
    if isinstance(value, dict):
        parts = [*value.values()]
    elif isinstance(value, list):
        parts = value
    for part in parts:
        if left < 0:
            return left
        left = _count(part, left)
    return left


def _checked(path: Path, raw: Any, key: str, types: Mapping[str, Any]) -> Any:
    """The value of a key, of its type. Raises StudyError."""
    if raw[key] is None:
        raise _error(path, raw, key, f"{key} has no value; leave it out, or give it one")
    try:
        return convert_setting(raw[key], types[key])
    except ValueError:
        shown = _plain(raw[key])
        raise _error(path, raw, key, f"{key} is {explain_refusal(shown, types[key])}") from None


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _settings(path: Path, raw: Any, settings: Any) -> dict[str, dict[str, Any]]:
    try:
        return parse_settings(settings)
    except OptionError as error:
        raise _error(path, raw, "settings", str(error)) from None


def _protocol(path: Path, raw: Any, protocol: Any) -> Protocol | str:
    """The protocol of a text, or of the names and values of its fields."""
    lines = raw["protocol"] if isinstance(protocol, dict) else raw
    key = "protocol"
    try:
        if isinstance(protocol, str):
            protocols = parse_protocols(protocol)
            return protocols[0] if len(protocols) == 1 else protocol
        names = [each.name for each in fields(Protocol)]
        values: dict[str, Any] = {}
        for key, value in protocol.items():
            if key not in names:
                hint = did_you_mean(key, names)
                raise ValueError(f"unknown key {key!r}{hint} Keys are {', '.join(names)}")
            default = getattr(Protocol(), key)
            if key == "post":
                value = value.split(",") if isinstance(value, str) else value
                if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                    raise ValueError(f"post is a list of steps such as [median5], not {value!r}")
            elif type(value) is not type(default):
                refusal = explain_refusal(value, type(default), default)
                raise ValueError(f"{key} is {refusal}")
            values[key] = tuple(value) if key == "post" else value
            Protocol(**values)  # an error is of this key
        return Protocol(**values)
    except ValueError as error:
        raise _error(path, lines, key, str(error)) from None


def _absolute(path: Path, text: str) -> str:
    """A path in a study file, which is relative to the file's folder."""
    return str((path.parent / Path(text).expanduser()).absolute())


def _look_up(path: Path, lines: Any, key: str, find: Any, name: str) -> Any:
    try:
        return find(name)
    except RegistryError as error:
        raise _error(path, lines, key, str(error)) from None


def _check_arguments(path: Path, entry: Entry, profile: str | None, arguments: Any) -> None:
    """Raise StudyError, with its line, on an argument that an entry refuses."""

    def problem(values: Mapping[str, Any]) -> str:
        try:
            entry.arguments(profile, values)
        except RegistryError as error:
            return str(error)
        return ""

    message = problem(arguments)
    if message:
        for key in arguments:
            if problem({k: v for k, v in arguments.items() if k != key}) != message:
                raise _error(path, arguments, key, message)
        raise StudyError(f"{path}: {message}")


def _error(path: Path, mapping: Any, key: Any, message: str) -> StudyError:
    line = getattr(mapping, "lines", {}).get(key)
    return StudyError(f"{path}{'' if line is None else f', line {line}'}: {message}")


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may be left out, and is never null."""
    content = {key: value for key, value in schema.items() if key != "default"}
    if "anyOf" in content:
        content["anyOf"] = [each for each in content["anyOf"] if each != {"type": "null"}]
        if len(content["anyOf"]) == 1:
            content |= content.pop("anyOf")[0]
    return content


def _names_schema(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Names, or names with their arguments; parts of a dataset and imported weights are allowed."""
    name = {"type": "string", "examples": sorted(entries)}
    return {
        "anyOf": [
            name,
            {"type": "array", "items": name},
            {
                "type": "object",
                "properties": {key: _arguments_schema(entry) for key, entry in entries.items()},
                "additionalProperties": {"type": ["object", "null"]},
            },
        ]
    }


def _arguments_schema(entry: Entry) -> dict[str, Any]:
    properties = {}
    for name, parameter in entry.parameters().items():
        annotation = parameter.annotation
        try:
            kind = {} if annotation is inspect.Parameter.empty else msgspec.json.schema(annotation)
        except TypeError:  # of a type that only convert_setting knows
            kind = {}
        properties[name] = kind if "$ref" not in kind else {}
    return {
        "type": ["object", "null"],
        "description": entry.about or entry.label,
        "properties": properties,
        "additionalProperties": False,
    }
