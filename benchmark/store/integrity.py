"""Whether all that lies in a store is whole, and what is to be done about what is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .artifact import DamagedArtifact, read_artifact
from .artifact_store import Store, StoreWarning
from .atomic_files import StoreError
from .partial_state import find_damage

Progress = Callable[[str, int, int], None]


@dataclass
class IntegrityReport:
    """artefacts, states: how many were looked at. problems: one line for each that is not whole
    repaired: how many of these were set aside. notes: what else there is to know"""

    artifacts: int = 0
    states: int = 0
    problems: list[str] = field(default_factory=list)
    repaired: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether a run can rely on the store now."""
        return len(self.problems) == self.repaired


def verify_store(
    store: Store, *, repair: bool = False, progress: Progress | None = None
) -> IntegrityReport:
    """Read every artefact and every kept state to its last byte; check checksum, seal and key.

    repair: set aside what is damaged, as a run would when it meets it
    """
    found = IntegrityReport()
    folders = store.folders()
    for done, folder in enumerate(folders, 1):
        kind, key = folder.parents[1].name, folder.name
        found.artifacts += 1
        try:
            read_artifact(kind, folder, verify=True)
        except DamagedArtifact as damage:
            if folder.exists():  # else gc took it
                found.problems.append(str(damage))
                if repair:
                    _move_to_corrupt(store, folder, kind, key, str(damage), found)
        if progress:
            progress("verify", done, len(folders))
    for pointer in sorted((store.root / "resume").glob("*/*.json")):
        found.states += 1
        if (reason := find_damage(pointer)) and pointer.exists():
            found.problems.append(f"{pointer} cannot be gone on from: {reason}")
            if repair:
                with suppress(OSError):
                    pointer.unlink()
                    found.repaired += 1
    aside = len([*(store.root / "corrupt").glob("*")])
    if aside:
        found.notes.append(f"{aside} damaged things were set aside in {store.root / 'corrupt'}")
    return found


def _move_to_corrupt(
    store: Store, folder: Path, kind: str, key: str, reason: str, found: IntegrityReport
) -> None:
    try:
        with store.lock(kind, key, timeout=0), warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            store.move_to_corrupt(folder, f"{kind}-{key}", reason)
    except TimeoutError:
        found.notes.append(f"{kind} {key} is being made anew by a process; it was left alone")
    except StoreError as error:
        found.notes.append(str(error))
    else:
        found.repaired += 1
