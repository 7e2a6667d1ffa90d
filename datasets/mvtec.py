"""MVTec AD and what is laid out like it: photographs of things with and without defects.

Bergmann et al., "MVTec AD", CVPR 2019, doi:10.1109/CVPR.2019.00982. Per category

    <category>/train/good/000.png
    <category>/test/{good,<defect>}/000.png
    <category>/ground_truth/<defect>/000_mask.png

DDAD's form of VisA (test/bad, ground_truth/bad/000.png) and MTD's (a mask has its image's name)
are read too. The published split has no labelled validation set, and none is cut from the test
set: levels are the published ones, thresholds come from normal images.

Differs from DDAD's loader in masks: it resizes them bilinearly, to values between 0 and 1; here
a pixel is abnormal where more than half of its area is. Others pair masks by order; here by name.
"""

from __future__ import annotations

from .preparation.category_dataset import CategoryDataset

CATEGORIES = (
    *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
    *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
)


class MVTec(CategoryDataset):
    """Images of one category, or of all categories under root if none is named.

    root: the folder that holds the categories, one above it, or one category's own; else
        $ADBENCH_DATA
    category: such as hazelnut (on the command line: mvtec/hazelnut); any folder's name is accepted
    size, channels, tile, overlap, range: see ImageDataset; 256 x 256 without keeping the aspect is
        DDAD's.
        Images of several categories together have 3 channels, because grid, screw and zipper are
        gray and the others coloured
    fractions: of the published training images in train and held_out
    seed: which images those are

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.mvtec import MVTec
    >>> with TemporaryDirectory() as root:
    ...     for name in ("wood/train/good/0.png", "wood/test/hole/0.png",
    ...                  "wood/ground_truth/hole/0_mask.png"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = MVTec(category="wood", channels=3).build_index(Path(root))
    >>> [(case.pool, dict(case.extra)) for case in index.cases]
    [('train', {'category': 'wood'}), ('test', {'category': 'wood', 'defect': 'hole'})]
    """

    name = "mvtec"
    expected = "<root>/hazelnut/{train/good,test/good,test/crack,ground_truth/crack}/000.png"
