"""Refusing files that unpack to far more than they hold, before they are unpacked."""

from __future__ import annotations

from ..base import DataError

MAX_RATIO = 200
"""How often the size of its file a content may be. Measured ones stay below 50."""

ALWAYS_ALLOWED = 256 << 20
"""Bytes up to which any content is unpacked, however well it is compressed."""


def check_expansion(name: str, declared: int, stored: int, content: str) -> None:
    """Raise DataError if a header declares more than 256 MiB and 200 times the file's size.

    name: of the file in errors
    declared: bytes of the content that its header declares
    stored: bytes of the file
    content: what the bytes are, such as "pixels"

    >>> check_expansion("a.nii.gz", 1 << 30, 1 << 20, "voxels")
    Traceback (most recent call last):
    adbench.datasets.base.DataError: a.nii.gz declares 1024 MiB of voxels in a file of 1 MiB ...
    """
    if declared > max(ALWAYS_ALLOWED, MAX_RATIO * stored):
        raise DataError(
            f"{name} declares {declared / 2**20:.0f} MiB of {content} in a file of "
            f"{stored / 2**20:.3g} MiB (limit: {MAX_RATIO} times, from 256 MiB on): not unpacked"
        )
