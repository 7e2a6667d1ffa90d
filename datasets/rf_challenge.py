"""RF Challenge: windows of radio recordings; one kind of signal is normal, the others are not.

MIT RF Challenge (ICASSP 2024 grand challenge), read as in github.com/ismaelmreno/ddpm-ood-signals:

    dataset/interferenceset_frame/<signal>_raw_data.h5        to train on
    dataset/testset1_frame/<signal>_test1_raw_data.h5         to evaluate on
        /dataset (frames, L) complex64, /sig_type, which signal

If the raw files are missing, the files that this repository makes of them are read:
<signal>_train.h5 and <signal>_val.h5, with windows as (N, 2, L) or (N, L, 2).

Three differences from its loader: frames are assigned to splits, not windows (there, windows of one
frame are in both splits); every window is evaluated under its own key; and norm="rms" scales each
frame to unit power, because the signals differ in power, and power alone should not be detected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .base import Count, DataError, Many, Natural, Positive, Sample, Spec, TwoFractions
from .io.complex_frames import FILE_NAME, POOL_FOLDERS, FrameLayout, read_frame, read_frame_layout
from .io.directories import find_files
from .io.hdf5_arrays import Array
from .preparation.array_dataset import find_duplicate_samples
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.file_dataset import FileDataset
from .splits.assignment import Case, assign_pools, check_fractions

MIN_PEAK = 0.02
"""Share of the range below which a frame's peak is too small for what float images resolve."""


