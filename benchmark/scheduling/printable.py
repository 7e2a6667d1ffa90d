"""Text that any terminal, file or JSON reader can take, from text that a plugin or a file wrote."""

from __future__ import annotations

import re

from ..leaderboard.records import plain_text

SURROGATE = re.compile("[\ud800-\udfff]")


def escape_surrogates(json_text: str) -> str:
    r"""Return a JSON text in which halves of surrogate pairs are spelt out: it can be encoded.

    >>> from adbench.benchmark.scheduling.printable import escape_surrogates
    >>> escape_surrogates('{"file": "b\udcff"}')
    '{"file": "b\\\\udcff"}'
    """
    return SURROGATE.sub(lambda half: rf"\\u{ord(half[0]):04x}", json_text)


def error_reason(error: BaseException, *, name_type: bool = True) -> str:
    """Return in one line why an exception was raised: its type, and of its message the first line
    that is not empty, with those that follow a colon at its end.

    >>> from adbench.benchmark.scheduling.printable import error_reason
    >>> error_reason(RuntimeError("Error(s) in loading:\\n\\tsize mismatch for bank: (1) and (5)"))
    'RuntimeError: Error(s) in loading: size mismatch for bank: (1) and (5)'
    >>> error_reason(ValueError()), error_reason(ValueError("no.\\nmore"), name_type=False)
    ('ValueError', 'no.')
    """
    reason = ""
    for line in filter(None, map(str.strip, error_message(error).splitlines())):
        reason = f"{reason} {line}" if reason else line
        if not reason.endswith(":"):
            break
    name = type(error).__name__
    if not name_type:
        return plain_text(reason) or name
    return plain_text(f"{name}: {reason}" if reason else name)


def shorten(text: str, length: int, ending: str = "…") -> str:
    """Return a text of at most `length` letters; one that is cut ends in `ending`.

    >>> from adbench.benchmark.scheduling.printable import shorten
    >>> shorten("a reason", 20), shorten("a long reason", 8)
    ('a reason', 'a long …')
    """
    return text if len(text) <= length else text[: max(0, length - len(ending))] + ending


def error_message(error: BaseException) -> str:
    """Return the message of an exception; empty where the exception cannot say it.

    >>> from adbench.benchmark.scheduling.printable import error_message
    >>> error_message(ValueError("no"))
    'no'
    """
    try:
        return str(error)
    except Exception:  # a plugin's exception may be broken, too
        return ""
