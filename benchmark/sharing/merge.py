"""Merging folders of results: the records, sample results and pictures of several machines.

Everything is checked before anything is written: records and the files that they name by their
SHA-256, and whether the records belong together. What is merged already is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..leaderboard.records import DamagedFile, Record, read_records, read_sealed
from ..store.artifact_store import canonical_json
from ..store.atomic_files import atomic_write, check_folder

MEASURED = ("status", "level", "threshold", "metrics", "samples", "sweep", "counts")
"""What two records of one experiment must agree on: not seconds, machines or pictures."""

FILE_FOLDERS = ("samples", "pictures")
"""Folders beside `records` whose files a record may name."""

MAX_PROBLEMS = 20
"""Problems that an error lists, beyond which it counts them."""


class MergeError(ValueError):
    """Folders of results do not belong together: what and why, a line each.

    >>> str(MergeError("nothing is merged:"))
    'nothing is merged:'
    """

    exit_code = 2


@dataclass
class MergeReport:
    """What a merge did, as names of experiments.

    merged: new in the target            present: in it already, or in two folders alike
    replaced: failed or skipped before, and a result now
    notes: what was decided between two records of one experiment

    >>> MergeReport(merged=["brats.pca.paper.s0.01234567"]).present
    []
    """

    merged: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Source:
    """A record, and the folder that it is from."""

    folder: Path
    record: Record

    @property
    def name(self) -> str:
        return str(self.record["file"]).removesuffix(".json")

    @property
    def path(self) -> Path:
        return self.folder / "records" / str(self.record["file"])


def merge_results(
    folders: Sequence[str | Path], to: str | Path, *, separate_boards: bool = False
) -> MergeReport:
    """Merge folders of results into one, which may be new or one of them; return what was done.

    The records of one experiment must have the same numbers; what differs from machine to machine,
    such as seconds, is that of the first folder. A result replaces a failure of another machine.

    separate_boards: accept folders that evaluated one dataset with other contents or under another
        protocol; they share no leaderboard
    Raises MergeError, with all that does not belong together and why, before anything is written;
    ReportError on a folder without records; StoreError where the target cannot be written.

    >>> from adbench.benchmark.leaderboard.example_records import (
    ...     example_record, write_example_records)
    >>> write_example_records("a", [example_record("AnoDDPM", seed=0)])
    >>> write_example_records("b", [example_record("AnoDDPM", seed=1)])
    >>> merge_results(["a", "b"], "all").merged
    ['anoddpm-brats-0', 'anoddpm-brats-1']
    >>> report = merge_results(["a", "b"], "all")
    >>> len(report.merged), len(report.present)
    (0, 2)
    """
    if not folders:
        raise MergeError("a merge takes one folder of results at least")
    target, problems = Path(to), list[str]()
    paths = list(dict.fromkeys(Path(folder) for folder in folders))
    if (target / "records").is_dir() and any((target / "records").glob("[!.]*.json")):
        paths = [target, *(path for path in paths if path.resolve() != target.resolve())]
    sources = [list(_read_folder(path, problems)) for path in paths]
    if not separate_boards:
        problems += _board_problems(sources)
    problems += _content_problems(sources)
    report = MergeReport()
    chosen, obsolete = _choose([each for own in sources for each in own], target, report, problems)
    for source in chosen:
        for name in _file_names(source, problems):
            _read_file(source, name, problems)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        listed = [*problems[:MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        raise MergeError("\n  ".join(["nothing is merged:", *listed]))
    check_folder(target, "--to")
    for source in chosen:
        for name in _file_names(source, problems):
            atomic_write(target / name, _read_file(source, name, problems))
        atomic_write(target / "records" / source.path.name, source.path.read_bytes())
    for path in obsolete:
        path.unlink(missing_ok=True)
    return report


def _read_folder(folder: Path, problems: list[str]) -> Iterable[_Source]:
    """The records of a folder but broken ones, which are problems."""
    for record in read_records(folder / "records"):
        if record["status"] == "broken":
            problems.append(f"{folder}: {record['reason']}")
        else:
            yield _Source(folder, record)


def _settings(record: Record) -> str:
    """Which data a record asks for, by what the user sets."""
    data = record["dataset"]
    return canonical_json([data["name"], data["args"], record["partial"]])


def _content_problems(sources: Sequence[Sequence[_Source]]) -> list[str]:
    """A line for each dataset that holds other samples under the same settings."""
    first: dict[str, _Source] = {}
    problems = dict[str, None]()
    for source in (source for each in sources for source in each):
        fingerprint = source.record["dataset"]["fingerprint"]
        if not fingerprint:
            continue
        # a protocol that chooses its level on synthetic anomalies predicts one split more
        key = f"{_settings(source.record)} {source.record['protocol'].get('level') == 'pseudo'}"
        other = first.setdefault(key, source)
        if other.record["dataset"]["fingerprint"] != fingerprint and other.folder != source.folder:
            problems[
                f"{source.record['dataset']['name']} holds other samples in {source.folder} "
                f"({fingerprint}) than in {other.folder} "
                f"({other.record['dataset']['fingerprint']}) under the same settings: compare the "
                "data of the two machines (adbench data verify)"
            ] = None
    return list(problems)


def _board_problems(sources: Sequence[Sequence[_Source]]) -> list[str]:
    """A line for each dataset of which a folder shares no board with those before it."""
    problems = list[str]()
    before: dict[str, dict[tuple[Any, ...], _Source]] = {}
    for each in sources:
        boards: dict[str, dict[tuple[Any, ...], _Source]] = {}
        for source in each:
            record = source.record
            if record["dataset"]["fingerprint"]:
                parts = (_settings(record), record["protocol"]["id"])
                boards.setdefault(record["dataset"]["name"], {}).setdefault(parts, source)
        for dataset, own in boards.items():
            theirs = before.setdefault(dataset, {})
            if theirs and not own.keys() & theirs.keys():
                problems.append(_difference(next(iter(theirs.values())), next(iter(own.values()))))
            before[dataset] = {**own, **theirs}
    return problems


def _difference(first: _Source, second: _Source) -> str:
    """In what two records of a dataset differ that share no leaderboard."""
    one, other = first.record, second.record
    texts = list[str]()
    for name in sorted(one["dataset"]["args"].keys() | other["dataset"]["args"].keys()):
        pair = [each["dataset"]["args"].get(name) for each in (one, other)]
        if pair[0] != pair[1]:
            texts.append(f"{name} {pair[0]!r} and {pair[1]!r}")
    if one["partial"] != other["partial"]:
        texts.append(f"limit {one['partial']} and {other['partial']}")
    for name in sorted(one["protocol"].keys() | other["protocol"].keys()):
        pair = [each["protocol"].get(name) for each in (one, other)]
        if name not in ("id", "text") and pair[0] != pair[1]:
            texts.append(f"protocol {name} {pair[0]!r} and {pair[1]!r}")
    return (
        f"{one['dataset']['name']} shares no leaderboard in {first.folder} and {second.folder}: "
        f"{', '.join(texts)}; --separate-boards keeps them apart"
    )


def _identity(record: Record) -> str:
    """What makes two records those of one experiment, whatever their files are called: the data of
    two machines lie in different folders. Without the levels, which a failure does not have."""
    method, data = record["method"], record["dataset"]
    return canonical_json(
        [
            *(method["name"], method["args"], data["name"], data["args"]),
            *(record["profile"], record["seed"], record["partial"], record["protocol"]["id"]),
        ]
    )


def _choose(
    sources: Sequence[_Source], target: Path, report: MergeReport, problems: list[str]
) -> tuple[list[_Source], list[Path]]:
    """The records to copy, and those of the target that a result replaces."""
    results: dict[str, _Source] = {}
    for source in sources:
        if source.record["status"] != "ok":
            continue
        levels = sorted(source.record.get("sweep") or {})
        first = results.setdefault(f"{_identity(source.record)} {levels}", source)
        if first is source:
            continue
        if conflict := _conflict(first, source):
            problems.append(conflict)
        elif _other_machine(first.record, source.record):
            report.notes.append(
                f"{first.name}: the same numbers in {source.folder}; seconds and machine are those "
                f"of {first.folder}"
            )
    done = {_identity(source.record) for source in results.values()}
    failures: dict[str, _Source] = {}
    obsolete, replaced = list[Path](), set[str]()
    for source in sources:
        identity = _identity(source.record)
        if source.record["status"] == "ok":
            continue
        if identity not in done:
            failures.setdefault(identity, source)
        elif source.folder == target:
            obsolete.append(source.path)
            replaced.add(identity)
        else:
            status = source.record["status"]
            report.notes.append(f"{source.name}: {status} in {source.folder}, a result elsewhere")
    chosen, names = list[_Source](), dict[str, _Source]()
    for source in (*results.values(), *failures.values()):
        other = names.setdefault(source.name, source)
        if other is not source:
            problems.append(f"{source.path} is another experiment than {other.path}")
        if source.folder == target:
            report.present.append(source.name)
            continue
        is_replacement = _identity(source.record) in replaced
        (report.replaced if is_replacement else report.merged).append(source.name)
        chosen.append(source)
    written = {target / "records" / source.path.name for source in chosen}
    return chosen, [path for path in obsolete if path not in written]


def _conflict(first: _Source, second: _Source) -> str:
    """Why two records of one experiment cannot both be; empty where they agree."""
    one, other = first.record, second.record
    if all(one.get(name) == other.get(name) for name in MEASURED):
        return ""
    keys = [(each.record.get("keys") or {}).get("record", "?")[:8] for each in (first, second)]
    why = "under one key" if keys[0] == keys[1] else f"(keys {keys[0]} and {keys[1]}: other code?)"
    return (
        f"{first.name} has other numbers in {second.folder} than in {first.folder} {why}: "
        f"{_metric_difference(one, other)}"
    )


def _metric_difference(one: Record, other: Record) -> str:
    for name, metric in one["metrics"].items():
        value, second = metric["value"], other["metrics"].get(name, {}).get("value")
        if value != second:
            return f"{name} {_number(value)} and {_number(second)}"
    return "the metrics agree, single samples do not"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"


def _other_machine(one: Record, other: Record) -> bool:
    return any(one.get(name) != other.get(name) for name in ("cost", "device", "versions"))


def _file_names(source: _Source, problems: list[str]) -> list[str]:
    """The files that a record names, by their path in the results."""
    names = list[str]()
    for name in source.record.get("files") or {}:
        parts = PurePosixPath(name).parts
        if len(parts) == 2 and parts[0] in FILE_FOLDERS and parts[1] not in ("..", "."):
            names.append(name)
        else:
            problems.append(f"{source.path} names a file elsewhere: {name!r}")
    return names


def _read_file(source: _Source, name: str, problems: list[str]) -> bytes:
    """The content of a file that a record names, verified by its SHA-256."""
    path = source.folder / name
    try:
        return read_sealed(source.record, path)
    except DamagedFile as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror or error}")
    return b""
