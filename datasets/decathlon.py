"""The Medical Segmentation Decathlon, as detectors of what is out of distribution use it: volumes
of one task are normal, those of all others are not.

Graham et al., "Unsupervised 3D out-of-distribution detection with latent diffusion models", MICCAI
2023, https://arxiv.org/abs/2307.03777, code https://github.com/marksgraham/ddpm-ood.

    Task01_BrainTumour/{imagesTr,labelsTr,imagesTs}/BRATS_001.nii.gz      (x, y, z, modality)
    Task01_BrainTumour/dataset.json

As there, one modality is taken, the middle 160 x 160 x 128 is cut out, resized to 128 x 128 x 128
by averages over areas, and every volume is scaled by its own extremes. They divide the task's
training images at random (80 to 20); here names and the seed decide. Nobody has drawn what is
abnormal, so there are no masks. Axes run up, back and to the patient's left, whatever the file's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch

from .base import Count, FourFractions, Many, Natural, Sample, Spec, Three, TwoFractions
from .io.directories import list_directory
from .io.folder_names import resolve_case
from .io.nifti import Volume, read_volume
from .io.nifti_names import SUFFIXES, is_nifti, nifti_stem
from .layouts.volume_pairs import find_new_subjects
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.file_dataset import FileDataset
from .splits.assignment import Case, assign_groups, check_fractions, four_way_split
from .transforms.crops import crop_and_resize, to_display_axes
from .transforms.input_grid import volume_to_sample
from .transforms.slices import volume_shape_text


class Decathlon(FileDataset):
    """Volumes (1, D, H, W) in 0..1; one task is normal, the others are abnormal.

    root: the folder that holds the tasks' folders, or the normal task's own; else $ADBENCH_DATA
    task: the normal one; the beginning of its name is enough, such as Task01
    others: the abnormal ones; None takes all that lie beside it
    channel: which modality, counted from 0, where images have several
    size: voxels up, back and left; one number for all three
    crop: the middle that is cut out before, along the same axes; None keeps everything
    fractions: of the normal task's training images in train, held_out, val and test
    abnormal: of the other tasks' images in val and test

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.decathlon import Decathlon
    >>> with TemporaryDirectory() as root:
    ...     for name in ("Task01_BrainTumour/imagesTr/BRATS_001.nii.gz",
    ...                  "Task09_Spleen/imagesTr/spleen_2.nii.gz"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = Decathlon().build_index(Path(root))
    >>> [(case.extra["task"], case.label) for case in index.cases]
    [('Task01_BrainTumour', False), ('Task09_Spleen', True)]
    """

    name = "decathlon"
    new_file_suffixes = SUFFIXES
    volume_grid = "display"
    expected = (
        "<root>/Task01_BrainTumour/{dataset.json,imagesTr/BRATS_001.nii.gz}, other tasks beside"
    )

    def __init__(
        self,
        *,
        root: str | None = None,
        task: str = "Task01_BrainTumour",
        others: Many[str] | None = None,
        channel: Natural = 0,
        size: Count | Three[Count] = 128,
        crop: Three[Count] | None = (128, 160, 160),
        fractions: FourFractions = (0.7, 0.1, 0.1, 0.1),
        abnormal: TwoFractions = (0.2, 0.8),
        seed: Natural = 0,
    ) -> None:
        extent = (size,) * 3 if isinstance(size, int) else tuple(size)
        if len(extent) != 3 or min(extent) < 1 or channel < 0:
            raise ValueError(f"size is one number or three, channel >= 0, not {size}, {channel}")
        if crop is not None and (len(crop) != 3 or min(crop) < 1):
            raise ValueError(f"crop is three numbers of voxels or None, not {crop}")
        self.root, self.task, self.channel, self.seed = root, task, channel, seed
        self.others = None if others is None else list(others)
        self.size, self.crop = list(extent), None if crop is None else list(crop)
        self.fractions = check_fractions(fractions, 4)
        self.abnormal = check_fractions([*abnormal][::-1], 2)[::-1]
        self.spec = Spec(channels=1, shape=extent, masks=False)

    def build_index(self, root: Path) -> DatasetIndex:
        root_is_task = _is_called(root, self.task) and resolve_case(root, "imagesTr").is_dir()
        base = root.parent if root_is_task else root
        tasks = [p for p in list_directory(base) if resolve_case(p, "imagesTr").is_dir()]
        normal_tasks = [path for path in tasks if _is_called(path, self.task)]
        if len(normal_tasks) != 1:
            available = ", ".join(path.name for path in tasks) or "no task"
            raise self.no_data_error(
                f"{self.task!r} is {len(normal_tasks)} tasks under {base} (there is {available})"
            )
        abnormal_tasks = [path for path in tasks if path != normal_tasks[0]]
        problems: list[str] = []
        if self.others is not None:
            tasks_of_name = {
                name: [p for p in abnormal_tasks if _is_called(p, name)] for name in self.others
            }
            problems += [
                f"there is no task {name} beside {normal_tasks[0].name}"
                for name in tasks_of_name
                if not tasks_of_name[name]
            ]
            abnormal_tasks = [
                path
                for path in abnormal_tasks
                if any(path in task_cases for task_cases in tasks_of_name.values())
            ]
        if not abnormal_tasks and not problems:
            problems.append(
                f"no task lies beside {normal_tasks[0].name}: others are what is abnormal, such as "
                "Task09_Spleen"
            )
        cases: list[Case] = []
        for path in (normal_tasks[0], *abnormal_tasks):
            task_cases, task_problems = _task_cases(path, abnormal=path != normal_tasks[0])
            cases += task_cases
            problems += task_problems
        left_out = {
            resolve_case(path, name): "masks and test images that this dataset does not use"
            for path in (normal_tasks[0], *abnormal_tasks)
            for name in ("labelsTr", "labelsTs", "imagesTr", "imagesTs")
            if resolve_case(path, name) not in {case.files["image"].parent for case in cases}
        }
        left_out |= {
            path: "another task than the chosen ones"
            for path in tasks
            if path not in (normal_tasks[0], *abnormal_tasks)
        }
        tables = [path / "dataset.json" for path in (normal_tasks[0], *abnormal_tasks)]
        tables = [path for path in tables if path.is_file()]
        return DatasetIndex(cases, problems, tables=tables, left_out=left_out)

    def find_new_cases(self, path: Path) -> DatasetIndex:
        subjects, problems = find_new_subjects(path, None)
        task = {"task": self.task}
        cases = [Case(s.name, s.name, s.files, label=False, extra=task) for s in subjects]
        return DatasetIndex(cases, problems)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        normal = {case.group for case in cases if not case.label}
        split_of_group = four_way_split(normal, self.fractions, self.seed)
        val, test = self.abnormal
        for task in {case.extra["task"] for case in cases if case.label}:
            task_groups = {c.group for c in cases if c.label and c.extra["task"] == task}
            split_of_group |= assign_groups(task_groups, {"test": test, "val": val}, self.seed)
        return {case.name: split_of_group[case.group] for case in cases}

    def read(self, case: Case) -> CaseSamples:
        name = f"{case.extra['task']}/{case.files['image'].parent.name}/{case.files['image'].name}"
        volume = read_volume(case.files["image"], name=name, channel=self.channel)
        data, spacing = to_display_axes(volume)
        x, spacing = crop_and_resize(torch.from_numpy(data), self.size, spacing, crop=self.crop)
        low, high = float(x.min()), float(x.max())
        constant = not low < high
        x = torch.zeros_like(x) if constant else ((x - low) / (high - low)).clip(0, 1)
        tags = {"task": str(case.extra["task"])}
        sample = Sample(
            x[None], case.name, case.group, bool(case.label), spacing=spacing, tags=tags
        )
        reason = f"{name} is constant: it becomes zeros, and no method trains on it"
        shape = volume_shape_text(volume.data.shape)
        return CaseSamples([sample], [reason] if constant else [], not constant, stored_shape=shape)

    def map_to_samples(self, volume: Volume) -> torch.Tensor:
        return volume_to_sample(volume, self.size, self.crop)


def _is_called(folder: Path, beginning: str) -> bool:
    return folder.name.casefold().startswith(beginning.casefold())


def _task_cases(folder: Path, *, abnormal: bool) -> tuple[list[Case], list[str]]:
    """Return the cases of a task and every problem: its training images, or of an abnormal task
    its test images, if it has any."""
    listed_names, problems = _listed_names(folder)
    test_images = _nifti_files(resolve_case(folder, "imagesTs")) if abnormal else []
    pool = "imagesTs" if test_images else "imagesTr"
    paths = {path.name: path for path in _nifti_files(resolve_case(folder, pool))}
    listed = listed_names.get(pool)
    if listed is not None:
        problems += [
            f"{folder.name}/{pool}/{name} is not there, but dataset.json names it"
            for name in listed
            if name not in paths
        ]
        problems += [
            f"{folder.name}/{pool}/{name} is not named in dataset.json"
            for name in paths
            if name not in listed
        ]
    cases = []
    for name, path in paths.items():
        subject = nifti_stem(name)
        case_name = f"{folder.name}/{pool}/{subject}"
        extra = {"task": folder.name}
        cases.append(Case(case_name, case_name, {"image": path}, pool, abnormal, extra))
    if not cases:
        problems.append(f"{folder.name}/{pool} holds no .nii.gz")
    return cases, problems


def _nifti_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in list_directory(folder) if is_nifti(path.name)]


def _listed_names(folder: Path) -> tuple[dict[str, set[str]], list[str]]:
    """Return the names of images in dataset.json, by folder, and problems; nothing without the
    file."""
    path = folder / "dataset.json"
    if not path.is_file():
        return {}, []
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = {
            "imagesTr": [row["image"] for row in content.get("training", [])],
            "imagesTs": [
                row["image"] if isinstance(row, dict) else row for row in content.get("test", [])
            ],
        }
        names = {k: {PurePosixPath(row).name for row in v} for k, v in rows.items() if v}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return {}, [f"{folder.name}/dataset.json cannot be read ({error})"]
    return names, []
