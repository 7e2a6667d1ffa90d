"""Looking through folders without stumbling over what other programs leave there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

IGNORED_NAMES = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini|\.ipynb_checkpoints|__MACOSX")


def list_directory(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what other programs leave there."""
    return [path for path in sorted(folder.iterdir()) if not IGNORED_NAMES.fullmatch(path.name)]


def find_files(folder: Path, suffixes: Sequence[str], depth: int = 8) -> Iterator[Path]:
    """Files below a folder whose names end in one of the suffixes (whatever their case)."""
    for path in list_directory(folder):
        if path.is_dir():
            if depth:
                yield from find_files(path, suffixes, depth - 1)
        elif path.name.lower().endswith(tuple(suffixes)):
            yield path


def folder_levels(root: Path, depth: int) -> Iterator[list[Path]]:
    """Yield [root], then the folders one level below it, and so on, `depth` levels at most.

    root: where the search begins
    depth: levels below root; of each level at most 4096 folders are searched further
    """
    level = [root]
    yield level
    for _ in range(depth):
        level = [p for folder in level[:4096] for p in list_directory(folder) if p.is_dir()]
        yield level


def name_conflicts(paths: Iterable[Path], root: Path) -> list[str]:
    """Names that some file systems cannot tell apart or cannot hold, as problems."""
    first_names: dict[str, str] = {}
    problems = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            problems.append(f"{name!a} is no UTF-8 name: rename it")
            continue
        first = first_names.setdefault(name.casefold(), name)
        if first != name:
            problems.append(f"{name} and {first} differ in upper and lower case only: rename one")
    return problems
