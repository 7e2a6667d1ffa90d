"""The templates of pages, and the policy by which a browser runs nothing but our own script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def template_environment() -> Any:
    """Return the environment of the templates in this folder, which escapes what records hold.

    >>> from adbench.benchmark.report.html.templates import template_environment
    >>> template_environment().from_string("{{ name }}").render(name="<b>")
    '&lt;b&gt;'
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def as_markup(text: str) -> Any:
    """Return the style or script, which is ours and not from records, as markup, not escaped.

    >>> from adbench.benchmark.report.html.templates import as_markup
    >>> str(as_markup("a > b"))
    'a > b'
    """
    from markupsafe import Markup

    return Markup(text)


def content_security_policy(style: str, script: str = "") -> str:
    """Return the policy by which a browser shows a page, runs its one script, and requests nothing.

    >>> from adbench.benchmark.report.html.templates import content_security_policy
    >>> content_security_policy("a {}").partition("; script")[2]
    "-src 'none'; base-uri 'none'; form-action 'none'"
    """

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = digest(script) if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
