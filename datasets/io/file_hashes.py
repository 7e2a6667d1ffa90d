"""Hashes of files, remembered between runs, and the location of the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from ..base import DataError, Progress, no_progress


def cache_root() -> Path:
    """Return the cache folder: $ADBENCH_CACHE, or the user's cache folder.

    Everything in it can be computed again.

    >>> from unittest.mock import patch
    >>> with patch.dict("os.environ", ADBENCH_CACHE="scratch/adbench"):
    ...     cache_root().parts
    ('scratch', 'adbench')
    """
    folder = os.environ.get("ADBENCH_CACHE")
    return Path(folder).expanduser() if folder else user_cache_path("adbench")


def modification_stamp(path: Path) -> str:
    """Return size and times of a file as text; it changes whenever the file is written to.

    path: of the file

    Raises DataError if the file cannot be read.

    >>> path = Path("stamped.bin")
    >>> _ = path.write_bytes(b"12345")
    >>> modification_stamp(path).split()[0]
    '5'
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def hash_files(paths: Sequence[Path | str], progress: Progress = no_progress) -> list[str]:
    """Return the sha256 of every file as a hex digest.

    paths: of the files
    progress: called with (task, done, total)

    A hash is remembered in the cache folder while a file keeps its path, size and times, so that
    only new and changed files are read, also after an interruption. Raises DataError if a file
    cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> from unittest.mock import patch
    >>> from adbench.datasets.io.file_hashes import hash_files
    >>> with TemporaryDirectory() as folder, patch.dict("os.environ", ADBENCH_CACHE=folder):
    ...     Path(folder, "empty.bin").touch()
    ...     hash_files([Path(folder, "empty.bin")])[0][:16]  # the sha256 of no bytes
    'e3b0c44298fc1c14'
    """
    memo_path = cache_root() / "data" / "digests.json"
    try:
        remembered = dict(json.loads(memo_path.read_bytes()))
    except (OSError, ValueError, TypeError):
        remembered = {}
    digests: list[str] = []
    new = {}
    try:
        for name in paths:
            path = Path(name)
            location = os.path.join(os.getcwd(), name)  # an absolute name is its own location
            stamp = modification_stamp(path)
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


class FileDigests(Mapping[Path, str]):
    """The sha256 of files by path, and what their stamps were; 32 and 24 bytes each.

    paths: as text
    stamps: of `modification_stamp`
    digests: in hexadecimal, of `hash_files`

    >>> from adbench.datasets.io.file_hashes import FileDigests, hash_files, modification_stamp
    >>> path = Path("hashed.bin")
    >>> _ = path.write_bytes(b"12345")
    >>> digests = FileDigests(["hashed.bin"], [modification_stamp(path)], ["5994471a" * 8])
    >>> digests[path][:8], digests.has_changed(path)
    ('5994471a', False)
    >>> _ = path.write_bytes(b"123456")
    >>> digests.has_changed(path)
    True
    """

    def __init__(self, paths: Iterable[str], stamps: Iterable[str], digests: Iterable[str]) -> None:
        self._entries = {
            path: bytes.fromhex(digest) + _packed(stamp)
            for path, stamp, digest in zip(paths, stamps, digests, strict=True)
        }

    def __getitem__(self, path: Path) -> str:
        return self._entries[os.fspath(path)][:_DIGEST_BYTES].hex()

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def has_changed(self, path: Path) -> bool:
        """Return whether a file has been written to since its stamp was taken.

        Raises DataError if it cannot be read.
        """
        return _packed(modification_stamp(path)) != self._entries[os.fspath(path)][_DIGEST_BYTES:]


_DIGEST_BYTES = 32


def _packed(stamp: str) -> bytes:
    return struct.pack("3q", *map(int, stamp.split()))
