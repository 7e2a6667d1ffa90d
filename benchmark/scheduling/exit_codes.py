"""Exit codes of the command line."""

USAGE = 2
"""A wrong command, configuration or value."""

FAILED = 3
"""Finished, and some experiments failed."""

GATE = 4
"""A comparison or a check did not pass."""

NO_DATA = 5
"""Data are missing or corrupt."""

STOPPED = 130
"""Interrupted, with everything kept."""
