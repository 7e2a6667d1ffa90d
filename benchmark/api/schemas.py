"""JSON schemas of the files that people write and programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..experiments.run_config import OptionError
from ..registry.imports import did_you_mean

KINDS = ("study", "record")


def json_schema(kind: str, *, registry: Sequence[str | Path] = ()) -> dict[str, Any]:
    """The JSON schema of a kind of file.

    kind: `study`, with the names and arguments of all methods and datasets; or `record`
    registry: further registry files
    Raises OptionError on another kind.

    >>> json_schema("record")["discriminator"]["propertyName"]
    'status'
    """
    if kind == "study":
        from ..registry.registry import Registry
        from ..sharing.study_file import study_schema

        return study_schema(Registry.read(*map(Path, registry)))
    if kind == "record":
        from ..leaderboard.record_schema import json_schema as record_schema

        return record_schema()
    hint = did_you_mean(kind, KINDS)
    raise OptionError(f"there is no schema {kind!r}{hint} There are {' and '.join(KINDS)}")
