"""Whether weights from elsewhere are those of a module: the one comparison of names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor


def abbreviate(names: Iterable[str], description: str) -> str:
    """Return the first names of a list, how many more there are, and what they are.

    >>> from adbench.engine.runtime.weight_names import abbreviate
    >>> abbreviate(["a", "b", "c", "d"], "missing")
    'missing: a, b, c and 1 more'
    """
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{description}: {', '.join(names[:3])}{more}"


def describe_mismatch(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    *,
    required: Iterable[str] | None = None,
) -> str:
    """Return what is missing, unknown or of another shape among weights; empty if all fits.

    own: a module's tensors by name
    weights: what is to be loaded into them
    required: names that may not be missing, all of `own` if None

    >>> import torch
    >>> from adbench.engine.runtime.weight_names import describe_mismatch
    >>> describe_mismatch({"w": torch.ones(2)}, {"w": torch.ones(3), "v": torch.ones(1)})
    'unknown: v; of another shape: w (3,) for (2,)'
    """
    missing = [key for key in (own if required is None else required) if key not in weights]
    unknown = [key for key in weights if key not in own]
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in weights.items()
        if key in own and value.shape != own[key].shape
    ]
    parts = ((missing, "missing"), (unknown, "unknown"), (shapes, "of another shape"))
    return "; ".join(filter(None, (abbreviate(names, what) for names, what in parts)))
