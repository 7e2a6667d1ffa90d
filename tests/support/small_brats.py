"""BraTS as its tests use it: five small cases, and their files by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.datasets.base import DataError, Sample, content_hash
from adbench.datasets.brats import BraTS


def brats(root: Path, **how) -> BraTS:
    return BraTS(**{"root": str(root), "axial": (3, 12), "size": 24, **how})


def everything(data: BraTS) -> dict[str, Sample]:
    parts = [data.train(labelled=True), data.calibration(), data.val(), data.test()]
    return {part[n].key: part[n] for part in parts for n in range(len(part))}


def same(one: BraTS, other: BraTS) -> bool:
    a, b = everything(one), everything(other)
    return a.keys() == b.keys() and all(content_hash(a[k]) == content_hash(b[k]) for k in a)


def refused(data: BraTS) -> DataError:
    with pytest.raises(DataError) as caught:
        data.prepare()
    return caught.value


def file(root: Path, number: int, name: str) -> Path:
    case = f"BraTS20_Training_{number:03d}"
    return root / case / f"{case}_{name}.nii.gz"


def load(path: Path) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_filename(path)


def stored(path: Path) -> np.ndarray:
    return np.asarray(load(path).dataobj)


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine=None) -> None:
    image = load(path)
    where = image.affine if affine is None else affine
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), where), path)
