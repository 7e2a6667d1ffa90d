"""Reading NIfTI volumes with all checks, so that no wrong voxel passes silently.

A .nii.gz file has a checksum at its end; readers that stop at the last voxel never check it, and
most flipped bytes go unnoticed. So a file is read and unpacked completely, and compared with its
header before any voxel is used. The header is looked at first: a file that unpacks to far more than
it holds, or than its header declares, is refused before it fills the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation

from ..base import DataError
from .decompression import GZIP, check_expansion, decompress_gzip
from .file_type import describe_file_type

HEADER_BYTES = 540  # of NIfTI-2, the longer one
BRATS_LABELS = frozenset({0, 1, 2, 3, 4})
MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}  # everything else is taken for mm, as nibabel does
# as nibabel writes "no axis moves, none flips"
STORED_ORIENTATION = np.array([[0, 1], [1, 1], [2, 1]])
LABEL_TOLERANCE = 1e-3  # how far a label may lie from a whole number


@dataclass(frozen=True)
class Volume:
    """A volume with axes to the patient's right, front and top (RAS+), or as they are stored.

    data: (X, Y, Z), float32, or uint8 for labels
    affine: (4, 4), from indices of `data` to mm
    spacing: mm per step along each axis
    axcodes: orientation of the file, such as "LPS"
    stored_affine: (4, 4), the affine of the file
    sha256: hex digest of the file's bytes
    nans: how many NaN were set to zero

    >>> Volume(np.zeros((2, 2, 2)), np.eye(4), (1.0, 1.0, 1.0), "RAS", np.eye(4), "").nans
    0
    """

    data: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, ...]
    axcodes: str
    stored_affine: np.ndarray
    sha256: str
    nans: int = 0


def read_volume(
    path: Path,
    *,
    nan: Literal["error", "zero"] = "error",
    affine: np.ndarray | None = None,
    name: str | None = None,
    channel: int | None = None,
    reorient: bool = True,
    expected_voxels: int = 0,
) -> Volume:
    """Return an image as float32, with the header's slope and intercept applied.

    path: .nii or .nii.gz, in upper or lower case
    nan: "zero" sets NaN to zero and counts them; "error" refuses them. inf is always an error
    affine: used in place of the file's affine
    name: of the file in errors
    channel: index along the fourth axis; None refuses a fourth axis longer than 1
    reorient: false leaves the axes as they are stored
    expected_voxels: so many are read however well they are compressed, as those of a volume that it
        belongs to

    Raises DataError for a damaged or unusable file.

    >>> nib.Nifti1Image(np.ones((2, 3, 4), np.float32), np.eye(4)).to_filename("image.nii")
    >>> read_volume(Path("image.nii")).data.shape
    (2, 3, 4)
    """
    name = name or path.name
    raw, image = _open_checked(path, name, expected_voxels, channel)
    values = np.asarray(image.dataobj)
    if channel is not None and values.ndim == 4:
        values = values[..., channel]
    values = values.astype(np.float32)
    infs, nans = int(np.isinf(values).sum()), int(np.isnan(values).sum())
    if infs:
        raise DataError(f"{name} holds {_count_text(infs, 'infinite voxel')}")
    if nans and nan == "error":
        raise DataError(
            f"{name} holds {_count_text(nans, 'NaN voxel')} (nan='zero' sets NaN to zero)"
        )
    if nans:
        values = np.nan_to_num(values, copy=False, nan=0.0)
    return _to_canonical_axes(raw, image, values, affine, name, nans, reorient)


def read_labels(
    path: Path,
    *,
    allowed: Collection[int] = BRATS_LABELS,
    affine: np.ndarray | None = None,
    name: str | None = None,
    reorient: bool = True,
    expected_voxels: int = 0,
) -> Volume:
    """Return a segmentation as uint8.

    Its values are the stored numbers, whatever slope the header has, because programs that scale
    labels change them. Stored numbers that are no labels are scaled, if that makes them labels. If
    both readings are labels and differ in what is background, the file is refused.

    path: .nii or .nii.gz, in upper or lower case
    allowed: all labels that may occur
    affine: used in place of the file's affine
    name: of the file in errors
    reorient: false leaves the axes as they are stored
    expected_voxels: so many are read however well they are compressed, as those of a volume that it
        belongs to

    Raises DataError for a damaged file, and for numbers that are no labels.

    >>> nib.Nifti1Image(np.full((2, 3, 4), 4, np.uint8), np.eye(4)).to_filename("labels.nii")
    >>> read_labels(Path("labels.nii")).data.max()
    np.uint8(4)
    """
    name = name or path.name
    raw, image = _open_checked(path, name, expected_voxels)
    proxy = image.dataobj
    assert isinstance(proxy, ArrayProxy)  # what from_bytes makes
    unscaled = (proxy.slope, proxy.inter) == (1, 0)
    readings = [proxy.get_unscaled()] if unscaled else [proxy.get_unscaled(), np.asarray(proxy)]
    reading_problems = [_label_problem(values, allowed) for values in readings]
    valid_readings = [
        values
        for values, problem in zip(readings, reading_problems, strict=True)
        if problem is None
    ]
    slope = f"slope {proxy.slope:g} and intercept {proxy.inter:g}"
    if not valid_readings:
        scaled_problem = (
            f"; with {slope}: {reading_problems[1]}" if len(reading_problems) > 1 else ""
        )
        raise DataError(
            f"{name} {reading_problems[0]}{scaled_problem}; labels are {sorted(allowed)}"
        )
    labels = [_rounded(values).astype(np.uint8) for values in valid_readings]
    if not np.array_equal(labels[0] > 0, labels[-1] > 0):
        raise DataError(f"{name} has {slope}: its stored and its scaled values are both labels")
    return _to_canonical_axes(raw, image, labels[0], affine, name, 0, reorient)


def _label_problem(values: np.ndarray, allowed: Collection[int]) -> str | None:
    """Return why values are no labels, or None."""
    if values.dtype.kind == "f":
        # NaN is off, too
        fractional = int((~(np.abs(values - _rounded(values)) <= LABEL_TOLERANCE)).sum())
        if fractional:
            return f"holds {_count_text(fractional, 'voxel')} that are no whole numbers"
    whole_numbers = _rounded(values).ravel("K")
    unexpected = whole_numbers[~np.isin(whole_numbers, list(allowed))]
    unexpected_values, counts = np.unique(unexpected, return_counts=True)
    descriptions = [
        f"{value:g} ({_count_text(int(count), 'voxel')})"
        for value, count in zip(unexpected_values, counts, strict=True)
    ]
    if len(descriptions) > 8:
        descriptions = [*descriptions[:8], f"and {len(descriptions) - 8} more"]
    return f"holds the labels {', '.join(descriptions)}" if descriptions else None


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values) if values.dtype.kind == "f" else values


def _open_checked(
    path: Path, name: str, expected_voxels: int, channel: int | None = None
) -> tuple[bytes, nib.Nifti1Image]:
    """Return the file's bytes, and an image with all the voxels that its header promises."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror})") from error
    packed = _is_packed(raw, path, name)
    head, whole = raw, True
    if packed:
        head, whole, _ = decompress_gzip(raw, HEADER_BYTES, name)
    header, start = _read_header(head, name, truncated=not whole and len(head) <= HEADER_BYTES)
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    expected, content, complete = prod(shape) * dtype.itemsize, raw, True
    if packed:
        waived = expected if prod(shape) <= expected_voxels else 0
        check_expansion(name, start + expected - waived, len(raw), "voxels")
        content, complete, behind = decompress_gzip(raw, start + expected, name)
        if behind.strip(b"\0"):
            strange = f"{len(behind)} strange bytes behind its gzip stream"
            raise DataError(f"{name} is corrupt ({strange})")
    _check_length(len(content) - start, expected, complete, name)
    if channel is not None and len(shape) == 4:
        if channel >= shape[3]:
            raise DataError(f"{name} has {shape[3]} channels; channel={channel} counts from 0")
    elif prod(shape[3:]) != 1 or len(shape) < 2:
        raise DataError(f"{name} has shape {tuple(shape)}; a volume has three axes")
    return raw, _image_class(content).from_bytes(content)


