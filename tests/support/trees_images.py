"""Small trees of made-up images, laid out on disk as each published set is; and questions that the
tests of every image layout ask."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from adbench.datasets.base import Dataset, Sample

PARTS = ("train", "held_out", "val", "test")


def texture(seed: int, size: tuple[int, int] = (24, 24), *, colour: bool = False) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3), values 40..219; no two seeds give the same."""
    shape = (*size, 3) if colour else size
    return np.random.default_rng(seed).integers(40, 220, shape, dtype=np.uint8)


def put(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=90)
    return path


def square(size: tuple[int, int] = (24, 24), value: int = 255, at: int = 4) -> np.ndarray:
    """uint8 (H, W): 8 x 8 pixels of `value`, 0 elsewhere."""
    mask = np.zeros(size, np.uint8)
    mask[at : at + 8, at : at + 8] = value
    return mask


def mvtec(root: Path, category: str = "hazelnut", *, colour: bool = True, first: int = 0) -> Path:
    """10 training images; tested on 2 good ones, 2 with a crack and 2 with a hole."""
    home = root / category
    for i in range(10):
        put(home / f"train/good/{i:03d}.png", texture(first + i, colour=colour))
    for i in range(2):
        put(home / f"test/good/{i:03d}.png", texture(first + 50 + i, colour=colour))
        for k, kind in enumerate(("crack", "hole")):
            seed = first + 60 + 10 * k + i
            put(home / f"test/{kind}/{i:03d}.png", texture(seed, colour=colour))
            put(home / f"ground_truth/{kind}/{i:03d}_mask.png", square(at=4 + i))
    (home / "license.txt").write_text("made up")
    (home / "readme.txt").write_text("made up")
    return home


def visa(root: Path, category: str = "candle", first: int = 200) -> Path:
    """8 normal training images; tested on 2 normal and 3 abnormal ones. Adds to 1cls.csv."""
    rows = []
    for i in range(10):
        image = f"{category}/Data/Images/Normal/{i:04d}.JPG"
        put(root / image, texture(first + i, colour=True))
        rows.append([category, "train" if i < 8 else "test", "normal", image, ""])
    for i in range(3):
        image = f"{category}/Data/Images/Anomaly/{i:04d}.JPG"
        mask = f"{category}/Data/Masks/Anomaly/{i:04d}.png"
        put(root / image, texture(first + 20 + i, colour=True))
        classes = square(value=1 + i)
        classes[-3:, -3:] = 7  # of another kind
        put(root / mask, classes)
        rows.append([category, "test", "anomaly", image, mask])
    table = root / "split_csv/1cls.csv"
    fresh = not table.exists()
    table.parent.mkdir(exist_ok=True)
    with table.open("a", newline="") as file:
        header = [["object", "split", "label", "image", "mask"]] if fresh else []
        csv.writer(file).writerows([*header, *rows])
    return root


def eye(path: Path, seed: int) -> Path:
    """A gray JPEG, wider than high."""
    return put(path, texture(seed, (16, 24)))


CLASSES = ("NORMAL", "CNV", "DME", "DRUSEN")


def oct2017(root: Path) -> Path:
    """Per class 6 training patients with 2 images, one for validation and two for the test."""
    home, seed = root / "OCT2017", 1000
    for pool, patients in (("train", 6), ("val", 1), ("test", 2)):
        for c, kind in enumerate(CLASSES):
            for i in range(patients):
                patient = 10_000 * (c + 1) + 100 * len(pool) + i
                for n in range(2 if pool == "train" else 1):
                    seed += 1
                    eye(home / pool / kind / f"{kind}-{patient}-{n + 1}.jpeg", seed)
    return home


def oct_flat(root: Path) -> Path:
    """As BerDiff has it: normal images to train on, both kinds for "validation"."""
    home = root / "data/OCT"
    for i in range(4):
        eye(home / f"training/NORMAL-{100 + i}-1.jpeg", 1200 + i)
    for i in range(2):
        eye(home / f"validation/NORMAL-{200 + i}-1.jpeg", 1210 + i)
        eye(home / f"validation/DRUSEN-{300 + i}-1.jpeg", 1220 + i)
    return home


def oct_bmad(root: Path) -> Path:
    home, seed = root, 1300
    for pool, kinds in (("train", ["good"]), ("valid", ["good", "Ungood"])):
        for kind in kinds:
            for i in range(5):
                seed += 1
                disease = "NORMAL" if kind == "good" else "CNV"
                eye(home / pool / kind / f"{disease}-{seed}-{i}.jpeg", seed)
    for kind in ("good", "Ungood"):
        for i in range(2):
            seed += 1
            eye(home / "test" / kind / f"{i}.png", seed)  # nobody is named
    return home


