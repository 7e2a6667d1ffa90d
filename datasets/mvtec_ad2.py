"""MVTec AD 2: photographs of eight things and materials under several lights, with small defects.

Heckler-Kram et al., "The MVTec AD 2 Dataset: Advanced Scenarios for Unsupervised Anomaly
Detection", arXiv:2503.21622. Per category

    <category>/{train,validation}/good/000_regular.png
    <category>/test_public/{good,bad}/000_{regular,overexposed,...}.png
    <category>/test_public/ground_truth/bad/000_regular_mask.png
    <category>/{test_private,test_private_mixed}/*.png           without labels

A name begins with the number of what it shows, photographed under each light: images of one number
are one group. The private test sets are evaluated by the authors' server alone, and left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .io.directories import list_directory
from .layouts.mvtec_categories import CategoryLayout
from .preparation.category_dataset import CategoryDataset

CATEGORIES = (
    *("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"),
)
PRIVATE = ("test_private", "test_private_mixed")


class MVTecAD2(CategoryDataset):
    """Images of one category, or of all under root if none is named; the arguments are MVTec's.

    validation/ is the calibration split, and train/ is trained on completely: `fractions` divide
    train/ only where there is no validation/. Some categories are gray, so that images of several
    have 3 channels.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.mvtec_ad2 import MVTecAD2
    >>> with TemporaryDirectory() as root:
    ...     masks = "can/test_public/ground_truth/bad"
    ...     for name in ("can/train/good/000_regular.png", f"{masks}/001_regular_mask.png",
    ...                  "can/test_public/bad/001_regular.png"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = MVTecAD2(category="can", channels=3).build_index(Path(root))
    >>> [(case.group, sorted(case.files)) for case in index.cases]
    [('can/train/good/000', ['image']), ('can/test_public/bad/001', ['image', 'mask'])]
    """

    name = "mvtec-ad2"
    expected = (
        "<root>/can/{train,validation}/good/000_regular.png and <root>/can/test_public/"
        "{good,bad,ground_truth/bad}/"
    )
    layout = CategoryLayout(
        validation=True, test="test_public", masks_in_test=True, group=r"^([0-9]+)_"
    )

    def unread_folders(self, category: Path) -> Mapping[Path, str]:
        folders = [p for p in list_directory(category) if p.name.casefold() in PRIVATE]
        return dict.fromkeys(folders, "private test images, which only the authors' server judges")
