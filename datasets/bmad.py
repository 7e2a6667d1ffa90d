"""BMAD: six sets of medical images, cut and split alike for methods that find anomalies.

Bao et al., "BMAD: Benchmarks for Medical Anomaly Detection", arXiv:2306.11876. Per set

    <set>/train/good/*.png
    <set>/{valid,test}/{good,Ungood}/{img,label}/*.png      with masks: brats2021, liver, resc
    <set>/{valid,test}/{good,Ungood}/*.png                  without: oct2017, rsna, camelyon16

A mask has the name of its image. Validation is published with both kinds of images; the test set is
looked at once. Whom an image shows is not said in a way that could be verified, so that each image
stands for itself: intervals of slices of few patients are then too narrow.
"""

from __future__ import annotations

from pathlib import Path

from .layouts.mvtec_categories import CategoryLayout, find_categories, has_training_folder
from .preparation.category_dataset import CategoryDataset

FOLDERS: dict[str, tuple[str, ...]] = {
    "brats2021": ("brats2021", "BraTS2021_slice", "Brain"),
    "liver": ("liver", "hist_DIY", "Liver_CT"),
    "resc": ("resc", "Retina_RESC"),
    "oct2017": ("oct2017", "Retina_OCT2017"),
    "rsna": ("rsna", "Chest-RSNA", "Chest"),
    "camelyon16": ("camelyon16", "camelyon16_256", "Histopathology"),
}
"""Names of each set's folder, in any case: the category's own, and those of copies in use."""


class BMAD(CategoryDataset):
    """Images of one of the six sets.

    category: brats2021, liver, resc, oct2017, rsna or camelyon16 (bmad/resc on the command line),
        or the name of a folder laid out so; None takes the only one under root
    channels: None takes those of the training images, which in several of the sets show gray in
        the colours of a table
    fractions: of the published training images in train and held_out; val and test are published
    root, size, tile, overlap, range, seed: as of MVTec

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.bmad import BMAD
    >>> with TemporaryDirectory() as root:
    ...     for name in ("train/good/0.png", "test/Ungood/img/1.png", "test/Ungood/label/1.png"):
    ...         Path(root, "Retina_RESC", name).parent.mkdir(parents=True)
    ...         Path(root, "Retina_RESC", name).touch()
    ...     index = BMAD(category="resc", channels=1).build_index(Path(root))
    >>> [(case.pool, sorted(case.files)) for case in index.cases]
    [('train', ['image']), ('test', ['image', 'mask'])]
    """

    name = "bmad"
    expected = "<root>/resc/{train/good,{valid,test}/{good,Ungood}/{img,label}}/*.png"
    layout = CategoryLayout(images="img", masks="label", validation=True, needs_masks=False)
    multiclass_masks = True

    def find_category_folders(self, root: Path) -> list[Path]:
        names = (None,) if self.category is None else FOLDERS.get(self.category, (self.category,))
        for name in names:
            folders = find_categories(root, name, has_training_folder)
            if len(folders) > 1:
                listed = ", ".join(path.name for path in folders)
                raise self.no_data_error(
                    f"{root} holds several sets ({listed}): name one (category)"
                )
            if folders:
                return folders
        return []
