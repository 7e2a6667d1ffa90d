"""Images with odd EXIF tags are read, and images that unpack to far too much are refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adbench.datasets.base import DataError
from adbench.datasets.folder import Folder
from adbench.datasets.io.images import read_image, read_mask
from trees_images import texture

STORED = texture(1, (24, 32), colour=True)
ODD_TAGS = {
    "text for a resolution": ((0x011A, 2, 3, b"72\0\0"), b""),
    "minus one by zero": ((0x011A, 10, 1, struct.pack("<I", 38)), struct.pack("<ii", -1, 0)),
    "a value beyond the end": ((0x011A, 5, 1, struct.pack("<I", 60000)), b""),
    "an unknown type": ((0x011A, 99, 1, b"\0\0\0\0"), b""),
    "a comment of bytes": ((0x9286, 7, 4, b"\xff\xfe\0\1"), b""),
}


def jpeg(tag: tuple[int, int, int, bytes] | None = None, behind: bytes = b"") -> bytes:
    """A JPEG of orientation 6, perhaps with one more EXIF tag."""
    out = io.BytesIO()
    Image.fromarray(STORED).save(out, "JPEG", quality=95)
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), *([tag] if tag else [])]
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    exif += b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    exif += struct.pack("<I", 0) + behind
    raw = out.getvalue()
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:]


@pytest.mark.parametrize("kind", ODD_TAGS)
def test_an_odd_exif_tag_does_no_harm_and_the_orientation_is_obeyed(kind) -> None:
    assert read_image(jpeg(*ODD_TAGS[kind]), "x").equal(read_image(jpeg(), "x"))
    assert read_image(jpeg(*ODD_TAGS[kind]), "x").shape == (3, 32, 24)


def test_a_folder_is_read_whose_first_image_has_an_odd_exif_tag(tmp_path: Path) -> None:
    for first_seed, place in enumerate(("normal", "broken")):
        (tmp_path / place).mkdir()
        for index in range(9):
            pixels = texture(20 * first_seed + index + 2, (32, 24), colour=True)
            Image.fromarray(pixels).save(tmp_path / place / f"{index}.png")
    (tmp_path / "normal/0.png").unlink()
    (tmp_path / "normal/0.jpg").write_bytes(jpeg(*ODD_TAGS["text for a resolution"]))
    report = Folder(root=str(tmp_path), size=None).verify()
    assert report.problems == [] and sum(report.samples.values()) == 18


def bomb(width: int, height: int) -> bytes:
    """A sound gray PNG of zeros."""
    packer, rows = zlib.compressobj(9), b"\0" * (width + 1) * 100
    data = b"".join(packer.compress(rows) for _ in range(height // 100)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_an_image_of_144_million_pixels_in_136_kilobytes_is_refused(read, monkeypatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("was unpacked"))
    with pytest.raises(DataError, match="x declares more than 89,478,485 pixels"):
        read(bomb(12000, 12000), "x")


def test_a_mask_of_another_size_than_its_image_is_not_unpacked(monkeypatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("was unpacked"))
    with pytest.raises(DataError, match="m has 6000 x 5000 pixels, its image 8 x 8"):
        read_mask(bomb(5000, 6000), "m", size=(8, 8))


@pytest.mark.parametrize("kind", ["folder", "first"])
def test_a_file_that_cannot_be_read_is_named_whatever_was_raised(tmp_path, kind, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RecursionError("a library fell")

    for place in ("normal", "broken"):
        (tmp_path / place).mkdir()
        for index in range(9):
            Image.fromarray(np.full((8, 8), index * 20, np.uint8)).save(
                tmp_path / place / f"{index}.png"
            )
    monkeypatch.setattr("adbench.datasets.preparation.image_dataset.read_image", fail)
    with pytest.raises(DataError) as caught:
        Folder(root=str(tmp_path), size=None if kind == "first" else 8).prepare()
    assert any("broken/0.png" in problem for problem in caught.value.problems)
