"""Masks stored with a palette: the colours that every viewer shows decide, not their order."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from adbench.datasets.base import DataError
from adbench.datasets.io.images import read_mask
from trees_images import square

BLACK, WHITE, GRAY = (0, 0, 0), (255, 255, 255), (90, 90, 90)
RED, GREEN = (200, 0, 0), (0, 100, 0)
VOC_RED, VOC_GREEN = (128, 0, 0), (0, 128, 0)
ABNORMAL = square() > 0


def stored(indices: np.ndarray, colours: list[tuple[int, int, int]], kind="PNG", **how) -> bytes:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([number for colour in colours for number in colour])
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize(
    "colours",
    [[BLACK, WHITE], [WHITE, BLACK], [WHITE, GRAY], [BLACK, RED], [RED, BLACK], [RED, GREEN]],
)
def test_the_darker_of_two_colours_is_normal_and_of_like_ones_index_0(colours, kind) -> None:
    index_first = colours in ([BLACK, WHITE], [BLACK, RED], [RED, GREEN])
    indices = ABNORMAL if index_first else ~ABNORMAL
    if (kind, colours) == ("BMP", [BLACK, WHITE]):
        with pytest.raises(DataError, match="BMP of two colours in 8 bits: store it as PNG"):
            read_mask(stored(indices, colours, kind), "m")
    else:
        mask = read_mask(stored(indices, colours, kind), "m")
        assert (mask.numpy() == ABNORMAL).all()


def test_a_palette_that_pillow_made_is_read_by_its_colours() -> None:
    image = Image.fromarray(np.repeat(square()[..., None], 3, -1)).quantize(2)
    out = io.BytesIO()
    image.save(out, "PNG")
    assert (read_mask(out.getvalue(), "m").numpy() == ABNORMAL).all()


def test_a_transparent_colour_is_background() -> None:
    raw = stored(ABNORMAL, [WHITE, RED], transparency=0)
    assert (read_mask(raw, "m").numpy() == ABNORMAL).all()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_black_is_normal_among_several_classes(order) -> None:
    classes = square(value=1) + square(value=2, at=12)
    colours = [(BLACK, VOC_RED, VOC_GREEN)[old] for old in order]
    indices = np.argsort(order)[classes]
    mask = read_mask(stored(indices, colours), "m", multiclass=True)
    assert (mask.numpy() == (classes > 0)).all()


@pytest.mark.parametrize("colours", [[WHITE, BLACK], [BLACK, WHITE]])
def test_an_empty_mask_is_black_at_any_index(colours) -> None:
    empty = np.full((8, 8), colours.index(BLACK))
    assert not read_mask(stored(empty, colours), "m").any()


@pytest.mark.parametrize(
    ("indices", "colours"),
    [(ABNORMAL, [WHITE, RED]), (np.zeros((8, 8)), [WHITE, WHITE])],
)
def test_what_is_normal_is_not_guessed(indices, colours) -> None:
    with pytest.raises(DataError, match=r"^m .* Store it gray"):
        read_mask(stored(indices, colours), "m")
