"""Names of NIfTI files, in any case: what ends like one, and what stands before the ending."""

from __future__ import annotations

SUFFIXES = (".nii.gz", ".nii")


def is_nifti(name: str) -> bool:
    """Return whether a file of this name is NIfTI, gzipped or not.

    name: of the file

    >>> is_nifti("scan.NII.GZ"), is_nifti("scan.gz")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def nifti_stem(name: str) -> str:
    """Return the name without .nii or .nii.gz.

    name: of the file

    >>> nifti_stem("scan_1.5T.nii.gz")
    'scan_1.5T'
    """
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]
