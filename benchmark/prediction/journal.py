"""Which files are done: a line of JSON for each, written after its maps, so that a kill loses none.

The journal, `files.jsonl`, lies beside the maps. A line whose file, detector or options have
changed, or one of whose maps is gone, does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.atomic_files import atomic_write, describe_write_errors

NAME = "files.jsonl"


@dataclass(frozen=True)
class FinishedFile:
    """A file that is done.

    name: as in scores.csv        stamp: of the input files and of all that its maps depend on
    rows: of scores.csv, of this file        outputs: paths below the folder of what was written

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.prediction.journal import FinishedFile, Journal
    >>> file = FinishedFile("a.png", "17 bytes", [{"file": "a.png"}], ["a.tiff"])
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.tiff").write_text("")
    ...     journal = Journal(Path(folder))
    ...     journal.add(file)
    ...     there = journal.find("a.png", "17 bytes") == file
    ...     Path(folder, "a.tiff").unlink()
    ...     there, journal.find("a.png", "17 bytes")  # without its map it does not count
    (True, None)
    """

    name: str
    stamp: str
    rows: Sequence[Mapping[str, Any]]
    outputs: Sequence[str]


class Journal:
    """The finished files of a folder, by their name.

    >>> from pathlib import Path
    >>> from adbench.benchmark.prediction.journal import FinishedFile, Journal
    >>> Path("out").mkdir()
    >>> journal = Journal(Path("out"))
    >>> journal.add(FinishedFile("a.png", "17 bytes", [{"file": "a.png", "score": 0.5}], []))
    >>> again = Journal(Path("out"))
    >>> again.find("a.png", "17 bytes").rows[0]["score"], again.find("a.png", "18 bytes")
    (0.5, None)
    """

    def __init__(self, folder: Path) -> None:
        """Read what is there; a line that a kill cut off does not count."""
        self.folder, self.path = folder, folder / NAME
        self.finished: dict[str, FinishedFile] = {}
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                values = json.loads(line)
                file = FinishedFile(
                    values["name"], values["stamp"], values["rows"], values["outputs"]
                )
            except (ValueError, KeyError, TypeError):
                continue
            self.finished[file.name] = file

    def find(self, name: str, stamp: str) -> FinishedFile | None:
        """The finished file of this name and stamp, if all that was written for it is there."""
        file = self.finished.get(name)
        if file is None or file.stamp != stamp:
            return None
        return file if all((self.folder / output).is_file() for output in file.outputs) else None

    def add(self, file: FinishedFile) -> None:
        """Note that a file is done; it is on disk when this returns."""
        self.finished[file.name] = file
        with describe_write_errors(self.path), self.path.open("ab") as stream:
            if stream.tell() and not self._ends_with_newline():
                stream.write(b"\n")
            stream.write(_line(file))
            stream.flush()
            os.fsync(stream.fileno())

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b"\n"

    def rewrite(self, names: Sequence[str]) -> list[FinishedFile]:
        """Write the journal anew: earlier files, then those named, in their order; return them."""
        files = [file for name, file in self.finished.items() if name not in {*names}]
        files.sort(key=lambda file: file.name)
        files += [self.finished[name] for name in names if name in self.finished]
        atomic_write(self.path, b"".join(map(_line, files)))
        return files


def _line(file: FinishedFile) -> bytes:
    values = {"name": file.name, "stamp": file.stamp, "rows": file.rows, "outputs": file.outputs}
    return json.dumps(values, ensure_ascii=True).encode() + b"\n"
