"""TSB-AD: curated series with one or many channels, and a label of each step.

Liu and Paparrizos, "The Elephant in the Room: Towards A Reliable Time-Series Anomaly Detection
Benchmark", NeurIPS 2024. One csv a series, in TSB-AD-U/ (one channel) and TSB-AD-M/ (several),

    001_NAB_id_1_Facility_tr_1007_1st_2014.csv

with a column for each channel and one called Label, 0 or 1. "tr" is the number of training steps,
"1st" the first abnormal step (which is not used here).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from .base import DataError, Spec
from .io.directories import find_files
from .io.hdf5_arrays import Array
from .preparation.cases import DatasetIndex
from .preparation.left_out import REASON_OF_SUFFIX
from .preparation.series_dataset import SeriesDataset

FILE_NAME = re.compile(
    r"(?P<series>(?P<number>\d+)_(?P<source>.+?)_id_.+?)_tr_(?P<train>\d+)_1st_\d+\.csv",
    re.IGNORECASE,
)
LABEL = "label"


class TSBAD(SeriesDataset):
    """Windows of one series, of all of one source, or of all under root together.

    root: the folder of the files, or one above it; else $ADBENCH_DATA
    category: the number of a series, or the source of some, such as NAB (tsb-ad/NAB on the command
        line); None for all. All must have as many channels: TSB-AD-U and TSB-AD-M are two data
        folders, and numbers count in each of them
    window, stride, margin, fractions: see SeriesDataset
    seed: without effect: the parts of a series follow each other in time

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.tsb_ad import TSBAD
    >>> with TemporaryDirectory() as root:
    ...     rows = ["Data,Label", *(f"{n},{int(n == 55)}" for n in range(60))]
    ...     path = Path(root, "001_NAB_id_1_Facility_tr_40_1st_55.csv")
    ...     _ = path.write_text("\\n".join(rows))
    ...     data = TSBAD(window=4)
    ...     index = data.build_index(Path(root))
    ...     samples = data.read(index.cases[-1]).samples
    >>> [sample.label for sample in samples]
    [False, False, False, True, False]
    """

    name = "tsb-ad"
    expected = "<root>/TSB-AD-U/001_NAB_id_1_Facility_tr_1007_1st_2014.csv"

    def build_index(self, root: Path) -> DatasetIndex:
        cases, left_out, paths = [], {}, []
        for path in find_files(root, (".csv",), 3):
            match = FILE_NAME.fullmatch(path.name)
            if match is None:
                left_out[path] = REASON_OF_SUFFIX[".csv"]
                continue
            names = {match["number"], match["source"].casefold(), match["series"].casefold()}
            if self.category is not None and self.category.casefold() not in names:
                left_out[path] = "another series than the chosen ones"
                continue
            paths.append(path)
            series = match["series"]
            cases += self.series_cases(path, series, {"series": series, "source": match["source"]})
        series = [case.name for case in cases]
        twice = sorted({name.rpartition("/")[0] for name in series if series.count(name) > 1})
        problems = [f"{name} is there twice: keep one folder" for name in twice]
        if paths:
            channels = max(1, len(_columns(paths[0])) - 1)
            self.spec = Spec(channels, (self.window,), labels=False, masks=True)
        return DatasetIndex(cases, problems, left_out=left_out)

    def read_series(self, path: Path) -> tuple[Array, Array, int]:
        match = FILE_NAME.fullmatch(path.name)
        assert match is not None  # build_index takes no other
        try:
            table = pd.read_csv(path, index_col=False, dtype=np.float64, encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"{path.name} is no table of numbers ({reason})") from None
        labels = [name for name in table.columns if str(name).strip().casefold() == LABEL]
        if len(labels) != 1 or len(table.columns) < 2 or not len(table):
            raise DataError(f"{path.name} needs a column Label and one for each channel")
        label = table[labels[0]].to_numpy()
        values = table.drop(columns=labels).to_numpy().T
        if not np.isfinite(values).all() or not np.isin(label, (0, 1)).all():
            raise DataError(f"{path.name} holds NaN or inf, or labels other than 0 and 1")
        prefix = int(match["train"])
        if not 0 < prefix < len(label):
            raise DataError(f"{path.name} has {len(label)} steps, and its name says tr_{prefix}")
        return np.ascontiguousarray(values), label > 0, prefix


def _columns(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().split(",")
