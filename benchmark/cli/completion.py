"""Shell completion of names in the registry, also behind commas."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..registry.registry import Registry, RegistryError


def complete_methods(incomplete: str) -> list[str]:
    """Method names that continue an unfinished list of them.

    >>> complete_methods("anoddpm,pc")
    ['anoddpm,pca']
    """
    return _complete(incomplete, lambda registry: registry.methods)


def complete_datasets(incomplete: str) -> list[str]:
    """Dataset names that continue an unfinished list of them.

    >>> complete_datasets("phan")
    ['phantom']
    """
    return _complete(incomplete, lambda registry: registry.datasets)


def complete_profiles(incomplete: str) -> list[str]:
    """Profile names that begin so.

    >>> complete_profiles("pap")
    ['paper']
    """
    return _complete(incomplete, lambda registry: registry.profiles)


def complete_suites(incomplete: str) -> list[str]:
    """Suite names that begin so.

    >>> complete_suites("al")
    ['all']
    """
    return _complete(incomplete, lambda registry: registry.suites)


def complete_entries(incomplete: str) -> list[str]:
    """Names of methods and datasets that begin so.

    >>> complete_entries("phan")
    ['phantom']
    """
    return _complete(incomplete, lambda registry: [*registry.methods, *registry.datasets])


def _complete(incomplete: str, select: Callable[[Registry], Iterable[str]]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    try:
        names = select(Registry.read())
    except RegistryError:  # a shell can show no message
        return []
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]
