"""Which index of a palette is the background of a mask."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..base import DataError

LIKE_BRIGHTNESS = 16.0
"""Difference of luma, of 255, up to which two colours count as equally bright."""

BLACK, WHITE = 16.0, 240.0
GRAY_TOLERANCE = 16
"""Luma up to and from which a colour is black or white, and how far channels of gray may differ."""


def palette_background(image: Image.Image, indices: np.ndarray, name: str) -> int:
    """Return the index that means normal in a mask with a palette.

    image: of mode "P"; a transparent colour counts as black
    indices: (H, W), the index of each pixel
    name: of the file in errors

    It is the darkest colour that occurs, because the order of a palette has no meaning: programs
    sort it as they like. If all colours are equally bright, the palette shows classes and index 0
    is normal. Raises DataError if a bright colour has index 0 and no other colour is black (or
    gray, if that one is gray, too): a drawing on a bright background looks the same.

    >>> image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    >>> image.putpalette([255, 255, 255, 0, 0, 0])
    >>> palette_background(image, np.asarray(image), "mask.png")
    1
    """
    used = {int(index) for index in np.unique(indices)}
    colours = _colours(image)
    luma = {i: float(colours[i] @ (0.299, 0.587, 0.114)) for i in sorted(used | {0})}
    darkest = min(luma, key=luma.__getitem__)
    if luma[darkest] <= BLACK and max(luma.values()) > BLACK:
        return darkest
    if used == {0} and luma[darkest] >= WHITE and _is_gray(colours[darkest]):
        raise DataError(
            f"{name} is white all over, by its palette: is all abnormal, or nothing? Store it gray"
        )
    if luma[0] - luma[darkest] <= LIKE_BRIGHTNESS:
        return 0
    if _is_gray(colours[0]) and _is_gray(colours[darkest]):
        return darkest
    raise DataError(
        f"{name} has a palette whose first colour is the brighter one and none is black: which is "
        "normal? Store it gray, with 0 where normal"
    )


def _colours(image: Image.Image) -> np.ndarray:
    """Return (256, 3) float64, the colour of every index in 0..255, transparent ones black."""
    channels = np.zeros((256, 3))
    palette = np.array(image.getpalette("RGB") or [], np.float64).reshape(-1, 3)[:256]
    channels[: len(palette)] = palette
    transparency = image.info.get("transparency")
    if isinstance(transparency, int):
        channels[transparency] = 0
    elif isinstance(transparency, bytes):
        channels[: len(transparency)][np.frombuffer(transparency, np.uint8) == 0] = 0
    return channels


def _is_gray(colour: np.ndarray) -> bool:
    return bool(np.ptp(colour) <= GRAY_TOLERANCE)
