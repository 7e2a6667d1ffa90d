"""Verification of everything in a store, and removal of what is damaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .artifact import DamagedArtifact, read_artifact
from .artifact_store import Store, StoreWarning
from .atomic_files import StoreError
from .inventory import OTHER_ITEM
from .marker import require_marker
from .partial_state import find_damage

Progress = Callable[[str, int, int], None]


@dataclass
class IntegrityReport:
    """The result of verifying a store.

    artifacts, states: how many were checked
    problems: one line for each that is damaged
    repaired: how many of these were moved away, so that a run creates them again
    notes: remarks that are no problems

    >>> from adbench.benchmark.store.integrity import IntegrityReport
    >>> IntegrityReport(artifacts=2, problems=["weights.bin is damaged"]).intact
    False
    """

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
    """Verify the checksums and keys of all artifacts and partial states, to the last byte.

    repair: move damaged artifacts to corrupt/ and delete damaged states, as a run would
    progress: called with ("verify", number done, number of all)
    Raises StoreError if something is to be repaired in a folder that is no store.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.benchmark.store.integrity import verify_store
    >>> verify_store(Store(Path("/no/such/store"))).intact
    True
    """
    if repair:
        require_marker(store.root)
    report = IntegrityReport()
    folders = store.folders()
    for number, folder in enumerate(folders, 1):
        kind, key = folder.parents[1].name, folder.name
        report.artifacts += 1
        try:
            read_artifact(kind, folder, verify=True)
        except DamagedArtifact as damage:
            if folder.exists():  # else garbage collection removed it
                report.problems.append(str(damage))
                if repair:
                    _move_to_corrupt(store, folder, kind, key, str(damage), report)
        if progress:
            progress("verify", number, len(folders))
    for pointer in sorted((store.root / "resume").glob("*/*.json")):
        if not OTHER_ITEM.fullmatch(pointer.parent.name):
            continue
        report.states += 1
        if (reason := find_damage(pointer)) and pointer.exists():
            report.problems.append(f"cannot continue from {pointer}: {reason}")
            if repair:
                with suppress(OSError):
                    pointer.unlink()
                    report.repaired += 1
    corrupt = store.root / "corrupt"
    if count := len([*corrupt.glob("*")]):
        report.notes.append(f"{count} damaged artifacts were moved to {corrupt}")
    return report


def _move_to_corrupt(
    store: Store, folder: Path, kind: str, key: str, reason: str, report: IntegrityReport
) -> None:
    try:
        with store.lock(kind, key, timeout=0), warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            store.move_to_corrupt(folder, f"{kind}-{key}", reason)
    except TimeoutError:
        report.notes.append(f"{kind} {key} is being created by a process and was not moved")
    except StoreError as error:
        report.notes.append(str(error))
    else:
        report.repaired += 1