def chexpert_npy(root: Path) -> Path:
    """As Wolleb et al. have it: 6 healthy and 4 diseased training patients, 2 and 2 in the test."""
    home, seed = root / "data/chexpert", 2000
    for pool, count in (("training", 6), ("testing", 2)):
        for kind in ("healthy", "diseased"):
            for i in range(count if kind == "healthy" else min(count, 4)):
                seed += 1
                path = home / pool / kind / f"patient{seed:05d}_study{1 + i}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, texture(seed)[..., None])
    return home


def chexpert_raw(root: Path) -> Path:
    """As published: 8 healthy and 6 ill patients in train.csv, 2 and 2 in valid.csv, and others."""
    home, seed = root / "CheXpert-v1.0-small", 2100
    for pool, counts in (("train", (8, 6)), ("valid", (2, 2))):
        rows = [["Path", "Sex", "Frontal/Lateral", "No Finding", "Edema", "Pleural Effusion"]]
        for ill, count in enumerate(counts):
            for _ in range(count):
                seed += 1
                place = f"{pool}/patient{seed:05d}/study1"
                put(home / place / "view1_frontal.jpg", texture(seed, (20, 24)))
                finding = ["", "", "1.0"] if ill else ["1.0", "", ""]
                stem = f"CheXpert-v1.0-small/{place}"
                rows.append([f"{stem}/view1_frontal.jpg", "Male", "Frontal", *finding])
                rows.append([f"{stem}/view2_lateral.jpg", "Male", "Lateral", *finding])
        unsure = f"CheXpert-v1.0-small/{pool}/patient00001/study1/view1_frontal.jpg"
        rows.append([unsure, "Male", "Frontal", "", "1.0", "-1.0"])
        rows.append([unsure, "Male", "Frontal", "", "1.0", ""])
        with (home / f"{pool}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return home


def head(seed: int, size: int = 24) -> np.ndarray:
    """uint8 (H, W): 0 around a disc of values 40..219."""
    rows, columns = np.ogrid[:size, :size]
    inside = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (0.42 * size) ** 2
    return (inside * texture(seed, (size, size))).astype(np.uint8)


def ixi(number: int) -> str:
    place = "data/CAPS_IXI/png/sub-IXI{:03d}_ses-M00_T1w_space-MNI152NLin2009cSym_res-1x1x1_T1w.png"
    return place.format(number)


def fastmri(number: int) -> str:
    return f"data/fastMRI/brain_mid_png/file_brain_AXT1_202_20200{number:02d}.png"


def atlas(number: int, mask: bool = False) -> str:
    end = "_mask" if mask else ""
    return f"data/ATLAS/png_128_sl_95/Atlas_train_/Atlas_train_{number}{end}.png"


def listed(path: Path, names: Iterable[str]) -> Path:
    """A list as AutoDDPM's: one column, paths from ./data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in ("filename", *(f"./{n}" for n in names))))
    return path


def ixi_atlas(root: Path, *, lists: bool = True) -> Path:
    """6 + 2 normal training subjects, 2 for validation and 2 for the test; 6 with lesions."""
    names = [*(ixi(n) for n in range(2, 8)), fastmri(1), fastmri(2)]
    val, test = [ixi(20), ixi(21)], [ixi(30), fastmri(30)]
    for number, name in enumerate([*names, *val, *test]):
        put(root / name, head(3000 + number))
    for number in range(6):
        put(root / atlas(number), head(3100 + number))
        put(root / atlas(number, mask=True), square(at=8))
    if lists:
        for pool, held in (("train", names), ("val", val), ("test", test)):
            listed(root / f"data/CAPS_IXI/splits/ixi_normal_{pool}.csv", held)
        splits = root / "data/ATLAS/splits"
        listed(splits / "atlas_train_png.csv", map(atlas, range(6)))
        listed(splits / "atlas_train_mask_png.csv", (atlas(n, True) for n in reversed(range(6))))
    return root


def loose(root: Path, *, normal: int = 12, abnormal: int = 6) -> Path:
    """Somebody's own images, split by nobody."""
    for i in range(normal):
        put(root / f"normal/{i}.png", texture(4000 + i))
    for i in range(abnormal):
        put(root / f"broken/{100 + i}.png", texture(4100 + i))
    return root


# Questions


def counts(data: Dataset) -> dict[str, int]:
    return {part: len(data.get_split(part)) for part in PARTS}


def samples(data: Dataset, part: str) -> list[Sample]:
    split = data.get_split(part)
    return [split[i] for i in range(len(split))]


def everything(data: Dataset) -> list[Sample]:
    return [sample for part in PARTS for sample in samples(data, part)]


def shared(data: Dataset) -> set[str]:
    """Groups that stand in two of the four sets."""
    results = [{sample.group for sample in samples(data, part)} for part in PARTS]
    return {g for i, mine in enumerate(results) for other in results[:i] for g in mine & other}


def labels(results: Sequence[Sample]) -> list[bool]:
    return [sample.label for sample in results]
