"""Listing folders without the files that operating systems and other programs leave there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

IGNORED_NAMES = re.compile(
    r"\..*|~\$.*|.*~|@(eaDir|tmp|sharebin|Syno.*|Recycle|Recently.*|appstore|database|__thumb)"
    r"|#(recycle|snapshot)|\$RECYCLE\.BIN|RECYCLE[DR]|System Volume Information|lost\+found"
    r"|Thumbs\.db(:.*)?|(eh)?thumbs(_vista)?\.db|desktop\.ini|picasa\.ini|Icon\r"
    r"|__MACOSX|__pycache__|Network Trash Folder|Temporary Items",
    re.IGNORECASE,
)
"""Names of what operating systems, NAS, editors and other programs leave: hidden files and folders,
wastebaskets, thumbnails, backups."""


def list_directory(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted by name, without hidden and system files.

    A link to a folder above itself is left out too: what lies there would be read again and again.

    folder: an existing folder

    >>> folder = Path("listing")
    >>> folder.mkdir()
    >>> for name in ("b.png", "a.png", ".DS_Store"):
    ...     (folder / name).touch()
    >>> [path.name for path in list_directory(folder)]
    ['a.png', 'b.png']
    """
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not IGNORED_NAMES.fullmatch(entry.name)
            and not (entry.is_symlink() and _leads_above(Path(entry.path)))
        ]
    return [folder / name for name in sorted(names)]


def _leads_above(link: Path) -> bool:
    try:
        return link.parent.resolve().is_relative_to(link.resolve())
    except (OSError, RuntimeError):  # of links in a circle
        return False


def find_files(folder: Path, suffixes: Sequence[str], depth: int = 8) -> Iterator[Path]:
    """Yield the files below a folder whose names end in one of the suffixes, sorted by name.

    folder: an existing folder
    suffixes: in lower case; the case of a file's name is ignored
    depth: levels of subfolders that are searched

    >>> folder = Path("search")
    >>> (folder / "inner").mkdir(parents=True)
    >>> (folder / "inner" / "X.PNG").touch()
    >>> [path.name for path in find_files(folder, [".png"])]
    ['X.PNG']
    """
    for path in list_directory(folder):
        if path.is_dir():
            if depth:
                yield from find_files(path, suffixes, depth - 1)
        elif path.name.lower().endswith(tuple(suffixes)):
            yield path


def folder_levels(root: Path, depth: int) -> Iterator[list[Path]]:
    """Yield [root], then the folders one level below it, and so on.

    root: where the search begins
    depth: levels below root; at each level at most 4096 folders are searched further

    >>> (Path("tree") / "inner").mkdir(parents=True)
    >>> [[path.name for path in level] for level in folder_levels(Path("tree"), 1)]
    [['tree'], ['inner']]
    """
    level = [root]
    yield level
    for _ in range(depth):
        level = [p for folder in level[:4096] for p in list_directory(folder) if p.is_dir()]
        yield level


def name_conflicts(paths: Iterable[Path], root: Path) -> list[str]:
    """Return a problem for each name that some file systems cannot hold or tell apart.

    paths: files below root
    root: folder that names are relative to

    >>> name_conflicts([Path("data/A.png"), Path("data/a.png")], Path("data"))
    ['a.png and A.png differ in upper and lower case only: rename one']
    """
    first_names: dict[str, str] = {}
    problems = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if not is_utf8(name):
            problems.append(undecodable_name_text(name))
            continue
        first = first_names.setdefault(name.casefold(), name)
        if first != name:
            problems.append(f"{name} and {first} differ in upper and lower case only: rename one")
    return problems


def is_utf8(name: str) -> bool:
    """Return whether a file name can be written as UTF-8.

    name: as the operating system gives it; bytes that are no UTF-8 are lone surrogates in it

    >>> import os
    >>> is_utf8("image.png"), is_utf8(os.fsdecode(b"caf\\xe9.png"))
    (True, False)
    """
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def undecodable_name_text(name: str) -> str:
    """Return the problem of a file name that is no UTF-8, as printable ASCII.

    name: as the operating system gives it

    >>> import os
    >>> undecodable_name_text(os.fsdecode(b"caf\\xe9.png"))
    "'caf\\\\udce9.png' is no UTF-8 name: rename it"
    """
    return f"{name!a} is no UTF-8 name: rename it"
