"""Reading images so that no wrong pixel passes silently, and fitting them to a size.

PIL reads; where it would lose bits or skip a checksum (16 bits a colour, damaged PNG data), OpenCV
reads or zlib checks. What is done follows from what the file says of itself, never from how bright
its pixels happen to be.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from .base import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
GRAY = {"1": 1.0, "L": 255.0, "I;16": 65535.0, "I;16L": 65535.0, "I;16B": 65535.0, "I": 65535.0}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as PIL's own conversion


def read_image(raw: bytes, name: str, *, channels: int | None = None) -> Tensor:
    """An image as (C, H, W) float32 in 0..1, C 1 or 3: 0 and 1 are the ends of the stored type's
    range (255, 65535), whatever the pixels hold. Turned as its EXIF orientation says.

    raw: the file's bytes. name: what errors call it
    channels: 1 makes colours gray by their luma, 3 repeats gray; None leaves what there is
    Raises DataError on what is damaged, transparent, or of no type listed in spec and README.
    """
    image = _opened(raw, name)
    deep = _bits(raw, image) == 16
    pixels = _deep(raw, image, name) if deep else _plain(ImageOps.exif_transpose(image), name)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if channels == 1 and pixels.shape[-1] == 3:
        same = bool((pixels == pixels[..., :1]).all())
        pixels = pixels[..., :1] if same else (pixels @ LUMA)[..., None]
    if channels == 3 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, -1)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))


def colours(raw: bytes, name: str) -> int:
    """1 or 3: how many channels `read_image` would find."""
    return 1 if _opened(raw, name, whole=False).mode in (*GRAY, "F", "LA") else 3


def extent(raw: bytes, name: str) -> tuple[int, int]:
    """(H, W) as it will be read, from the file's header."""
    image = _opened(raw, name, whole=False)
    width, height = image.size
    return (width, height) if image.getexif().get(0x0112, 1) >= 5 else (height, width)


