"""A rich console whose texts hold no command to the terminal, such as an escape sequence."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ..leaderboard.text import plain_lines


class SafeConsole(Console):
    """A console that shows control characters of any text by their codes; styles stay.

    >>> import io
    >>> from adbench.benchmark.cli.safe_console import SafeConsole
    >>> console = SafeConsole(file=io.StringIO())
    >>> console.print("a\\x1b]0;title\\x07")
    >>> print(console.file.getvalue().strip())
    a\\x1b]0;title
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(plain_lines(text), style)
