"""Base class of datasets of time series: a training prefix, and a rest with marked anomalies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..base import Count, DataError, Natural, Positive, Spec, TwoFractions
from ..io.hdf5_arrays import Array
from ..splits.assignment import Case, check_fractions
from ..transforms.series_windows import scale_by_training, window_samples, window_starts
from .cases import CaseSamples
from .file_dataset import FileDataset

PARTS = ("train", "held_out", "test")


class SeriesDataset(FileDataset, ABC):
    """Base class of files that each hold one series; a subclass defines `read_series`.

    A series is three cases: the beginning of its training prefix is trained on, its end calibrates,
    and what follows is the test set. Its steps are cut into windows. Parts of one series are groups
    of their own: each method is trained on the series that it is tested on.

    root: the folder of the files
    category: which series; None for all
    window: steps of a window
    stride: steps between the starts of training windows; test windows do not overlap, but for the
        last one, whose steps count where no window before it held them
    margin: see `scale_by_training`
    fractions: of the training prefix in train and held_out, in time
    seed: without effect: the parts of a series follow each other in time

    >>> from adbench.datasets.ucr_anomaly import UCRAnomaly
    >>> UCRAnomaly(window=64).spec.shape
    (64,)
    """

    unique_roles = frozenset({"image"})

    def __init__(
        self,
        *,
        root: str | None = None,
        category: str | None = None,
        window: Count = 256,
        stride: Count | None = None,
        margin: Positive = 0.5,
        fractions: TwoFractions = (0.8, 0.2),
        seed: Natural = 0,
    ) -> None:
        if window < 2 or (stride is not None and stride < 1) or margin <= 0:
            raise ValueError("window is at least 2, stride at least 1, margin above 0")
        self.root, self.category, self.seed = root, category, seed
        self.window, self.stride, self.margin = window, stride, margin
        self.fractions = check_fractions(fractions, 2)
        self.spec = Spec(1, (window,), labels=False, masks=True)

    @abstractmethod
    def read_series(self, path: Path) -> tuple[Array, Array, int]:
        """Return (values (C, L) float64, anomaly (L,) bool, steps of the training prefix).

        path: of the file

        Raises DataError on a file that holds no series.
        """

    def series_cases(self, path: Path, name: str, tags: Mapping[str, str]) -> list[Case]:
        """Return the three cases of a file.

        path: the file
        name: of the series
        tags: of its samples
        """
        extra = {"tags": dict(tags)}
        return [
            Case(f"{name}/{part}", f"{name}/{part}", {"image": path}, part, None, extra)
            for part in PARTS
        ]

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return {case.name: case.pool for case in cases}

    def read(self, case: Case) -> CaseSamples:
        path = case.files["image"]
        values, anomaly, prefix = self.read_series(path)
        length, channels = values.shape[1], self.spec.channels
        if len(values) != channels:
            raise DataError(
                f"{path.name} has {len(values)} channels, others {channels}: name series of one "
                "kind (category)"
            )
        held_out = round(prefix * self.fractions[1])
        bounds = {
            "train": (0, prefix - held_out),
            "held_out": (prefix - held_out, prefix),
            "test": (prefix, length),
        }
        short = [part for part, (start, end) in bounds.items() if end - start < self.window]
        if short:
            steps = ", ".join(f"{part} {bounds[part][1] - bounds[part][0]}" for part in short)
            raise DataError(
                f"{path.name} has fewer steps than window={self.window} in {steps} "
                "(a smaller window)"
            )
        if anomaly[:prefix].any():
            raise DataError(
                f"{path.name} has {int(anomaly[:prefix].sum())} abnormal training steps"
            )
        start, end = bounds[case.pool]
        scaled, outside = scale_by_training(values[:, start:end], values[:, :prefix], self.margin)
        stride = self.window if case.pool == "test" else self.stride or max(1, self.window // 4)
        samples = window_samples(
            scaled,
            anomaly[start:end] if case.pool == "test" else None,
            window_starts(end - start, self.window, stride),
            self.window,
            name=case.name,
            group=case.group,
            tags=dict(case.extra["tags"]),
        )
        constant = bool((scaled == scaled[:, :1]).all())
        notes = [f"{case.name} is constant, and no method trains on it"] if constant else []
        counts = {f"values beyond margin={self.margin:g} that were cut off": outside}
        return CaseSamples(samples, notes, not constant, counts, f"{channels} x {length} steps")
