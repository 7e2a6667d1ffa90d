"""File names that are no UTF-8 are named in one line each, whatever dataset they lie in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adbench.datasets.base import DataError
from adbench.datasets.folder import Folder
from adbench.datasets.idx import Idx
from adbench.datasets.rf_challenge import RFChallenge
from trees_images import texture

pytestmark = pytest.mark.usefixtures("cache")
ODD = os.fsdecode(b"caf\xe9")


def problems(data: Folder | Idx | RFChallenge) -> str:
    """What verify and prepare say alike; it can be printed."""
    text = "\n".join(data.verify().problems)
    with pytest.raises(DataError) as caught:
        data.prepare()
    assert set(text.splitlines()[1:]) <= set(caught.value.problems)
    str(caught.value).encode()
    text.encode()
    return text


def test_an_image_is_named(tmp_path: Path) -> None:
    for number, place in enumerate(("normal", "broken")):
        (tmp_path / place).mkdir()
        for index in range(9):
            name = ODD if index == 3 else str(index)
            pixels = texture(20 * number + index, (8, 8))
            Image.fromarray(pixels).save(tmp_path / place / f"{name}.png")
    text = problems(Folder(root=str(tmp_path), size=8))
    assert "'broken/caf\\udce9.png' is no UTF-8 name: rename it" in text
    assert text.count("is no UTF-8 name") == 2


def test_a_frame_of_a_signal_is_named(tmp_path: Path, arrays) -> None:
    folder = arrays.radio(tmp_path / ODD) / "dataset/interferenceset_frame"
    folder.rename(tmp_path / ODD / "dataset" / "x")
    (tmp_path / ODD / "dataset/x").rename(folder)
    data = RFChallenge(root=str(tmp_path), window=32)
    assert "caf\\udce9/dataset" in problems(data)


def test_an_error_can_be_printed_whatever_a_file_is_called() -> None:
    error = DataError(f"{ODD} is bad", [f"{ODD} is empty"])
    assert str(error) == "caf\\udce9 is bad\n  caf\\udce9 is empty"
    assert np.all([line.isascii() for line in (error.summary, *error.problems)])
