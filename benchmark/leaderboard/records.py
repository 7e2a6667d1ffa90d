"""Records of experiments: a reader of a results folder, and their seals.

Records of schema 1 are read as schema 2. A file that cannot be read, or holds no sound record,
becomes a record of status `broken` that says why, so that one bad file never hides the others.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .metric_names import METRIC_RANGES, ROUNDING
from .record_schema import FailedRecord, ResultRecord, SkippedRecord
from .text import number_text as number_text  # for `scheduling`, which may import this file alone
from .text import plain_text as plain_text

Record = Mapping[str, Any]
"""A record as JSON values, as `read_records` returns it: of the fields of ResultRecord where its
status is ok, else of those of FailedRecord, and the name of its `file`."""

SCHEMA = 2
MAX_DEPTH = 32
"""Containers within one another, beyond which a file holds no record."""

MAX_REASON = 250
"""Letters of the reason of a broken record, beyond which it is cut."""


class ReportError(ValueError):
    """There is nothing to report: one line, and the command that mends it.

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.records import ReportError
    >>> from adbench.benchmark.leaderboard.records import read_records
    >>> try:
    ...     read_records(Path("no/such/folder"))
    ... except ReportError as error:
    ...     print(error)
    no records in no/such/folder: make some with `adbench run` first
    """


class DamagedFile(ValueError):
    """A file is not the one that a record names: one line, and the command that mends it.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.leaderboard.records import DamagedFile
    >>> from adbench.benchmark.leaderboard.records import read_sealed
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "samples" / "x.h5"
    ...     path.parent.mkdir()
    ...     _ = path.write_bytes(b"edited")
    ...     try:
    ...         read_sealed({"files": {"samples/x.h5": "0" * 64}}, path)
    ...     except DamagedFile as error:
    ...         print(str(error).removeprefix(str(path)))
     was damaged or edited after it was written: the same `adbench run` writes it again
    """


SCHEMA_1_NAMES: dict[str, dict[str, str]] = {
    "counts": {"held_out": "calibration"},
    "keys": {"maps/held_out": "maps/calibration"},
    "samples": {
        "places": "pixels",
        "true": "abnormal_pixels",
        "found": "positive_pixels",
        "both": "true_positive_pixels",
    },
}
"""Keys of schema 1 and those of schema 2, in the parts of a record where they differ."""


def upgrade(record: Record) -> dict[str, Any]:
    """A record of schema 1 as one of schema 2: other keys, the same values.

    >>> from adbench.benchmark.leaderboard.records import upgrade
    >>> upgrade({"schema": 1, "counts": {"val": 4, "held_out": 2}})
    {'schema': 2, 'counts': {'val': 4, 'calibration': 2}}
    """
    upgraded = {**record, "schema": SCHEMA}
    for part, names in SCHEMA_1_NAMES.items():
        if isinstance(values := record.get(part), Mapping):
            upgraded[part] = {names.get(key, key): value for key, value in values.items()}
    return upgraded


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder as schema 2, each with the name of its `file`.

    One that cannot be read becomes a record of status `broken`, and so does a copy of another,
    which would count twice. Raises ReportError where there is none.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.leaderboard.records import read_records
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "x.json").write_text("null")
    ...     (record,) = read_records(Path(folder))
    >>> record["status"], record["file"]
    ('broken', 'x.json')
    """
    paths = sorted(Path(folder).glob("[!.]*.json"))
    if not paths:
        raise ReportError(f"no records in {folder}: make some with `adbench run` first")
    records = [_read_record(path) for path in paths]
    originals: dict[str, str] = {}
    for record in sorted(records, key=lambda record: len(record["file"])):  # "x (copy)" is longer
        if record["status"] == "broken":
            continue
        content = {key: value for key, value in record.items() if key != "file"}
        seal = record.get("seal") or record_seal(content)
        original = originals.setdefault(seal, record["file"])
        if original != record["file"]:
            name = record["file"]
            record.clear()
            record |= _broken_record(name, f"{name} is a copy of {original}: remove one of them")
    return records


