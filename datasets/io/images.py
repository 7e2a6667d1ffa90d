"""Reading images and masks without silent loss of information, and resizing them.

PIL reads; where it would lose bits or skip a checksum (16 bits per colour, damaged PNG data),
OpenCV reads or zlib checks. What is done depends on the file's header, never on how bright its
pixels are.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from ..base import DataError
from .decompression import check_expansion
from .file_type import describe_file_type
from .mask_palettes import palette_background

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif")
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
"""Pixels of an image, from which on PIL takes it for a decompression bomb."""

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as PIL's own conversion
ORIENTATION, BITS_PER_SAMPLE, SAMPLE_FORMAT = 0x0112, 258, 339  # tags of EXIF and TIFF
SIGNED = 2  # of SAMPLES
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation; any other number is upright."""


def read_image(
    file_bytes: bytes,
    name: str,
    *,
    channels: int | None = None,
    limits: tuple[float, float] | None = None,
) -> Tensor:
    """Return an image as (C, H, W) float32 in 0..1, C 1 or 3, rotated as its EXIF data say.

    0 and 1 are the ends of the stored type's range (255 or 65535), whatever the pixels hold.

    file_bytes: all bytes of the file
    name: of the file in errors
    channels: 1 converts colours to gray by their luma, 3 repeats gray; None keeps the channels
    limits: the stored numbers that become 0 and 1, in place of the type's range; those beyond them
        lie below 0 or above 1 then

    Of the EXIF data only the orientation is read: an odd tag beside it does no harm.

    Raises DataError for damaged, transparent or animated images, numbers without a known range, and
    a header that declares far more pixels than the file can hold.

    >>> buffer = io.BytesIO()
    >>> Image.new("L", (4, 2), 255).save(buffer, "PNG")
    >>> x = read_image(buffer.getvalue(), "white.png")
    >>> tuple(x.shape), float(x.min())
    ((1, 2, 4), 1.0)
    """
    image, upright = _decode(file_bytes, name)
    if _has_16_bit_channels(file_bytes, image):
        pixels, white = _read_16_bit_channels(file_bytes, name, upright=upright), 65535
    else:
        pixels, white = _read_8_bit_or_gray(_turned(image), name, _white_value(image), image.format)
    if limits is None:
        pixels = pixels.astype(np.float32) / np.float32(_known_white(pixels, white, name))
    elif np.isfinite(pixels).all():
        low, high = limits
        pixels = ((pixels.astype(np.float64) - low) / (high - low)).astype(np.float32)
    else:
        raise DataError(f"{name} holds NaN or infinite numbers")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if channels == 1 and pixels.shape[-1] == 3:
        same = bool((pixels == pixels[..., :1]).all())
        pixels = pixels[..., :1] if same else (pixels @ LUMA)[..., None]
    if channels == 3 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, -1)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))


def stored_colours(file_bytes: bytes) -> str:
    """Return "gray" or "RGB", as an image is stored; "" for a file that PIL does not read.

    file_bytes: of the file; its header is read only

    >>> buffer = io.BytesIO()
    >>> Image.new("L", (4, 2), 255).save(buffer, "PNG")
    >>> stored_colours(buffer.getvalue())
    'gray'
    """
    try:
        with Image.open(io.BytesIO(file_bytes)) as image:
            mode = image.mode
    except Exception:  # PIL raises many kinds; read_image says what is wrong
        return ""
    return "gray" if mode[0] in ("1", "L", "I", "F") else "RGB"


