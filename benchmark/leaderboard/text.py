"""Text of numbers, and text that is shown as it stands."""

from __future__ import annotations


def plain_text(text: object) -> str:
    r"""Text on one line that no terminal takes for a command.

    White space of any kind becomes spaces; control and format characters, such as escape sequences
    and changes of direction, and halves of surrogate pairs are shown by their codes.

    >>> from adbench.benchmark.leaderboard.text import plain_text
    >>> print(plain_text("a\x1b[31m\nb\u202e"))
    a\x1b[31m b\u202e
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable()
        else " "
        if char.isspace()
        else char.encode("unicode_escape").decode()
        for char in text
    )


def plain_lines(text: object) -> str:
    r"""Text that no terminal takes for a command, `plain_text` of each of its lines.

    >>> from adbench.benchmark.leaderboard.text import plain_lines
    >>> plain_lines("a\x07\nb")
    'a\\x07\nb'
    """
    return "\n".join(map(plain_text, str(text).split("\n")))


def number_text(value: float | None, unit: float = 1) -> str:
    """A number with three decimals, in a unit; "-" for None.

    >>> from adbench.benchmark.leaderboard.text import number_text
    >>> number_text(690_000, 1e6), number_text(None)
    ('0.690', '-')
    """
    return "-" if value is None else f"{value / unit:.3f}"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval as "[low, high]", each with three decimals; empty where there is none.

    >>> from adbench.benchmark.leaderboard.text import interval_text
    >>> interval_text(0.25, 0.5), interval_text(None, None)
    ('[0.250, 0.500]', '')
    """
    return "" if low is None or high is None else f"[{number_text(low)}, {number_text(high)}]"
