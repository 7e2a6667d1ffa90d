"""BTAD: photographs of three industrial products, with and without defects.

Mishra et al., "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization",
ISIE 2021, arXiv:2104.10036. Per product

    <01|02|03>/train/ok/0000.bmp
    <01|02|03>/test/{ok,ko}/0000.bmp
    <01|02|03>/ground_truth/ko/0000.png

A mask has the name of its image, whatever the two are stored as. There is no validation set.
"""

from __future__ import annotations

from .preparation.category_dataset import CategoryDataset


class BTAD(CategoryDataset):
    """Images of one product, or of all under root if none is named; the arguments are MVTec's.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.btad import BTAD
    >>> with TemporaryDirectory() as root:
    ...     for name in ("01/train/ok/0.bmp", "01/test/ko/1.bmp", "01/ground_truth/ko/1.png"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = BTAD(category="01", channels=3).build_index(Path(root))
    >>> [(case.pool, case.label) for case in index.cases]
    [('train', False), ('test', True)]
    """

    name = "btad"
    expected = (
        "<root>/01/{train/ok,test/ok,test/ko}/0000.bmp and <root>/01/ground_truth/ko/0000.png"
    )
