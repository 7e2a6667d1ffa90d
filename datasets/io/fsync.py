"""Flushing files and folders to disk."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to disk before returning.

    path: an existing file or folder

    >>> path = Path("flushed.txt")
    >>> _ = path.write_text("text")
    >>> fsync_path(path)
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
