"""T1 slices as PNG: healthy brains of IXI and fastMRI for training, strokes of ATLAS v2 to test.

The data of AutoDDPM (Bercea et al., ICML Workshops 2023, arXiv:2305.19643), and of PHANES and THOR:
one mid-axial slice a subject, 8 bits, 128 x 128.

    data/CAPS_IXI/png/sub-IXI002_ses-M00_T1w_space-MNI152NLin2009cSym_res-1x1x1_T1w.png
    data/fastMRI/brain_mid_png/file_brain_AXT1_202_2020062.png
    data/ATLAS/png_128_sl_95/Atlas_train_/Atlas_train_0.png and Atlas_train_0_mask.png
    data/*/splits/{ixi_normal_{train,val,test},atlas_train_png,atlas_train_mask_png}.csv

A list has one column, filename, with paths that begin at ./data. Without lists, all images are
assigned by subject. ATLAS slices are validation and test, never training.

Differs from the authors' loader: masks are found by name (theirs by their row), 0 and 1
are 0 and 255 of the file (theirs looks how bright an image is), masks are not dilated by resizing.
Their evaluation skips 20 slices by number; here they count, unless `blacklist` is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from .base import Count, FourFractions, Natural, Pair, Span
from .io.csv import read_rows
from .io.directories import find_files, name_conflicts
from .io.value_range import ValueRange
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.deduplicated_dataset import SPLIT_PREFERENCE, DeduplicatedDataset
from .splits.assignment import Case, check_fractions
from .splits.published import assign_unpublished

BLACKLIST = (
    *(100, 105, 112, 121, 186, 189, 210, 214, 345, 382),
    *(424, 425, 434, 435, 441, 462, 464, 472, 478, 504),
)
IXI_SUBJECT = re.compile(r"IXI\d{3}")
ATLAS_NAME = re.compile(r"atlas_.*?(\d+)", re.IGNORECASE)
LIST_NAME = re.compile(r"ixi|fastmri|normal|atlas", re.IGNORECASE)
POOL_NAME = re.compile(r"train|val|test")
SET_FOLDERS = ("CAPS_IXI", "fastMRI", "ATLAS")


class IXIAtlas(DeduplicatedDataset):
    """Mid-axial T1 slices: healthy subjects of IXI and fastMRI, strokes of ATLAS.

    root: the folder that holds data/, or data/ itself; else $ADBENCH_DATA
    size, range: see ImageDataset; 128 x 128 is the authors'
    lesion: ATLAS slices count whose mask, at `size`, has more pixels than the first of these two
        and at most as many as the second
    blacklist: leave out the 20 ATLAS slices that the authors leave out
    split: "corrected", or "published" to keep subjects that are in two of the lists
    fractions: of subjects in train, held_out, val and test; what is listed needs none
    seed: which subjects go where

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.ixi_atlas import IXIAtlas
    >>> with TemporaryDirectory() as root:
    ...     for name in ("CAPS_IXI/png/sub-IXI002_T1w.png", "ATLAS/Atlas_train_0.png",
    ...                  "ATLAS/Atlas_train_0_mask.png"):
    ...         Path(root, name).parent.mkdir(parents=True, exist_ok=True)
    ...         Path(root, name).touch()
    ...     index = IXIAtlas().build_index(Path(root))
    >>> [(case.label, sorted(case.files)) for case in index.cases]
    [(True, ['image', 'mask']), (False, ['image'])]
    """

    name = "ixi-atlas"
    expected = (
        "<root>/data/CAPS_IXI/png/sub-IXI002_ses-M00_T1w_….png and "
        "<root>/data/ATLAS/png_128_sl_95/Atlas_train_/Atlas_train_0{,_mask}.png"
    )
    zero_is_background = True

    def __init__(
        self,
        *,
        root: str | None = None,
        size: Count | Pair[Count] | None = 128,
        range: ValueRange | None = None,
        lesion: Span = (1, 10_000),
        blacklist: bool = False,
        split: Literal["corrected", "published"] = "corrected",
        fractions: FourFractions = (0.6, 0.1, 0.1, 0.2),
        seed: Natural = 0,
    ) -> None:
        if len(lesion) != 2 or not 0 <= lesion[0] < lesion[1]:
            raise ValueError(f"lesion is two numbers of pixels, less and more, not {lesion}")
        self.root, self.seed, self.lesion = root, seed, list(lesion)
        self.blacklist, self.fractions = blacklist, check_fractions(fractions, 4)
        self._set_split_policy(split)
        self._set_image_options(size, 1, range=range)

    def build_index(self, root: Path) -> DatasetIndex:
        paths = [path for path in find_files(root, [".png"], 5) if _subject(path)]
        images = {path: list[str]() for path in paths if not _is_mask(path)}
        listed, problems, tables = _read_lists(root)
        for atlas in (False, True):  # images in no list are assigned by subject
            listed_images = {p: pools for p, pools in listed.items() if _is_atlas(p) == atlas}
            images |= listed_images or {p: [""] for p in images if _is_atlas(p) == atlas}
        cases, notes, ignored = [], [], 0
        left_out = {path: "in no list" for path in paths if path not in images}
        for image, pools in images.items():
            name, atlas = _name(image, root), _is_atlas(image)
            if atlas and self.blacklist and _atlas_number(image) in BLACKLIST:
                left_out |= dict.fromkeys(
                    (image, image.with_name(f"{image.stem}_mask.png")), "on the authors' blacklist"
                )
                continue
            files = {"image": image}
            if atlas:
                mask = image.with_name(f"{image.stem}_mask.png")
                files["mask"] = mask
                if not mask.is_file():
                    problems.append(f"{name} has no mask beside it ({mask.name})")
                    continue
            if len(set(pools)) < len(pools):
                notes.append(f"{name} is listed twice in one list: it counts once")
            tags = {
                "source": "ATLAS" if atlas else "IXI" if IXI_SUBJECT.search(name) else "fastMRI"
            }
            for index, pool in enumerate(sorted(set(pools), key=SPLIT_PREFERENCE.index)):
                if atlas and pool == "train":
                    ignored += 1
                else:
                    case_name = f"{name} ({pool})" if index else name
                    cases.append(Case(case_name, _subject(image), files, pool, atlas, tags))
        for mask in (path for path in paths if _is_mask(path)):
            if not mask.with_name(mask.name.replace("_mask.png", ".png")).is_file():
                problems.append(f"{_name(mask, root)} is the mask of no image beside it")
        problems += name_conflicts({case.files["image"]: None for case in cases}, root)
        if ignored:
            notes.append(f"{ignored} ATLAS slices are listed for training: they are not trained on")
        cases, shared_notes = self._remove_shared_subjects(cases)
        self._infer_spec(cases)
        return DatasetIndex(cases, problems, [*notes, *shared_notes], tables, left_out)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return assign_unpublished(cases, self.fractions, self.seed, abnormal_splits=("val", "test"))

    def read(self, case: Case) -> CaseSamples:
        samples = super().read(case)
        mask = samples.samples[0].mask
        min_pixels, max_pixels = self.lesion
        if case.label and mask is not None and not min_pixels < int(mask.sum()) <= max_pixels:
            bounds = f"no more than {min_pixels} pixels or over {max_pixels}"
            count_name = f"ATLAS slices left out whose masks hold {bounds}"
            counts = {**samples.counts, count_name: 1}
            return replace(samples, samples=[], counts=counts, mask_area_ratios=())
        return samples

    def _mask_problems(self, case: Case, name: str, mask: Tensor) -> Iterator[str]:
        """Yield nothing: a slice without a lesion is no error here, `lesion` leaves it out."""
        return iter(())

    def _empty_split_hint(self, part: str) -> str:
        return super()._empty_split_hint(part) + (
            ", or `lesion` leaves all out" if part == "test" else ""
        )


def _is_atlas(path: Path) -> bool:
    return ATLAS_NAME.match(path.stem) is not None


def _is_mask(path: Path) -> bool:
    return path.stem.endswith("_mask")


def _atlas_number(path: Path) -> int:
    """Return the index of an ATLAS slice in the authors' list; -1 without one."""
    match = ATLAS_NAME.match(path.stem)
    return int(match[1]) if match else -1


