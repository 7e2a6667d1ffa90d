"""MVTec AD and what is laid out like it: photographs of things with and without defects.

Bergmann et al., "MVTec AD", CVPR 2019, doi:10.1109/CVPR.2019.00982. Per category

    <category>/train/good/000.png
    <category>/test/{good,<defect>}/000.png
    <category>/ground_truth/<defect>/000_mask.png

A mask is found by its image's name, defect by defect: NAME_mask.png, or NAME.png as VisA and MTD
in this layout have it. The published split has no labelled validation set, and none is cut from
the test set: levels are the published ones, thresholds come from normal images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .files import Survey
from .folders import below, clashes, entries
from .images import SUFFIXES
from .pictures import Pictures
from .placing import Case, placed, shares

CATEGORIES = (
    *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
    *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
)


class MVTec(Pictures):
    """One category, or all that lie under root if none is named.

    root: the folder that holds the categories, or one category's own; else $ADBENCH_DATA
    category: such as hazelnut (on the command line: mvtec/hazelnut); any folder's name will do
    size, channels, tile, overlap: see Pictures; 256 x 256 without keeping the aspect is DDAD's
    fractions: of the published training images in train and held_out
    seed: which images those are
    """

    name = "mvtec"
    expected = "<root>/hazelnut/{train/good,test/good,test/crack,ground_truth/crack}/000.png"

    def __init__(
        self,
        *,
        root: str | None = None,
        category: str | None = None,
        size: int | Sequence[int] | None = 256,
        channels: int | None = None,
        tile: int | None = None,
        overlap: int = 0,
        fractions: Sequence[float] = (0.9, 0.1),
        seed: int = 0,
    ) -> None:
        self.root, self.category, self.seed = root, category, seed
        self.fractions = shares(fractions, 2)
        self._fit(size, channels, tile, overlap)

    def survey(self, root: Path) -> Survey:
        found = [folder for folder in self._categories(root) if (folder / "train").is_dir()]
        cases: list[Case] = []
        problems: list[str] = []
        for folder in found:
            mine, wrong = _category(folder)
            cases += mine
            problems += wrong
        if not found:
            there = ", ".join(p.name for p in entries(root) if p.is_dir()) or "no folder"
            what = f"no category {self.category!r}" if self.category else "no category"
            raise self.nothing(f"{what} lies under {root} (there is {there})")
        problems += clashes((c.files["image"] for c in cases), root)
        self._measure(cases)
        return Survey(cases, problems)

    def place(self, cases: Sequence[Case]) -> Mapping[str, str]:
        training: dict[str, float] = dict(zip(("train", "held_out"), self.fractions, strict=True))
        return placed(cases, {"train": training, "test": {"test": 1.0}}, self.seed)

    def _categories(self, root: Path) -> list[Path]:
        if self.category is not None:
            inside = root / self.category
            return [inside if inside.is_dir() or root.name != self.category else root]
        return [root] if (root / "train").is_dir() else [p for p in entries(root) if p.is_dir()]


def _category(folder: Path) -> tuple[list[Case], list[str]]:
    """Its images with their masks, and what does not pair."""
    cases, problems, used = [], [], set[Path]()
    for pool in ("train", "test"):
        for image in below(folder / pool, SUFFIXES, 3) if (folder / pool).is_dir() else ():
            name = image.relative_to(folder.parent).as_posix()
            kind = image.relative_to(folder / pool).parts[0]
            label = kind != "good"
            files = {"image": image}
            if pool == "train" and label:
                problems.append(f"{name} lies beside train/good: only normal images are trained on")
                continue
            if label:
                masks = _masks(folder / "ground_truth" / kind, image.stem)
                if len(masks) != 1:
                    what = f"{len(masks)} masks" if masks else "no mask"
                    place = f"{folder.name}/ground_truth/{kind}"
                    problems.append(f"{name} has {what} in {place} ({image.stem}_mask.png)")
                    continue
                files["mask"] = masks[0]
                used.add(masks[0])
            tags = {"category": folder.name} | ({"defect": kind} if label else {})
            cases.append(Case(name, name, files, pool, label, tags))
    truth = folder / "ground_truth"
    for mask in below(truth, SUFFIXES, 3) if truth.is_dir() else ():
        if mask not in used and not problems:
            problems.append(f"{mask.relative_to(folder.parent).as_posix()} has no image in test/")
    return cases, problems


def _masks(folder: Path, stem: str) -> list[Path]:
    there = entries(folder) if folder.is_dir() else []
    return [path for path in there if path.stem in (stem, f"{stem}_mask")]
