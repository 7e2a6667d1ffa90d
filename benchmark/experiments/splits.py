"""The splits of a dataset as an experiment uses them: limited, loaded once, known by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...datasets.base import Dataset, Sample, Split, manifest
from ..evaluation.synthetic_anomalies import SyntheticAnomalies
from ..store.artifact_store import canonical_json
from .matrix import PREDICTED_SPLITS
from .training_samples import TrainingSamples

SYNTHETIC = "pseudo"
"""Name of the calibration samples with synthetic anomalies."""


class Splits(Mapping[str, Split]):
    """Splits of a dataset by name: train, held_out (calibration), val, test, and perhaps pseudo.

    Each is loaded when it is first asked for, and then kept.

    dataset: prepared
    limit: of samples per split, spread evenly over it; of whole images where samples are tiles.
        None for all
    labelled: whether `train` holds abnormal samples too, and their labels
    training: which samples `train` holds; None for all of the dataset
    synthetic: whether there is `pseudo`, the calibration samples with synthetic anomalies

    >>> from adbench.benchmark.experiments.splits import Splits
    >>> from adbench.datasets.phantom import Phantom
    >>> splits = Splits(Phantom(shape=(8, 8)), limit=2, synthetic=True)
    >>> [(name, len(split)) for name, split in splits.items()]
    [('train', 2), ('held_out', 2), ('val', 2), ('test', 2), ('pseudo', 2)]
    >>> splits.predicted
    ('held_out', 'val', 'test', 'pseudo')
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        limit: int | None = None,
        labelled: bool = False,
        synthetic: bool = False,
        training: TrainingSamples | None = None,
    ) -> None:
        self.training = training or TrainingSamples()
        self.dataset, self.limit, self.labelled = dataset, limit, labelled
        self.predicted = (*PREDICTED_SPLITS, SYNTHETIC) if synthetic else PREDICTED_SPLITS
        self._loaded: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._loaded:
            if name not in [*self]:
                raise KeyError(name)
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("train", *self.predicted))

    def __len__(self) -> int:
        return 1 + len(self.predicted)

    def digest(self, name: str) -> str:
        """A hash of every sample of a split, 32 hex digits."""
        return self._summary(name)[0]

    def size(self, name: str) -> int:
        """How many samples a split has; does not load it if any experiment did before."""
        return self._summary(name)[1]

    def _summary(self, name: str) -> tuple[str, int]:
        """(digest, size). A prepared dataset does not change, so both are kept beside it, for all
        methods, seeds and protocols."""
        summaries: dict[Any, tuple[str, int]] = vars(self.dataset).setdefault("_summaries", {})
        key: Any = name, self.limit, self.labelled and name == "train"
        if name == "train" and not self.training.whole:
            key = (*key, self.training)
        if key not in summaries:
            entries = manifest(self[name])
            digest = hashlib.sha256(canonical_json(entries).encode()).hexdigest()[:32]
            summaries[key] = digest, len(entries)
        return summaries[key]

    def _load(self, name: str) -> Split:
        if name == SYNTHETIC:
            return SyntheticAnomalies(self["held_out"])
        if name == "train":
            split = self.training.choose(self.dataset, labelled=self.labelled)
        else:
            split = self.dataset.get_split(name)
        return split if self.limit is None else limited(split, self.limit)


@dataclass(frozen=True)
class Subset:
    """Some samples of a split, read one at a time as the split's own are.

    >>> from adbench.benchmark.experiments.splits import Subset
    >>> from adbench.datasets.phantom import Phantom
    >>> test = Phantom(shape=(8, 8)).test()
    >>> Subset(test, [5])[0].key == test[5].key
    True
    """

    split: Split
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.split[self.indices[index]]


def limited(split: Split, limit: int) -> Split:
    """`limit` samples of a split, spread evenly over it so that both kinds stay in.

    Of tiles, all those of `limit` whole images.

    >>> from adbench.benchmark.experiments.splits import limited
    >>> from adbench.datasets.phantom import Phantom
    >>> test = Phantom(shape=(8, 8)).test()
    >>> [test[i].key for i in (0, len(test) // 2)] == [s.key for s in limited(test, 2)]
    True
    """
    if len(split) <= limit:
        return split
    if split[0].tile is None:
        step = len(split) / limit
        return Subset(split, [int(i * step) for i in range(limit)])
    tiles = [split[i].tile for i in range(len(split))]
    images = list(dict.fromkeys(tile.image_key for tile in tiles if tile))
    step = max(1, len(images) / limit)
    selected = {images[int(i * step)] for i in range(min(limit, len(images)))}
    return Subset(split, [i for i, tile in enumerate(tiles) if tile and tile.image_key in selected])