def read_mask(
    file_bytes: bytes,
    name: str,
    *,
    multiclass: bool = False,
    size: Sequence[int] | None = None,
) -> Tensor:
    """Return a mask as (H, W) bool, true where abnormal: where the stored number is not 0.

    Of a palette, the darkest colour is normal, as every viewer shows it; if all colours are equally
    bright, index 0 is.

    file_bytes: all bytes of the file
    name: of the file in errors
    multiclass: allow more than two distinct numbers, one per kind of anomaly
    size: rows and columns of its image, which the mask must have; None for any

    Raises DataError for JPEG and lossy WebP files, and for more than two distinct numbers
    otherwise: they come from interpolation or lossy compression. Also for a palette in which a
    bright colour that is not gray comes first and none is black, and for another size (before any
    pixel is unpacked).

    >>> buffer = io.BytesIO()
    >>> Image.fromarray(np.array([[0, 255]], np.uint8)).save(buffer, "PNG")
    >>> read_mask(buffer.getvalue(), "mask.png").tolist()
    [[False, True]]
    """
    if file_bytes.startswith(JPEG):
        raise DataError(f"{name} is a JPEG; its compression changes a mask: store it as PNG")
    if file_bytes.startswith(b"RIFF") and b"VP8 " in file_bytes[12:]:
        raise DataError(f"{name} is a lossy WebP, which changes a mask: store it as PNG")
    image, upright = _decode(file_bytes, name, size)
    background = 0
    if _has_16_bit_channels(file_bytes, image):
        pixels = _read_16_bit_channels(file_bytes, name, upright=upright)
    else:
        pixels = np.asarray(_turned(image))  # of a palette: its indices
    if image.mode == "P":
        background = palette_background(image, pixels, name)
    if pixels.ndim == 3:
        if image.mode in ("RGBA", "LA"):
            _check_opaque(pixels[..., -1], 255, name)
            pixels = pixels[..., :-1]
        if (pixels != pixels[..., :1]).any():
            raise DataError(f"{name} is coloured; a mask is gray, or a palette of two")
        pixels = pixels[..., 0]
    if size is not None and pixels.shape != tuple(size):
        raise _wrong_size(pixels.shape, size, name)
    values = np.unique(pixels)
    if len(values) > 2 and not multiclass:
        examples = ", ".join(f"{value:g}" for value in values[:4])
        raise DataError(
            f"{name} holds {len(values)} distinct values ({examples}, …); a mask holds two: was it "
            "resized with interpolation, or stored as JPEG once?"
        )
    if len(values) > 1 and background not in values:
        raise DataError(f"{name} holds {values[0]:g} and {values[1]:g} but no 0: what is normal?")
    return torch.from_numpy(np.ascontiguousarray(pixels != background))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return an image resized without keeping its aspect (bilinear, antialiased).

    x: (C, H, W) in 0..1
    size: rows and columns

    >>> tuple(resize(torch.zeros(1, 8, 8), (4, 6)).shape)
    (1, 4, 6)
    """
    if tuple(x.shape[1:]) == tuple(size):
        return x
    out = F.interpolate(x[None], list(size), mode="bilinear", antialias=True, align_corners=False)
    return out[0].clamp(0, 1)


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Return a mask resized: true where more than half of a pixel's area is true.

    A mask too small for that anywhere keeps the pixels that it covers most, so that no abnormal
    image loses its mask.

    mask: (H, W) bool
    size: rows and columns

    >>> mask = torch.zeros(8, 8, dtype=torch.bool)
    >>> mask[0, 0] = True
    >>> int(resize_mask(mask, (4, 4)).sum())
    1
    """
    if tuple(mask.shape) == tuple(size):
        return mask
    cover = F.interpolate(mask[None, None].float(), list(size), mode="area")[0, 0]
    small = cover > 0.5
    return small if small.any() or not mask.any() else cover >= cover.max()


def _decode(
    file_bytes: bytes, name: str, size: Sequence[int] | None = None
) -> tuple[Image.Image, bool]:
    """Return the image, decoded completely, and whether it is stored upright.

    size: rows and columns that it must have when it is upright; None for any
    """
    if not file_bytes:
        raise DataError(f"{name} is empty")
    try:
        if file_bytes.startswith(PNG):
            _check_png_checksums(file_bytes)
        image = Image.open(io.BytesIO(file_bytes))
        _check_declared_size(image, file_bytes, name, size)
        upright = _turn_of(image) is None
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frames == 1:
            image.load()
    except UnidentifiedImageError:
        if file_bytes.startswith((JPEG, PNG, *TIFF)):
            why = "its header, or it is of a rare kind: store it as PNG"
            raise DataError(f"{name} is truncated or corrupt ({why})") from None
        raise DataError(
            f"{name} is no image: it looks like {describe_file_type(file_bytes)}"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name) from None
    except DataError:
        raise
    except Exception as error:  # PIL raises many kinds; all mean that the file is damaged
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{name} is truncated or corrupt ({reason})") from error
    if (
        image.format == "BMP" and image.mode == "1" and file_bytes[28] != 1
    ):  # PIL unpacks it as 1 bit
        raise DataError(f"{name} is a BMP of two colours in {file_bytes[28]} bits: store it as PNG")
    if frames > 1:
        raise DataError(f"{name} holds {frames} images; adbench reads one: store them apart")
    return image, upright


def _check_declared_size(
    image: Image.Image, file_bytes: bytes, name: str, size: Sequence[int] | None
) -> None:
    """Raise DataError if the header declares another size, or more pixels than are believable."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(name)
    if size is None:
        check_expansion(name, width * height * len(image.getbands()), len(file_bytes), "pixels")
    elif sorted(image.size) != sorted(size):  # turned upright, they may change places
        raise _wrong_size((height, width), size, name)


def _wrong_size(size: Sequence[int], image_size: Sequence[int], name: str) -> DataError:
    sizes = (" x ".join(map(str, extent)) for extent in (size, image_size))
    return DataError("{} has {} pixels, its image {}".format(name, *sizes))


def _too_many_pixels(name: str) -> DataError:
    return DataError(f"{name} declares more than {MAX_PIXELS:,} pixels: cut it into several images")


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright, or None if it is. Reads one EXIF tag, no other."""
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # EXIF data that nobody can read turn nothing; the pixels may be sound
        return None


