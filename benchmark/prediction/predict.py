"""Predict new files with a trained detector, one after another, and write what it says of each.

A few files are in memory at a time, however many there are. What is done is noted in a journal, so
that the same command goes on after a kill; a bad file is a line among the problems, and the others
are done.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ...datasets.base import DataError, Dataset, Sample
from ...datasets.preparation.file_dataset import FileDataset
from ...engine.runtime.context import ignore_event
from ...engine.training.loss import NotFinite
from ..evaluation.hdf5_arrays import read_array
from ..experiments.fit_predict import SHARD_SIZE, predict
from ..store.atomic_files import atomic_write, check_folder
from .detector_parts import DetectorParts, PredictionError
from .dicom import convert_series
from .inputs import NewFile, Problem, find_new_files, read_samples
from .journal import FinishedFile, Journal
from .outputs import write_arrays, write_outputs
from .predicted import PredictedFile, postprocess

if TYPE_CHECKING:
    import pandas

MAX_BYTES = 2**26
"""Bytes of samples that are read before they are predicted together, about."""

COLUMNS = (
    *("file", "sample", "group", "score", "decision", "p_value", "abnormal_share", "note"),
    "problem",
)
"""Of scores.csv."""

OnProgress = Callable[[str, int, int], None]
"""(name of a file, how many files are done, of how many): is called as work goes on."""


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
    """
    check_folder(folder, "--to")
    _claim(folder, parts)
    unreadable: list[Problem] = []
    if dicom:
        paths, unreadable = convert_series(paths, folder / "inputs")
    files, problems = find_new_files(parts.dataset, paths)
    problems = [*unreadable, *problems]
    journal = Journal(folder)
    stamp = partial(_stamp, options=json.dumps({"rate": rate, "maps": maps, **parts.identity}))
    finished = {f.name for f in files if not _is_missing(f) and journal.find(f.name, stamp(f))}
    to_do = [file for file in files if file.name not in finished]
    done = len(finished)
    work = folder / ".unfinished"
    for batch in _batches(parts.dataset, to_do, problems):
        on_progress(batch[0][0].name, done, len(files))
        for file, outcome in _predict_batch(parts, batch, work, folder, rate, maps=maps):
            if isinstance(outcome, Problem):
                problems.append(outcome)
            else:
                journal.add(FinishedFile(file.name, stamp(file), *outcome))
        done += len(batch)
    on_progress("", len(files), len(files))
    shutil.rmtree(work, ignore_errors=True)
    bad = {problem.name for problem in problems}
    for name in bad & journal.finished.keys() - finished:
        del journal.finished[name]
    entries = journal.rewrite([file.name for file in files])
    rows = [row for entry in entries for row in entry.rows]
    rows += [{"file": problem.name, "problem": str(problem)} for problem in problems]
    _write_csv(folder / "scores.csv", rows)
    computed = len(to_do) - len(bad & {file.name for file in to_do})
    return FilePredictions(folder, rows, problems, _notes(parts, rate), computed)


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


def _is_missing(file: NewFile) -> bool:
    return any(not path.exists() for case in file.cases for path in case.files.values())


def _stamp(file: NewFile, *, options: str) -> str:
    return f"{file.stamp()}; {file.output}; {[case.name for case in file.cases]}; {options}"


ReadFile = tuple[NewFile, list[Sample], list[str]]
"""A file, its samples (of arrays none: they are read part by part), and notes on them."""


def _batches(
    dataset: Dataset, files: Sequence[NewFile], problems: list[Problem]
) -> Iterator[list[ReadFile]]:
    """Files to predict together: so many that a shard is full, and a file of arrays alone."""
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
            continue
        batch.append((file, samples, notes))
        size = sum(sample.x.nbytes for _, some, _ in batch for sample in some)
        if sum(len(some) for _, some, _ in batch) >= SHARD_SIZE or size > MAX_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


Outcome = tuple[list[dict[str, Any]], list[str]]
"""Rows of scores.csv, and the paths of what was written."""


def _predict_batch(
    parts: DetectorParts,
    batch: Sequence[ReadFile],
    work: Path,
    folder: Path,
    rate: float,
    *,
    maps: bool,
) -> Iterator[tuple[NewFile, Outcome | Problem]]:
    """Every file of a batch with what became of it."""
    if batch[0][0].kind == "arrays":
        file = batch[0][0]
        try:
            yield file, _predict_arrays(parts, file, work, folder, rate, maps=maps)
        except (DataError, NotFinite) as error:
            yield file, Problem(file.name, _first_line(error))
        return
    try:
        raw = _predict_raw(parts, [s for _, samples, _ in batch for s in samples], work)
    except NotFinite as error:
        if len(batch) == 1:
            yield batch[0][0], Problem(batch[0][0].name, _first_line(error))
        else:  # which of them it is, each alone says
            for one in batch:
                yield from _predict_batch(parts, [one], work, folder, rate, maps=maps)
        return
    start = 0
    for file, samples, notes in batch:
        rows = slice(start, start + len(samples))
        start += len(samples)
        score, maps_of_file = raw[0][rows], None if raw[1] is None else raw[1][rows]
        predicted = postprocess(samples, score, maps_of_file, parts.protocol, parts.threshold)
        try:
            outputs = write_outputs(parts, file, predicted, folder) if maps else []
        except DataError as error:
            yield file, Problem(file.name, f"{file.name} {error.summary}")
            continue
        yield file, ([_row_of_file(parts, file, predicted, notes, rate)], outputs)


def _predict_raw(
    parts: DetectorParts, samples: Sequence[Sample], work: Path, name: str = "batch"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores (N,) and maps (N, *S) of samples at the detector's level; (scores, None) without."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}.h5"
    context = replace(parts.context, on_event=ignore_event)
    predict(path, parts.method, samples, [parts.level], context, name="new files")
    return _read_raw(path)


def _read_raw(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with h5py.File(path, "r") as file:
        maps = read_array(file, "map")[0] if "map" in file else None
        return read_array(file, "score")[0], maps


def _predict_arrays(
    parts: DetectorParts, file: NewFile, work: Path, folder: Path, rate: float, *, maps: bool
) -> Outcome:
    """The samples of an HDF5 file, part by part. A part that is done is kept until the file is."""
    dataset = parts.dataset
    assert isinstance(dataset, FileDataset)
    rows: list[dict[str, Any]] = []

    def predicted() -> Iterator[PredictedFile]:
        for case in file.cases:
            samples, notes = read_samples(dataset, case)
            score, raw = _predict_raw(parts, samples, work)
            part = postprocess(samples, score, raw, parts.protocol, parts.threshold)
            rows.extend(_rows_of_arrays(parts, file, part, notes, rate))
            yield part

    if maps:
        return rows, write_arrays(parts, file, predicted(), folder)
    for _ in predicted():
        pass
    return rows, []


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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
