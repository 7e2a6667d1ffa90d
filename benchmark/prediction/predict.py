"""Predict new files with a trained detector, one after another, and write what it says of each.

A few files are in memory at a time, however many there are. What is done is noted in a journal, so
that the same command goes on after a kill; a bad file is a line among the problems, and the others
are done.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

from ...datasets.base import DataError, Sample
from ...datasets.preparation.file_dataset import FileDataset
from ...engine.runtime.context import ignore_event
from ...engine.training.loss import NotFinite
from ..evaluation.hdf5_arrays import read_array
from ..evaluation.maps_file import SHARD_SIZE
from ..experiments.fit_predict import predict
from ..store.atomic_files import atomic_write, check_folder, describe_write_errors
from .detector_parts import DetectorParts, PredictionError
from .dicom import convert_series
from .inputs import NewFile, Problem, find_new_files, read_samples
from .journal import FinishedFile, Journal
from .outputs import write_arrays, write_outputs
from .predicted import PredictedFile, postprocess

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]

MAX_BYTES = 2**26
"""Bytes of samples that are read before they are predicted together, about."""

COLUMNS = (
    *("file", "sample", "group", "score", "decision", "p_value", "abnormal_share", "note"),
    "problem",
)
"""Of scores.csv."""

OnProgress = Callable[[str, int, int], None]
"""(name of a file, how many parts are done, of how many): is called as work goes on. A volume or
a picture is a part; a file of arrays has one for every few hundred samples."""


def ignore_progress(name: str, done: int, total: int) -> None:
    """Do nothing with the progress of a prediction.

    >>> from adbench.benchmark.prediction.predict import ignore_progress
    >>> ignore_progress("a.png", 0, 1)
    """


@dataclass(frozen=True)
class FilePredictions:
    """What a detector said of files, and where it was written.

    folder: with scores.csv, maps/, masks/ and so on
    rows: of scores.csv, the columns of COLUMNS
    problems: the files that could not be predicted, and why
    notes: on all of it, such as that there is no decision without enough calibration groups
    computed: how many files were predicted now; the others were done before

    >>> from adbench.benchmark.prediction.predict import FilePredictions
    >>> rows = [{"file": "a.png", "score": 0.75, "decision": "abnormal"}]
    >>> problems = [Problem("b.png", "is damaged")]
    >>> predictions = FilePredictions(Path("predicted"), rows, problems, [], computed=1)
    >>> predictions.to_frame()[["file", "score"]].values.tolist(), str(predictions.problems[0])
    ([['a.png', 0.75]], 'b.png: is damaged')
    """

    folder: Path
    rows: Sequence[Mapping[str, Any]]
    problems: Sequence[Problem]
    notes: Sequence[str]
    computed: int

    def to_frame(self) -> pandas.DataFrame:
        """scores.csv as a frame."""
        import pandas

        return pandas.DataFrame.from_records(list(self.rows), columns=[*COLUMNS])

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(na_rep="")


def predict_files(
    parts: DetectorParts,
    paths: Sequence[Path],
    folder: Path,
    *,
    rate: float = 0.05,
    maps: bool = True,
    dicom: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> FilePredictions:
    """Predict files and the files in folders, and write scores.csv, maps, masks and p-values.

    folder: where to write; an earlier prediction of the same detector in it is added to
    dicom: the folders hold DICOM series, which become volumes in inputs/ first
    rate: the p-value up to which a file is called abnormal: so many normal ones will be, too
    maps: false writes scores alone

    Raises PredictionError on a folder of another detector, StoreError on one that cannot be
    written, DataError where the detector's dataset reads no files.

    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.benchmark.prediction.predict import predict_files
    >>> from adbench.benchmark.registry.registry import Registry
    >>> from adbench.datasets.base import Spec
    >>> from adbench.datasets.folder import Folder
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> dataset, protocol = Folder(size=8, channels=1), Protocol(reducer="max")
    >>> dataset.spec = Spec(1, (8, 8))
    >>> method = Registry.read().method("intensity").build(dataset.spec)
    >>> parts = DetectorParts("intensity", method, dataset, 0, 0.5, protocol, TrainingContext(),
    ...                       images=None, pixels=None, identity={})
    >>> with TemporaryDirectory() as folder:
    ...     Image.fromarray(204 * np.eye(8, dtype=np.uint8)).save(f"{folder}/line.png")
    ...     _ = Path(folder, "damaged.png").write_text("no picture")
    ...     predictions = predict_files(parts, [Path(folder)], Path(folder, "predicted"))
    >>> [(row["file"], round(row["score"], 2)) for row in predictions.rows if "score" in row]
    [('line.png', 0.8)]
    >>> [problem.name for problem in predictions.problems]
    ['damaged.png']
    """
    check_folder(folder, "--to")
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        _claim(folder, parts)
        unreadable: list[Problem] = []
        if dicom:
            paths, unreadable = convert_series(paths, folder / "inputs")
        files, problems = find_new_files(parts.dataset, paths)
        options = json.dumps({"rate": rate, "maps": maps, **parts.identity})
        job = _Job(parts, folder, rate, maps, options, Journal(folder), on_progress)
        problems = [*unreadable, *problems, *job.run(files)]
        rows = job.finish(files, problems)
    notes = _notes(parts, rate)
    return FilePredictions(folder, rows, problems, notes, len(job.computed))


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Raise PredictionError while another process predicts into a folder."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise PredictionError(
            f"another adbench predict writes to {folder}: wait for it, or name another folder"
        ) from None


def _claim(folder: Path, parts: DetectorParts) -> None:
    """Note in a folder whose predictions it holds. Raises PredictionError if it is another's."""
    path = folder / "detector.json"
    try:
        earlier = json.loads(path.read_bytes())
    except FileNotFoundError:
        atomic_write(path, json.dumps(dict(parts.identity), indent=1))
        return
    except ValueError:
        earlier = None
    if earlier != json.loads(json.dumps(dict(parts.identity))):
        raise PredictionError(
            f"{folder} holds predictions of another detector or level (detector.json): name "
            "another folder with --to, or remove it"
        )


