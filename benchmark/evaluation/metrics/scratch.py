"""Temporary files for what does not fit into memory; they have no name and vanish when closed."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path


def scratch_file(folder: Path | None = None) -> io.BufferedRandom:
    """An empty file to write and read, which vanishes when it is closed or the process is killed.

    folder: on whose disk it is; None for the system's folder of temporary files (TMPDIR)

    >>> with scratch_file() as file:
    ...     file.write(b"scores")
    6
    """
    return tempfile.TemporaryFile(dir=folder)