def _read_record(path: Path) -> dict[str, Any]:
    """A record, or one of status `broken` that says why there is none."""
    name = path.name.encode("utf-8", "backslashreplace").decode()
    try:
        if name != path.name:
            raise ValueError("its name is no UTF-8")
        return read_record(path) | {"file": name}
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
    if len(reason) > MAX_REASON:
        reason = f"{reason[:MAX_REASON]} …"
    reason = f"{name} is no record: {reason}; the same `adbench run` writes it again"
    return _broken_record(name, reason)


def _broken_record(name: str, reason: str) -> dict[str, Any]:
    label = name.removesuffix(".json")
    return {
        "schema": SCHEMA,
        "status": "broken",
        "reason": reason,
        "method": {"name": label, "label": label, "baseline": False, "args": {}},
        "dataset": {"name": "", "args": {}, "fingerprint": "", "synthetic": False},
        "protocol": {"id": "", "text": ""},
        "profile": "-",
        "seed": "-",
        "partial": None,
        "file": name,
    }


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file, as schema 2.

    Raises OSError where the file cannot be read, ValueError where it holds no sound record.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.leaderboard.records import read_record
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "x.json"
    ...     _ = path.write_text("[]")
    ...     read_record(path)
    Traceback (most recent call last):
    ValueError: it holds no object
    """
    if path.exists() and not path.is_file():  # a pipe would never end
        raise OSError("it is no file")
    return parse_record(path.read_text(encoding="utf-8"))


def parse_record(text: str) -> dict[str, Any]:
    """The record that a JSON text holds, as schema 2. Raises ValueError where it is not sound.

    >>> from adbench.benchmark.leaderboard.records import parse_record
    >>> parse_record('{"schema": 3}')
    Traceback (most recent call last):
    ValueError: it has schema 3, and this adbench reads 1 and 2
    """
    try:
        record = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("it holds no object")
    schema = record.get("schema")
    if type(schema) is not int or schema not in (1, SCHEMA):
        shown = repr(schema) if len(str(schema)) < 20 else "of another kind"
        raise ValueError(f"it has schema {shown}, and this adbench reads 1 and {SCHEMA}")
    _check_values(record)
    if not is_intact(record):
        raise ValueError("it was damaged or edited after it was written")
    if "seal" not in record:  # in a sealed one a second value would not fit
        json.loads(text, object_pairs_hook=_check_unique)
    record = upgrade(record) if schema == 1 else record
    _check_figures(record)
    try:
        msgspec.convert(record, ResultRecord | FailedRecord | SkippedRecord)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace(" - at `$.", ": ").rstrip("`")) from None
    return record


def _check_unique(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it holds {name!r} twice")


def record_seal(record: Record) -> str:
    """The SHA-256 of a record without its seal, as canonical JSON.

    >>> from adbench.benchmark.leaderboard.records import record_seal
    >>> record_seal({"seed": 0})[:8], record_seal({"seed": 0, "seal": "any"})[:8]
    ('de7d7744', 'de7d7744')
    """
    content = {key: value for key, value in record.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def record_text(record: Record) -> str:
    """The text of a record's file: JSON, a line for each field, in alphabetical order.

    Indented, a quarter of the file would be spaces, for lists are as long as there are samples.

    >>> from adbench.benchmark.leaderboard.records import record_text
    >>> print(record_text({"seed": 0, "counts": {"val": 4, "test": 8}}), end="")
    {
    "counts":{"test":8,"val":4},
    "seed":0
    }
    """
    fields = (
        f"{json.dumps(name)}:{json.dumps(record[name], sort_keys=True, separators=(',', ':'))}"
        for name in sorted(record)
    )
    return "{\n" + ",\n".join(fields) + "\n}\n"


def is_intact(record: Record) -> bool:
    """Whether a record fits its seal; also one of an older adbench, which has none.

    >>> from adbench.benchmark.leaderboard.records import is_intact, record_seal
    >>> sealed = {"seed": 0, "seal": record_seal({"seed": 0})}
    >>> is_intact(sealed), is_intact(sealed | {"seed": 1}), is_intact({"seed": 0})
    (True, False, True)
    """
    if "seal" in record:
        return record["seal"] == record_seal(record)
    return "files" not in record


def read_intact_record(path: Path) -> dict[str, Any]:
    """The record in a file as it stands; empty where it cannot be read or does not fit its seal.

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.records import read_intact_record
    >>> read_intact_record(Path("no/such/record.json"))
    {}
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if isinstance(record, dict) and is_intact(record) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def read_sealed(record: Record, path: Path) -> bytes:
    """The content of a file beside a record, such as `samples/X.h5`.

    Raises DamagedFile where the record has its SHA-256 and it differs, OSError where it cannot be
    read.

    >>> from hashlib import sha256
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.leaderboard.records import read_sealed
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "samples" / "x.h5"
    ...     path.parent.mkdir()
    ...     _ = path.write_bytes(b"as written")
    ...     read_sealed({"files": {"samples/x.h5": sha256(b"as written").hexdigest()}}, path)
    b'as written'
    """
    content = path.read_bytes()
    digest = (record.get("files") or {}).get(f"{path.parent.name}/{path.name}")
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        raise DamagedFile(
            f"{path} was damaged or edited after it was written: the same `adbench run` writes it "
            "again"
        )
    return content


