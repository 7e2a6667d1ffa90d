"""Writing HDF5 files so that a full disk is an OSError.

HDF5 does not survive a failing write: closing such a file crashes the process. So HDF5 writes to a
Python file that never fails, and the error is raised once HDF5 has closed the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py

from .fsync import fsync_path


class _NeverFailingFile(io.RawIOBase):
    """A file as h5py needs it, whose first OSError is kept and after which nothing is written.

    path: of the new file
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        position = 0
        while self.error is None and position < len(view):
            try:
                position += self._file.write(view[position:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        position = 0
        while position < len(view):
            count = self._file.readinto(view[position:])
            if not count:  # beyond the end, because nothing is written any more
                view[position:] = bytes(len(view) - position)
                break
            position += count
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size or 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


class HDF5Output:
    """A new HDF5 file that is being written; any OSError is raised by `check` and `close`.

    path: of the file; an earlier one is replaced
    options: as h5py.File takes them

    >>> output = HDF5Output(Path("numbers.h5"))
    >>> output.file["x"] = [1, 2]
    >>> output.close()
    >>> with h5py.File("numbers.h5") as file:
    ...     list(file)
    ['x']
    """

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self._raw = _NeverFailingFile(path)
        try:
            self.file = h5py.File(self._raw, "w", **options)
        except BaseException:
            self._raw.close()
            path.unlink()
            raise

    def check(self) -> None:
        """Raise the OSError of an earlier write, if there was one."""
        if self._raw.error is not None:
            raise self._raw.error

    def close(self) -> None:
        """Complete the file; it is on disk when this returns. Raises OSError if it is not."""
        try:
            self.file.close()
        finally:
            self._raw.close()
        self.check()
        fsync_path(self.path)

    def discard(self) -> None:
        """Close and delete the file."""
        with suppress(OSError, RuntimeError, ValueError):
            self.file.close()
        self._raw.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def write_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that appears at `path`, complete and on disk, when the block ends.

    path: of the file; an earlier one stays until then, and for good if the block raises
    options: as h5py.File takes them

    Raises OSError if the disk is full or the folder cannot be written; nothing stays then.

    >>> with write_hdf5(Path("numbers.h5")) as file:
    ...     file["x"] = [1, 2]
    >>> Path("numbers.h5").stat().st_size > 0
    True
    """
    with writing_hdf5(path, **options) as output:
        yield output.file


@contextmanager
def writing_hdf5(path: Path, **options: Any) -> Iterator[HDF5Output]:
    """As `write_hdf5`, but yield the output, which a long block can `check` as it goes on.

    >>> with writing_hdf5(Path("numbers.h5")) as output:
    ...     output.file["x"] = [1, 2]
    ...     output.check()
    >>> Path("numbers.h5").stat().st_size > 0
    True
    """
    output = HDF5Output(path.with_name(f".{uuid4().hex[:8]}.{path.name}"), **options)
    try:
        yield output
        output.check()
        output.close()
        os.replace(output.path, path)
        fsync_path(path.parent)
    except BaseException as error:
        output.discard()
        if isinstance(error, Exception):
            output.check()  # the cause of whatever HDF5 made of it
        raise
