"""Small trees of made-up images and series, laid out as the authors of benchmarks have theirs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from trees_images import put, square, texture


def bmad(root: Path, folder: str = "Retina_RESC", *, masks: bool = True, first: int = 5000) -> Path:
    """8 training images; 2 + 2 to validate on and 2 + 3 to test on, perhaps with masks."""
    home, seed = root / folder, first
    for number in range(8):
        seed += 1
        put(home / f"train/good/{number}.png", texture(seed))
    for pool, normal, abnormal in (("valid", 2, 2), ("test", 2, 3)):
        for kind, count in (("good", normal), ("Ungood", abnormal)):
            for number in range(count):
                seed += 1
                inner = "img/" if masks else ""
                put(home / pool / kind / f"{inner}{kind}_{number}.png", texture(seed))
                if masks:
                    mask = square(value=255 if kind == "Ungood" else 0, at=3 + number)
                    put(home / pool / kind / f"label/{kind}_{number}.png", mask)
    return home


def btad(root: Path) -> Path:
    """Images as BMP, masks as PNG."""
    home = root / "01"
    for number in range(8):
        put(home / f"train/ok/{number:04d}.bmp", texture(5200 + number, colour=True))
    for number in range(2):
        put(home / f"test/ok/{number:04d}.bmp", texture(5220 + number, colour=True))
        put(home / f"test/ko/{number:04d}.bmp", texture(5230 + number, colour=True))
        put(home / f"ground_truth/ko/{number:04d}.png", square(at=4 + number))
    return home


def loco(root: Path) -> Path:
    """An abnormal image of each kind has two masks of other numbers than 255, the others one."""
    home, seed = root / "pushpins", 5300
    for place, count in (("train/good", 6), ("validation/good", 3), ("test/good", 2)):
        for number in range(count):
            seed += 1
            put(home / place / f"{number:03d}.png", texture(seed, colour=True))
    for kind in ("logical_anomalies", "structural_anomalies"):
        for number in range(2):
            seed += 1
            put(home / f"test/{kind}/{number:03d}.png", texture(seed, colour=True))
            for part in range(2 - number):
                mask = square(value=250 - part, at=2 + 10 * part)
                put(home / f"ground_truth/{kind}/{number:03d}/{part:03d}.png", mask)
    (home / "defects_config.json").write_text("[]")
    return home


def depth(root: Path) -> Path:
    """rgb/ and xyz/ of every image, and gt/ of all that are tested on."""
    home, seed = root / "bagel", 5400
    places = (("train/good", 6), ("validation/good", 3), ("test/good", 2), ("test/hole", 2))
    for place, count in places:
        for number in range(count):
            seed += 1
            put(home / place / f"rgb/{number:03d}.png", texture(seed, colour=True))
            put(home / place / f"xyz/{number:03d}.tiff", texture(seed).astype(np.float32))
            if place.startswith("test"):
                mask = square(value=255 * place.endswith("hole"), at=4 + number)
                put(home / place / f"gt/{number:03d}.png", mask)
    return home


def ad2(root: Path) -> Path:
    """Gray images under one light to train on, two to test on; and private ones."""
    home, seed = root / "can", 5500
    lights = {"train": ["regular"], "validation": ["regular"]}
    places = (("train/good", 6), ("validation/good", 3), ("test_public/good", 2))
    for place, count in (*places, ("test_public/bad", 2), ("test_private", 2)):
        for number in range(count):
            for light in lights.get(place.partition("/")[0], ["regular", "overexposed"]):
                seed += 1
                put(home / place / f"{number:03d}_{light}.png", texture(seed))
                if place.endswith("bad"):
                    mask = home / f"test_public/ground_truth/bad/{number:03d}_{light}_mask.png"
                    put(mask, square(at=4 + number))
    return home


def real_iad(root: Path, category: str = "usb") -> Path:
    """Two views each of 6 objects to train on and 2 + 2 to test on; one view shows no defect."""
    lists: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
    seed, images = 5600, root / "realiad_256" / category
    objects = [("train", "OK", n) for n in range(6)] + [("test", "OK", n) for n in range(6, 8)]
    for pool, kind, number in [*objects, ("test", "AK", 8), ("test", "AK", 9)]:
        folder = f"{'OK' if kind == 'OK' else f'NG/{kind}'}/S{number:04d}"
        for view in (1, 2):
            seed += 1
            stem = f"{folder}/{category}_{number:04d}_{kind}_C{view}_20231021"
            put(images / f"{stem}.jpg", texture(seed, colour=True))
            shown = kind if number != 9 or view == 1 else "OK"
            mask = None
            if shown != "OK":
                mask = f"{stem}.png"
                put(images / mask, square(at=4 + view))
            row = {"category": category, "anomaly_class": shown}
            lists[pool].append({**row, "image_path": f"{stem}.jpg", "mask_path": mask})
    table = root / f"realiad_jsons/realiad_jsons/{category}.json"
    table.parent.mkdir(parents=True, exist_ok=True)
    meta = {"normal_class": "OK", "prefix": f"{category}/"}
    table.write_text(json.dumps({"meta": meta, **lists}))
    return root


def medianomaly(root: Path) -> Path:
    """All three forms: data.json, tables of ISIC, folders."""
    seed = 5700

    def images(paths: Iterable[Path]) -> list[str]:
        nonlocal seed
        names = []
        for path in paths:
            seed += 1
            put(path, texture(seed))
            names.append(path.name)
        return names

    home = root / "RSNA"
    splits = {
        "train": {"0": images(home / f"images/n{n}.png" for n in range(8))},
        "test": {
            "0": images(home / f"images/t{n}.png" for n in range(2)),
            "1": images(home / f"images/a{n}.png" for n in range(3)),
        },
    }
    (home / "data.json").write_text(json.dumps(splits))
    for part, kinds in (("Training", "1111110"), ("Test", "1100")):
        stem = f"ISIC2018_Task3/ISIC2018_Task3_{part}"
        names = [f"ISIC_{part}_{number}" for number in range(len(kinds))]
        images(root / f"{stem}_Input/{name}.jpg" for name in names)
        table = root / f"{stem}_GroundTruth/ISIC2018_Task3_{part}_GroundTruth.csv"
        table.parent.mkdir(parents=True)
        with table.open("w", newline="") as file:
            rows = [[name, 1 - int(nevus), nevus] for name, nevus in zip(names, kinds, strict=True)]
            csv.writer(file).writerows([["image", "MEL", "NV"], *rows])
    for place, count in (("train/good", 6), ("test/good", 2), ("test/Ungood", 2)):
        images(root / f"Camelyon16/{place}/{number}.png" for number in range(count))
    for place, count in (("train", 6), ("test/normal", 2), ("test/tumor", 2)):
        names = [f"{place[-3:]}_{number}_flair.png" for number in range(count)]
        images(root / "BraTS2021" / place / name for name in names)
        if place == "test/tumor":
            for name in names:
                put(root / "BraTS2021/test/annotation" / name.replace("flair", "seg"), square())
    return root


def series(seed: int, length: int, first: int, last: int) -> np.ndarray:
    """A sine with noise (length,); steps first to last, from 1, are flat."""
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(length) / 4) + 0.05 * rng.normal(size=length)
    values[first - 1 : last] = 0.2
    return values


def ucr(root: Path) -> Path:
    """Two series, one with a number a line and one with all in a line."""
    folder = root / "UCR_Anomaly_FullData"
    folder.mkdir(parents=True)
    for number, separator in ((1, "\n"), (2, "  ")):
        values = series(number, 600, 450 + number, 470)
        path = folder / f"{number:03d}_UCR_Anomaly_tide{number}_320_{450 + number}_470.txt"
        path.write_text(separator.join(f"{value:.7e}" for value in values))
    return root


def tsb_ad(root: Path, *, channels: int = 1) -> Path:
    """Two series of NAB and one of another source."""
    folder = root / ("TSB-AD-U" if channels == 1 else "TSB-AD-M")
    folder.mkdir(parents=True)
    for number, source in ((1, "NAB"), (2, "NAB"), (3, "MITDB")):
        columns = [series(10 * number + c, 600, 451, 470) for c in range(channels)]
        names = ["Data"] if channels == 1 else [f"channel_{c}" for c in range(channels)]
        label = [int(450 <= step < 470) for step in range(600)]
        path = folder / f"{number:03d}_{source}_id_{number}_Facility_tr_320_1st_451.csv"
        with path.open("w", newline="") as file:
            rows = zip(*columns, label, strict=True)
            csv.writer(file).writerows([[*names, "Label"], *rows])
    return root


def cohort(root: Path, suffix: str = "T2w", *, healthy: int = 12, ill: int = 8) -> Path:
    """Volumes in BIDS, healthy ones and others with a bright lesion and its mask."""
    rng = np.random.default_rng(4)
    for number in range(healthy + ill):
        volume = np.zeros((16, 16, 8), np.float32)
        volume[2:14, 2:14, 1:7] = rng.integers(300, 700, (12, 12, 6))
        name = f"sub-{number:03d}"
        if number >= healthy:
            mask = np.zeros(volume.shape, np.uint8)
            mask[4:9, 5 : 8 + number % 3, 2:5] = 1
            volume[mask > 0] += 600
            path = root / "derivatives/masks" / name / "anat" / f"{name}_label-lesion_mask.nii.gz"
            path.parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(mask, np.eye(4)), path)
        path = root / name / "anat" / f"{name}_{suffix}.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
    return root
