"""Standard output and error that survive any terminal: its encoding, and a reader that goes away.

Without this, a letter that the terminal's encoding lacks, or `| head -1`, would end a verb before
its work is done.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class LenientWriter(io.FileIO):
    """A file descriptor to write to; from the first error on, what is written is discarded.

    A reader that has gone is no error; another one, such as a full disk, is a line on standard
    error.

    failed: whether there was such an error

    >>> import os
    >>> from adbench.benchmark.cli.streams import LenientWriter
    >>> reader, writer = os.pipe()
    >>> os.close(reader)
    >>> with LenientWriter(writer, "w") as file:
    ...     file.write(b"nobody reads this")
    17
    """

    failed = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            discard(self.fileno())
            if not isinstance(error, BrokenPipeError) and self.fileno() != 2:
                self.failed = True
                sys.stderr.write(f"error: the output cannot be written: {error}\n")
            return super().write(data)


def discard(descriptor: int) -> None:
    """Connect a file descriptor to the null device, open or closed as it was.

    >>> import os
    >>> from adbench.benchmark.cli.streams import discard
    >>> reader, writer = os.pipe()
    >>> discard(writer)
    >>> os.close(reader)
    >>> os.write(writer, b"discarded")
    9
    >>> os.close(writer)
    """
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def protect_standard_streams() -> LenientWriter:
    """Protect standard output and error of this process; return what output is written with.

    From then on they write stand-ins (?) for letters that their encoding lacks, and go on when
    their reader is gone or they were closed from the start.

    >>> import subprocess
    >>> module = protect_standard_streams.__module__
    >>> code = f"import {module} as s; s.protect_standard_streams(); print(chr(233))"
    >>> environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    >>> process = subprocess.run([sys.executable, "-c", code], env=environment, stdout=-1)
    >>> process.stdout.strip()
    b'?'
    """
    output, writer = _protected(sys.stdout, 1)
    sys.stdout, sys.stderr = output, _protected(sys.stderr, 2)[0]
    return writer


def _protected(stream: TextIO | None, descriptor: int) -> tuple[TextIO, LenientWriter]:
    if stream is None:  # closed; another file would get its number and be written into
        discard(descriptor)
    writer = LenientWriter(descriptor, "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(writer),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="replace",
        line_buffering=writer.isatty() or descriptor == 2,
    )
    return text, writer
