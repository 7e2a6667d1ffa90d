"""One range of stored numbers for a whole dataset, in every dataset that may hold floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import trees_images
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import DataError
from adbench.datasets.brats_slices import BraTSSlices
from adbench.datasets.folder import Folder
from adbench.datasets.mvtec import MVTec
from adbench.datasets.preparation.image_dataset import ImageDataset
from adbench.datasets.volumes import Volumes

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore"),
]
DATASETS = Registry.read().datasets


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_of_images_takes_a_range(name: str) -> None:
    if issubclass(DATASETS[name].load(), ImageDataset):
        assert "range" in DATASETS[name].parameters()


def as_floats(root: Path) -> None:
    """Store every image that is no mask as a TIFF of float32 in -8..8, beside its mask."""
    for path in [*root.rglob("*.png")]:
        if "ground_truth" in path.parts:
            continue
        gray = np.asarray(Image.open(path).convert("L"), np.float32)
        Image.fromarray((gray - 127.5) / 16).save(path.with_suffix(".tif"))
        path.unlink()


@pytest.mark.parametrize("cls", [Folder, MVTec])
def test_images_of_floats_take_one_range(tmp_path: Path, cls: Any) -> None:
    root = trees_images.mvtec(tmp_path)
    as_floats(root)
    how = {"root": str(root), "size": None, "channels": 1}
    with pytest.raises(DataError) as caught:
        cls(**how).prepare()
    assert all("range=LOW,HIGH" in problem for problem in caught.value.problems)
    data = cls(**how, range="-8,8")
    data.prepare()
    for sample in (data.test()[i] for i in range(3)):
        stored = np.asarray(Image.open(root / sample.key.removeprefix("hazelnut/")))
        assert np.allclose(sample.x[0].numpy() * 16 - 8, stored, atol=1e-4)
    trained = cls(**how, range="train")
    trained.prepare()
    values = np.stack([sample.x.numpy() for sample in trained.train()])
    assert values.min() == 0 and values.max() == 1


def rescaled(root: Path, change: Any) -> None:
    """Change the numbers other than 0 of every scan, not of labels."""
    for path in root.rglob("*.nii.gz"):
        if not any(word in path.name for word in ("seg", "label", "mask")):
            image = nib.Nifti1Image.from_filename(path)
            data = np.asarray(image.dataobj, np.float32)
            nib.save(nib.Nifti1Image(np.where(data == 0, 0, change(data)), image.affine), path)


def test_slices_of_floats_take_one_range(tmp_path: Path, trees: Any) -> None:
    root = trees.slices(tmp_path / "data/brats")
    plain = BraTSSlices(root=str(root), size=24, pad=24)
    plain.prepare()
    expected = {sample.key: sample.x.numpy() for sample in plain.test()}
    rescaled(root, lambda data: data * 8 - 4.1)
    with pytest.raises(DataError) as caught:
        BraTSSlices(root=str(root), size=24, pad=24).prepare()
    assert all("not 0 to 1 (range=LOW,HIGH or range=train" in p for p in caught.value.problems)
    data = BraTSSlices(root=str(root), size=24, pad=24, range=(-4.1, 3.9))
    data.prepare()
    for sample in data.test():
        assert np.allclose(sample.x.numpy(), expected[sample.key], atol=1e-5)
        assert sample.roi is not None and (sample.roi == (expected[sample.key] != 0).any(0)).all()
    trained = BraTSSlices(root=str(root), size=24, pad=24, range="train")
    trained.prepare()
    values = np.stack([sample.x.numpy() for sample in trained.train()])
    assert values.max() == 1 and values[values > 0].min() < 0.01


def test_volumes_take_one_range_in_place_of_a_scale_of_each(tmp_path: Path, trees: Any) -> None:
    root = trees.own(tmp_path / "own")
    data = Volumes(root=str(root), size=24, slices=True, range=(200, 1200))
    report = data.verify()
    assert report.problems == []
    data.prepare()
    highest = max(float(sample.x.max()) for sample in data.train())
    assert 0.7 < highest < 0.801, "1000 of 200..1200, whatever a volume's own extremes are"
    cut = Volumes(root=str(root), size=24, range=(200, 900)).verify()
    assert any(note.startswith("values outside range=200,900") for note in cut.notes)
    trained = Volumes(root=str(root), size=24, range="train")
    trained.prepare()
    assert max(float(sample.x.max()) for sample in trained.train()) == 1
