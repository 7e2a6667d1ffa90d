"""The store of checkpoints, maps and evaluations that a user means."""

from __future__ import annotations

import os
from pathlib import Path

from ..store.artifact_store import Store


def open_store(folder: str | Path | None = None) -> Store:
    """The store in a folder; without one in $ADBENCH_STORE, or in the user's cache folder.

    folder: where it lies; nothing is created before something is written

    >>> open_store("store").root.name
    'store'
    """
    if folder is None and (variable := os.environ.get("ADBENCH_STORE")):
        folder = variable
    if folder is None:
        from platformdirs import user_cache_path

        folder = user_cache_path("adbench") / "store"
    return Store(Path(folder))


def describe_machine(store: str | Path | None = None) -> dict[str, str]:
    """This machine: versions of libraries, devices, free disk space, and what is missing.

    store: as for open_store

    >>> import adbench
    >>> facts = adbench.describe_machine("no/such/store")
    >>> facts["store"].startswith("no/such/store ("), "torch" in facts
    (True, True)
    """
    from ..planning.descriptions import describe_environment

    return describe_environment(open_store(store))
