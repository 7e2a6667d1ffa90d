"""MPDD: photographs of painted metal parts, with and without defects of their making.

Jezek et al., "Deep learning-based defect detection of metal parts: evaluating current methods in
complex conditions", ICUMT 2021, doi:10.1109/ICUMT54235.2021.9631567. Laid out as MVTec AD:

    <category>/train/good/000.png
    <category>/test/{good,<defect>}/000.png
    <category>/ground_truth/<defect>/000_mask.png
"""

from __future__ import annotations

from .preparation.category_dataset import CategoryDataset

CATEGORIES = (
    "bracket_black",
    "bracket_brown",
    "bracket_white",
    "connector",
    "metal_plate",
    "tubes",
)


class MPDD(CategoryDataset):
    """Images of one part, or of all under root if none is named; the arguments are MVTec's.

    >>> from adbench.datasets.mpdd import MPDD
    >>> MPDD(category="tubes", channels=3).spec.shape
    (256, 256)
    """

    name = "mpdd"
    expected = "<root>/tubes/{train/good,test/good,test/<defect>,ground_truth/<defect>}/000.png"
