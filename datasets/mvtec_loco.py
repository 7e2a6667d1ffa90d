"""MVTec LOCO AD: photographs of things with structural defects or with logical ones.

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection
and Localization", IJCV 2022, doi:10.1007/s11263-022-01578-9. Per category

    <category>/train/good/000.png
    <category>/validation/good/000.png
    <category>/test/{good,logical_anomalies,structural_anomalies}/000.png
    <category>/ground_truth/{logical_anomalies,structural_anomalies}/000/{000,001,...}.png

An image has a mask for each of its anomalies, whose number says which anomaly it is. Differs from
the authors' evaluation in joining the masks of an image: there, an anomaly is fully localised once
a share of its area is marked that defects_config.json gives for its kind (sPRO, saturation).
"""

from __future__ import annotations

from .layouts.mvtec_categories import CategoryLayout
from .preparation.category_dataset import CategoryDataset

CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")


class MVTecLOCO(CategoryDataset):
    """Images of one category, or of all under root if none is named; the arguments are MVTec's.

    validation/ is the calibration split, and train/ is trained on completely: `fractions` divide
    train/ only where there is no validation/.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.mvtec_loco import MVTecLOCO
    >>> with TemporaryDirectory() as root:
    ...     masks = "pushpins/ground_truth/logical_anomalies/001"
    ...     for name in ("pushpins/train/good/0.png", f"{masks}/000.png", f"{masks}/001.png",
    ...                  "pushpins/test/logical_anomalies/001.png"):
    ...         Path(root, name).parent.mkdir(parents=True, exist_ok=True)
    ...         Path(root, name).touch()
    ...     index = MVTecLOCO(category="pushpins", channels=3).build_index(Path(root))
    >>> [sorted(case.files) for case in index.cases]
    [['image'], ['image', 'mask', 'mask 2']]
    """

    name = "mvtec-loco"
    expected = (
        "<root>/pushpins/{train,validation}/good/000.png, test/logical_anomalies/000.png and "
        "ground_truth/logical_anomalies/000/000.png"
    )
    layout = CategoryLayout(mask_folders=True, validation=True)
    multiclass_masks = True