def read_mask(raw: bytes, name: str, *, classes: bool = False) -> Tensor:
    """A mask as (H, W) bool, true where the stored number (of a palette: the index) is not 0.

    classes: allow more than two numbers, each the kind of an anomaly
    Raises DataError on JPEG, and on more than two numbers: a mask that was resized or compressed.
    """
    if raw.startswith(JPEG):
        raise DataError(f"{name} is a JPEG; its compression changes a mask: store it as PNG")
    image = _opened(raw, name)
    if _bits(raw, image) == 16 and image.mode not in GRAY:
        pixels = _deep(raw, image, name)
    else:
        pixels = np.asarray(ImageOps.exif_transpose(image))  # of a palette: its indices
    if pixels.ndim == 3:
        if image.mode in ("RGBA", "LA"):
            _opaque(pixels[..., -1], 255, name)
            pixels = pixels[..., :-1]
        if (pixels != pixels[..., :1]).any():
            raise DataError(f"{name} is coloured; a mask is gray, or a palette of two")
        pixels = pixels[..., 0]
    found = np.unique(pixels)
    if len(found) > 2 and not classes:
        some = ", ".join(f"{value:g}" for value in found[:4])
        raise DataError(
            f"{name} holds {len(found)} distinct values ({some}, …); a mask holds two: was it "
            "resized with interpolation, or stored as JPEG once?"
        )
    return torch.from_numpy(np.ascontiguousarray(pixels != 0))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(C, H, W) stretched to `size`, averaging where it shrinks (bilinear, antialiased)."""
    if tuple(x.shape[1:]) == tuple(size):
        return x
    out = F.interpolate(x[None], list(size), mode="bilinear", antialias=True, align_corners=False)
    return out[0].clamp(0, 1)


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """(H, W) bool at `size`: true where more than half of an area is; what is too small for that
    keeps the one pixel that it covers most, so that no anomaly is lost."""
    if tuple(mask.shape) == tuple(size):
        return mask
    cover = F.interpolate(mask[None, None].float(), list(size), mode="area")[0, 0]
    small = cover > 0.5
    return small if small.any() or not mask.any() else cover >= cover.max()


def _opened(raw: bytes, name: str, *, whole: bool = True) -> Image.Image:
    """The image as it is stored; decoded to its last pixel if `whole`."""
    if not raw:
        raise DataError(f"{name} is empty")
    try:
        image = Image.open(io.BytesIO(raw))
        if not whole:
            return image
        if raw.startswith(PNG):
            _check(raw)
        image.load()
    except UnidentifiedImageError:
        raise DataError(f"{name} is no image: it looks like {_looks_like(raw)}") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large ({error})") from None
    except Exception as error:  # PIL raises many kinds; all mean that the file is damaged
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{name} is truncated or corrupt ({reason})") from error
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{name} holds {getattr(image, 'n_frames', 1)} images; adbench reads one")
    return image


def _check(raw: bytes) -> None:
    """The checksum of every chunk of a PNG: PIL does not look at those of the pixels."""
    at = len(PNG)
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        kind, end = raw[at + 4 : at + 8], at + 8 + size
        if end + 4 > len(raw):
            raise ValueError("it ends in the middle of its data")
        if zlib.crc32(raw[at + 4 : end]) != int.from_bytes(raw[end : end + 4], "big"):
            raise ValueError(f"checksum of its {kind.decode('latin1')} data")
        at = end + 4
        if kind == b"IEND":
            return
    raise ValueError("its end is missing")


def _bits(raw: bytes, image: Image.Image) -> int:
    """16 where an image of several channels has 16 bits in each: PIL would keep 8 of them."""
    if raw.startswith(PNG):
        return 16 if raw[24] == 16 and raw[25] in (2, 4, 6) else 8
    told = getattr(image, "tag_v2", {}).get(258, 8)
    told = told if isinstance(told, tuple) else (told,)
    return 16 if len(told) > 1 and max(told) == 16 else 8


def _deep(raw: bytes, image: Image.Image, name: str) -> np.ndarray:
    """(H, W, 3 or 1) float32 of an image with 16 bits a channel."""
    pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise DataError(f"{name} has 16 bits a channel in a form that cannot be read")
    turned = getattr(image, "getexif", dict)().get(0x0112, 1)
    if turned != 1:
        raise DataError(f"{name} has 16 bits a channel and is turned by EXIF: store it upright")
    if pixels.shape[-1] == 4:
        _opaque(pixels[..., 3], 65535, name)
        if raw.startswith(PNG) and raw[25] == 4:
            pixels = pixels[..., :1]
    order = [0] if pixels.shape[-1] == 1 else [2, 1, 0]  # OpenCV counts blue first
    return pixels[..., order].astype(np.float32) / 65535


def _plain(image: Image.Image, name: str) -> np.ndarray:
    """(H, W) or (H, W, 3) float32 of an image of 8 bits a channel, or gray of any depth."""
    if image.mode in GRAY:
        pixels = np.asarray(image).astype(np.float32)
        if image.mode == "I" and not 0 <= pixels.min() <= pixels.max() <= 65535:
            raise DataError(f"{name} holds 32-bit numbers beyond 0..65535")
        return pixels / GRAY[image.mode]
    if image.mode == "F":
        pixels = np.asarray(image)
        if not (np.isfinite(pixels).all() and 0 <= pixels.min() <= pixels.max() <= 1):
            raise DataError(f"{name} holds floats outside 0..1, or NaN")
        return pixels
    if image.mode in ("LA", "La"):
        pixels = np.asarray(image)
        _opaque(pixels[..., 1], 255, name)
        return pixels[..., 0].astype(np.float32) / 255
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("RGBA", "RGBa", "RGBX"):
        _opaque(np.asarray(image)[..., 3], 255, name)
    return np.asarray(image.convert("RGB")).astype(np.float32) / 255


def _opaque(alpha: np.ndarray, most: int, name: str) -> None:
    if (alpha != most).any():
        raise DataError(f"{name} is transparent in {int((alpha != most).sum())} pixels: flatten it")


def _looks_like(raw: bytes) -> str:
    head = raw[:1024].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer (git lfs pull fetches the file)"
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")) or b"<html" in head:
        return "an HTML page (a failed download: fetch it again)"
    return f"nothing known (it starts with {raw[:8]!r})"
