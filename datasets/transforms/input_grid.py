"""From the grid of an input file to that of its samples: the way of a map drawn on the input.

The samples of a dataset are made by the same steps, so a map on the grid of the input lands where
the sample shows what it marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..io.nifti import Volume
from .crops import crop_and_resize, to_display_axes
from .slices import resize_square, to_display_planes


@runtime_checkable
class OnInputGrid(Protocol):
    """A dataset that can take maps on the grid of its input files to that of its samples.

    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.datasets.volumes import Volumes
    >>> [isinstance(data, OnInputGrid) for data in (Volumes(), Phantom())]
    [True, False]
    """

    def map_to_samples(self, volume: Volume) -> Tensor:
        """The map of a volume (D, H, W), or of all its axial planes (Z, H, W) by their index.

        volume: on the grid of the input, RAS+
        """
        ...


def planes_to_samples(volume: Volume, size: int, crop: int | None = None) -> Tensor:
    """All axial planes of a map (Z, size, size), as `select_slices` makes samples of its input.

    volume: on the grid of the input, RAS+
    size, crop: as of `select_slices`

    >>> import numpy as np
    >>> data = np.zeros((4, 8, 2), np.float32)
    >>> data[0, 7, 1] = 1  # right, front, top; so the first row, and the last column
    >>> volume = Volume(data, np.eye(4), (1.0, 1.0, 1.0), "RAS", np.eye(4), "")
    >>> planes = planes_to_samples(volume, 8)
    >>> tuple(planes.shape), planes[1].nonzero().tolist()
    ((2, 8, 8), [[0, 5]])
    """
    planes = to_display_planes(volume.data.T)
    return resize_square(planes, crop or max(size, *planes.shape[1:]), size)


def volume_to_sample(
    volume: Volume, size: Sequence[int], crop: Sequence[int] | None = None
) -> Tensor:
    """A map (D, H, W) of a size, as `crop_and_resize` makes a sample of its input.

    volume: on the grid of the input, RAS+
    size, crop: as of `crop_and_resize`

    >>> import numpy as np
    >>> volume = Volume(np.ones((4, 8, 2)), np.eye(4), (1.0, 1.0, 1.0), "RAS", np.eye(4), "")
    >>> tuple(volume_to_sample(volume, (2, 4, 4)).shape)
    (2, 4, 4)
    """
    data, spacing = to_display_axes(volume)
    return crop_and_resize(torch.from_numpy(data), size, spacing, crop=crop)[0]
