"""A file of several images is refused by its name: never its first frame without a word."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from adbench.datasets.base import DataError
from adbench.datasets.io.images import read_image, read_mask


def encoded(kind: str, frames: int) -> bytes:
    """An animated GIF, PNG or WebP, or a TIFF of several pages."""
    pictures = [Image.fromarray(np.full((8, 8), 40 * i, np.uint8)) for i in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        kind,
        save_all=frames > 1,
        append_images=pictures[1:],
        **{"lossless": True} if kind == "WEBP" else {},
    )
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_several_frames_are_refused_with_their_number(kind: str, read: object) -> None:
    with pytest.raises(DataError, match=r"film\.x holds 3 images; adbench reads one"):
        read(encoded(kind, 3), "film.x")  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_one_frame_is_an_image(kind: str) -> None:
    assert float(read_image(encoded(kind, 1), "one.x", channels=1).max()) == 0
