"""Weights under another repository's names, checked by name and shape, under ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from ..runtime.weight_names import abbreviate, describe_mismatch
from .reading import CheckpointError

Transform = Callable[[Tensor], Tensor]
Source = tuple[str, Transform | None]
"""The name of a weight in a file, and what to do with the tensor."""


def convert(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], sources: Mapping[str, Source]
) -> dict[str, Tensor]:
    """Return weights under our names, each from its source, all checked by name and shape.

    own: a network's state dict, whose names and shapes are wanted
    state: the weights under their names
    sources: for each of our names, theirs and what to do with the tensor
    Raises CheckpointError that lists what is missing, unknown, or of another shape.

    >>> import torch
    >>> from adbench.engine.checkpoints.conversion import convert
    >>> convert({"w": torch.zeros(2)}, {"v": torch.ones(2, 1)}, {"w": ("v", torch.ravel)})
    {'w': tensor([1., 1.])}
    """
    unmapped = {key: value for key, value in own.items() if key not in sources}
    required = {theirs: state.get(theirs, own[key]) for key, (theirs, _) in sources.items()}
    weights = dict[str, Tensor]()
    mismatch = describe_mismatch(required | unmapped, dict(sorted(state.items())))
    if not mismatch:
        converted, expected = dict[str, Tensor](), dict[str, Tensor]()
        for key, (theirs, transform) in sources.items():
            weights[key] = _apply(transform, state[theirs]).contiguous()
            if theirs not in converted or converted[theirs].shape == expected[theirs].shape:
                converted[theirs], expected[theirs] = weights[key], own[key]
        mismatch = describe_mismatch(expected, converted)
    if mismatch:
        raise CheckpointError(
            f"these weights are of another network: {mismatch}. Build it with the arguments that "
            "it was trained with (--set, --profile)"
        )
    return weights


def split_prefix(state: Mapping[str, Tensor], anchor: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the part of a state dict whose names end in those of a network, without the prefix,
    and the names of the rest.

    anchor: a name of the network; the shortest prefix before it counts

    >>> import torch
    >>> from adbench.engine.checkpoints.conversion import split_prefix
    >>> split_prefix({"net.conv.weight": torch.ones(1), "ema": torch.ones(1)}, "conv.weight")
    ({'conv.weight': tensor([1.])}, ['ema'])
    """
    prefixes = sorted(
        (key.removesuffix(anchor) for key in state if key == anchor or key.endswith(f".{anchor}")),
        key=len,
    )
    if not prefixes:
        raise CheckpointError(
            f"these weights are of another network: none is named {anchor}; "
            f"{abbreviate(sorted(state), 'theirs')}"
        )
    prefix = prefixes[0]
    inside = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    return inside, [key for key in state if not key.startswith(prefix)]


def _apply(transform: Transform | None, value: Tensor) -> Tensor:
    try:
        return transform(value) if transform else value
    except RuntimeError:  # a view to a shape that the numbers do not fill: its shape is refused
        return value
