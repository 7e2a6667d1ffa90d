"""DICOM series as NIfTI volumes, so that the datasets' reader takes them. Needs pydicom.

The slices of a series are sorted along their normal, by their position; values are rescaled by
slope and intercept. DICOM counts to the patient's left and back, NIfTI to the right and front.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...datasets.base import DataError
from ...datasets.io.directories import list_directory
from ..store.atomic_files import atomic_path, describe_write_errors
from .detector_parts import PredictionError
from .inputs import Problem

MAX_UNEVEN = 0.02
"""How much the distances between slices may differ, as a share of their mean."""


def convert_series(paths: Sequence[Path], folder: Path) -> tuple[list[Path], list[Problem]]:
    """Write every DICOM series below some folders as a NIfTI file; return the files and problems.

    A series that was converted before is not converted again.

    paths: of folders, or of the files of one series
    folder: where to write NAME.nii.gz, by the folder that a series lies in; with several series in
        one folder, NAME-<series number>.nii.gz
    Raises PredictionError without pydicom.

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.prediction.dicom import convert_series
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "notes.dcm").write_text("no DICOM")
    ...     volumes, problems = convert_series([Path(folder)], Path(folder, "nifti"))
    >>> volumes, [problem.reason for problem in problems]
    ([], ['is no DICOM file', 'holds no DICOM series of slices with a position'])
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise PredictionError(
            "DICOM needs pydicom: pip install 'diffusion-adbench[dicom]'"
        ) from None
    volumes, problems = [], []
    for path in paths:
        if not path.exists():
            problems.append(Problem(str(path), "is not there"))
            continue
        series: dict[tuple[Path, str], list[Any]] = defaultdict(list)
        for file in _files(path):
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True)
            except (InvalidDicomError, OSError, ValueError):
                problems.append(Problem(str(file), "is no DICOM file"))
                continue
            if "ImagePositionPatient" in header:
                series[file.parent, str(header.get("SeriesInstanceUID", ""))].append((file, header))
        if not series:
            problems.append(Problem(str(path), "holds no DICOM series of slices with a position"))
        count = {parent: sum(p == parent for p, _ in series) for parent, _ in series}
        for (parent, _), slices in series.items():
            name = parent.name
            if count[parent] > 1:
                name += f"-{slices[0][1].get('SeriesNumber', 0)}"
            target = folder / f"{name}.nii.gz"
            if target in volumes:
                problems.append(Problem(name, "is the name of two series: predict one elsewhere"))
                continue
            try:
                if not target.is_file():
                    _convert(slices, target)
                volumes.append(target)
            except DataError as error:
                problems.append(Problem(name, f"{name} {error.summary}"))
    return volumes, problems


def _files(path: Path) -> list[Path]:
    """The files of a folder, however deep, that may be DICOM, which need no ending."""
    if path.is_file():
        return [path]
    files = []
    for child in list_directory(path):
        if child.is_dir():
            files += _files(child)
        elif child.name != "DICOMDIR" and child.suffix.lower() in ("", ".dcm", ".ima", ".dicom"):
            files.append(child)
        elif child.stem.rpartition(".")[2].isdigit() or child.suffix[1:].isdigit():
            files.append(child)  # named by a UID
    return files


def _convert(slices: Sequence[tuple[Path, Any]], target: Path) -> None:
    """Write the slices (file, header) of a series. Raises DataError where they make no volume."""
    import pydicom

    first = slices[0][1]
    orientation = np.array(first.ImageOrientationPatient, np.float64)
    rows, columns = orientation[:3], orientation[3:]  # directions of growing column and row index
    normal = np.cross(rows, columns)
    placed = sorted(slices, key=lambda one: float(np.dot(one[1].ImagePositionPatient, normal)))
    at = np.array([np.dot(header.ImagePositionPatient, normal) for _, header in placed])
    steps = np.diff(at)
    for file, header in placed:
        same = np.allclose(header.ImageOrientationPatient, orientation, atol=1e-4)
        size = (header.Rows, header.Columns) == (first.Rows, first.Columns)
        if not (same and size and header.PixelSpacing == first.PixelSpacing):
            raise DataError(f"holds slices of several sizes or directions ({file.name})")
    if len(placed) < 2 or (np.abs(steps - steps.mean()) > MAX_UNEVEN * abs(steps.mean())).any():
        raise DataError("has slices that are missing, doubled, or not evenly spaced")
    planes = []
    for file, _ in placed:
        try:
            image = pydicom.dcmread(file)
            pixels = image.pixel_array.astype(np.float32)
        except Exception as error:  # pydicom raises many kinds
            reason = str(error).partition("\n")[0]
            raise DataError(f"has a slice {file.name} that cannot be read ({reason})") from error
        slope = float(image.get("RescaleSlope", 1))
        planes.append(pixels * slope + float(image.get("RescaleIntercept", 0)))
    row_mm, column_mm = (float(mm) for mm in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows * column_mm, columns * row_mm
    affine[:3, 2] = normal * steps.mean()
    affine[:3, 3] = placed[0][1].ImagePositionPatient
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    data = np.stack([plane.T for plane in planes], -1)  # (columns, rows, slices)
    volume = nib.Nifti1Image(data, affine)
    volume.header.set_xyzt_units("mm")
    with atomic_path(target) as part, describe_write_errors(target):
        nib.save(volume, part)
