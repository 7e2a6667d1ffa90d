"""Files that appear under their name only when they are whole, and what a full disk looks like."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ...datasets.io.fsync import fsync_path

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}


class StoreError(RuntimeError):
    """The store cannot be written or read: one line, what and why and how to mend it."""


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a small file so that it is there whole or not at all."""
    with atomic_path(path) as part, describe_write_errors(path):
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to. What is there at the end takes the name `path`; if the
    block raises, nothing stays and what had the name keeps it."""
    part = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        with describe_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with describe_write_errors(path):
            fsync_path(part)
            part.replace(path)
            fsync_path(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def describe_write_errors(path: Path, *, only_full_disk: bool = False) -> Iterator[None]:
    """Tell of an OSError (or of a full disk only) as a user needs it."""
    try:
        yield
    except (TimeoutError, StoreError):
        raise
    except Exception as error:
        short = is_disk_full(error)
        if not short and (only_full_disk or not isinstance(error, OSError)):
            raise
        why = os.strerror(errno.ENOSPC) if short else getattr(error, "strerror", None) or error
        cure = "free some space, or" if short else "to write elsewhere,"
        raise StoreError(f"cannot write {path}: {why} ({cure} set ADBENCH_STORE)") from error


def is_disk_full(error: BaseException) -> bool:
    """Whether this came of a full disk or quota; safetensors and HDF5 tell of it in words."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in DISK_FULL_ERRNOS or os.strerror(errno.ENOSPC) in str(
            cause
        ):
            return True
        cause = cause.__cause__
    return False


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_size(path: Path) -> int:
    """Of every file in a folder, however deep; what vanishes meanwhile does not count."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
