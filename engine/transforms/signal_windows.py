"""The UNet that methods for images use on windows of signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SIGNAL_UNET: dict[str, Any] = {
    "widths": (64, 128, 192),
    "res_blocks": 2,
    "attention": (False, False, True),
    "head_channels": 64,
    "out_norm": False,
}
"""The medium one of https://github.com/ismaelmreno/ddpm-ood-signals, which attends at every
resolution: (True, True, True). As there, nothing is normalised before the last convolution: a
prediction's size may then follow the size of the input."""


def unet_arguments(
    shape: Sequence[int], images: dict[str, Any], **overrides: Any
) -> dict[str, Any]:
    """Return the arguments of a UNet: SIGNAL_UNET for signals, `images` for other samples.

    shape: of the samples, without channels
    images: arguments for images and volumes
    overrides: arguments that replace these where they are not None

    >>> from adbench.engine.transforms.signal_windows import unet_arguments
    >>> unet_arguments((256,), {}, widths=(32, 64), res_blocks=None)["res_blocks"]
    2
    """
    defaults = SIGNAL_UNET if len(shape) == 1 else images
    return defaults | {key: value for key, value in overrides.items() if value is not None}
