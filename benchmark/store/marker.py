"""The marker of a store, and the result folders that its artifacts were used for.

The marker is a file in the root. Whatever removes files asks for it first, so that a folder of
something else, named by mistake, is never touched. Each run registers its result folder in the
store, so that the artifacts that no record of any run uses can be told from the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from .atomic_files import ANOTHER_STORE, StoreError, describe_write_errors

MARKER = "adbench-store.json"
RESULT_FOLDERS = "result-folders"


def mark_store(root: Path, is_empty: Callable[[], bool]) -> None:
    """Write the marker of a store, if it has none.

    is_empty: whether it holds no artifact; every run with it will have been registered then
    Raises StoreError if the store cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mark_store(Path(folder), is_empty=lambda: True)
    ...     Path(folder, MARKER).read_text()
    '{"format": 1, "all_runs_registered": true}'
    """
    path = root / MARKER
    if not path.is_file():
        with describe_write_errors(path, elsewhere=ANOTHER_STORE):
            root.mkdir(parents=True, exist_ok=True)
            fields = {"format": 1, "all_runs_registered": is_empty()}
            with suppress(FileExistsError), path.open("x") as file:  # its presence is what counts
                file.write(json.dumps(fields))


def require_marker(root: Path) -> None:
    """Check that a folder is a store, or does not exist.

    Raises StoreError if it is there and lacks the marker.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.marker import require_marker
    >>> require_marker(Path("/no/such/store"))
    """
    if root.exists() and not (root / MARKER).is_file():
        raise StoreError(
            f"{root} is not marked as a store of adbench ({MARKER} is missing), so nothing in it "
            "is removed: check --store; any adbench run with an older store marks it"
        )


def register_result_folder(root: Path, out: Path) -> None:
    """Note in a store that a run writes its results to a folder; not in a read-only store.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root, out = Path(folder, "store"), Path(folder).resolve()
    ...     mark_store(root, is_empty=lambda: True)
    ...     register_result_folder(root, out)
    ...     result_folders(root) == [out]
    True
    """
    path, text = _registration(root, out), str(out.resolve()).encode(errors="surrogateescape")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != text:
            path.write_bytes(text)


def forget_result_folder(root: Path, out: Path) -> None:
    """Remove a result folder from those that used a store.

    Raises StoreError if it is none of them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root, out = Path(folder, "store"), Path(folder, "deleted")
    ...     mark_store(root, is_empty=lambda: True)
    ...     register_result_folder(root, out)
    ...     forget_result_folder(root, out)
    ...     result_folders(root)
    []
    """
    try:
        _registration(root, out).unlink()
    except FileNotFoundError:
        raise StoreError(f"--forget: no run of this store wrote its results to {out}") from None


def result_folders(root: Path, outs: Iterable[Path] = ()) -> list[Path]:
    """Return every result folder that ever used a store, and those in `outs`.

    Raises StoreError if one of them does not exist (a disk may not be mounted), and if runs of a
    version that did not register them may have used the store and `outs` is empty.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.marker import result_folders
    >>> result_folders(Path("/no/such/store"))
    []
    """
    outs = [Path(out) for out in outs]
    if not outs and root.exists() and not _all_runs_registered(root):
        raise StoreError(
            "--unused: this store was begun by a version that did not remember result folders; "
            "name all of them with --out (again for more)"
        )
    texts = [path.read_bytes() for path in sorted((root / RESULT_FOLDERS).glob("*.txt"))]
    registered = [Path(text.decode(errors="surrogateescape")) for text in texts]
    if missing := [str(path) for path in (*registered, *outs) if not path.is_dir()]:
        raise StoreError(
            f"--unused: {', '.join(missing)} used this store and cannot be read; mount it, or say "
            "that it is gone with --forget DIR"
        )
    return list(dict.fromkeys([*registered, *(out.resolve() for out in outs)]))


def _registration(root: Path, out: Path) -> Path:
    text = str(out.resolve()).encode(errors="surrogateescape")
    return root / RESULT_FOLDERS / f"{hashlib.sha256(text).hexdigest()[:32]}.txt"


def _all_runs_registered(root: Path) -> bool:
    try:
        return json.loads((root / MARKER).read_bytes())["all_runs_registered"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
