"""The steps between the maps of a method and their metrics: medians, filled holes, eroded regions
of interest, components that are too small.

Letters: N samples, S one to three spatial axes. Of steps called `volume-…` N samples of two axes
are the slices of one volume; signals of one axis raise ProtocolError there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .metrics.connected_components import Array, filled_component_sizes, label_components
from .protocol_values import ProtocolError, unknown_value

POST_STEPS = (
    *("median5", "fill", "zero3", "erode3", "cross3", "components>=8"),
    *("volume-median5", "volume-fill", "volume-erode3", "volume-components>=8"),
)
VOLUME = "volume-"
"""Before the name of a step that is taken over the stacked slices of a patient."""


def parse_step(step: str) -> tuple[str, int]:
    """Return the name of a step and its size; 1 for a step that takes none.

    step: as a protocol has it

    Raises ProtocolError on any other text.

    >>> from adbench.benchmark.evaluation.post_processing import parse_step
    >>> parse_step("median5")
    ('median', 5)
    """
    if step in ("fill", "volume-fill"):
        return step, 1
    match = re.fullmatch(r"(zero|cross|(?:volume-)?(?:median|erode|components>=))(\d+)", step)
    if not match or (int(match[2]) < 1 and match[1] != "zero"):
        raise unknown_value("post step", step, POST_STEPS)
    return match[1], int(match[2])


def filter_maps(steps: Sequence[str], maps: Array, roi: Array | None = None) -> Array:
    """Apply the steps that change maps (N, *S), in their order; edges are mirrored by medians.

    steps: of a protocol
    roi: (N, *S) bool, the regions of interest as the dataset has them; None for all pixels

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.post_processing import filter_maps
    >>> filter_maps(["median3"], np.array([[0.0, 9.0, 1.0, 2.0]]))
    array([[0., 1., 2., 2.]])
    """
    from scipy import ndimage

    for name, size in map(parse_step, steps):
        stack = name.startswith(VOLUME) and _stacks(maps)
        kind = name.removeprefix(VOLUME)
        if kind == "median":
            width = (size,) * maps.ndim if stack else (1,) + (size,) * (maps.ndim - 1)
            maps = ndimage.median_filter(maps, size=width)
        elif kind == "fill":
            from .metrics.hole_filling import fill_holes

            parts = [fill_holes(part) for part in (maps[None] if stack else maps)]
            maps = np.reshape(parts, maps.shape)
        elif kind == "zero" and roi is not None:
            maps = np.where(_erode_by_cross(roi, size), maps, np.float32(0))
    return maps


def erode_roi(steps: Sequence[str], roi: Array) -> Array:
    """Apply the steps that erode regions of interest (N, *S) bool; the border is no edge.

    steps: of a protocol

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.post_processing import erode_roi
    >>> erode_roi(["erode3"], np.array([[True, True, True, False]])).tolist()
    [[True, True, False, False]]
    """
    from scipy import ndimage

    for size in _sizes(steps, "erode"):
        shape = np.ones((1,) + (size,) * (roi.ndim - 1), bool)
        roi = ndimage.binary_erosion(roi, shape, border_value=1)
    for times in _sizes(steps, "cross"):
        roi = _erode_by_cross(roi, times)
    for size in _sizes(steps, "volume-erode"):
        width = (size if _stacks(roi) else 1,) + (size,) * (roi.ndim - 1)
        roi = ndimage.binary_erosion(roi, np.ones(width, bool), border_value=1)
    return roi


def remove_small_components(steps: Sequence[str], masks: Array) -> Array:
    """Apply the steps that remove the connected components of masks (N, *S) bool that are too
    small. Holes in a component count as its pixels, as in the filter of pDDPM's authors.

    steps: of a protocol

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.post_processing import remove_small_components
    >>> masks = np.array([[True, False, True, True]])
    >>> remove_small_components(["components>=2"], masks).tolist()
    [[False, False, True, True]]
    """
    for name, size in map(parse_step, steps):
        if name.removeprefix(VOLUME) != "components>=":
            continue
        stack = name.startswith(VOLUME) and _stacks(masks)
        stacked = masks[None].copy() if stack else masks.copy()
        component = label_components(stacked)
        stacked[stacked] = filled_component_sizes(stacked, component, size)[component] >= size
        masks = stacked[0] if stack else stacked
    return masks


def _stacks(arrays: Array) -> bool:
    """Whether the first axis of (N, *S) is the third of a volume in `volume-` steps."""
    if arrays.ndim < 3:
        raise ProtocolError(
            "post steps 'volume-…' stack slices or take volumes, and these are signals of one "
            "axis; use median5, fill or components>=8"
        )
    return arrays.ndim == 3


def _sizes(steps: Sequence[str], name: str) -> list[int]:
    return [size for kind, size in map(parse_step, steps) if kind == name]


def _erode_by_cross(roi: Array, times: int) -> Array:
    """Erode (N, *S) bool by a cross in the last two axes; the border of the image is no edge."""
    from scipy import ndimage

    if times == 0:  # which scipy takes as "until nothing changes"
        return roi
    cross = ndimage.generate_binary_structure(min(2, roi.ndim - 1), 1)
    cross = cross.reshape((1,) * (roi.ndim - cross.ndim) + cross.shape)
    return ndimage.binary_erosion(roi, cross, times, border_value=1)