def _subject(path: Path) -> str:
    """Return the subject in a file's name; "" for a file of another set."""
    match = IXI_SUBJECT.search(path.stem)
    if match:
        return match[0]
    return path.stem if _is_atlas(path) or path.stem.startswith("file_brain") else ""


def _name(path: Path, root: Path) -> str:
    """Return the path from the set's folder on, which is the same for every root."""
    parts = path.parts
    start = next((i for i, part in enumerate(parts) if part in SET_FOLDERS), len(root.parts))
    return "/".join(parts[start:])


def _read_lists(root: Path) -> tuple[dict[Path, list[str]], list[str], list[Path]]:
    """Return the pools of each listed image, a problem for each listed file that is missing, and
    the lists."""
    pools_of_image: dict[Path, list[str]] = {}
    problems = []
    tables = [path for path in find_files(root, [".csv"], 5) if LIST_NAME.search(path.stem)]
    for table in tables:
        name = table.relative_to(root).as_posix()
        match = POOL_NAME.search(table.stem)
        for number, row in read_rows(table, ["filename"], name):
            image = _resolve_listed_path(row["filename"], table, root)
            if image is None:
                problems.append(f"{name} line {number}: {row['filename']} is not there")
            elif not _subject(image):
                problems.append(f"{name} line {number}: no subject in {row['filename']}")
            elif not _is_mask(image):
                atlas_list = _is_atlas(image) and "ixi" not in table.stem.lower()
                pool = match[0] if match else ""
                pools_of_image.setdefault(image, []).append(
                    "" if atlas_list and pool == "train" else pool
                )
    return pools_of_image, problems, tables


def _resolve_listed_path(listed_path: str, table: Path, root: Path) -> Path | None:
    """Return the file that a list names, relative to the folder above ./data; None if it is
    missing."""
    parts = Path(listed_path).parts
    for folder in (table.parent, *table.parents):
        for tail in (parts, parts[1:]):
            if tail and folder.joinpath(*tail).is_file():
                return folder.joinpath(*tail)
        if folder == root.parent:
            break
    return None
