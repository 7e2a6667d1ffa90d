"""The files that a prediction writes for one input: maps, masks, p-values and overlays.

    maps/NAME.nii.gz, masks/..., p_values/...          of a volume, on its own grid
    maps/NAME.tiff, p_values/NAME.tiff (float32), masks/NAME.png, overlays/NAME.png     of a picture
    maps/NAME.h5                                       of arrays: map, mask, p_value, score, key

Each file appears complete or not at all. A map is post-processed as the protocol says, and 0
outside the region that the protocol looks at.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ...datasets.io.hdf5_output import write_hdf5
from ...datasets.preparation.file_dataset import FileDataset
from ...datasets.preparation.image_dataset import ImageDataset
from ..store.atomic_files import atomic_path, atomic_write, describe_write_errors
from .detector_parts import DetectorParts, PredictionError
from .grids import VolumeGrid
from .inputs import NewFile
from .overlays import draw_overlay
from .predicted import PredictedFile

Array = np.ndarray[Any, Any]


def write_outputs(
    parts: DetectorParts, file: NewFile, predicted: PredictedFile, folder: Path
) -> list[str]:
    """Write the maps of one volume or picture, and return their paths below the folder.

    Nothing is written for a method without maps.

    Raises DataError where the maps cannot be put back on the grid of the file.

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.datasets.folder import Folder
    >>> from adbench.datasets.splits.assignment import Case
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> dataset = Folder(size=4, channels=1)
    >>> parts = DetectorParts("mine", None, dataset, 0, 0.5, Protocol(), TrainingContext(),
    ...                       images=None, pixels=None, identity={})
    >>> maps = np.array([np.eye(4)], np.float32)
    >>> predicted = PredictedFile([], ["a"], np.ones(1), maps, maps > 0.5, 0.25)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.png")
    ...     Image.new("L", (8, 8), 90).save(path)
    ...     file = NewFile("a.png", "a", "picture", path, (Case("a", "a", {"image": path}),))
    ...     names = write_outputs(parts, file, predicted, Path(folder))
    ...     mask = np.asarray(Image.open(Path(folder, "masks/a.png")))
    >>> names, mask.shape, mask[:3, 0].tolist()  # of the size of the picture
    (['maps/a.tiff', 'masks/a.png', 'overlays/a.png'], (8, 8), [255, 255, 0])
    """
    if predicted.maps is None:
        return []
    if file.kind == "volume":
        return _write_volume(parts, file, predicted, folder)
    return _write_picture(parts, file, predicted, folder)


def _write_volume(
    parts: DetectorParts, file: NewFile, predicted: PredictedFile, folder: Path
) -> list[str]:
    dataset = parts.dataset
    assert isinstance(dataset, FileDataset) and predicted.maps is not None
    if dataset.volume_grid is None:
        raise PredictionError(
            f"maps of the dataset {dataset.name} cannot be put back into volumes: only scores can "
            "be had (--no-maps)"
        )
    display = dataset.volume_grid == "display"
    grid = VolumeGrid.of_file(file.path, display=display, step=getattr(dataset, "every", 1))
    samples = predicted.samples
    maps = grid.restore(predicted.maps, samples)
    evaluated = grid.restore(np.ones_like(predicted.maps), samples, smooth=False) > 0.5
    values = {"maps": maps}
    if predicted.masks is not None:
        masks = predicted.masks.astype(np.float32)
        values["masks"] = grid.restore(masks, samples, smooth=False) > 0.5
    if parts.pixels is not None:
        values["p_values"] = np.where(evaluated, parts.pixels.p_values(maps), 1.0)
    names = []
    for kind, array in values.items():
        name = f"{kind}/{file.output}.nii.gz"
        with _new_file(folder / name) as path:
            grid.save(array, path)
        names.append(name)
    return names


def _write_picture(
    parts: DetectorParts, file: NewFile, predicted: PredictedFile, folder: Path
) -> list[str]:
    assert isinstance(parts.dataset, ImageDataset) and predicted.maps is not None
    picture = parts.dataset.read_picture(file.cases[0]).numpy()
    size = picture.shape[1:]
    map_ = _resized(predicted.maps[0], size, smooth=True)
    mask = None
    if predicted.masks is not None:
        mask = _resized(predicted.masks[0], size, smooth=False) > 0.5
    window = _display_window(parts, map_)
    overlay = draw_overlay(picture, map_, mask, window, parts.threshold)
    images = {f"maps/{file.output}.tiff": Image.fromarray(map_)}
    if parts.pixels is not None:
        p_values = parts.pixels.p_values(map_).astype(np.float32)
        images[f"p_values/{file.output}.tiff"] = Image.fromarray(p_values)
    if mask is not None:
        images[f"masks/{file.output}.png"] = Image.fromarray(mask.astype(np.uint8) * 255)
    images[f"overlays/{file.output}.png"] = overlay
    for name, image in images.items():
        atomic_write(folder / name, _encoded(image, "TIFF" if name.endswith(".tiff") else "PNG"))
    return [*images]


def _encoded(image: Image.Image, kind: str) -> bytes:
    """An image as the bytes of a file: libtiff calls a full disk an encoder error."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    return buffer.getvalue()


