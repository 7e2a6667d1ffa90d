"""What a published file must not tell: folders, user and host names of the machine it is from."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..leaderboard.records import Record

ABSOLUTE_PATH = re.compile(
    r"""(?:^|(?<=[\s'"`(\[{=,:;<]))(?:~[\w.-]*|[A-Za-z]:)?(?:[/\\][^\s'"`/\\,:;()\[\]{}<>]+){2,}[/\\]?"""
)
"""An absolute path of two parts or more; no URL."""

LOGS = ("failure", "attempts")
"""Fields of a record with tracebacks and hosts."""

SHORTEST_NAME = 4
"""Letters of a user or host name below which it is no use to look for it: it is a word of a text,
too."""

COMMON_NAMES = {"root", "user", "admin", "localhost", "ubuntu", "runner", "test", "data"}


def private_names() -> list[str]:
    """The names of this user and this host, those that are no common words.

    >>> "localhost" in private_names()
    False
    """
    names = [socket.gethostname().partition(".")[0]]
    with suppress(OSError, KeyError, ImportError):  # of a container that knows no users
        names.append(getpass.getuser())
    return [n for n in names if len(n) >= SHORTEST_NAME and n.casefold() not in COMMON_NAMES]


def redact_text(text: str, names: Iterable[str] = ()) -> str:
    """A text whose absolute paths are their last part, and whose `names` are `…`.

    >>> redact_text("cannot read /home/ann/brats/a.nii, see https://a.org/b/c", ["ann"])
    'cannot read a.nii, see https://a.org/b/c'
    >>> redact_text("lost node7 at step 3", ["node7"])
    'lost … at step 3'
    """
    text = ABSOLUTE_PATH.sub(lambda path: re.split(r"[/\\]", path[0].rstrip("/\\"))[-1], text)
    for name in names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    return text


def redact_record(record: Record) -> dict[str, Any]:
    """A record without logs, absolute paths, and names of this user and host.

    Its figures and its keys stay; it has no seal.

    >>> redact_record({"reason": "no file /home/ann/w.pt", "attempts": [], "seal": ""})
    {'reason': 'no file w.pt'}
    """
    names = private_names()

    def redact(value: Any) -> Any:
        if isinstance(value, str):
            return redact_text(value, names)
        if isinstance(value, Mapping):
            return {key: redact(part) for key, part in value.items()}
        return [redact(part) for part in value] if isinstance(value, (list, tuple)) else value

    exact = ("keys", "files", "file")
    return {
        key: value if key in exact else redact(value)
        for key, value in record.items()
        if key not in (*LOGS, "seal")
    }


def find_private(content: bytes, folders: Iterable[Path]) -> str | None:
    """A folder, or a name of this user or host, that a file's content tells; None if there is none.

    folders: of which no file may tell

    >>> from pathlib import Path
    >>> find_private(b"see /data/ann/x", [Path("/data/ann")])
    '/data/ann'
    """
    for folder in folders:
        path = str(folder.absolute())
        if len(folder.absolute().parts) > 1 and path.encode() in content:
            return path
    for name in private_names():
        if re.search(rb"(?<![\w.-])" + re.escape(name.encode()) + rb"(?![\w.-])", content):
            return name
    return None
