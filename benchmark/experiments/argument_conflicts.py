"""Arguments of a method that are valid each by itself and do not go together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..registry.registry import Entry

if TYPE_CHECKING:
    from ...datasets.base import Spec

PROBED_EXTENTS = (16, 64, 256)
"""Rows and columns of samples, while those of a dataset are not known yet."""


def argument_conflict(
    method: Entry, arguments: Mapping[str, Any], profile: str, spec: Spec | None
) -> str:
    """Return why a method cannot be built with its arguments; empty if it can.

    Its networks are built without memory for their weights, and only where an argument differs from
    those of the profile and can matter to them. The constructor of a plugin may do anything: it is
    called in the experiment's own process alone.

    spec: of the samples; None while it is not known, then there is a conflict if samples of every
        size have one

    >>> from adbench.datasets.base import Spec
    >>> from adbench.benchmark.registry.registry import Registry
    >>> method = Registry.read().method("dae")
    >>> arguments = method.arguments("check", {"steps": 7})
    >>> argument_conflict(method, arguments, "check", Spec(1, (16, 16)))
    ''
    """
    if not method.import_path.startswith("adbench."):
        return ""
    # the entry in a job has no profiles; its arguments are then compared with the class's own
    usual = method.arguments(profile if method.profiles else None)
    changed = {key for key, value in arguments.items() if usual[key] != value}
    if not changed - _training_arguments():
        return ""
    from ...datasets.base import Spec  # torch comes with it

    if spec is not None:
        return _construction_error(method, arguments, spec)
    axes = min(method.load().ndims & {2} or method.load().ndims)
    errors = [
        _construction_error(method, arguments, Spec(1, (extent,) * axes, labels=True))
        for extent in PROBED_EXTENTS
    ]
    return errors[0] if all(errors) else ""


def _training_arguments() -> set[str]:
    from ...engine.training.loop import Training  # torch comes with it

    return {field.name for field in fields(Training)}


def _construction_error(method: Entry, arguments: Mapping[str, Any], spec: Spec) -> str:
    import torch

    if len(spec.shape) not in method.load().ndims:
        return ""  # that is another reason
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            torch.random.fork_rng(devices=[]),
            torch.device("meta"),
        ):
            built = method.build(spec, **arguments)
    except Exception as error:  # of torch and of its libraries, of many kinds
        reason = " ".join(str(error).split()) or "no further reason"
        name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return f"{name}{reason[:200]}"
    empty = (name for name, weight in built.named_parameters() if not weight.numel())
    return next((f"{name} would hold no number, a layer without channels" for name in empty), "")
