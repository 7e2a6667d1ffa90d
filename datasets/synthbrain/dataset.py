"""SynthBrain: synthetic brain MRI with and without lesions; nothing to download.

The tissue maps of the ICBM152 template, deformed into any number of subjects, four MRI modalities,
graded lesions, and for every slice with a lesion the same slice without it (the healthy
counterpart). assets/synthbrain.md says what it can and cannot show about a method.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from msgspec import Meta

from ..base import Count, DataError, Many, Natural, Progress, Sample, Spec, no_progress
from ..preparation.prepared_dataset import PreparedDataset
from ..preparation.prepared_file import prepare_once
from ..preparation.writer import SampleWriter
from .lesions import SIZES, LesionPlan
from .rendering import MODALITIES
from .subject import MIN_LESION_AREA, NORMS, Subject, ViewGrid, make_subject
from .tissue_maps import ASSET

FIELD_OF_VIEW = 216.0  # mm, of view along y and x

ROLES = ("train", "train-abnormal", "held_out", "val", "val-abnormal", "test", "test-abnormal")
"""What people are made for. The i-th person of role r is number 1000 r + i, whatever the counts:
to ask for more people changes none."""

CODE_FOLDERS = (Path(__file__).parent, Path(__file__).parents[1] / "transforms")
"""The folders whose code generates the samples; all of it counts for the cache key."""

MODALITY_SETS = {"4ch": MODALITIES, **{name: (name,) for name in MODALITIES}}


Modality = Literal["t1", "t2", "flair", "t1ce"]
Role = Literal[
    "train", "train-abnormal", "held_out", "val", "val-abnormal", "test", "test-abnormal"
]


class Preset(NamedTuple):
    """Size of a dataset.

    subjects: number of each of ROLES
    heights: of the slices in mm, each a 2-D sample; () for volumes
    size: pixels along each side

    >>> PRESETS["tiny"].size
    32
    """

    subjects: tuple[int, ...]
    heights: tuple[float, ...]
    size: int


PRESETS = {
    "tiny": Preset((8, 4, 2, 2, 2, 4, 4), (6.0,), 32),
    "demo": Preset((120, 24, 8, 8, 16, 32, 48), (-4.0, 6.0, 16.0, 26.0, 36.0), 32),
    "default": Preset((200, 60, 20, 20, 40, 100, 200), (-4.0, 6.0, 16.0, 26.0, 36.0), 64),
    "hires": Preset((400, 120, 40, 40, 80, 200, 400), tuple(range(-18, 45, 4)), 128),
    "vol": Preset((60, 20, 5, 5, 10, 30, 60), (), 96),
}


class SynthBrain(PreparedDataset):
    """Synthetic brain MRI, as slices or volumes.

    preset: number of subjects, slices and pixels; one of PRESETS
    modalities: names out of t1, t2, flair, t1ce, or "4ch" for all, or one name
    size: pixels along each side, in place of the preset's
    subjects: number of subjects by role (one of ROLES), in place of the preset's
    seed: another seed gives other subjects
    norm: "healthy_ref" maps the 1st and 99th percentile of the healthy counterpart's brain to 0 and
        0.8; "p1p99" maps those of the image itself to 0 and 1, as the papers do, by which a bright
        lesion darkens all the rest

    >>> SynthBrain(preset="tiny", modalities="flair").spec
    Spec(channels=1, shape=(32, 32), labels=True, masks=True)
    """

    synthetic: ClassVar[bool] = True

    def __init__(
        self,
        *,
        preset: Literal["tiny", "demo", "default", "hires", "vol"] = "default",
        modalities: Literal["4ch"] | Modality | Many[Modality] = "4ch",
        size: Count | None = None,
        subjects: Mapping[Role, Annotated[int, Meta(ge=0, le=1000)]] | None = None,
        seed: Natural = 0,
        norm: Literal["healthy_ref", "p1p99"] = "healthy_ref",
    ) -> None:
        _check_choice("preset", preset, PRESETS)
        _check_choice("norm", norm, NORMS)
        if isinstance(modalities, str):
            _check_choice("modalities", modalities, MODALITY_SETS)
            modalities = MODALITY_SETS[modalities]
        for name in modalities:
            _check_choice("modalities", name, MODALITIES)
        for role, count in (subjects or {}).items():
            _check_choice("subjects", role, ROLES)
            if not 0 <= count <= 1000:
                raise ValueError(f"subjects: {role} may be 0 to 1000 people, not {count}")
        settings = PRESETS[preset]
        self.modalities, self.seed, self.norm = tuple(modalities), seed, norm
        self.subjects = dict(zip(ROLES, settings.subjects, strict=True)) | dict(subjects or {})
        self.volumes = not settings.heights
        size = settings.size if size is None else size
        self.view = _make_view(settings.heights, size)
        shape = (len(self.view.heights), size, size) if self.volumes else (size, size)
        self.spec = Spec(channels=len(self.modalities), shape=shape,
            labels=self.subjects["train-abnormal"] > 0)  # fmt: skip

    @property
    def cache_key_inputs(self) -> dict[str, object]:
        """Everything that the samples depend on, including the code that generates them."""
        return {
            "subjects": self.subjects,
            "modalities": list(self.modalities),
            "heights": list(self.view.heights),
            "size": self.view.size,
            "mm": self.view.mm,
            "volumes": self.volumes,
            "seed": self.seed,
            "norm": self.norm,
            "asset": hashlib.sha256(ASSET.read_bytes()).hexdigest(),
            "code": _code_digest(),
        }

    def prepared_file(self, progress: Progress = no_progress) -> Path:
        return prepare_once(
            "synthbrain",
            self.cache_key_inputs,
            lambda out: self._write_subjects(out, progress),
            spec=self.spec,
        )

    def _write_subjects(self, writer: SampleWriter, progress: Progress) -> None:
        """Generate all subjects, a few at a time on every core, and write them in one order."""
        subject_ids = [(role, i) for role in ROLES for i in range(self.subjects[role])]
        remaining = [
            subject_id for subject_id in subject_ids if not writer.has_unit(_unit_name(subject_id))
        ]
        progress("people", done := len(subject_ids) - len(remaining), len(subject_ids))
        with ThreadPoolExecutor(cores := _usable_cores()) as pool:
            for start in range(0, len(remaining), 4 * cores):
                chunk = remaining[start : start + 4 * cores]
                for subject_id, samples in zip(
                    chunk, pool.map(self._make_samples, chunk), strict=True
                ):
                    role = subject_id[0]
                    part = role if role == "train-abnormal" else role.partition("-")[0]
                    for sample in samples:
                        writer.add(part, sample)
                    writer.finish_unit(_unit_name(subject_id))
                    progress("people", done := done + 1, len(subject_ids))

    def _make_samples(self, subject_id: tuple[str, int]) -> list[Sample]:
        role, index = subject_id
        number = 1000 * ROLES.index(role) + index
        plan = LesionPlan.for_index(index) if role.endswith("abnormal") else None
        try:
            subject = make_subject(self.seed, number, plan, self.view, self.norm)
        except RuntimeError as error:
            raise DataError(
                f"person {number} of seed {self.seed} could not be made: {error}"
            ) from None
        return list(self._slice_samples(subject, f"s{number:04d}", plan))

    def _slice_samples(
        self, subject: Subject, group: str, plan: LesionPlan | None
    ) -> Iterator[Sample]:
        """Yield a sample of each slice, or one of the volume.

        Slices of a subject with a lesion that show too little of it are neither normal nor
        abnormal, and are left out.
        """
        channels = [MODALITIES.index(name) for name in self.modalities]
        tags = {"lesion": "none", "contrast": "none", "size": "none"}
        if plan is not None:
            tags = {"lesion": plan.kind, "contrast": f"{plan.contrast}", "size": SIZES[plan.size]}
        selections = [(group, np.s_[:])]
        if not self.volumes:
            selections = [
                (f"{group}/z{h:+03.0f}", np.s_[k]) for k, h in enumerate(self.view.heights)
            ]
        for key, selection in selections:
            mask = subject.mask[selection]
            if (
                plan is not None
                and not self.volumes
                and mask.sum() * self.view.mm**2 < MIN_LESION_AREA
            ):
                continue
            yield Sample(
                x=torch.from_numpy(np.ascontiguousarray(subject.x[channels][:, selection])),
                key=key,
                group=group,
                label=plan is not None,
                mask=torch.from_numpy(mask.copy()),
                roi=torch.from_numpy(subject.roi[selection].copy()),
                spacing=(self.view.mm,) * mask.ndim,
                tags=tags,
                counterpart=torch.from_numpy(
                    np.ascontiguousarray(subject.counterpart[channels][:, selection])
                ),
            )


def _unit_name(subject_id: tuple[str, int]) -> str:
    return f"{subject_id[0]}/{subject_id[1]}"


def _make_view(heights: tuple[float, ...], size: int) -> ViewGrid:
    if size < 16 or size % 8:
        raise ValueError(f"size is a multiple of 8 from 16 pixels on, not {size}")
    mm = FIELD_OF_VIEW / size
    if heights:
        return ViewGrid(heights, size, mm)
    middle = -4.0  # of the brain from its lowest to its highest point
    return ViewGrid(
        tuple(middle + (k - (size - 1) / 2) * mm for k in range(size)), size, mm, supersampling=1
    )


def _code_digest(folders: Sequence[Path] = CODE_FOLDERS) -> str:
    """Return a digest of all Python files in the folders, without comments, docstrings, layout."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            state = path.stat()
            code = _code_text(path, state.st_mtime_ns, state.st_size)
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            digest.update(f"{name}\n{code}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _code_text(path: Path, changed: int, size: int) -> str:
    """Return what Python reads in a file, as text; parsed once for its time of change and size."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
    return ast.dump(tree)


def _usable_cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_choice(argument: str, value: str, choices: Sequence[str] | Mapping[str, object]) -> None:
    if value not in choices:
        raise ValueError(f"{argument}: {value!r} is none of {', '.join(choices)}")
