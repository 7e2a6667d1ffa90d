"""Conformance checks of what a method says of itself before it is fitted."""

from __future__ import annotations

import inspect

from ...datasets.base import Spec
from ..registry.settings import build
from .contract_violation import ContractViolation, require
from .method_under_test import SHAPES, MethodUnderTest


def class_attributes_are_valid(subject: MethodUnderTest) -> None:
    """Levels, axes, inference arguments and supervision are as `Method` describes them.

    >>> from types import SimpleNamespace
    >>> from adbench.methods.template_z import TemplateZ
    >>> class Wrong(TemplateZ):
    ...     levels, published = (2000,), 2000
    >>> class_attributes_are_valid(SimpleNamespace(cls=Wrong, args={}))
    Traceback (most recent call last):
    adbench...ContractViolation: levels lie in 0..1000: (2000,)
    """
    cls = subject.cls
    require(cls.ndims <= {1, 2, 3} and cls.ndims, f"ndims are of 1, 2, 3, not {set(cls.ndims)}")
    require(
        list(cls.levels) == sorted(set(cls.levels)), f"levels rise, without twins: {cls.levels}"
    )
    require(all(0 <= n <= 1000 for n in cls.levels), f"levels lie in 0..1000: {cls.levels}")
    require(cls.published in cls.levels, f"published, {cls.published}, is one of the levels")
    odd = cls.inference - subject.args.keys()
    require(not odd, f"inference names arguments of the constructor, not {sorted(odd)}")
    odd = cls.search_space.keys() - subject.args.keys()
    require(not odd, f"search_space names arguments of the constructor, not {sorted(odd)}")
    require(
        cls.supervision in ("normal", "image-labels"), f"supervision is not {cls.supervision!r}"
    )
    takes = list(inspect.signature(cls.detect).parameters)
    require(
        takes == ["self", "x", "levels", "rng"], f"detect takes x, levels, rng, not {takes[1:]}"
    )


def other_numbers_of_axes_are_refused(subject: MethodUnderTest) -> None:
    """The constructor raises ValueError for axes that are not among `ndims`.

    >>> from types import SimpleNamespace
    >>> class Wrong:
    ...     ndims = frozenset({2})
    ...     def __init__(self, spec): ...
    >>> other_numbers_of_axes_are_refused(SimpleNamespace(cls=Wrong, args={}))
    Traceback (most recent call last):
    adbench...ContractViolation: ndims are {2}, yet it can be built for 1 axes
    """
    for axes in {1, 2, 3} - subject.cls.ndims:
        try:
            build(subject.cls, Spec(2, SHAPES[axes]), **subject.args)
        except ValueError:
            continue
        raise ContractViolation(
            f"ndims are {set(subject.cls.ndims)}, yet it can be built for {axes} axes"
        )
