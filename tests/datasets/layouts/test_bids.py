"""BIDS as a layout of a user's own volumes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.datasets.base import DataError
from adbench.datasets.volumes import Volumes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / "cache"))


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def brain(seed: int) -> np.ndarray:
    values = np.zeros((16, 18, 8), np.float32)
    values[3:13, 3:15, 1:7] = 20 + 100 * np.random.default_rng(seed).random((10, 12, 6))
    return values


LESION = np.zeros((16, 18, 8), np.uint8)
LESION[5:9, 5:9, 3:5] = 1


def study(
    root: Path, *, suffixes=("T1w",), masks="derivatives/lesions/{}_label-lesion_mask.nii.gz"
) -> Path:
    """Ten subjects, of whom two have two sessions and four a lesion."""
    for number in range(10):
        for session in (1, 2) if number < 2 else (1,):
            name = f"sub-{number:02d}_ses-{session}"
            place = f"sub-{number:02d}/ses-{session}/anat/{name}"
            for index, suffix in enumerate(suffixes):
                save(root / f"{place}_{suffix}.nii.gz", brain(100 * number + 10 * session + index))
            if number > 5 and masks:
                save(root / masks.format(place), LESION)
    (root / "dataset_description.json").write_text("{}")
    return root


def participants(root: Path, column: str = "group") -> None:
    lines = [f"sub-{n:02d}\t{'glioma' if n > 5 else 'Control'}" for n in range(10)]
    (root / "participants.tsv").write_text("\n".join([f"participant_id\t{column}", *lines]))


def own(root: Path, **more) -> Volumes:
    return Volumes(root=str(root), size=24, **more)


def test_age_sex_and_site_become_tags(tmp_path) -> None:
    study(tmp_path)
    lines = [f"{n:02d}\t{30 + n}\t{'n/a' if n == 3 else 'F'}\tsmoker" for n in range(10)]
    text = "\n".join(["participant_id\tAge\tsex\thabit", *lines])
    (tmp_path / "participants.tsv").write_text(text)
    data = own(tmp_path)
    for part in ("train", "held_out", "val", "test"):
        for sample in _samples(data, part):
            number = int(sample.group.removeprefix("sub-"))
            assert sample.tags["age"] == str(30 + number) and "habit" not in sample.tags
            assert sample.tags.get("sex") == (None if number == 3 else "F")


def test_lesion_masks_say_who_is_abnormal(tmp_path) -> None:
    data = own(study(tmp_path))
    report = data.verify()
    assert not report.problems and report.files_read == 12 + 4
    assert data.spec.masks
    test = [data.test()[i] for i in range(len(data.test()))]
    assert {s.tags["subject_status"] for s in test} == {"healthy", "diseased"}
    assert all(s.label == bool(s.mask is not None and s.mask.any()) for s in test)
    groups = {s.group for part in ("train", "held_out") for s in _samples(data, part)}
    assert all(group.startswith("sub-") and "/" not in group for group in groups)


def _samples(data, part):
    split = data.get_split(part)
    return [split[i] for i in range(len(split))]


@pytest.mark.parametrize(
    "masks",
    ["derivatives/manual/{}_mask.nii.gz", "{}_label-L_desc-T1lesion_mask.nii.gz", "{}_roi.nii.gz"],
)
def test_masks_have_several_names(tmp_path, masks) -> None:
    report = own(study(tmp_path, masks=masks)).verify()
    assert not report.problems and report.files_read == 16 and report.samples["test"]


def test_the_table_of_participants_says_who_is_abnormal(tmp_path) -> None:
    study(tmp_path, masks="")
    participants(tmp_path, "diagnosis")
    data = own(tmp_path)
    data.prepare()
    test = _samples(data, "test")
    assert {s.tags.get("kind") for s in test if s.label} == {"glioma"}
    assert not data.spec.masks
    assert own(tmp_path).verify().files_read == 12 + 1


def test_sessions_of_one_subject_stay_together(tmp_path) -> None:
    data = own(study(tmp_path), group=None)
    where = [
        {s.group for s in _samples(data, part)} for part in ("train", "held_out", "val", "test")
    ]
    assert sum(map(len, where)) == len(set().union(*where)) == 10


def test_several_contrasts_are_asked_for_or_become_channels(tmp_path) -> None:
    study(tmp_path, suffixes=("T1w", "FLAIR"))
    (problem,) = own(tmp_path).verify().problems[:1]
    assert "2 kinds (FLAIR, T1w)" in problem and "modalities=[FLAIR]" in problem
    data = own(tmp_path, modalities=["FLAIR", "T1w"])
    data.prepare()
    assert data.spec.channels == 2
    report = own(tmp_path, modalities=["T1w"]).verify()
    assert not report.problems
    assert {f.reason: f.count for f in report.left_out}["its suffix is not one of modalities"] == 12


def test_what_is_no_anatomy_is_left_out_and_named(tmp_path) -> None:
    study(tmp_path)
    save(tmp_path / "sub-00/ses-1/func/sub-00_ses-1_task-rest_bold.nii.gz", brain(1))
    save(tmp_path / "derivatives/prep/sub-00/sub-00_ses-1_desc-preproc_T1w.nii.gz", brain(2))
    save(tmp_path / "derivatives/prep/sub-00/sub-00_ses-1_desc-brain_mask.nii.gz", LESION)
    report = own(tmp_path).verify()
    assert not report.problems
    reasons = {Path(files.names[0]).name: files.reason for files in report.left_out}
    assert "only anatomical" in reasons["sub-00_ses-1_task-rest_bold.nii.gz"]
    assert "derived image" in reasons["sub-00_ses-1_desc-preproc_T1w.nii.gz"]
    assert "no lesion mask" in reasons["sub-00_ses-1_desc-brain_mask.nii.gz"]


def test_nobody_abnormal_or_nobody_normal_is_reported_with_the_remedy(tmp_path) -> None:
    study(tmp_path, masks="")
    with pytest.raises(DataError, match="no subject is abnormal: neither does participants"):
        own(tmp_path).prepare()
    participants(tmp_path)
    table = tmp_path / "participants.tsv"
    table.write_text(table.read_text().replace("Control", "glioma"))
    with pytest.raises(DataError, match="no subject is normal: all are glioma by group"):
        own(tmp_path).prepare()
