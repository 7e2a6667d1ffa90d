"""Arguments of a method that are valid each by itself and do not go together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields
from math import prod
from typing import TYPE_CHECKING, Any

from ..registry.registry import Entry

if TYPE_CHECKING:
    from ...datasets.base import Spec
    from ...methods.base import Method

PROBED_EXTENTS = (16, 64, 256)
"""Rows and columns of samples, while those of a dataset are not known yet."""

MAX_PARAMETERS = 10**10
"""Of all networks of a method: ten times those of the largest published detectors. Training takes
16 bytes of memory for each."""

MAX_VALUES = 10**9
"""Of one sample as a network sees it, 4 GB: a volume of 1000 x 1000 x 1000."""


def argument_conflict(
    method: Entry,
    arguments: Mapping[str, Any],
    profile: str,
    spec: Spec | None,
    levels: Sequence[int] | None = None,
) -> str:
    """Return why a method cannot be built with its arguments; empty if it can.

    Its networks are built without memory for their weights, and only where an argument differs from
    those of the profile and can matter to them. The constructor of a plugin may do anything: it is
    called in the experiment's own process alone.

    An argument that the method runs with and that has no effect is a conflict too, as far as it
    differs from the profile's: a patch that is larger than the sample, more network calls than
    levels.

    spec: of the samples; None while it is not known, then there is a conflict if samples of every
        size have one
    levels: the noise levels of the experiment, those of the method if None

    >>> from adbench.datasets.base import Spec
    >>> from adbench.benchmark.registry.registry import Registry
    >>> method = Registry.read().method("dae")
    >>> arguments = method.arguments("check", {"steps": 7})
    >>> argument_conflict(method, arguments, "check", Spec(1, (16, 16)))
    ''
    """
    if not method.import_path.startswith("adbench.") or method.origin == "anomalib":
        return ""  # a model of anomalib may fetch weights when it is built
    # an entry that came with a job has no profiles: what differs from its defaults is tried
    usual = method.arguments(profile if profile in method.profiles else None)
    changed = {key for key, value in arguments.items() if usual[key] != value}
    if conflict := _selection_conflict(arguments, method):
        return conflict
    if not changed - _training_arguments():
        return ""
    from ...datasets.base import Spec  # torch comes with it

    asked_for = changed if profile in method.profiles else set[str]()
    if conflict := _schedule_conflict(arguments, asked_for, levels, method):
        return conflict
    if spec is not None:
        return _construction_error(method, arguments, spec, asked_for)
    axes = min(method.load().ndims & {2} or method.load().ndims)
    errors = [
        _construction_error(method, arguments, Spec(1, (extent,) * axes, labels=True), asked_for)
        for extent in PROBED_EXTENTS
    ]
    return errors[0] if all(errors) else ""


def _training_arguments() -> set[str]:
    from ...engine.training.loop import Training  # torch comes with it

    return {field.name for field in fields(Training)}


def _selection_conflict(arguments: Mapping[str, Any], method: Entry) -> str:
    """Why the best weights of a training cannot be selected; of a pair of trainings only the main
    one may measure the loss that it takes."""
    for name, value in arguments.items():
        own = name == "select" and method.load().selects_best
        if value == "best" and name.endswith("select") and not own:
            return (
                f"{name}=best: this training measures no loss on calibration samples to select by; "
                f"{name}=last does"
            )
    return ""


def _schedule_conflict(
    arguments: Mapping[str, Any],
    asked_for: AbstractSet[str],
    levels: Sequence[int] | None,
    method: Entry,
) -> str:
    """Why a schedule of T levels has not as many as other arguments or the noise levels need."""
    if (T := arguments.get("T")) is None:
        return ""
    for name in ("sampling_steps", "inpaint_steps"):
        if asked_for & {"T", name} and (arguments.get(name) or 0) > T:
            return f"{name}={arguments[name]} are more than the T={T} levels of the schedule"
    if "T" in asked_for:
        from ...engine.diffusion.schedule import level_of_step  # torch comes with it

        by_step: dict[int, int] = {}
        method_class = method.load()
        for level in sorted({*(levels or method_class.levels), method_class.published}):
            step = level_of_step(level, T)
            if (other := by_step.setdefault(step, level)) != level:
                return f"with T={T} the noise levels {other} and {level} are the same step"
    return ""


def _construction_error(
    method: Entry, arguments: Mapping[str, Any], spec: Spec, asked_for: AbstractSet[str]
) -> str:
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
    if conflict := _size_conflict(built):
        return conflict
    for names, reason in built.ineffective_arguments.items():
        if asked_for & {*names}:
            return reason
    empty = (name for name, weight in built.named_parameters() if not weight.numel())
    return next((f"{name} would hold no number, a layer without channels" for name in empty), "")


def _size_conflict(built: Method) -> str:
    """Return why no memory holds the networks, or a sample as they see it; empty if one does."""
    from ...engine.transforms.resizing import ResizePad  # torch comes with it

    count = sum(value.numel() for value in (*built.parameters(), *built.buffers()))
    if count > MAX_PARAMETERS:
        return f"the networks would have {count:.2g} parameters, more than {MAX_PARAMETERS:.0g}"
    canvases = (value for value in vars(built).values() if isinstance(value, ResizePad))
    for shape in (canvas.padded_shape for canvas in canvases):
        if prod(shape) * built.spec.channels > MAX_VALUES:
            extent = " x ".join(map(str, shape))
            return f"a sample would become one of {extent}, more than {MAX_VALUES:.0g} values"
    return ""
