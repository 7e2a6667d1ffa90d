"""Every kind of image file: the right pixels, or an error that says why not."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from adbench.datasets.base import DataError
from adbench.datasets.io.images import read_image, read_mask, resize, resize_mask
from trees_images import square, texture

GRAY, RGB = texture(1, (9, 7)), texture(2, (9, 7), colour=True)
DEEP = np.random.default_rng(3).integers(0, 65536, (9, 7), dtype=np.uint16)
DEEP_RGB = np.random.default_rng(4).integers(0, 65536, (9, 7, 3), dtype=np.uint16)


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **how) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def by_cv2(array: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


def same(x: torch.Tensor, array: np.ndarray, most: int) -> bool:
    expected = array if array.ndim == 3 else array[..., None]
    scaled = torch.from_numpy(expected.astype(np.float32) / most).permute(2, 0, 1)
    return x.shape == scaled.shape and bool((x - scaled).abs().max() < 1e-6)


def opaque(array: np.ndarray, most: int = 255) -> np.ndarray:
    alpha = np.full((*array.shape[:2], 1), most, array.dtype)
    return np.concatenate([array if array.ndim == 3 else array[..., None], alpha], -1)


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows of pixels stored with an EXIF orientation, by the standard's words: where
    row 0 and column 0 of what is stored are seen."""
    seen = {
        1: array,
        2: array[:, ::-1],  # top, right
        3: array[::-1, ::-1],  # bottom, right
        4: array[::-1],  # bottom, left
        5: array.swapaxes(0, 1),  # left, top
        6: array.swapaxes(0, 1)[:, ::-1],  # right, top
        7: array.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: array.swapaxes(0, 1)[::-1],  # left, bottom
    }
    return seen[orientation]