def _is_packed(file_bytes: bytes, path: Path, name: str) -> bool:
    """Return whether a file is gzipped. Raises DataError if its name does not say so, or lies."""
    named_gz = path.name.lower().endswith(".gz")
    if not file_bytes:
        raise DataError(f"{name} is empty")
    packed = file_bytes.startswith(GZIP)
    if packed and not named_gz:  # either remedy leaves a name that every layout finds
        other = f"{path.name}.gz"
        raise DataError(
            f"{name} is compressed: rename it to {other}, and unpack that (gunzip {other})"
        )
    if not packed and (named_gz or not _is_nifti(file_bytes)):
        kind = "gzip" if named_gz else "NIfTI"
        raise DataError(
            f"{name} is no {kind} file: it looks like {_describe_content(file_bytes, path)}"
        )
    return packed


def _image_class(content: bytes) -> type[nib.Nifti1Image]:
    return nib.Nifti2Image if content[:4] in (b"\x1c\2\0\0", b"\0\0\2\x1c") else nib.Nifti1Image


def _read_header(head: bytes, name: str, *, truncated: bool) -> tuple[nib.Nifti1Header, int]:
    """Return the header, and where the voxels start."""
    try:
        header = _image_class(head).header_class.from_fileobj(BytesIO(head))
        dtype, start = header.get_data_dtype(), header.get_data_offset()
    except Exception as error:  # nibabel raises many kinds; all mean that this is no header
        if truncated:
            raise DataError(f"{name} is truncated: its gzip stream ends in the header") from error
        raise DataError(f"{name} is no NIfTI file ({error})") from error
    if not header.is_single:
        raise DataError(f"{name} is one half of a .hdr/.img pair; adbench reads .nii(.gz)")
    if dtype.kind not in "iuf":
        raise DataError(f"{name} holds {dtype} voxels; adbench reads integers and floats")
    return header, start


