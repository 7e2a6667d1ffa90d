"""The command line `adbench`, also as `python -m adbench`.

The verbs take a moment to import. Ctrl-C and SIGTERM in that moment end in one line and with their
exit code, as later.
"""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line of this process, and end with its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_at_once)
    from .benchmark.cli.main import main as run_command_line

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command_line()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Nothing has begun, and an exception may be lost in the import of a library."""
    os.write(2, b"interrupted; the same command goes on\n")
    os._exit(130)


if __name__ == "__main__":
    main()
