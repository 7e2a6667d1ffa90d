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

    Of a reader that has gone nothing is said; of another error, such as a full disk, a line on
    standard error.

    >>> import os
    >>> from adbench.benchmark.cli.streams import LenientWriter
    >>> reader, writer = os.pipe()
    >>> os.close(reader)
    >>> with LenientWriter(writer, "w") as file:
    ...     file.write(b"nobody reads this")
    17
    """

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            discard(self.fileno())
            if not isinstance(error, BrokenPipeError) and self.fileno() != 2:
                sys.stderr.write(f"note: the output is lost from here on: {error}\n")
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


def protect_standard_streams() -> None:
    """Make standard output and error of this process write stand-ins (?) for letters that their
    encoding lacks, and go on when their reader is gone or they were closed from the start."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, _protected(getattr(sys, name), descriptor))


def _protected(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed; another file would get its number and be written into
        discard(descriptor)
    writer = LenientWriter(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(writer),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="replace",
        line_buffering=writer.isatty() or descriptor == 2,
    )
