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
    folder = os.environ.get("ADBENCH_CACHE")
    return Path(folder).expanduser() if folder else user_cache_path("adbench")


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
    memo_path = cache_root() / "data" / "digests.json"
    try:
        remembered = dict(json.loads(memo_path.read_bytes()))
    except (OSError, ValueError, TypeError):
        remembered = {}
    digests: list[str] = []
    new = {}
    try:
        for path in paths:
            location, stamp = str(path.absolute()), modification_stamp(path)
            entry = remembered.get(location)
            if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
                try:
                    with path.open("rb") as file:
                        entry = [stamp, hashlib.file_digest(file, "sha256").hexdigest()]
                except OSError as error:
                    raise DataError(f"{path} cannot be read ({error.strerror})") from error
                new[location] = entry
            digests.append(entry[1])
            progress("reading files", len(digests), len(paths))
    finally:
        if new:
            memo_path.parent.mkdir(parents=True, exist_ok=True)
            partial = memo_path.with_name(f"digests.{os.getpid()}.part")
            partial.write_text(json.dumps(remembered | new))
            os.replace(partial, memo_path)
    return digests
