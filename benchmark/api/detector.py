"""A trained method as its record left it: scores and maps of new images, arrays in and out."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Dataset, Sample, Spec, Split
from ...datasets.io.images import LUMA, resize
from ...datasets.preparation.file_dataset import FileDataset
from ...engine.runtime.context import TrainingContext
from ...methods.base import Method
from ..evaluation.hdf5_arrays import read_array
from ..evaluation.in_memory_ground_truth import InMemoryGroundTruth
from ..evaluation.load_predictions import assemble_predictions
from ..evaluation.metrics.pixel_scores import PixelScores
from ..evaluation.protocol import Protocol
from ..evaluation.tile_stitching import samples_without_images
from ..executors.launch import device_context
from ..experiments.fit_predict import load_method, predict
from ..experiments.matrix import Experiment
from ..experiments.resolve import build_method
from ..leaderboard.records import read_record
from ..prediction.inputs import find_new_files, read_samples
from ..registry.code_fingerprint import loaded_code_digest
from ..registry.registry import Registry
from ..sharing.imported_weights import resolve_imported
from .storage import open_store

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]


class DetectorError(ValueError):
    """A record whose method cannot be loaded, or images that it cannot take: one line, and what
    would do.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.api.detector import DetectorError, load_record
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "record.json"
    ...     _ = path.write_text('{"schema": 3}')
    ...     try:
    ...         load_record(path)
    ...     except DetectorError as error:
    ...         print(str(error).removeprefix(folder))
    /record.json is no record: it has schema 3, and this adbench reads 1 and 2. For a checkpoint,
    name its method: method=
    """

    exit_code = 2


@dataclass(frozen=True)
class Prediction:
    """What a detector says of N images, in their order.

    keys: names of the samples, or of the whole images that tiles were cut from
    scores: (N,) float64, higher is more anomalous
    maps: (N, *S) float32, post-processed as the protocol says; None from a method without maps
    segmentations: (N, *S) bool, what exceeds the record's threshold; None without one

    >>> import numpy as np
    >>> from adbench.benchmark.api.detector import Prediction
    >>> prediction = Prediction(["a", "b"], np.array([0.1, 0.9]), None,
    ...                         np.array([[False, False], [False, True]]))
    >>> prediction.to_frame()["abnormal_share"].to_dict()
    {'a': 0.0, 'b': 0.5}
    """

    keys: list[str]
    scores: Array
    maps: Array | None
    segmentations: Array | None

    def to_frame(self) -> pandas.DataFrame:
        """One row per image: its key, its score, and the share of it above the threshold."""
        import pandas

        frame = pandas.DataFrame({"score": self.scores}, pandas.Index(self.keys, name="key"))
        if self.segmentations is not None:
            axes = tuple(range(1, self.segmentations.ndim))
            frame["abnormal_share"] = self.segmentations.mean(axes)
        return frame


class Detector:
    """A trained method at the noise level, threshold and post-processing of its record.

    It is made by `adbench.load`. name: of the method; record: the record; level, threshold: the
    chosen ones; method, dataset, protocol, context: what they are applied with

    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import adbench
    >>> settings = {"phantom": {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}}
    >>> with TemporaryDirectory() as folder:
    ...     results = adbench.run("pca", "phantom", settings=settings, profile="check", out=folder,
    ...                           store=f"{folder}/store", executor="inline", baselines=False,
    ...                           progress=False)
    ...     detector = adbench.load(results.paths()[0], store=f"{folder}/store")
    >>> detector, detector.spec.shape, detector.localize(np.zeros((3, 16, 16))).shape
    (Detector(pca, trained on phantom, level 0), (16, 16), (3, 16, 16))
    """

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        method: Method,
        record: Mapping[str, Any],
        context: TrainingContext,
    ) -> None:
        self.method, self.record, self.dataset = method, record, dataset
        self.name: str = experiment.method.name
        self.level: int = record["level"]["chosen"]
        self.threshold: float | None = record["threshold"]["value"]
        self.protocol: Protocol = experiment.protocol
        self._experiment, self.context = experiment, replace(context, seed=experiment.seed)

    def __repr__(self) -> str:
        data = self._experiment.dataset.name
        return f"Detector({self.name}, trained on {data}, level {self.level})"

    @property
    def spec(self) -> Spec:
        """Channels and spatial shape S of the images that the method takes."""
        return self.dataset.spec

    def score(self, images: Any, *, keys: Sequence[str] | None = None) -> Array:
        """How anomalous each image is, (N,) float64; higher is more anomalous, on no fixed scale.

        images: (N, C, *S) in [0, 1], or uint8, numpy or torch; (N, *S) of one channel; or a split
            of a dataset. 2-D images of another size or channel count are fitted as the dataset
            fits its own.
        keys: names of the images, which seed their noise; without them, their positions
        Raises DetectorError on images that cannot be fitted.
        """
        return self._predict(self._samples(images, keys)).scores

    def localize(self, images: Any, *, keys: Sequence[str] | None = None) -> Array:
        """Where each image is anomalous, (N, *S) float32, post-processed; images as for `score`.

        Raises DetectorError from a method that gives no map.
        """
        maps = self._predict(self._samples(images, keys)).maps
        if maps is None:
            raise DetectorError(f"{self.name} gives a score and no map")
        return maps

    def predict(self, source: Any, *, keys: Sequence[str] | None = None) -> Prediction:
        """Scores, maps and segmentations of images, however they are named.

        source: a path of a file or of a folder of files, or several; a Dataset, of which the test
            split is meant; or what `score` takes. `adbench.predict` writes maps on the files' own
            grid instead, and needs memory for a few of them only
        Raises DetectorError, and DataError on files that cannot be read.
        """
        if isinstance(source, Dataset):
            return self._predict(source.test())
        paths = _paths(source)
        return self._predict(self._samples(source, keys) if paths is None else self._read(paths))

    def _predict(self, split: Split) -> Prediction:
        if not len(split):
            raise DetectorError("there is no image to predict")
        with tempfile.TemporaryDirectory(prefix="adbench-") as folder:
            path = Path(folder) / "maps.h5"
            predict(path, self.method, split, [self.level], self.context, name="test")
            with h5py.File(path, "r") as file:
                score = read_array(file, "score")[0]
                maps = read_array(file, "map")[0] if "map" in file else None
        return _prediction(split, score, maps, self.protocol, self.threshold)

    def _samples(self, images: Any, keys: Sequence[str] | None) -> Split:
        """A split of the images; one that is given stays as it is."""
        if not isinstance(images, (np.ndarray, Tensor)):
            if len(images) and isinstance(images[0], Sample):
                return images
            images = np.stack([np.asarray(image) for image in images])
        x = self._fit(torch.as_tensor(images))
        names = [str(i) for i in range(len(x))] if keys is None else list(keys)
        if len(names) != len(x) or len(set(names)) < len(names):
            raise DetectorError(f"{len(x)} images take as many different keys, not {len(names)}")
        return [Sample(image, key, key, False) for image, key in zip(x, names, strict=True)]

    def _fit(self, images: Tensor) -> Tensor:
        """Images (N, C, *S) float32 in [0, 1] as the method takes them."""
        spec, axes = self.spec, len(self.spec.shape)
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if x.ndim == axes + 1:
            x = x[:, None]
        expected = f"(N, {spec.channels}, {', '.join(map(str, spec.shape))})"
        if x.ndim != axes + 2:
            raise DetectorError(f"{self!r} takes images {expected}, not {tuple(images.shape)}")
        if not x.isfinite().all() or x.min() < 0 or x.max() > 1:
            raise DetectorError("images lie in [0, 1], or are uint8; these do not")
        if axes == 2 and x.shape[1] == 3 and spec.channels == 1:
            x = (x * torch.from_numpy(LUMA)[:, None, None]).sum(1, keepdim=True)
        if axes == 2 and x.shape[1] == 1 and spec.channels == 3:
            x = x.expand(-1, 3, -1, -1)
        if axes == 2 and x.shape[2:] != spec.shape:
            x = torch.stack([resize(image, (spec.shape[0], spec.shape[1])) for image in x])
        if x.shape[1:] != (spec.channels, *spec.shape):
            raise DetectorError(f"{self!r} takes images {expected}, not {tuple(images.shape)}")
        return x.contiguous()

    def _read(self, paths: Sequence[Path]) -> Split:
        """The samples of new files and of the files in folders, as the dataset reads its own."""
        files, problems = find_new_files(self.dataset, paths)
        if problems or not isinstance(self.dataset, FileDataset):
            raise DetectorError("; ".join(map(str, problems)))
        cases = [case for file in files for case in file.cases]
        return [sample for case in cases for sample in read_samples(self.dataset, case)[0]]


def load_record(
    record: str | Path,
    *,
    store: str | Path | None = None,
    data: str | Path | None = None,
    registry: Sequence[str | Path] = (),
    device: str = "auto",
) -> Detector:
    """The detector of a record, from the checkpoint in the store that its key names.

    record: the file, such as results/records/X.json
    store: the folder of checkpoints; None for $ADBENCH_STORE, or the user's cache
    data: the folder of the dataset, whose splits can be predicted then; new files need none
    registry: further registry files of the run        device: auto, cpu, cuda, cuda:1
    Raises DetectorError on a record without a result or a checkpoint that is not stored.

    >>> from tempfile import TemporaryDirectory
    >>> import adbench
    >>> from adbench.benchmark.api.detector import load_record
    >>> settings = {"phantom": {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}}
    >>> with TemporaryDirectory() as folder:
    ...     results = adbench.run("pca", "phantom", settings=settings, profile="check", out=folder,
    ...                           store=f"{folder}/store", executor="inline", baselines=False,
    ...                           progress=False)
    ...     detector = load_record(results.paths()[0], store=f"{folder}/store")
    >>> scores = detector.score(detector.dataset.test())
    >>> scores.tolist() == results.records[0]["samples"]["score"]  # as the run scored them
    True
    """
    try:
        facts = read_record(Path(record))
    except ValueError as error:
        raise DetectorError(
            f"{record} is no record: {error}. For a checkpoint, name its method: method="
        ) from None
    if facts["status"] != "ok":
        raise DetectorError(f"{record} is of a run that is {facts['status']}: {facts['reason']}")
    if facts.get("external"):
        raise DetectorError(f"{record} is of maps that another program made: nothing can be loaded")
    opened = open_store(store)
    key = (facts.get("keys") or {}).get("checkpoint")
    if key is None:
        raise DetectorError(
            f"{record} is of maps that another program made: there is no detector to load"
        )
    checkpoint = opened.read_metadata("checkpoint", key)
    if checkpoint is None:
        raise DetectorError(
            f"the checkpoint {key} of {Path(record).name} is not in {opened.root}: name the store "
            "(store=), bring it there (adbench cache import), or train it again"
        )
    names = Registry.read(*map(Path, registry))
    names = resolve_imported(names, opened, [facts["method"]["name"]])
    experiment = _experiment(facts, names)
    dataset = experiment.dataset.build(**_arguments(experiment, data))
    preprocessing = checkpoint.metadata.get("preprocessing")
    if data is None and preprocessing is not None:
        dataset.restore_preprocessing(preprocessing)
    elif not hasattr(dataset, "spec") or data is not None:
        dataset.prepare()
    context = device_context(device, checkpoint.key_inputs["numerics"])
    method = load_method(build_method(experiment, dataset.spec), checkpoint.path, context)
    if loaded_code_digest(type(method)) != checkpoint.key_inputs["code"]:
        warnings.warn(
            f"the code of {experiment.method.name} has changed since it was trained; scores may "
            "differ from its record",
            stacklevel=3,
        )
    return Detector(experiment, dataset, method, facts, context)


def _experiment(record: Mapping[str, Any], registry: Registry) -> Experiment:
    """The experiment that a record is of, at its chosen level alone."""
    protocol = Protocol.from_dict(record["protocol"])
    protocol.require_unscored_maps("a detector of new samples")
    return Experiment(
        method=registry.method(record["method"]["name"]),
        method_args=record["method"]["args"],
        dataset=registry.dataset(record["dataset"]["name"]),
        dataset_args=record["dataset"]["args"],
        seed=record["seed"],
        profile=record["profile"],
        protocol=protocol,
        levels=(record["level"]["chosen"],),
    )


def _arguments(experiment: Experiment, data: str | Path | None) -> dict[str, Any]:
    root = {"root": str(data)} if data is not None else {}
    return {**experiment.dataset_args, **root}


def _paths(source: Any) -> list[Path] | None:
    """The paths that a source names, or None where it names none."""
    if isinstance(source, (str, Path)):
        return [Path(source)]
    if isinstance(source, Iterable) and not isinstance(source, (np.ndarray, Tensor)):
        parts = list(source) if isinstance(source, (list, tuple)) else []
        if parts and all(isinstance(part, (str, Path)) for part in parts):
            return [Path(part) for part in parts]
    return None


def _prediction(
    split: Split, score: Array, maps: Array | None, protocol: Protocol, threshold: float | None
) -> Prediction:
    """What the protocol makes of raw scores (N,) and maps (N, *S) of a split."""
    predictions = assemble_predictions(
        samples_without_images(split), score[None], None if maps is None else maps[None]
    )
    truth = InMemoryGroundTruth(predictions, protocol)
    at_level, filtered, segmentations = truth.at_level(0), None, None
    if truth.roi is not None and isinstance(at_level.pixels, PixelScores):
        filtered = truth.filtered_maps(0)
        if threshold is not None:
            segmentations = np.zeros(truth.roi.shape, bool)
            segmentations[truth.roi] = truth.binarize(at_level.pixels, threshold)
    return Prediction(predictions.keys, at_level.score, filtered, segmentations)
