"""Refusing files that unpack to far more than they hold, before they are unpacked."""

from __future__ import annotations

import zlib

from ..base import DataError

PIECE = 1 << 20
"""Bytes that are unpacked at a time where they are only checked."""

GZIP = b"\x1f\x8b"
"""The first bytes of every gzip file."""

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


def decompress_gzip(file_bytes: bytes, limit: int, name: str) -> tuple[bytes, bool, bytes]:
    """Return at most `limit` + 1 bytes of a gzip file, whether it is complete, and what follows it.

    file_bytes: all bytes of the file, of one or several gzip members
    limit: bytes that are expected; one byte more tells that there are more
    name: of the file in errors

    Complete is false for a truncated file, and where the limit ended the unpacking. Raises
    DataError if a checksum is wrong.

    >>> import gzip
    >>> decompress_gzip(gzip.compress(b"abcdef"), 6, "a.gz")
    (b'abcdef', True, b'')
    >>> decompress_gzip(gzip.compress(b"abcdef"), 2, "a.gz")[0]
    b'abc'
    """
    parts, size, limit = list[bytes](), 0, max(limit, 0)
    while file_bytes.startswith(GZIP):
        decompressor = zlib.decompressobj(wbits=31)  # gzip: checks CRC and length at the end
        parts.append(_unpack_some(decompressor, file_bytes, limit + 1 - size, name))
        size += len(parts[-1])
        if not decompressor.eof or size > limit:
            _check_rest(decompressor, name)
            return b"".join(parts), False, b""
        file_bytes = decompressor.unused_data
    return b"".join(parts), True, file_bytes


def _check_rest(decompressor: zlib._Decompress, name: str) -> None:
    """Raise DataError if what follows is corrupt, so that damage is not taken for a wrong header.

    At most 256 MiB are unpacked, piece by piece, and thrown away.
    """
    for _ in range(ALWAYS_ALLOWED // PIECE):
        if decompressor.eof or not _unpack_some(
            decompressor, decompressor.unconsumed_tail, PIECE, name
        ):
            return


def _unpack_some(decompressor: zlib._Decompress, data: bytes, size: int, name: str) -> bytes:
    try:
        return decompressor.decompress(data, size)
    except zlib.error as error:
        raise DataError(f"{name} is corrupt ({error}): fetch it again") from error
