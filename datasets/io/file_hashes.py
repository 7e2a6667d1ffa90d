"""What files hold, by the hash of their bytes; and the folder where adbench keeps what it made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from ..base import DataError, Progress, no_progress


def cache_root() -> Path:
    """Where adbench keeps what it can make again: $ADBENCH_CACHE, or the user's cache folder."""
    given = os.environ.get("ADBENCH_CACHE")
    return Path(given).expanduser() if given else user_cache_path("adbench")


def modification_stamp(path: Path) -> str:
    """Changes whenever a file is written to. Raises DataError if the file cannot be read."""
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def hash_files(paths: Sequence[Path], progress: Progress = no_progress) -> list[str]:
    """The sha256 of every file's bytes. Remembered while a file keeps its place, size and times,
    so that only new files are read, also after an interruption; forgetting costs a read."""
    memo = cache_root() / "data" / "digests.json"
    try:
        known = dict(json.loads(memo.read_bytes()))
    except (OSError, ValueError, TypeError):
        known = {}
    found: list[str] = []
    fresh = {}
    try:
        for path in paths:
            place, mark = str(path.absolute()), modification_stamp(path)
            old = known.get(place)
            if not (isinstance(old, list) and len(old) == 2 and old[0] == mark):
                try:
                    with path.open("rb") as file:
                        old = [mark, hashlib.file_digest(file, "sha256").hexdigest()]
                except OSError as error:
                    raise DataError(f"{path} cannot be read ({error.strerror})") from error
                fresh[place] = old
            found.append(old[1])
            progress("reading files", len(found), len(paths))
    finally:
        if fresh:
            memo.parent.mkdir(parents=True, exist_ok=True)
            half = memo.with_name(f"digests.{os.getpid()}.part")
            half.write_text(json.dumps(known | fresh))
            os.replace(half, memo)
    return found