def _check_length(size: int, expected: int, complete: bool, name: str) -> None:
    """Raise DataError unless as many bytes of voxels are there as the header declares."""
    if size > expected or not expected:
        have = _spaced_number(size) if complete else "more"
        sizes = f"its header tells of {_spaced_number(expected)} bytes of voxels, it has {have}"
        raise DataError(f"{name} does not fit its header ({sizes})")
    if size < expected or not complete:
        have = _spaced_number(max(size, 0))
        sizes = f"expected {_spaced_number(expected)} bytes of voxels, found {have}"
        raise DataError(f"{name} is truncated ({sizes})")


def _describe_content(file_bytes: bytes, path: Path) -> str:
    plain = path.name[: -len(".gz")]
    return describe_file_type(
        file_bytes,
        f"an uncompressed NIfTI (rename it to {plain}, and compress that: gzip {plain})"
        if _is_nifti(file_bytes)
        else "",
    )


def _is_nifti(file_bytes: bytes) -> bool:
    return file_bytes[344:347] in (b"n+1", b"ni1") or file_bytes[4:7] in (b"n+2", b"ni2")


def _to_canonical_axes(
    file_bytes: bytes,
    image: nib.Nifti1Image,
    values: np.ndarray,
    affine: np.ndarray | None,
    name: str,
    nans: int,
    reorient: bool,
) -> Volume:
    """Return a Volume with axes to the right, front and top; a 2-D image becomes one slice."""
    stored = np.asarray(image.affine if affine is None else affine, dtype=np.float64)
    if not np.isfinite(stored).all() or abs(np.linalg.det(stored[:3, :3])) < 1e-12:
        raise DataError(f"{name} has an affine that places no voxel: {stored.round(3).tolist()}")
    values = values.reshape(*values.shape[:3], *[1] * (3 - values.ndim))
    axes = io_orientation(stored) if reorient else STORED_ORIENTATION
    canonical = stored @ inv_ornt_aff(axes, values.shape)
    scale = MM_PER_UNIT.get(str(image.header.get_xyzt_units()[0]), 1.0)
    return Volume(
        data=apply_orientation(values, axes),
        affine=canonical,
        spacing=tuple(round(float(step) * scale, 6) for step in voxel_sizes(canonical)),
        axcodes="".join(map(str, aff2axcodes(stored))),
        stored_affine=stored,
        sha256=hashlib.sha256(file_bytes).hexdigest(),
        nans=nans,
    )


def _count_text(number: int, noun: str) -> str:
    return f"{_spaced_number(number)} {noun}{'' if number == 1 else 's'}"


def _spaced_number(number: int) -> str:
    return f"{number:,}".replace(",", " ")