def _check_values(value: Any, name: str = "", depth: int = 0) -> None:
    """Raises ValueError on what JSON texts may hold and no report can show."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, part in value.items():
            _check_values(key, name, depth + 1)
            _check_values(part, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check_values(part, name, depth + 1)
    elif isinstance(value, str):
        value.encode()  # half a surrogate pair can be written nowhere
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise ValueError(f"{name} is too large a number")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, no number")


def _check_figures(record: Record) -> None:
    """Raises ValueError, with its full name, on a figure that is neither a number in its range nor
    missing."""
    parts = ("cost", "reference", "at_published", "at_oracle", "metrics", "strata", "sweep")
    _check_subgroups(record.get("metadata"))
    for part in ("pixel_error", *parts):
        for path, figure in _leaves(record.get(part), (part,)):
            name = ".".join(path)
            if figure is None:
                continue
            if type(figure) not in (int, float):
                raise ValueError(f"{name} is {figure!r}, no number")
            metric = next((word for word in path if word in METRIC_RANGES), "")
            low, high = METRIC_RANGES.get(metric, (-math.inf, math.inf))
            if not low - ROUNDING <= figure <= high + ROUNDING:
                raise ValueError(f"{name} is {figure:g}, and lies in {low:g} to {high:g}")
    for level in record["sweep"] if isinstance(record.get("sweep"), dict) else {}:
        if not (level.isascii() and level.isdigit() and len(level) <= 4 and int(level) <= 1000):
            raise ValueError(f"sweep.{level}: {level!r} is no noise level")


def _check_subgroups(fields: Any) -> None:
    """Raises ValueError on a figure of a subgroup that is no number in its metric's range."""
    for name, field in fields.items() if isinstance(fields, dict) else ():
        subgroups = field.get("subgroups") if isinstance(field, dict) else None
        for value, subgroup in subgroups.items() if isinstance(subgroups, dict) else ():
            metrics = subgroup.get("metrics") if isinstance(subgroup, dict) else None
            for path, figure in _leaves(metrics, ()):
                low, high = METRIC_RANGES.get(path[0] if path else "", (-math.inf, math.inf))
                number = type(figure) in (int, float)
                if figure is not None and not (
                    number and low - ROUNDING <= figure <= high + ROUNDING
                ):
                    place = ".".join(("metadata", name, value, *path))
                    raise ValueError(f"{place} is {figure!r}, and lies in {low:g} to {high:g}")


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value within dictionaries, with its path."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, (*path, name))
    else:
        yield path, value


def metric_value(record: Record, metric: str, part: str = "value") -> float | None:
    """A metric of a record, or an end of its interval; None where there is none.

    part: value, low or high

    >>> from adbench.benchmark.leaderboard.records import metric_value
    >>> metric_value({"metrics": {"pixel_ap": {"value": 0.5}}}, "pixel_ap")
    0.5
    """
    value = ((record.get("metrics") or {}).get(metric) or {}).get(part)
    return value if isinstance(value, int | float) else None
