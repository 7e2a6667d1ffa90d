"""The files of an experiment beside its record: its sample results, and images of its test samples.

The record holds their SHA-256. A file that differs, damaged or edited, is written again from the
store; what is as the record says is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..store.atomic_files import atomic_write, file_sha256
from .fit_predict import LogEvent

IMAGE_ENDINGS = (".png", ".worst.png", ".contact.png")
"""Of the gallery, the worst mistakes and the contact sheet; an experiment may lack the latter."""


def write_result_files(
    out: Path,
    name: str,
    digests: Mapping[str, str],
    sample_results: Path,
    draw: Callable[[Path], list[Path]],
    log: LogEvent,
) -> dict[str, str]:
    """Write the files of an experiment and return their SHA-256, by path in the results folder.

    Nothing is written where the files are as an earlier record says.

    out: the results folder        name: of the experiment
    digests: what an earlier record of the same artifacts says of the files; empty if there is none
    sample_results: the file in the store to copy
    draw: writes the images, the gallery to the path that it receives, and returns their paths
    log: called with a note on every damaged file

    >>> import tempfile
    >>> def draw(path):
    ...     atomic_write(path, b"an image")
    ...     return [path]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source = Path(folder, "samples.h5")
    ...     _ = source.write_bytes(b"sample results")
    ...     digests = write_result_files(Path(folder), "phantom.dae", {}, source, draw, print)
    ...     Path(folder, "samples", "phantom.dae.h5").unlink()
    ...     _ = write_result_files(Path(folder), "phantom.dae", digests, source, draw, print)
    note {'text': '...phantom.dae.h5 was missing, damaged or edited: it is written again...'}
    >>> [*digests]
    ['samples/phantom.dae.h5', 'pictures/phantom.dae.png']
    """
    samples, gallery = f"samples/{name}.h5", f"pictures/{name}.png"
    possible = {samples, *(f"pictures/{name}{ending}" for ending in IMAGE_ENDINGS)}
    whole = {samples, gallery} <= digests.keys() <= possible
    whole = whole and digests[samples] == file_sha256(sample_results)
    damaged = [path for path in digests if _digest(out / path) != digests[path]] if whole else []
    for path in damaged:
        text = f"{out / path} was missing, damaged or edited: it is written again from the store"
        log("note", {"text": text})
    if whole and not damaged:
        return dict(digests)
    atomic_write(out / samples, sample_results.read_bytes())
    paths = [out / samples, *draw(out / gallery)]
    return {path.relative_to(out).as_posix(): file_sha256(path) for path in paths}


def intact_files(out: Path, record: Mapping[str, Any]) -> bool:
    """Whether all files that a record names lie in the results folder as it says.

    >>> intact_files(Path("no/such/folder"), {"files": {"samples/x.h5": "91aa"}})
    False
    """
    files = record.get("files") or {}
    return all(_digest(out / path) == digest for path, digest in files.items())


def _digest(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None
