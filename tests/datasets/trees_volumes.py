"""Small trees of volumes and slices as papers' authors lay them on disk, and ways to spoil them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.datasets.base import DataError, Dataset, Sample

SHAPE = (20, 24, 18)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MODALITIES = ("t1", "t1ce", "t2", "flair")


def brain(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """float32: 0 outside an ellipsoid, 300 to 1000 within, another value at every voxel."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    far = sum(((a - n / 2) / (0.42 * n)) ** 2 for a, n in zip(axes, shape, strict=True))
    values = np.random.default_rng(seed).integers(300, 1001, shape)
    return np.where(np.asarray(far) < 1, values, 0).astype(np.float32)


def save(array: np.ndarray, path: Path, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def store(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def slices(
    root: Path, *, px: int = 24, train: int = 4, test: int = 2, each: int = 3, healthy: int = 1
) -> Path:
    """Wolleb's tree: `each` slices of every patient, all but the first `healthy` with tumour."""
    number = 0
    for patient in range(1, train + test + 1):
        pool = "training" if patient <= train else "testing"
        for height in range(80, 80 + each):
            number += 1
            folder = root / pool / f"{number:06d}"
            for index, name in enumerate(MODALITIES):
                plane = brain(100 * number + index, (px, px)) / 1000
                file = f"brats_train_{patient:03d}_{name}_{height:03d}_w.nii.gz"
                save(plane.astype(np.float64), folder / file, np.eye(4))
            seg = np.zeros((px, px))
            if height >= 80 + healthy:
                seg[6:11, 7:12], seg[8, 9] = 2, 4
            label = root / f"test_labels/{number:06d}-label.nii.gz"
            if pool == "training":
                label = folder / f"brats_train_{patient:03d}_seg_{height:03d}_w.nii.gz"
            save(seg, label, np.eye(4))
    return root


def stacks(root: Path, *, px: int = 24, healthy: int = 10, rest: int = 6) -> Path:
    """BerDiff's tree; the label of the n-th file of validation has 10 n pixels."""
    for number in range(healthy + rest):
        planes = [brain(100 * number + c, (px, px)) / 1000 for c in range(4)]
        pool = "training" if number < healthy else "validation"
        if pool == "validation":
            label = np.zeros(px * px, np.float32)
            label[200 : 200 + 10 * (number - healthy)] = 1
            planes = [*planes, label.reshape(px, px)]
        save(np.stack(planes).astype(np.float32), root / pool / f"{number:06d}.nii.gz", np.eye(4))
    return root


def heads(root: Path, *, people: int = 4, tested: int = 0, patients: int = 2) -> Path:
    """NFBS, cut along its second axis, and Edinburgh, along its first."""
    for number in range(people + tested):
        name = f"A{number:08d}"
        folder = root / "DATASETS" / ("Train" if number < people else "Test") / name
        volume = brain(number, (24, 20, 18)).astype(np.int16)
        save(volume, folder / f"sub-{name}_ses-NFB3_T1w.nii.gz")
        inside = (volume > 0).astype(np.uint8)
        save(inside, folder / f"sub-{name}_ses-NFB3_T1w_brainmask.nii.gz")
    inside = "DATASETS/CancerousDataset/EdinburghDataset/Anomalous-T1"
    for number in range(patients):
        mask = np.zeros((22, 16, 20), np.float32)
        mask[9:13, 5:9, 6:11] = 3
        store(brain(50 + number, mask.shape), root / f"{inside}/raw_cleaned/1000{number}.npy")
        store(mask, root / f"{inside}/mask/1000{number}.npy")
    return root


def ixi(root: Path, *, train: int = 5, val: int = 2, test: int = 2, double: bool = False) -> Path:
    """IXI, BraTS21 and MSLUB under Data/, with csv splits of every fold.

    double: the last test subject is trained on too, and the first one stands in two rows
    """
    base, seed = root / "Data", 0
    names = {
        "ixi": [f"IXI{n:03d}-Guys-{700 + n:04d}" for n in range(train + val + test)],
        "Brats21": [f"BraTS2021_{n:05d}" for n in range(2)],
        "MSLUB": [f"patient{n:02d}" for n in range(2)],
    }
    for kind, subjects in names.items():
        folder = base / ("Train/ixi" if kind == "ixi" else f"Test/{kind}")
        for subject in subjects:
            for modality in ("t1", "t2"):
                seed += 1
                save(brain(seed), folder / modality / f"{subject}_{modality}.nii.gz")
            save((brain(0) > 0).astype(np.uint8), folder / f"mask/{subject}_mask.nii.gz")
            if kind != "ixi":
                seg = np.zeros(SHAPE, np.uint8)
                seg[7:11, 9:14, 7:10] = 1
                save(seg, folder / f"seg/{subject}_seg.nii.gz")
    people = names["ixi"]
    splits = {"IXI_test": people[train + val :]}
    for fold in range(5):
        splits[f"IXI_train_fold{fold}"] = people[:train]
        splits[f"IXI_val_fold{fold}"] = people[train : train + val]
    if double:
        splits["IXI_train_fold0"] = [people[0], *people[:train], people[-1]]
    for kind in ("Brats21", "MSLUB"):
        splits[f"{kind}_val"], splits[f"{kind}_test"] = names[kind][:1], names[kind][1:]
    for split, subjects in splits.items():
        rows = [_row(subject, split) for subject in subjects]
        path = base / f"splits/{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, ["", *rows[0]])
            table.writeheader()
            table.writerows({"": number, **row} for number, row in enumerate(rows))
    return root


def _row(subject: str, split: str) -> dict[str, str]:
    kind = split.partition("_")[0]
    folder = "/Train/ixi" if kind == "IXI" else f"/Test/{kind}"
    return {
        "img_name": f"{subject}_t1.nii.gz" if kind == "IXI" else subject,
        "age": "40.0",
        "label": str(int(kind != "IXI")),
        "img_path": f"{folder}/t1/{subject}_t1.nii.gz",
        "mask_path": f"{folder}/mask/{subject}_mask.nii.gz",
        "seg_path": "" if kind == "IXI" else f"{folder}/seg/{subject}_seg.nii.gz",
    }


def tasks(root: Path, *, names: tuple[str, ...] = ("Task01_BrainTumour", "Task09_Spleen")) -> Path:
    """A task of four channels and others of one; six training and two test images each."""
    for task, name in enumerate(names):
        subjects = [f"{name[7:].upper()}_{number:03d}" for number in range(8)]
        for number, subject in enumerate(subjects):
            count = 1 if task else 4
            array = np.stack([brain(100 * task + 10 * number + c) for c in range(count)], -1)
            place = root / name / ("imagesTr" if number < 6 else "imagesTs")
            save(array if count > 1 else array[..., 0], place / f"{subject}.nii.gz")
        output = {
            "name": name,
            "numTraining": 6,
            "training": [
                {"image": f"./imagesTr/{s}.nii.gz", "label": f"./labelsTr/{s}.nii.gz"}
                for s in subjects[:6]
            ],
            "test": [f"./imagesTs/{s}.nii.gz" for s in subjects[6:]],
        }
        (root / name / "dataset.json").write_text(json.dumps(output))
        (root / name / f"imagesTr/._{subjects[0]}.nii.gz").write_bytes(b"\0\5\26\7")
    return root


def own(root: Path, *, pools: bool = True, modalities: tuple[str, ...] = ()) -> Path:
    """Somebody's own volumes: four normal to train on, two of each kind to test on."""
    seed = 0
    for pool, kind, count in (("train", "normal", 4), ("test", "normal", 2), ("test", "lesion", 2)):
        for number in range(count):
            folder = root / pool / kind if pools else root / kind
            name = f"{pool}{number}"
            for ending in modalities or ("",):
                seed += 1
                file = f"{name}_{ending}.nii.gz" if ending else f"{name}.nii.gz"
                save(brain(seed), folder / file)
            if kind == "lesion":
                save(lesion(), folder / f"{name}_mask.nii.gz")
    return root


def lesion() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[7:11, 9:14, 7:10] = 255
    return mask


# Looking at data


def everything(data: Dataset) -> dict[str, Sample]:
    parts = [data.train(labelled=True), data.calibration(), data.val(), data.test()]
    return {part[n].key: part[n] for part in parts for n in range(len(part))}


def groups(data: Dataset) -> dict[str, set[str]]:
    """The groups in every split."""
    parts = {"train": data.train(labelled=True), "held_out": data.calibration()}
    parts |= {"val": data.val(), "test": data.test()}
    return {name: {part[n].group for n in range(len(part))} for name, part in parts.items()}


def apart(data: Dataset) -> bool:
    results = list(groups(data).values())
    return len(set.union(*results)) == sum(map(len, results))


def sound(data: Dataset) -> None:
    """What every sample promises."""
    for sample in everything(data).values():
        assert sample.x.shape == (data.spec.channels, *data.spec.shape)
        assert sample.x.min() >= 0 and sample.x.max() <= 1
    for part in (data.val(), data.test()):
        for sample in (part[n] for n in range(len(part))):
            assert (sample.mask is not None) == data.spec.masks
            assert sample.mask is None or bool(sample.mask.any()) == sample.label


def refused(data: Dataset) -> DataError:
    with pytest.raises(DataError) as caught:
        data.prepare()
    return caught.value


# Spoiling files: the rows of the error catalogue


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine=None) -> None:
    image = nib.Nifti1Image.from_filename(path)
    where = image.affine if affine is None else affine
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), where), path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)


def _checksum(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)


def _with(value: float) -> Callable[[Path], None]:
    def put(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[tuple(n // 2 for n in array.shape)] = value
        return array

    return lambda path: rewrite(path, put)


SPOILS: dict[str, tuple[Callable[[Path], object], str]] = {
    "1 truncated": (_cut, "is truncated"),
    "2 flipped byte": (_flip, "is corrupt"),
    "3 checksum": (_checksum, "is corrupt"),
    "4 html": (lambda path: path.write_bytes(b"<!DOCTYPE html>" + path.name.encode()), "HTML page"),
    "4 plain": (lambda path: path.write_bytes(gzip.decompress(path.read_bytes())), "uncompressed"),
    "6 nan": (_with(np.nan), "NaN"),
    "7 inf": (_with(np.inf), "inf"),
}
"""By row: how to spoil an image, and what the error says."""
