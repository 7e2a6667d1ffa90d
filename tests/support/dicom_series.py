"""Made-up DICOM series: slices in files whose names say nothing of their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

ROWS, COLUMNS, SLICES = 6, 5, 4
ORIENTATION = [0.96, 0.28, 0.0, -0.28, 0.96, 0.0]
STEP, SPACING = 2.5, [0.8, 0.7]


def write_series(
    folder: Path, voxels: np.ndarray, *, number: int = 1, skip: int | None = None
) -> None:
    """Write voxels (slices, rows, columns) uint16, without the slice `skip`."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid(entropy_srcs=[str(voxels), str(number)])
    for i, pixels in enumerate(voxels):
        if i == skip:
            continue
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.SeriesInstanceUID, dataset.SeriesNumber = uid, number
        dataset.ImageOrientationPatient = ORIENTATION
        dataset.ImagePositionPatient = [10.0, -20.0, 30.0 + STEP * i]
        dataset.PixelSpacing, dataset.Rows, dataset.Columns = SPACING, ROWS, COLUMNS
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-100"
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(folder / f"{(7 * i) % 5}-{number}.dcm", enforce_file_format=True)
