"""Turn the plain text of adbench's docstrings into reStructuredText, which Sphinx reads.

A docstring of adbench is written to be read in a terminal: `code` between single backticks, lines
`name: what it is`, indented blocks, and examples behind `>>>`. Napoleon and numpydoc read other
conventions than this one.
"""

from __future__ import annotations

import re
from typing import Any

ARGUMENT = re.compile(r"^(Raises|[\w*]+(, [\w*]+)*:) ")
SPECIAL = re.compile(r"([\\*|_])")


def to_restructured_text(text: str) -> str:
    """The docstring as reStructuredText.

    >>> print(to_restructured_text("The |x| of `a` and b_.\\n\\nx: one\\ny: two"))
    The \\|x\\| of ``a`` and b\\_.
    <BLANKLINE>
    | x: one
    | y: two
    """
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    return "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs)


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    if lines[0].lstrip().startswith(">>>"):
        return text
    if lines[0].startswith("    "):
        return "::\n\n" + text
    if ARGUMENT.match(lines[0]):
        return "\n".join(_argument_lines(lines))
    return "\n".join(_escape(line.strip()) for line in lines)


def _argument_lines(lines: list[str]) -> list[str]:
    """Lines of a line block: one for each argument, with what continues it."""
    block: list[str] = []
    for line in lines:
        if line.startswith(" ") and block:
            block[-1] += " " + _escape(line.strip())
        else:
            block += ["| " + _escape(part) for part in re.split(r" {4,}", line)]
    return block


def _escape(line: str) -> str:
    parts = line.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return SPECIAL.sub(r"\\\1", line).replace("`", r"\`")
    return "".join(
        f"``{part}``" if i % 2 and part.strip() == part and part else SPECIAL.sub(r"\\\1", part)
        for i, part in enumerate(parts)
    )


def _process(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = [*to_restructured_text("\n".join(lines)).split("\n"), ""]


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
