"""Real-IAD: photographs of 30 kinds of small objects from five views, with and without defects.

Wang et al., "Real-IAD: A Real-World Multi-View Dataset for Benchmarking Versatile Industrial
Anomaly Detection", CVPR 2024, arXiv:2403.12580. The archives unpack to

    realiad_256/<category>/OK/S0001/<category>_0001_OK_C1_20231021.jpg
    realiad_256/<category>/NG/<defect>/S0001/<category>_0001_NG_<defect>_C1_20231021.{jpg,png}
    realiad_jsons/realiad_jsons/<category>.json            or realiad_jsons/<category>.json

and a list holds {"train": [...], "test": [...]} of {"image_path", "mask_path", "anomaly_class"},
paths relative to the category's folder. Folders S0001 hold the views of one object, which is a
group; mask_path is null where nothing is marked. A view in which no defect shows is in the lists as
normal (OK), and is read so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from .base import Count, DataError, Natural, Pair, TwoFractions
from .io.directories import folder_levels, name_conflicts
from .io.folder_names import resolve_case
from .io.value_range import ValueRange
from .preparation.cases import DatasetIndex
from .preparation.image_dataset import ImageDataset
from .splits.assignment import Case, check_fractions, split_training_pool

NORMAL = "OK"

Lists = Literal[
    "realiad_jsons",
    "realiad_jsons_sv",
    "realiad_jsons_fuiad_0.0",
    "realiad_jsons_fuiad_0.1",
    "realiad_jsons_fuiad_0.2",
    "realiad_jsons_fuiad_0.4",
]
"""Folders of lists."""


class RealIAD(ImageDataset):
    """Images of one category, or of all that have a list if none is named.

    root: the folder that holds realiad_256/ and realiad_jsons/, or one above it; else $ADBENCH_DATA
    category: such as audiojack (real-iad/audiojack on the command line)
    resolution: of the images that are read: the number in the name of their folder
    lists: the folder of the lists: realiad_jsons takes all views, realiad_jsons_sv one view each;
        others, such as realiad_jsons_fuiad_0.4, have abnormal training images, which are left out
    size, channels, tile, overlap, range: see ImageDataset
    fractions: of the objects of the published training images in train and held_out
    seed: which objects those are

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.real_iad import RealIAD
    >>> with TemporaryDirectory() as root:
    ...     image = Path(root, "realiad_256/usb/OK/S0001/usb_0001_OK_C1.jpg")
    ...     image.parent.mkdir(parents=True)
    ...     image.touch()
    ...     row = {"image_path": "OK/S0001/usb_0001_OK_C1.jpg", "mask_path": None,
    ...            "anomaly_class": "OK"}
    ...     Path(root, "realiad_jsons").mkdir()
    ...     text = json.dumps({"train": [row], "test": []})
    ...     _ = Path(root, "realiad_jsons/usb.json").write_text(text)
    ...     index = RealIAD(category="usb").build_index(Path(root))
    >>> [(case.group, case.pool, case.label) for case in index.cases]
    [('usb/OK/S0001', 'train', False)]
    """

    name = "real-iad"
    expected = "<root>/realiad_256/usb/{OK,NG}/... and <root>/realiad_jsons/realiad_jsons/usb.json"
    multiclass_masks = True

    def __init__(
        self,
        *,
        root: str | None = None,
        category: str | None = None,
        resolution: Literal[256, 512, 1024] = 256,
        lists: Lists = "realiad_jsons",
        size: Count | Pair[Count] | None = 256,
        channels: Literal[1, 3] | None = 3,
        tile: Count | None = None,
        overlap: Natural = 0,
        range: ValueRange | None = None,
        fractions: TwoFractions = (0.9, 0.1),
        seed: Natural = 0,
    ) -> None:
        self.root, self.category, self.seed = root, category, seed
        self.resolution, self.lists = resolution, lists
        self.fractions = check_fractions(fractions, 2)
        self._set_image_options(size, channels, tile, overlap, range)

    def build_index(self, root: Path) -> DatasetIndex:
        base = self._find_base(root)
        images = resolve_case(base, f"realiad_{self.resolution}")
        tables = self._find_lists(base)
        cases: list[Case] = []
        problems: list[str] = []
        notes: list[str] = []
        for table in tables:
            self._read_list(table, images / table.stem, cases, problems, notes)
        problems += name_conflicts((case.files["image"] for case in cases), images)
        self._infer_spec(cases)
        chosen = {table.stem for table in tables}
        others = (p for p in images.iterdir() if p.is_dir() and p.name not in chosen)
        left_out = dict.fromkeys(others, "another category than the chosen one")
        return DatasetIndex(cases, problems, notes, tables, left_out)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return split_training_pool(cases, self.fractions, self.seed)

    def _find_base(self, root: Path) -> Path:
        name = f"realiad_{self.resolution}"
        for level in folder_levels(root, 2):
            for folder in level:
                if resolve_case(folder, name).is_dir():
                    return folder
        raise self.no_data_error(f"no folder {name} lies under {root}")

    def _find_lists(self, base: Path) -> list[Path]:
        for place in (f"realiad_jsons/{self.lists}", self.lists):
            folder = resolve_case(base, place)
            paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
            chosen = [path for path in paths if self.category in (None, path.stem)]
            if chosen:
                return chosen
        of = f" of category {self.category!r}" if self.category else ""
        raise self.no_data_error(f"no list{of} lies in {base / 'realiad_jsons' / self.lists}")

    def _read_list(
        self,
        table: Path,
        images: Path,
        cases: list[Case],
        problems: list[str],
        notes: list[str],
    ) -> None:
        """Add the cases of a category's list, its problems and notes."""
        abnormal_training = 0
        for pool in ("train", "test"):
            for number, row in enumerate(_rows_of(table, pool)):
                place = f"{table.name} {pool} {number}"
                paths = {role: row.get(f"{role}_path") for role in ("image", "mask")}
                kind = row.get("anomaly_class")
                if not isinstance(paths["image"], str) or not isinstance(kind, str):
                    problems.append(f"{place} lacks image_path or anomaly_class")
                    continue
                label = kind != NORMAL
                if pool == "train" and label:
                    abnormal_training += 1
                    continue
                files = {r: resolve_case(images, p) for r, p in paths.items() if p}
                missing = [str(paths[r]) for r, path in files.items() if not path.is_file()]
                if missing:
                    problems.append(f"{place}: {missing[0]} is not in {images.name}/")
                    continue
                if label and "mask" not in files:
                    problems.append(f"{place}: {paths['image']} is abnormal and has no mask")
                    continue
                name = f"{table.stem}/{paths['image']}"
                group = PurePosixPath(name).parent.as_posix()
                tags = {"category": table.stem} | ({"defect": kind} if label else {})
                cases.append(Case(name, group, files, pool, label, tags))
        if abnormal_training:
            notes.append(
                f"{table.name}: {abnormal_training} abnormal training images are left out: only "
                "normal images are trained on"
            )


def _rows_of(table: Path, pool: str) -> list[dict[str, Any]]:
    """Return the images of a split in a list. Raises DataError where it is none."""
    try:
        rows = json.loads(table.read_text(encoding="utf-8"))[pool]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{table.name} is no list of Real-IAD: {pool!r} is missing") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{table.name}: {pool!r} is no list of images")
    return rows
