"""What signals ask of methods for images: a network for windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SIGNAL_UNET: dict[str, Any] = {
    "widths": (64, 128, 192),
    "res_blocks": 2,
    "attention": (False, False, True),
    "head_channels": 64,
}
"""The medium one of https://github.com/ismaelmreno/ddpm-ood-signals, which attends at every
resolution: (True, True, True)."""


def unet_arguments(
    shape: Sequence[int], images: dict[str, Any], **overrides: Any
) -> dict[str, Any]:
    """A UNet's arguments: those for images or, of signals, UNET; but what is given, not None."""
    known = SIGNAL_UNET if len(shape) == 1 else images
    return known | {key: value for key, value in overrides.items() if value is not None}