ReadFile = tuple[NewFile, list[Sample], list[str]]
"""A file, its samples (of arrays none: they are read part by part), and notes on them."""

Outcome = tuple[list[dict[str, Any]], list[str]]
"""Rows of scores.csv, and the paths of what was written."""


class _Job:
    """The prediction of some files into a folder.

    options: all that outputs depend on beside the files
    computed: names of the files that were predicted now
    """

    def __init__(
        self,
        parts: DetectorParts,
        folder: Path,
        rate: float,
        maps: bool,
        options: str,
        journal: Journal,
        on_progress: OnProgress,
    ) -> None:
        self.parts, self.folder, self.rate, self.maps = parts, folder, rate, maps
        self.options, self.journal, self.on_progress = options, journal, on_progress
        self.work = folder / ".unfinished"
        self.computed: list[str] = []
        self.done = self.total = 0

    def run(self, files: Sequence[NewFile]) -> list[Problem]:
        """Predict the files that are not done; return those that cannot be, and why."""
        to_do = [file for file in files if not self._is_finished(file)]
        self.total = sum(len(file.cases) for file in files)
        self.done = self.total - sum(len(file.cases) for file in to_do)
        problems: list[Problem] = []
        for batch in self._batches(to_do, problems):
            self.on_progress(batch[0][0].name, self.done, self.total)
            for file, outcome in self._predict(batch):
                if isinstance(outcome, Problem):
                    problems.append(outcome)
                else:
                    self.computed.append(file.name)
                    rows, outputs = outcome
                    self.journal.add(FinishedFile(file.name, self._stamp(file), rows, outputs))
            self.done += sum(len(file.cases) for file, samples, _ in batch if samples)
        self.on_progress("", self.total, self.total)
        return problems

    def finish(self, files: Sequence[NewFile], problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """Write scores.csv and the journal in the order of the files; return the rows."""
        shutil.rmtree(self.work, ignore_errors=True)
        for problem in problems:  # an earlier file of that name is not what is there now
            self.journal.finished.pop(problem.name, None)
        entries = self.journal.rewrite([file.name for file in files])
        rows = [dict(row) for entry in entries for row in entry.rows]
        rows += [{"file": problem.name, "problem": str(problem)} for problem in problems]
        _write_csv(self.folder / "scores.csv", rows)
        return rows

    def _is_finished(self, file: NewFile) -> bool:
        paths = (path for case in file.cases for path in case.files.values())
        if not all(path.exists() for path in paths):
            return False
        return self.journal.find(file.name, self._stamp(file)) is not None

    def _stamp(self, file: NewFile) -> str:
        keys = [case.name for case in file.cases]
        return f"{file.stamp()}; {file.output}; {keys}; {self.options}"

    def _batches(
        self, files: Sequence[NewFile], problems: list[Problem]
    ) -> Iterator[list[ReadFile]]:
        """Files to predict together, enough to fill a shard; a file of arrays alone."""
        dataset = self.parts.dataset
        assert isinstance(dataset, FileDataset)
        batch: list[ReadFile] = []
        for file in files:
            if file.kind == "arrays":
                yield [(file, [], [])]
                continue
            try:
                samples, notes = read_samples(dataset, file.cases[0])
            except DataError as error:
                problems.append(Problem(file.name, error.summary))
                self.done += 1
                continue
            batch.append((file, samples, notes))
            size = sum(sample.x.nbytes for _, some, _ in batch for sample in some)
            if sum(len(some) for _, some, _ in batch) >= SHARD_SIZE or size > MAX_BYTES:
                yield batch
                batch = []
        if batch:
            yield batch

    def _predict(self, batch: Sequence[ReadFile]) -> Iterator[tuple[NewFile, Outcome | Problem]]:
        """Every file of a batch with what became of it."""
        parts, first = self.parts, batch[0][0]
        try:
            if first.kind == "arrays":
                yield first, self._predict_arrays(first)
                return
            samples = [sample for _, some, _ in batch for sample in some]
            raw_score, raw_maps = self._predict_raw(samples, self.work / "batch.h5")
        except (DataError, NotFinite) as error:
            if len(batch) == 1:
                yield first, Problem(first.name, str(error).partition("\n")[0])
            else:  # which of them it is, each alone says
                for one in batch:
                    yield from self._predict([one])
            return
        start = 0
        for file, samples, notes in batch:
            rows = slice(start, start + len(samples))
            start += len(samples)
            maps = None if raw_maps is None else raw_maps[rows]
            predicted = postprocess(samples, raw_score[rows], maps, parts.protocol, parts.threshold)
            try:
                outputs = write_outputs(parts, file, predicted, self.folder) if self.maps else []
            except DataError as error:
                yield file, Problem(file.name, f"{file.name} {error.summary}")
                continue
            yield file, ([_row_of_file(parts, file, predicted, notes, self.rate)], outputs)

    def _predict_arrays(self, file: NewFile) -> Outcome:
        """The samples of an HDF5 file, part by part; a part that is done survives a kill."""
        parts, dataset = self.parts, self.parts.dataset
        assert isinstance(dataset, FileDataset)
        rows: list[dict[str, Any]] = []
        digest = hashlib.sha256(self._stamp(file).encode()).hexdigest()[:16]

        def predicted() -> Iterator[PredictedFile]:
            for i, case in enumerate(file.cases):
                self.on_progress(file.name, self.done, self.total)
                samples, notes = read_samples(dataset, case)
                path = self.work / f"{digest}-{i:06d}.h5"
                raw_score, raw_maps = self._predict_raw(samples, path, keep=True)
                part = postprocess(samples, raw_score, raw_maps, parts.protocol, parts.threshold)
                rows.extend(_rows_of_arrays(parts, file, part, notes, self.rate))
                self.done += 1
                yield part

        if self.maps:
            return rows, write_arrays(parts, file, predicted(), self.folder)
        for _ in predicted():
            pass
        return rows, []

    def _predict_raw(
        self, samples: Sequence[Sample], path: Path, *, keep: bool = False
    ) -> tuple[Array, Array | None]:
        """Scores (N,) and maps (N, *S) of samples at the detector's level; None without maps.

        path: where they are written first
        keep: take those that are there
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (keep and path.is_file()):
            context = replace(self.parts.context, on_event=ignore_event)
            levels = [self.parts.level]
            with describe_write_errors(path):
                predict(path, self.parts.method, samples, levels, context, name="new files")
        with h5py.File(path, "r") as file:
            maps = read_array(file, "map")[0] if "map" in file else None
            return read_array(file, "score")[0], maps


def _row_of_file(
    parts: DetectorParts, file: NewFile, predicted: PredictedFile, notes: list[str], rate: float
) -> dict[str, Any]:
    """The row of a volume or a picture: its score is the highest of its samples."""
    score = float(np.max(predicted.scores))
    row = {"file": file.name, "group": predicted.samples[0].group, "score": score}
    row |= _decision(parts, score, rate)
    if predicted.abnormal_share is not None:
        row["abnormal_share"] = predicted.abnormal_share
    return {**row, "note": "; ".join(notes)}


def _rows_of_arrays(
    parts: DetectorParts, file: NewFile, predicted: PredictedFile, notes: list[str], rate: float
) -> Iterator[dict[str, Any]]:
    for i, sample in enumerate(predicted.samples):
        score = float(predicted.scores[i])
        row = {"file": file.name, "sample": sample.key, "group": sample.group, "score": score}
        row |= _decision(parts, score, rate)
        if predicted.masks is not None:
            row["abnormal_share"] = float(predicted.masks[i].mean())
        yield {**row, "note": "; ".join(note for note in notes if sample.key in note)}


def _decision(parts: DetectorParts, score: float, rate: float) -> dict[str, Any]:
    """The p-value of a score, and whether it is abnormal; nothing without calibration samples."""
    if parts.images is None:
        return {}
    p_value = float(parts.images.p_values(np.array([score]))[0])
    decision = "abnormal" if p_value <= rate else "normal"
    return {"p_value": p_value} | ({"decision": decision} if parts.images.allows(rate) else {})


def _notes(parts: DetectorParts, rate: float) -> list[str]:
    if parts.images is None:
        return [
            "there are no p-values and no decisions: the record holds no calibration scores "
            "(adbench run evaluates it again)"
        ]
    if not parts.images.allows(rate):
        needed, there = int(np.ceil(1 / rate - 1e-9)) - 1, parts.images.groups
        return [
            f"there are no decisions: a rate of {100 * rate:g} % needs {needed} calibration "
            f"groups, and there are {there} (a higher --rate, or more normal data held out)"
        ]
    return []


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())
