"""One map of the differences of two images and of their codes, as methods in code space have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from .blur import enlarge, gaussian_blur

Combine = Literal["geometric", "arithmetic", "pixel", "code"]


def combine_differences(
    pixel: Tensor,
    code: Tensor,
    *,
    clips: Sequence[float],
    blurs: Sequence[float],
    combine: Combine = "geometric",
) -> Tensor:
    """Clip, blur and combine the differences of images and of codes, (M, H, W) in 0..1.

    pixel: (M, H, W), at least 0
    code: (M, h, w), at least 0, enlarged to (H, W)
    clips: the largest difference that counts, of images and of codes; it becomes 1
    blurs: standard deviations, in pixels and in positions of the code
    combine: the geometric or arithmetic mean of the two maps, or one of them

    >>> import torch
    >>> from adbench.engine.transforms.difference_maps import combine_differences
    >>> pixel, code = torch.full((1, 2, 2), 0.1), torch.full((1, 1, 1), 0.1)
    >>> combine_differences(pixel, code, clips=(0.4, 0.2), blurs=(0, 0), combine="arithmetic")
    tensor([[[0.3750, 0.3750],
             [0.3750, 0.3750]]])
    """
    shape = pixel.shape[1:]
    pixel, code = (
        gaussian_blur(difference.clamp(max=most) / most, blur, mode="symmetric")
        for difference, most, blur in zip((pixel, code), clips, blurs, strict=True)
    )
    code = enlarge(code, shape)
    if combine == "arithmetic":
        return (pixel + code) / 2
    if combine == "geometric":
        return (pixel * code).sqrt()
    return pixel if combine == "pixel" else code
