"""Files that appear under their name only when complete, and errors of full or read-only disks."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ...datasets.io.fsync import fsync_path

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}


ELSEWHERE = "name another folder"
"""The remedy of what is written into a folder that the user names in the same command."""

ANOTHER_STORE = "set ADBENCH_STORE"
"""The remedy of what is written into the store."""


class StoreError(RuntimeError):
    """A store cannot be written or read; one line that says what, why and how to mend it.

    >>> from adbench.benchmark.store.atomic_files import StoreError
    >>> str(StoreError("there is nothing to export"))
    'there is nothing to export'
    """


def atomic_write(path: Path, data: bytes | str, *, elsewhere: str = ELSEWHERE) -> None:
    """Write a small file that appears complete or not at all.

    elsewhere: what to do to write into another folder, for the error

    Raises StoreError if it cannot be written.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "new", "record.json")
    ...     atomic_write(path, "{}")
    ...     path.read_text(), len(list(path.parent.iterdir()))
    ('{}', 1)
    """
    with (
        atomic_path(path, elsewhere=elsewhere) as part,
        describe_write_errors(path, elsewhere=elsewhere),
    ):
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_path(path: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, which takes the name `path` at the end.

    If the block raises, nothing stays and an earlier file of that name remains.

    elsewhere: what to do to write into another folder, for the error

    Raises StoreError if the folder or the name cannot be written, or the disk is full, whatever
    library meets that in the block.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "maps.h5")
    ...     with atomic_path(path) as part:
    ...         _ = part.write_bytes(b"scores")
    ...         before = path.exists()
    ...     before, path.read_bytes()
    (False, b'scores')
    """
    part = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        with describe_write_errors(path, elsewhere=elsewhere):
            path.parent.mkdir(parents=True, exist_ok=True)
        with describe_write_errors(path, only_full_disk=True, elsewhere=elsewhere):
            yield part
        with describe_write_errors(path, elsewhere=elsewhere):
            fsync_path(part)
            part.replace(path)
            fsync_path(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def describe_write_errors(
    path: Path, *, only_full_disk: bool = False, elsewhere: str = ELSEWHERE
) -> Iterator[None]:
    """Raise an OSError of the block as a StoreError that names the path, the cause and the remedy.

    only_full_disk: other errors than those of a full disk pass unchanged
    elsewhere: what to do to write into another folder

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.atomic_files import StoreError, describe_write_errors
    >>> try:
    ...     with describe_write_errors(Path("maps.h5")):
    ...         raise OSError(28, "No space left on device")
    ... except StoreError as error:
    ...     print(error)
    cannot write maps.h5: No space left on device (free some space, or name another folder)
    """
    try:
        yield
    except (TimeoutError, StoreError):
        raise
    except Exception as error:
        is_full = is_disk_full(error)
        if not is_full and (only_full_disk or not isinstance(error, OSError)):
            raise
        cause = os.strerror(errno.ENOSPC) if is_full else getattr(error, "strerror", None) or error
        remedy = "free some space, or" if is_full else "to write elsewhere,"
        raise StoreError(f"cannot write {path}: {cause} ({remedy} {elsewhere})") from error


def check_folder(folder: Path, option: str) -> None:
    """Raise StoreError unless files can be written to a folder, which need not be there yet.

    option: that names the folder, for the error

    >>> import tempfile
    >>> from pathlib import Path
    >>> from adbench.benchmark.store.atomic_files import check_folder
    >>> check_folder(Path(tempfile.gettempdir()) / "new", "--out")
    """
    try:
        existing = folder.absolute()
        while not existing.exists():
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"-")
    except OSError as error:
        raise StoreError(
            f"cannot write to {folder}: {error.strerror or error} (name another folder with "
            f"{option})"
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Return whether an exception was caused by a full disk or quota.

    safetensors and HDF5 report it in their text only.

    >>> from adbench.benchmark.store.atomic_files import is_disk_full
    >>> is_disk_full(OSError(28, "No space left on device")), is_disk_full(OSError(2, "no file"))
    (True, False)
    """
    cause: BaseException | None = error
    while cause is not None:
        number = getattr(cause, "errno", None)
        if number in DISK_FULL_ERRNOS or os.strerror(errno.ENOSPC) in str(cause):
            return True
        cause = cause.__cause__
    return False


def free_bytes(path: Path) -> int | None:
    """Return the free bytes of the disk where a path lies or will lie; None if they are unknown.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.atomic_files import free_bytes
    >>> free_bytes(Path("/no/such/folder")) >= 0
    True
    """
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        return shutil.disk_usage(existing).free
    except OSError:
        return None


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "empty")
    ...     path.touch()
    ...     file_sha256(path)[:16]
    'e3b0c44298fc1c14'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_size(path: Path) -> int:
    """Return the bytes of all files in a folder, however deep; vanishing files do not count.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.atomic_files import folder_size
    >>> folder_size(Path("/no/such/folder"))
    0
    """
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