def write_arrays(
    parts: DetectorParts, file: NewFile, predicted: Iterator[PredictedFile], folder: Path
) -> list[str]:
    """Write maps and scores of the samples of a file into one HDF5 file; return its path.

    predicted: of one part of the file after another; only one is in memory at a time

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> parts = DetectorParts("mine", None, None, 0, None, Protocol(), TrainingContext(),
    ...                       images=None, pixels=None, identity={})
    >>> files = [PredictedFile([], [key], np.array([score]), np.full((1, 4), score), None, None)
    ...          for key, score in (("a/0", 0.25), ("a/1", 0.5))]
    >>> with TemporaryDirectory() as folder:
    ...     file = NewFile("a.h5", "a", "arrays", Path(folder, "a.h5"), ())
    ...     names = write_arrays(parts, file, iter(files), Path(folder))
    ...     with h5py.File(Path(folder, names[0])) as output:
    ...         output["score"][()].tolist(), output["map"].shape
    ([0.25, 0.5], (2, 4))
    """
    name = f"maps/{file.output}.h5"
    with describe_write_errors(folder / name):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with write_hdf5(folder / name) as output:
            for part in predicted:
                for field, values in _fields(parts, part).items():
                    _append(output, field, values)
    return [name]


def _fields(parts: DetectorParts, predicted: PredictedFile) -> dict[str, Array]:
    fields = {"score": predicted.scores}
    if parts.images is not None:
        fields["score_p_value"] = parts.images.p_values(predicted.scores)
    if predicted.maps is not None:
        fields["map"] = predicted.maps
        if parts.pixels is not None:
            fields["p_value"] = parts.pixels.p_values(predicted.maps).astype(np.float32)
    if predicted.masks is not None:
        fields["mask"] = predicted.masks.astype(np.uint8)
    fields["key"] = np.array([key.encode() for key in predicted.keys], object)
    return fields


def _append(output: h5py.File, field: str, values: Array) -> None:
    """Append (n, ...) to a dataset of a file, which grows along its first axis."""
    if field not in output:
        dtype = h5py.string_dtype() if values.dtype == object else values.dtype
        output.create_dataset(
            field, (0, *values.shape[1:]), dtype, maxshape=(None, *values.shape[1:]), chunks=True
        )
    stored = output[field]
    assert isinstance(stored, h5py.Dataset)
    start = len(stored)
    stored.resize(start + len(values), 0)
    stored[start:] = values


def _display_window(parts: DetectorParts, map: Array) -> float:
    """The value that overlays show brightest: twice the threshold, the same for all pictures.

    Without a threshold above 0, the highest normal pixel; without that, the map's own highest.
    """
    if parts.threshold is not None and parts.threshold > 0:
        return 2 * parts.threshold
    if parts.pixels is not None and parts.pixels.knots.size and parts.pixels.knots[-1] > 0:
        return float(parts.pixels.knots[-1])
    return float(map.max()) or 1.0


def _resized(values: Array, size: Sequence[int], *, smooth: bool) -> Array:
    """An image (h, w) as float32 at the size of its picture, (H, W)."""
    x = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    if smooth:
        x = F.interpolate(x, list(size), mode="bilinear", align_corners=False, antialias=True)
    else:
        x = F.interpolate(x, list(size), mode="nearest-exact")
    return x[0, 0].numpy()


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes its name when it is complete."""
    with atomic_path(path) as part, describe_write_errors(path):
        yield part
