"""Look up a name of the registry; an unknown one is an error that suggests a similar one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .imports import did_you_mean


class RegistryError(ValueError):
    """A name, an argument or a registry file is invalid; one line, with a suggestion.

    exit_code: of the command line

    >>> RegistryError.exit_code
    2
    """

    exit_code = 2


def lookup(names: Mapping[str, Any], name: str, kind: str) -> Any:
    """Return `names[name]`.

    kind: what the names are, for the error

    Raises RegistryError on an unknown name.

    >>> lookup({"dae": 1}, "dae", "method")
    1
    >>> lookup({"dae": 1}, "dea", "method")
    Traceback (most recent call last):
    adbench...RegistryError: unknown method 'dea'. Did you mean 'dae'? (adbench list methods)
    """
    if name not in names:
        raise RegistryError(
            f"unknown {kind} {name!r}{did_you_mean(name, names)} "
            f"(adbench list{'' if ' ' in kind else f' {kind}s'})"
        )
    return names[name]
