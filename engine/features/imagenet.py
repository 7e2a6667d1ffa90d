"""The colours of ImageNet's images, which networks that were trained on them expect removed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]."""


class ImageNetLayers(nn.Module):
    """A network of images in [0, 1], whose colours it standardises.

    >>> import torch
    >>> from adbench.engine.features.imagenet import MEAN, ImageNetLayers
    >>> grey = torch.tensor(MEAN).view(1, 3, 1, 1)
    >>> ImageNetLayers().standardise(grey).flatten()
    tensor([0., 0., 0.])
    """

    mean: Tensor  # (3, 1, 1)
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            constant = torch.tensor(values, device="cpu").view(3, 1, 1)  # also of a net on "meta"
            self.register_buffer(name, constant, persistent=False)

    def standardise(self, x: Tensor) -> Tensor:
        """Return (N, 3, H, W) less the mean of each colour, divided by its deviation."""
        return (x - self.mean) / self.deviation
