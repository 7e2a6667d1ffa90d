"""UCR anomaly archive: 250 univariate series, each with one anomaly after a normal beginning.

Wu and Keogh, "Current Time Series Anomaly Detection Benchmarks are Flawed and are Creating the
Illusion of Progress", TKDE 2021, arXiv:2009.13807. One file a series,

    UCR_TimeSeriesAnomalyDatasets2021/FilesAreInHere/UCR_Anomaly_FullData/
        001_UCR_Anomaly_DISTORTED1sddb40_35000_52000_52620.txt

numbers in text, one a line or several. The name ends with the number of training steps, and the
first and last step of the anomaly, counted from 1.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .base import DataError
from .io.directories import find_files
from .io.hdf5_arrays import Array
from .preparation.cases import DatasetIndex
from .preparation.left_out import REASON_OF_SUFFIX
from .preparation.series_dataset import SeriesDataset

FILE_NAME = re.compile(
    r"(?P<number>\d+)_UCR_Anomaly_(?P<series>.+)_(?P<train>\d+)_(?P<first>\d+)_(?P<last>\d+)\.txt",
    re.IGNORECASE,
)


class UCRAnomaly(SeriesDataset):
    """Windows of one series of the archive, or of all under root together.

    root: the folder of the files, or one above it; else $ADBENCH_DATA
    category: the number of a series, such as 001 (ucr-anomaly/001 on the command line), or part of
        its name; None for all, of which one network is trained
    window, stride, margin, fractions: see SeriesDataset
    seed: without effect: the parts of a series follow each other in time

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.ucr_anomaly import UCRAnomaly
    >>> with TemporaryDirectory() as root:
    ...     path = Path(root, "001_UCR_Anomaly_tide_40_55_56.txt")
    ...     _ = path.write_text("\\n".join(map(str, range(60))))
    ...     data = UCRAnomaly(window=4)
    ...     index = data.build_index(Path(root))
    ...     samples = data.read(index.cases[-1]).samples
    >>> [case.name for case in index.cases]
    ['001_tide/train', '001_tide/held_out', '001_tide/test']
    >>> [sample.label for sample in samples]  # steps 55 and 56 are in the fourth window
    [False, False, False, True, False]
    """

    name = "ucr-anomaly"
    expected = "<root>/001_UCR_Anomaly_<series>_<training steps>_<first>_<last>.txt"

    def build_index(self, root: Path) -> DatasetIndex:
        cases, left_out = [], {}
        for path in find_files(root, (".txt",), 4):
            match = FILE_NAME.fullmatch(path.name)
            if match is None:
                left_out[path] = REASON_OF_SUFFIX[".txt"]
                continue
            series = f"{match['number']}_{match['series']}"
            wanted = self.category is None or self.category == match["number"]
            if wanted or (self.category or "").casefold() in match["series"].casefold():
                cases += self.series_cases(path, series, {"series": series})
            else:
                left_out[path] = "another series than the chosen one"
        return DatasetIndex(cases, left_out=left_out)

    def read_series(self, path: Path) -> tuple[Array, Array, int]:
        match = FILE_NAME.fullmatch(path.name)
        assert match is not None  # build_index takes no other
        try:
            values = np.array(path.read_text(encoding="ascii").split(), np.float64)
        except ValueError:
            raise DataError(f"{path.name} holds something else than numbers") from None
        if not len(values) or not np.isfinite(values).all():
            raise DataError(f"{path.name} is empty, or holds NaN or inf")
        prefix, first, last = (int(match[key]) for key in ("train", "first", "last"))
        if not prefix < first <= last <= len(values):
            raise DataError(
                f"{path.name}: the anomaly of its name, {first} to {last}, is not between its "
                f"{prefix} training steps and its end, {len(values)}"
            )
        anomaly = np.zeros(len(values), bool)
        anomaly[first - 1 : last] = True
        return values[None], anomaly, prefix