PLAIN = {
    "gray png": (saved(GRAY), GRAY, 255),
    "gray tiff": (saved(GRAY, "TIFF"), GRAY, 255),
    "gray bmp": (saved(GRAY, "BMP"), GRAY, 255),
    "packed tiff": (saved(GRAY, "TIFF", compression="tiff_lzw"), GRAY, 255),
    "rgb png": (saved(RGB), RGB, 255),
    "rgb tiff": (saved(RGB, "TIFF"), RGB, 255),
    "rgba opaque": (saved(opaque(RGB)), RGB, 255),
    "la opaque": (saved(Image.fromarray(opaque(GRAY), "LA")), GRAY, 255),
    "1 bit": (saved(Image.fromarray(GRAY > 128)), (GRAY > 128).astype(np.uint8), 1),
    "16 bit png": (saved(DEEP), DEEP, 65535),
    "16 bit tiff": (saved(DEEP, "TIFF"), DEEP, 65535),
    "16 bit big-endian tiff": (
        saved(Image.frombytes("I;16B", (7, 9), DEEP.astype(">u2").tobytes()), "TIFF"),
        DEEP,
        65535,
    ),
    "16 bit rgb png": (by_cv2(DEEP_RGB, ".png"), DEEP_RGB, 65535),
    "16 bit rgb tiff": (by_cv2(DEEP_RGB, ".tiff"), DEEP_RGB, 65535),
    "palette": (saved(Image.fromarray(RGB // 32 * 32).quantize(256)), RGB // 32 * 32, 255),
    "signed 16 bit tiff": (
        by_cv2((DEEP // 2).astype(np.int16), ".tiff"),
        DEEP // 2,
        32767,
    ),
    "float tiff": (saved(GRAY.astype(np.float32) / 255, "TIFF"), GRAY, 255),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_pixels_are_those_that_were_saved_by_the_range_of_their_type(kind) -> None:
    raw, array, most = PLAIN[kind]
    assert same(read_image(raw, kind), array, most)


def test_a_dark_image_is_not_brightened() -> None:
    dark = (GRAY > 128).astype(np.uint8)  # 0 and 1 of 255: AutoDDPM would leave it as it is
    assert float(read_image(saved(dark), "x").max()) == pytest.approx(1 / 255)


def test_channels_are_turned_as_asked_for() -> None:
    gray = read_image(saved(RGB), "x", channels=1)
    expected = RGB @ np.array([0.299, 0.587, 0.114]) / 255
    assert np.allclose(gray[0].numpy(), expected, atol=1e-6)
    pil = np.asarray(Image.fromarray(RGB).convert("L")) / 255
    assert np.abs(gray[0].numpy() - pil).max() <= 1 / 255
    assert same(read_image(saved(GRAY), "x", channels=3), np.repeat(GRAY[..., None], 3, -1), 255)
    alike = np.repeat(GRAY[..., None], 3, -1)
    assert same(read_image(saved(alike), "x", channels=1), GRAY, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_all_eight_orientations_are_turned_upright(orientation, kind) -> None:
    stored = np.zeros((16, 24), np.uint8)
    stored[:8, :8], stored[:8, 16:] = 250, 120  # two corners tell every turn apart
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"exif": exif} | ({"quality": 95} if kind == "JPEG" else {})
    results = read_image(saved(stored, kind, **how), "x")[0].numpy() * 255
    expected = turned(stored, orientation)
    assert results.shape == expected.shape and np.abs(results - expected).max() < 12


def test_a_mask_is_turned_like_its_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = read_mask(saved(square((16, 24)), "PNG", exif=exif), "m").numpy()
    assert (mask == turned(square((16, 24)), 6).astype(bool)).all()


def damaged_palette() -> Image.Image:
    image = Image.fromarray(RGB).quantize(8)
    image.info["transparency"] = 0
    return image


def keyed() -> bytes:
    """A gray PNG of which one shade is transparent."""
    return saved(Image.fromarray(GRAY), transparency=int(GRAY[0, 0]))


def animated() -> bytes:
    return saved(GRAY, "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)])


see_through = opaque(RGB)
see_through[0, 0, 3] = 254
deep_see_through = opaque(DEEP_RGB, 65535)
deep_see_through[0, 0, 3] = 65534

REFUSED = {
    "nothing": (b"", "x is empty"),
    "html": (b"<!DOCTYPE html><html>quota exceeded</html>", "looks like an HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    "text": (b"this is no image", "no image: it looks like nothing known"),
    "truncated png": (saved(RGB)[:-30], "truncated or corrupt"),
    "png without end": (saved(RGB)[:-12], "truncated or corrupt"),
    "truncated jpeg": (saved(texture(5, (64, 64)), "JPEG")[:900], "truncated or corrupt"),
    "header of a jpeg": (saved(GRAY, "JPEG")[:12], "truncated or corrupt"),
    "truncated tiff": (saved(RGB, "TIFF")[:-60], "truncated or corrupt"),
    "truncated 16 bit png": (by_cv2(DEEP_RGB, ".png")[:-40], "truncated or corrupt"),
    "rgba": (saved(see_through), "transparent in 1 pixels: flatten it"),
    "16 bit rgba": (
        cv2.imencode(".png", deep_see_through)[1].tobytes(),
        "transparent in 1 pixels: flatten it",
    ),
    "palette": (saved(damaged_palette()), "transparent in"),
    "a transparent shade": (keyed(), "transparent in"),
    "several images": (animated(), "holds 2 images"),
    "floats beyond 1": (saved(GRAY.astype(np.float32), "TIFF"), "floats outside 0..1"),
    "nan": (saved(np.full((4, 4), np.nan, np.float32), "TIFF"), "floats outside 0..1, or NaN"),
    "below 0": (by_cv2(np.full((4, 4), -5, np.int16), ".tiff"), "numbers below 0"),
    "32 bits": (saved(DEEP.astype(np.int32), "TIFF"), "numbers of 32 bits"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_trusted_is_refused_in_one_line(kind) -> None:
    raw, why = REFUSED[kind]
    with pytest.raises(DataError, match=why) as caught:
        read_image(raw, "x")
    assert str(caught.value).startswith("x ") and "\n" not in str(caught.value)


def test_a_photograph_with_a_preview_is_one_image() -> None:
    """As telephones store them: a JPEG with a second one behind it."""
    preview = Image.fromarray(GRAY[::2, ::2].copy())
    raw = saved(GRAY, "MPO", save_all=True, append_images=[preview], quality=95)
    assert read_image(raw, "x").shape == (1, 9, 7)


@pytest.mark.parametrize("deep", [False, True])
def test_200_flipped_bytes_of_a_png_are_found_or_change_nothing(deep) -> None:
    raw = by_cv2(DEEP_RGB, ".png") if deep else saved(texture(6, (40, 40), colour=True))
    whole, rng, results = read_image(raw, "x"), np.random.default_rng(0), 0
    for _ in range(200):
        bad = bytearray(raw)
        bad[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        try:
            assert torch.equal(read_image(bytes(bad), "x"), whole)
        except DataError:
            results += 1
    assert results > 190


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_cut_off_anywhere_is_refused_or_whole(kind) -> None:
    raw = saved(texture(7, (24, 24)), kind)
    whole = read_image(raw, "x")
    for end in range(0, len(raw), 7):
        try:
            assert torch.equal(read_image(raw[:end], "x"), whole)
        except DataError:
            continue


def test_a_png_of_4_bits_spans_the_whole_range() -> None:
    rows = b"".join(b"\0" + bytes([0x0F, 0x8F]) for _ in range(3))  # 0 15 8 15 of 15
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 3, 4, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    raw = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    assert same(read_image(raw, "x"), np.tile(np.array([0, 15, 8, 15]), (3, 1)), 15)


# Masks


def palette_mask() -> Image.Image:
    image = Image.fromarray((square() > 0).astype(np.uint8), "P")
    image.putpalette([76, 76, 76, 150, 150, 150])
    return image


MASKS = {
    "0 and 255": saved(square()),
    "0 and 1": saved(square(value=1)),
    "1 bit": saved(Image.fromarray(square() > 0)),
    "palette, by its indices": saved(palette_mask()),
    "gray as colours": saved(np.repeat(square()[..., None], 3, -1)),
    "rgba": saved(opaque(np.repeat(square()[..., None], 3, -1))),
    "16 bit": saved(square().astype(np.uint16) * 257),
    "tiff": saved(square(), "TIFF"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_is_true_where_it_is_not_0(kind) -> None:
    mask = read_mask(MASKS[kind], kind)
    assert mask.dtype == torch.bool and (mask.numpy() == (square() > 0)).all()


def test_a_mask_of_classes_is_taken_where_it_is_expected() -> None:
    classes = square(value=1) + square(value=2, at=12)
    with pytest.raises(DataError, match="m holds 3 distinct values"):
        read_mask(saved(classes), "m")
    assert (read_mask(saved(classes), "m", multiclass=True).numpy() == (classes > 0)).all()


BAD_MASKS = {
    "jpeg": (saved(square(), "JPEG"), "is a JPEG; its compression changes a mask"),
    "resized": (
        saved(Image.fromarray(square()).resize((17, 17), Image.Resampling.BILINEAR)),
        "distinct values .* resized with interpolation",
    ),
    "coloured": (saved(RGB), "is coloured"),
    "no 0": (saved(np.where(square() > 0, 255, 1).astype(np.uint8)), "no 0: what is normal"),
    "html": (b"<html></html>", "HTML page"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_a_mask_that_cannot_be_one_is_refused(kind) -> None:
    raw, why = BAD_MASKS[kind]
    with pytest.raises(DataError, match=why):
        read_mask(raw, "m")


# Sizes

SIDES = st.integers(1, 20)
IMAGES = nps.arrays(
    np.float32, st.tuples(st.just(2), SIDES, SIDES), elements=st.floats(0, 1, width=32)
)


@settings(max_examples=40)
@given(IMAGES, SIDES, SIDES)
def test_resizing_stays_within_what_was_there(array, height, width) -> None:
    x = torch.from_numpy(array)
    small = resize(x, (height, width))
    assert small.shape == (2, height, width)
    assert small.min() >= x.min() - 1e-6 and small.max() <= x.max() + 1e-6


def test_resizing_down_by_2_averages_as_pillow_does() -> None:
    x = torch.from_numpy(texture(8, (32, 48)).astype(np.float32) / 255)[None]
    pil = Image.fromarray((x[0] * 255).numpy().astype(np.float32))
    expected = np.asarray(pil.resize((24, 16), Image.Resampling.BILINEAR)) / 255
    assert np.abs(resize(x, (16, 24))[0].numpy() - expected).max() < 1e-5


@settings(max_examples=60)
@given(nps.arrays(np.bool_, st.tuples(SIDES, SIDES)), SIDES, SIDES)
def test_a_resized_mask_is_empty_only_if_it_was(array, height, width) -> None:
    mask = torch.from_numpy(array)
    small = resize_mask(mask, (height, width))
    assert small.dtype == torch.bool and bool(small.any()) == bool(mask.any())


def test_a_mask_is_true_where_more_than_half_of_an_area_is() -> None:
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, :2] = mask[1, 0] = mask[2, 2] = mask[2, 3] = True  # 3 of 4, and 2 of 4
    assert resize_mask(mask, (2, 2)).tolist() == [[True, False], [False, False]]
