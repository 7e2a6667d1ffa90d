"""What a run is asked to do: by options, by a study file, or by a folder of results to repeat.

Options stand above both, and a note says of each what it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from ..evaluation.named_protocols import parse_protocols
from ..evaluation.protocol import Protocol
from ..experiments.matrix import expand_matrix, sweep_levels
from ..experiments.run_config import PROTOCOL_OPTIONS, OptionError, RunConfig, parse_settings
from ..leaderboard.records import Record, ReportError, read_records
from ..registry.code_fingerprint import loaded_code_digest
from ..registry.registry import Registry
from ..store.artifact_store import Store
from .study_file import check_study, read_study

RUN_OPTIONS = frozenset(
    ["device", "dtype", "compile", "skip_recorded", "workers", "micro", "checkpoint_interval",
     "out", "store", "log", "tensorboard", "executor", "slots", "timeout", "address", "slurm",
     "detach", "registry"]
)  # fmt: skip
"""Options that say how a run is computed, not what it computes."""

REPEAT_OPTIONS = RUN_OPTIONS | PROTOCOL_OPTIONS.keys() | {
    "methods", "datasets", "seeds", "levels", "limit", "settings", "data", "protocol",
    "fraction", "contaminate",
}  # fmt: skip
"""Options that can be given beside a folder of results."""


@dataclass(frozen=True)
class RunRequest:
    """What to run, and how.

    config: of the run; its experiments are run where there are no parts
    parts: configs whose experiments are run in place of its own
    notes: a line for everything that an option replaces or that differs from the original

    >>> RunRequest(RunConfig(["pca"])).parts
    ()
    """

    config: RunConfig
    parts: Sequence[RunConfig] = ()
    notes: Sequence[str] = ()


def read_request(
    options: Mapping[str, Any],
    *,
    study: str | Path | None = None,
    like: str | Path | None = None,
    store: Store | None = None,
) -> RunRequest:
    """The request of options, of a study file, or of a folder of results, under the options.

    options: as RunConfig.from_options takes them; None for what is left out
    study: a study file        like: a folder of results
    store: whose checkpoints tell whether the code of a repeated method has changed
    Raises OptionError on a value and where both are named, StudyError on a study file, ReportError
    where the folder holds no records.

    >>> from pathlib import Path
    >>> _ = Path("study.yaml").write_text("methods: [pca]\\nseeds: [0, 1]\\n")
    >>> request = read_request({"seeds": "5"}, study="study.yaml")
    >>> request.config.methods, request.config.seeds, request.notes
    (('pca',), (5,), ['study.yaml: seeds [0, 1] -> 5'])
    """
    options = {key: value for key, value in options.items() if value is not None}
    for name in ("methods", "datasets"):
        if not options.get(name, True):  # an empty sequence
            del options[name]
    if study is not None and like is not None:
        raise OptionError("a run repeats a study file or a folder of results (--like), not both")
    protocol = options.get("protocol")
    if protocol is None and study is not None:
        protocol = read_study(study).get("protocol")
    several = parse_protocols(protocol) if isinstance(protocol, str) else []
    if len(several) > 1:
        requests = [
            read_request({**options, "protocol": each}, study=study, like=like, store=store)
            for each in several
        ]
        return _join(requests)
    if study is not None:
        return _read_study_request(options, Path(study))
    if like is not None:
        return _repeat_results(options, Path(like), store)
    return RunRequest(RunConfig.from_options(**options))


def _join(requests: Sequence[RunRequest]) -> RunRequest:
    """One request of several that differ by their protocols: all experiments under the first, then
    under the next, whose maps are stored by then."""
    parts = [part for request in requests for part in (request.parts or [request.config])]
    notes = dict.fromkeys(note for request in requests for note in request.notes)
    return RunRequest(requests[0].config, parts, list(notes))


def _read_study_request(options: dict[str, Any], path: Path) -> RunRequest:
    content = read_study(path)
    registry = options.get("registry", content.get("registry", ()))
    check_study(path, Registry.read(*RunConfig.from_options(registry=registry).registry))
    notes = [
        f"{path}: {name} {_shown(content[name])} -> {_shown(options[name])}"
        for name in sorted(options.keys() & content.keys() - {"settings"})
        if content[name] != options[name]
    ]
    settings = {name: dict(values) for name, values in content.get("settings", {}).items()}
    for part in ("methods", "datasets"):  # of what is not run, no argument is left
        if part in options and part in content:
            chosen = RunConfig.from_options(**{part: options[part]})
            for name in set(content[part]) - set(getattr(chosen, part)):
                settings.pop(name, None)
    for name, values in parse_settings(options.get("settings", {})).items():
        before = settings.setdefault(name, {})
        notes += [
            f"{path}: {name}.{key} {before[key]!r} -> {value!r}"
            for key, value in values.items()
            if key in before and before[key] != value
        ]
        before |= values
    if options.keys() & {"methods", "suite"}:
        if "suite" in content and "suite" not in options:
            notes.append(f"{path}: suite {content['suite']!r} is left out")
        content = {k: v for k, v in content.items() if k not in ("methods", "suite")}
    if "protocol" in options:
        content = {k: v for k, v in content.items() if k not in PROTOCOL_OPTIONS}
    merged = {**content, **options, "settings": settings}
    return RunRequest(RunConfig.from_options(**merged), notes=notes)


def _shown(value: Any) -> str:
    if isinstance(value, Protocol):
        return value.describe()
    return str(value) if isinstance(value, (list, tuple, str, Path, int)) else repr(value)


def _repeat_results(options: dict[str, Any], folder: Path, store: Store | None) -> RunRequest:
    if refused := options.keys() - REPEAT_OPTIONS:
        raise OptionError(
            f"--{min(refused).replace('_', '-')} does not go with --like: the records hold every "
            f"argument; change single ones with --set"
        )
    config = RunConfig.from_options(
        **{k: v for k, v in options.items() if k in RUN_OPTIONS | {"data"}}
    )
    registry = Registry.read(*config.registry)
    every = read_records(folder / "records")
    notes = [f"{folder}: {r['reason']}" for r in every if r["status"] == "broken"]
    notes += [
        f"{folder}: {r['method']['name']} was brought in: it is left out"
        for r in every
        if r.get("external")
    ]
    records = [r for r in every if r["status"] != "broken" and not r.get("external")]
    if not records:
        raise ReportError(f"{folder} holds no record of a run that could be repeated")
    for part in ("methods", "datasets"):
        records = list(_selected(records, part, options.get(part)))
    notes += [
        f"{folder}: {name} is {options[name]} in place of what its records have"
        for name in sorted(
            (options.keys() & REPEAT_OPTIONS) - RUN_OPTIONS - {"methods", "datasets"}
        )
        if name != "data"
    ]
    settings = parse_settings(options.get("settings", {}))
    parts = [_repeat_record(record, options, settings, registry) for record in records]
    for name in settings:
        if not any(name in part.settings or not name for part in parts):
            raise OptionError(f"--set names {name!r}, which is not in {folder}")
    if tuned := sum(bool(record.get("tuning")) for record in records):
        notes.append(
            f"{folder}: {tuned} records were tuned; what was chosen is repeated as if it were set"
        )
    notes += _library_notes(records, folder)
    notes += _code_notes(records, registry, store) if store is not None else []
    return RunRequest(config, parts, notes)


def _selected(records: Sequence[Record], part: str, names: Any) -> Iterator[Record]:
    """The records of the named methods or datasets. Raises OptionError on one that none has."""
    kind = part.removesuffix("s")
    present = list(dict.fromkeys(record[kind]["name"] for record in records))
    chosen = getattr(RunConfig.from_options(**{part: names}), part) if names else present
    for name in chosen:
        if name not in present:
            raise OptionError(f"there is no {kind} {name!r} among {', '.join(present)}")
    yield from (record for record in records if record[kind]["name"] in chosen)


def _repeat_record(
    record: Record,
    options: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    registry: Registry,
) -> RunConfig:
    """The config whose only experiment is that of a record, under the options."""
    method, dataset = record["method"], record["dataset"]
    arguments = {method["name"]: dict(method["args"]), dataset["name"]: dict(dataset["args"])}
    for name, values in settings.items():
        for entry, own in arguments.items():
            for key, value in values.items():
                if name in (entry, entry.partition("/")[0]) or (not name and key in own):
                    own[key] = value
    repeated = {
        "methods": [method["name"]],
        "datasets": [dataset["name"]],
        "settings": arguments,
        "profile": record["profile"],
        "seeds": [record["seed"]],
        "limit": record["partial"],
        "fraction": [(record.get("training") or {}).get("fraction", 100)],
        "contaminate": [(record.get("training") or {}).get("contamination", 0)],
        "protocol": Protocol.from_dict(record["protocol"]),
        "baselines": False,
    }
    replaced = {k: v for k, v in options.items() if k not in ("methods", "datasets", "settings")}
    config = RunConfig.from_options(**{**repeated, **replaced})
    if config.levels is not None:
        return config
    for levels in _level_candidates(record, registry):
        candidate = RunConfig.from_options(**{**repeated, **replaced, "levels": levels})
        experiments = expand_matrix(candidate.resolve(registry, "cpu"), registry)
        if any(f"{experiment.name}.json" == record["file"] for experiment in experiments):
            return candidate
    levels = _swept_levels(record)
    experiment = expand_matrix(config.resolve(registry, "cpu"), registry)[0]
    if not levels or sweep_levels(experiment, registry.method(method["name"]).load()) == levels:
        return config
    return RunConfig.from_options(**{**repeated, **replaced, "levels": levels})


def _level_candidates(record: Record, registry: Registry) -> Iterator[list[int] | None]:
    """The levels that may have been asked for: a record has those that were swept, to which the
    published one was added; the name of its file tells which."""
    yield None
    if levels := _swept_levels(record):
        yield levels
        published = registry.method(record["method"]["name"]).load().published
        if rest := [level for level in levels if level != published]:
            yield rest


def _swept_levels(record: Record) -> list[int]:
    """The levels of a record; none of a method without a noise level."""
    return sorted(level for level in map(int, record.get("sweep") or {}) if level)


def _library_notes(records: Sequence[Record], folder: Path) -> list[str]:
    """A line for each library that trained the records in another version than is here."""
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, number in (record.get("versions") or {}).items():
            versions.setdefault(name, set()).add(str(number))
    notes = []
    for name, numbers in sorted(versions.items()):
        try:
            here = python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            here = "not installed"
        if numbers != {here}:
            notes.append(
                f"{folder} was made with {name} {', '.join(sorted(numbers))}; here: {here}"
            )
    return notes


def _code_notes(records: Sequence[Record], registry: Registry, store: Store) -> list[str]:
    """A line for each method whose code has changed since a store's checkpoints of the records."""
    changed = set[str]()
    for record in records:
        name, key = record["method"]["name"], (record.get("keys") or {}).get("checkpoint")
        artifact = store.read_metadata("checkpoint", key) if key else None
        if artifact is not None:
            digest = loaded_code_digest(registry.method(name).load())
            if artifact.key_inputs.get("code") != digest:
                changed.add(name)
    return [
        f"the code of {name} has changed since: it is trained again" for name in sorted(changed)
    ]