def _turned(image: Image.Image) -> Image.Image:
    """Return a decoded image upright (ImageOps.exif_transpose would fail on other EXIF tags)."""
    turn = _turn_of(image)  # a TIFF is upright already, and says so
    return image if turn is None else image.transpose(turn)


def _check_png_checksums(file_bytes: bytes) -> None:
    """Raise ValueError unless the checksum of every chunk of a PNG is right.

    PIL does not check those of the pixels.
    """
    position = len(PNG)
    while position < len(file_bytes):
        size = int.from_bytes(file_bytes[position : position + 4], "big")
        chunk_type, end = file_bytes[position + 4 : position + 8], position + 8 + size
        if end + 4 > len(file_bytes):
            raise ValueError("it ends in the middle of its data")
        if zlib.crc32(file_bytes[position + 4 : end]) != int.from_bytes(
            file_bytes[end : end + 4], "big"
        ):
            raise ValueError(f"checksum of its {chunk_type.decode('latin1')} data")
        position = end + 4
        if chunk_type == b"IEND":
            return
    raise ValueError("its end is missing")


def _has_16_bit_channels(file_bytes: bytes, image: Image.Image) -> bool:
    """Return whether each of several channels has 16 bits, of which PIL would keep 8."""
    if file_bytes.startswith(PNG):
        return file_bytes[24] == 16 and file_bytes[25] in (2, 4, 6)
    bits = _bits_per_channel(image)
    return len(bits) > 1 and max(bits) == 16


def _bits_per_channel(image: Image.Image) -> tuple[int, ...]:
    """Return the bits of each channel of a TIFF; () for other files."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, ())
    return bits if isinstance(bits, tuple) else (bits,)


def _white_value(image: Image.Image) -> int:
    """Return the largest number that gray pixels of more than 8 bits can hold.

    Call it before an image is transposed, which discards the tags.
    """
    signed = SIGNED in getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, ())
    return (1 << (max(_bits_per_channel(image), default=16) - signed)) - 1


def _read_16_bit_channels(file_bytes: bytes, name: str, *, upright: bool) -> np.ndarray:
    """Return (H, W, 3 or 1) uint16 of an image with 16 bits per channel."""
    if not upright:
        raise DataError(f"{name} has 16 bits a channel and is turned by EXIF: store it upright")
    pixels = cv2.imdecode(np.frombuffer(file_bytes, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise DataError(f"{name} has 16 bits a channel in a form that cannot be read")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] == 4:
        _check_opaque(pixels[..., 3], 65535, name)
        # gray and alpha, which OpenCV makes colours
        if file_bytes.startswith(PNG) and file_bytes[25] == 4:
            pixels = pixels[..., :1]
    order = [0] if pixels.shape[-1] == 1 else [2, 1, 0]  # OpenCV counts blue first
    return pixels[..., order]


def _read_8_bit_or_gray(
    image: Image.Image, name: str, white: int, image_format: str | None
) -> tuple[np.ndarray, int]:
    """Return (H, W) or (H, W, 3) as stored, and the number that is white.

    image: of 8 bits per channel, or gray of any depth
    white: the number that is white in gray images of more than 8 bits
    image_format: of the file, as PIL calls it
    """
    if image.mode == "F":
        return np.array(image), 1
    if image.mode == "I" or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        if image.info.get("transparency") is not None:
            _check_opaque(np.where(pixels == image.info["transparency"], 0, white), white, name)
        return pixels, white
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        _check_opaque(np.asarray(image)[..., -1], 255, name)
    gray = image.mode in ("1", "L", "LA")
    pixels = np.asarray(image.convert("L" if gray else "RGB"))
    if image_format in ("WEBP", "GIF") and np.ptp(pixels.astype(int), -1).max() <= 1 and not gray:
        pixels = np.asarray(image.convert("L"))  # no gray of their own; WebP's colours are rounded
    return pixels, 255


def _known_white(pixels: np.ndarray, white: int, name: str) -> int:
    """Return the number that is white. Raises DataError if none is known, or pixels exceed it."""
    advice = "(range=LOW,HIGH or range=train scales all images alike)"
    if pixels.dtype.kind == "f" and not (
        np.isfinite(pixels).all() and 0 <= pixels.min() <= pixels.max() <= 1
    ):
        raise DataError(f"{name} holds floats outside 0..1, or NaN {advice}")
    if white > 65535:
        raise DataError(f"{name} holds numbers of 32 bits: of what range? Store 0..65535 {advice}")
    if not 0 <= pixels.min() <= pixels.max() <= white:
        raise DataError(f"{name} holds numbers below 0 or over {white}: store 0..65535 {advice}")
    return white


def _check_opaque(alpha: np.ndarray, opaque: int, name: str) -> None:
    if (alpha != opaque).any():
        raise DataError(
            f"{name} is transparent in {int((alpha != opaque).sum())} pixels: flatten it"
        )
