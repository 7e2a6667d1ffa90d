"""MVTec 3D-AD: photographs of things with and without defects; their depth is not read.

Bergmann et al., "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv:2112.09045. Per category

    <category>/{train,validation}/good/{rgb/000.png,xyz/000.tiff}
    <category>/test/{good,<defect>}/{rgb/000.png,xyz/000.tiff,gt/000.png}

Read are rgb/ and gt/. xyz/ holds the place of every pixel in space, which no method here takes:
results are comparable with those of others "RGB only", not with those that use the depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .io.directories import list_directory
from .io.folder_names import pool_of
from .layouts.mvtec_categories import CategoryLayout
from .preparation.category_dataset import CategoryDataset

CATEGORIES = (
    *("bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope"),
    "tire",
)


class MVTec3D(CategoryDataset):
    """Images of one category, or of all under root if none is named; the arguments are MVTec's.

    validation/ is the calibration split, and train/ is trained on completely: `fractions` divide
    train/ only where there is no validation/.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.mvtec_3d import MVTec3D
    >>> with TemporaryDirectory() as root:
    ...     for name in ("bagel/train/good/rgb/0.png", "bagel/test/hole/rgb/1.png",
    ...                  "bagel/test/hole/gt/1.png", "bagel/test/hole/xyz/1.tiff"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = MVTec3D(category="bagel", channels=3).build_index(Path(root))
    >>> [sorted(case.files) for case in index.cases], list(index.left_out.values())
    ([['image'], ['image', 'mask']], ['places of the pixels in space, not read'])
    """

    name = "mvtec-3d"
    expected = "<root>/bagel/train/good/rgb/000.png and <root>/bagel/test/hole/{rgb,gt}/000.png"
    layout = CategoryLayout(images="rgb", masks="gt", validation=True)

    def unread_folders(self, category: Path) -> Mapping[Path, str]:
        pools = [p for p in list_directory(category) if p.is_dir() and pool_of(p.name)]
        kinds = [kind for pool in pools for kind in list_directory(pool) if kind.is_dir()]
        depth = [p for kind in kinds for p in list_directory(kind) if p.name.casefold() == "xyz"]
        return dict.fromkeys(depth, "places of the pixels in space, not read")