class RFChallenge(FileDataset):
    """Windows of radio signals, (2, window): in-phase and quadrature part in 0..1.

    A value v becomes 0.5 + v / (2 scale), cut off at 0 and 1; 0.5 is silence. A sample depends on
    its own frame and the arguments only.

    root: the folder that holds dataset/, or dataset/ itself; else $ADBENCH_DATA
    signal: the signal that is normal
    others: the abnormal signals; None for all others in the data folder
    window: complex samples per window; a frame's last samples that fill no window are left out
    windows: largest number of windows per frame, evenly spaced; None for all
    norm: "rms" scales every frame to unit mean power, "none" keeps the recorded values
    scale: -scale becomes 0 and +scale becomes 1. With norm="rms", 4 is 12 dB above the mean power,
        which few values of any modulation reach; a note says how many were cut off. With "none",
        give the largest recorded amplitude
    fractions: of the training frames in train and held_out
    judged: of the test frames of every signal in val and test
    seed: decides which frames are in which split

    >>> import h5py
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.rf_challenge import RFChallenge
    >>> with TemporaryDirectory() as root:
    ...     for name in ("interferenceset_frame/CommSignal2_raw_data.h5",
    ...                  "testset1_frame/CommSignal2_test1_raw_data.h5",
    ...                  "testset1_frame/EMISignal1_test1_raw_data.h5"):
    ...         Path(root, name).parent.mkdir(exist_ok=True)
    ...         with h5py.File(Path(root, name), "w") as file:
    ...             file["dataset"] = np.ones((1, 64), np.complex64)
    ...             file["sig_type"] = name.partition("/")[2].partition("_")[0]
    ...     data = RFChallenge(window=16)
    ...     index = data.build_index(Path(root))
    ...     samples = data.read(index.cases[0]).samples
    >>> [(case.extra["signal"], case.pool, case.label) for case in index.cases]
    [('CommSignal2', 'train', False), ('CommSignal2', 'test', False), ('EMISignal1', 'test', True)]
    >>> len(samples), samples[0].x[:, 0]  # 0.5 + 1 / (2 * 4), and silence
    (4, tensor([0.6250, 0.5000]))
    """

    name = "rf-challenge"
    expected = (
        "<root>/dataset/{interferenceset_frame/CommSignal2_raw_data.h5,"
        "testset1_frame/CommSignal2_test1_raw_data.h5}"
    )

    def __init__(
        self,
        *,
        root: str | None = None,
        signal: str = "CommSignal2",
        others: Many[str] | None = None,
        window: Count = 3000,
        windows: Count | None = None,
        norm: Literal["rms", "none"] = "rms",
        scale: Positive = 4.0,
        fractions: TwoFractions = (0.9, 0.1),
        judged: TwoFractions = (0.3, 0.7),
        seed: Natural = 0,
    ) -> None:
        if norm not in ("rms", "none"):
            raise ValueError(f"norm is 'rms' or 'none', not {norm!r}")
        if window < 1 or not scale > 0 or (windows is not None and windows < 1):
            raise ValueError("window, windows and scale are positive numbers")
        if others is not None and signal in others:
            raise ValueError(f"{signal} cannot be normal and abnormal")
        self.root, self.signal, self.norm, self.scale, self.seed = root, signal, norm, scale, seed
        self.others = None if others is None else list(others)
        self.window, self.windows = window, windows
        self.fractions, self.judged = (
            check_fractions(fractions, 2),
            check_fractions(judged[::-1], 2)[::-1],
        )
        self.spec = Spec(2, (window,), labels=False, masks=False)
        self._layouts: dict[Path, FrameLayout] = {}

    def build_index(self, root: Path) -> DatasetIndex:
        files_of_signal, notes = self._signal_files(root)
        if self.signal not in files_of_signal:
            available = ", ".join(sorted(files_of_signal)) or "none"
            raise self.no_data_error(
                f"no file of {self.signal} lies under {root} (there is {available})"
            )
        others = [kind for kind in sorted(files_of_signal) if kind != self.signal]
        problems = [f"no file of {kind} is there" for kind in set(self.others or ()) - set(others)]
        cases: list[Case] = []
        for kind in [self.signal, *(others if self.others is None else self.others)]:
            pools = files_of_signal.get(kind, {})
            needed = ("train", "test") if kind == self.signal else ("test",)
            missing = [pool for pool in needed if not pools.get(pool)]
            if missing and kind in files_of_signal:
                problems += [f"{kind} has no file in {POOL_FOLDERS[pool]}" for pool in missing]
            for pool in needed:
                for path in pools.get(pool, ()):
                    try:
                        cases += self._frame_cases(path, kind, pool)
                    except DataError as error:
                        problems.append(error.summary)
        if len({case.extra["signal"] for case in cases}) < 2 and not problems:
            problems.append(f"only {self.signal} is there: no abnormal signal")
        recordings = (
            p for pools in files_of_signal.values() for some in pools.values() for p in some
        )
        reason = "frames of another signal than the chosen ones, or its training frames"
        return DatasetIndex(cases, problems, notes, left_out=dict.fromkeys(recordings, reason))

    def _signal_files(self, root: Path) -> tuple[dict[str, dict[str, list[Path]]], list[str]]:
        """Return the files of each signal and pool, raw ones if there are any, and notes."""
        root = root.parent if root.name in POOL_FOLDERS.values() else root
        raw: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        windowed: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for path in find_files(root, (".h5", ".hdf5"), 3):
            match = FILE_NAME.fullmatch(path.name)
            if match and (match["raw"] or match["part"]):
                pool = "test" if match["test"] else match["part"] or "train"
                (windowed if match["part"] else raw)[match["signal"]][pool].append(path)
        notes = []
        for kind, pools in sorted(windowed.items()):
            raw_files = raw[kind]
            if raw_files["train"]:
                continue
            raw_files["train"] += pools["train"]
            raw_files["train" if raw_files["test"] else "test"] += pools["val"]
            notes.append(
                f"{kind}: windows cut and assigned to splits before, from unknown frames; "
                "windows of one frame may be in several splits, and results too good"
            )
        return {kind: pools for kind, pools in raw.items() if any(pools.values())}, notes

    def _frame_cases(self, path: Path, kind: str, pool: str) -> list[Case]:
        """Return one case per frame of a file."""
        name = f"{path.parent.name}/{path.name}"
        frames = read_frame_layout(path, name, kind)
        if frames.length < self.window:
            finding = f"frames of {frames.length} samples, shorter than window={self.window}"
            raise DataError(f"{name} has {finding}")
        self._layouts[path] = frames
        file_part = path.stem.removeprefix(f"{kind}_").replace("raw_data", "").strip("_") or "train"
        cases = []
        for index in range(frames.n_frames):
            key, extra = f"{kind}/{file_part}/{index:05d}", {"signal": kind, "frame": index}
            cases.append(Case(key, key, {"image": path}, pool, kind != self.signal, extra))
        return cases

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        """Return the split of every case; every signal is in val and test in the same fractions."""
        training_fractions: dict[str, float] = dict(
            zip(("train", "held_out"), self.fractions, strict=True)
        )
        test_fractions: dict[str, float] = dict(
            zip(("test", "val"), self.judged[::-1], strict=True)
        )
        cases_of_signal: dict[str, list[Case]] = defaultdict(list)
        for case in cases:
            cases_of_signal[case.extra["signal"]].append(case)
        split_of: dict[str, str] = {}
        for signal_cases in cases_of_signal.values():
            split_of |= assign_pools(
                signal_cases, {"train": training_fractions, "test": test_fractions}, self.seed
            )
        return split_of

    def read(self, case: Case) -> CaseSamples:
        frame = self._read_frame(case)
        if not np.isfinite(frame).all():
            nonfinite = int((~np.isfinite(frame)).sum())
            raise DataError(f"{case.name} holds {nonfinite} values that are NaN or inf")
        rms = float(np.sqrt(np.square(frame, dtype=np.float64).sum(0).mean()))
        constant = bool((frame == frame[:, :1]).all())
        values = (
            frame / np.float32((rms or 1) if self.norm == "rms" else 1) / np.float32(self.scale)
        )
        samples = []
        for index in self._window_indices(frame.shape[1] // self.window):
            window_values = values[:, index * self.window : (index + 1) * self.window]
            x = torch.from_numpy(np.clip(0.5 + 0.5 * window_values, 0, 1).astype(np.float32))
            key, tags = f"{case.name}/{index:04d}", {"signal": case.extra["signal"]}
            samples.append(Sample(x, key, case.group, bool(case.label), tags=tags))
        peak = float(np.abs(values).max())
        counts = {
            f"values beyond scale={self.scale:g} that were cut off": int(
                (np.abs(values) > 1).sum()
            ),
            f"frames that fill less than {MIN_PEAK:.0%} of the range (give a smaller scale)": int(
                peak < MIN_PEAK and not constant
            ),
        }
        notes = (
            [f"{case.name} holds one value only, and no method trains on it"] if constant else []
        )
        return CaseSamples(samples, notes, not constant, counts)

    def _window_indices(self, count: int) -> Iterable[int]:
        """Return the indices of the windows of a frame that become samples.

        count: windows that the frame holds
        """
        if self.windows is None or self.windows >= count:
            return range(count)
        return [int((k + 0.5) * count / self.windows) for k in range(self.windows)]

    def _read_frame(self, case: Case) -> Array:
        path = case.files["image"]
        return read_frame(path, case.name, self._layouts[path], case.extra["frame"])

    def _find_copies(
        self, cases: Iterable[Case], digests: Mapping[Path, str], split_of: Mapping[str, str]
    ) -> tuple[list[str], list[str]]:
        """Return copied frames in addition to copied files."""
        problems, notes = super()._find_copies(cases, digests, split_of)
        if problems:  # a whole file: no need to list all of its frames
            return problems, notes

        def frames():
            for case in cases:
                try:
                    yield case.name, split_of[case.name], self._read_frame(case)
                except (DataError, KeyError):
                    continue  # reported when it is read

        duplicates = find_duplicate_samples(frames())
        return problems + duplicates[0], notes + duplicates[1]
