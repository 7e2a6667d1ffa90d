"""AnoDDPM's data: heads of NFBS, tumours of Edinburgh."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.datasets.base import manifest
from adbench.datasets.nfbs_edinburgh import PATIENT_RANGES, NFBSEdinburgh

pytestmark = pytest.mark.usefixtures("cache")
EDINBURGH = "DATASETS/CancerousDataset/EdinburghDataset/Anomalous-T1"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, trees) -> Path:
    return trees.heads(tmp_path_factory.mktemp("heads"))


@pytest.fixture
def root(tmp_path, pristine) -> Path:
    return shutil.copytree(pristine, tmp_path / "heads")


def heads(root: Path, **more) -> NFBSEdinburgh:
    return NFBSEdinburgh(**{"root": str(root), "size": 24, "slices": (6, 12), **more})


def test_people_are_trained_on_and_patients_tested(root, trees):
    data = heads(root)
    trees.sound(data)
    assert trees.apart(data) and not data.spec.labels
    assert (len(data.train()), len(data.calibration()), len(data.val())) == (21, 7, 0)
    labels = {s.key: s.label for s in data.test()}
    want = {f"Edinburgh/1000{n}/z{z:03d}": 9 <= z < 13 for n in range(2) for z in range(4, 18)}
    assert labels == want  # five slices around a tumour in 9..12
    assert {s.tags["subject_status"] for s in data.test()} == {"diseased"}
    assert len(heads(root, ranges="all").test()) == 44
    assert [s.key[-3:] for s in heads(root, ranges="four").test()][:4] == [
        "009",
        "010",
        "011",
        "013",
    ]
    assert len(heads(root, val_share=0.5).val()) == 14


def test_the_authors_ranges_are_those_of_22_patients():
    assert len(PATIENT_RANGES) == 22 and all(
        start < stop for start, stop in PATIENT_RANGES.values()
    )
    slices = [np.linspace(a + 5, b - 5, 4).astype(int) for a, b in PATIENT_RANGES.values()]
    assert sum(len(set(each)) for each in slices) == 88
    assert PATIENT_RANGES["19723"] == (140, 170) and PATIENT_RANGES["18886"] == (120, 180)


@pytest.mark.parametrize("norm", ["window", "paper"])
def test_a_plane_is_windowed_over_the_whole_volume(root, norm):
    path = root / "DATASETS/Train/A00000000/sub-A00000000_ses-NFB3_T1w.nii.gz"
    volume = np.asarray(nib.Nifti1Image.from_filename(path).dataobj).astype(float)
    low, sd = volume.mean() - volume.std(), volume.std()
    clipped = np.clip(volume, low, low + 3 * sd)
    whole = (clipped - low) / (3 * sd) if norm == "window" else np.clip(clipped / (3 * sd), 0, 1)
    plane = np.where(volume != 0, whole, 0)[:, 8, :]
    data = heads(root, norm=norm)
    samples = {s.key: s for part in (data.train(), data.calibration()) for s in part}
    sample = samples["Train/A00000000/z008"]
    assert np.allclose(sample.x[0], np.pad(plane, ((0, 0), (3, 3))), atol=1e-5)
    assert sample.roi is not None
    assert np.array_equal(sample.roi, np.pad(volume[:, 8, :] > 0, ((0, 0), (3, 3))))


def test_the_authors_own_cache_is_read_and_none_is_written(root, trees):
    """Windowed volumes that their loader left: the same planes, but for what it cannot know."""
    before = trees.everything(heads(root))
    folder = root / "DATASETS/Train/A00000001"
    path = folder / "sub-A00000001_ses-NFB3_T1w.nii.gz"
    volume = np.asarray(nib.Nifti1Image.from_filename(path).dataobj).astype(float)
    low, sd = volume.mean() - volume.std(), volume.std()
    trees.store((np.clip(volume, low, low + 3 * sd) / (3 * sd)).astype(np.float32),
                folder / "A00000001.npy")  # fmt: skip
    shutil.rmtree(root / "DATASETS/Train/A00000000")
    names = sorted(p.name for p in root.rglob("*"))
    after = trees.everything(heads(root))
    key = "Train/A00000001/z008"
    clipped = volume.max() > low + 3 * sd
    shift = 0 if clipped else 1 - (volume.max() - low) / (3 * sd)
    inside = before[key].x > 0
    assert np.allclose(after[key].x[inside], before[key].x[inside] + shift, atol=1e-4)
    assert sorted(p.name for p in root.rglob("*")) == names


def test_published_test_folders_join_test(tmp_path, trees):
    trees.heads(tmp_path, tested=2)
    with pytest.warns(UserWarning, match="2 healthy people of another study"):
        data = heads(tmp_path)
        data.prepare()
    healthy = [s for s in data.test() if s.tags["subject_status"] == "healthy"]
    assert len(healthy) == 14 and not any(s.label for s in healthy)


def test_roots_above_relative_ones_and_moved_trees_are_the_same_data(
    root, tmp_path, monkeypatch, cache
):
    first = manifest(heads(root).test())
    monkeypatch.chdir(tmp_path)
    assert manifest(heads(Path("heads")).test()) == first
    assert manifest(heads(root / "DATASETS").test()) == first
    shutil.move(root, tmp_path / "moved")
    (tmp_path / "moved/DATASETS/Train/.DS_Store").write_bytes(b"\0")
    assert manifest(heads(tmp_path / "moved").test()) == first
    assert len(list(cache.glob("*.h5"))) == 1


@pytest.mark.parametrize(
    "row", ["1 truncated", "2 flipped byte", "3 checksum", "4 html", "4 plain", "6 nan", "7 inf"]
)
def test_all_bad_volumes_are_reported_and_nothing_is_cached(root, trees, cache, row):
    spoil, says = trees.SPOILS[row]
    for number in (1, 3):
        name = f"A0000000{number}"
        spoil(root / f"DATASETS/Train/{name}/sub-{name}_ses-NFB3_T1w.nii.gz")
    results = heads(root).verify()
    assert results.bad_cases == 2 and all(says in problem for problem in results.problems)
    assert trees.refused(heads(root)).summary.startswith("2 of 6 cases are unusable.")
    assert not list(cache.glob("*.h5"))


def test_arrays_that_are_wrong_are_reported(root, trees):
    base = root / EDINBURGH
    image = np.load(base / "raw_cleaned/10000.npy", allow_pickle=False)
    mask = np.load(base / "mask/10000.npy", allow_pickle=False)
    wrong = {
        "20000": (image[:-1], mask, "differ in shape: (21, 16, 20) and (22, 16, 20)"),
        "20001": (np.where(image > 0, np.nan, 0), mask, "voxels of NaN or inf"),
        "20002": (image, mask * 0, "mask/20002.npy marks no tumour"),
        "20003": (image[0], mask, "three axes of numbers are expected"),
        "20004": (image + 1j, mask, "complex"),
        "20005": (image[..., None].astype(object), mask, "holds Python objects"),
    }
    for number, (x, m, _) in wrong.items():
        np.save(base / f"raw_cleaned/{number}.npy", x, allow_pickle=True)
        trees.store(m, base / f"mask/{number}.npy")
    path = base / "raw_cleaned/20006.npy"
    path.write_bytes((base / "raw_cleaned/10000.npy").read_bytes()[:-99])
    trees.store(mask, base / "mask/20006.npy")
    trees.store(mask, base / "mask/30000.npy")
    trees.store(image, base / "raw_cleaned/30001.npy")
    (root / "DATASETS/Train/A00000009").mkdir()
    results = "\n".join(heads(root).verify().problems)
    for number, (_, _, says) in wrong.items():
        assert any(number in line and says in line for line in results.splitlines()), number
    assert "20006.npy is truncated or corrupt" in results
    assert "mask/30000.npy has no raw_cleaned/30000.npy" in results
    assert "Edinburgh/30001 has no mask/30001.npy" in results
    assert "Train/A00000009: expected one sub-A00000009_ses-NFB3_T1w.nii.gz" in results


def test_volumes_with_too_few_planes_and_copies_are_reported(root, trees):
    assert len(trees.refused(heads(root, slices=(6, 20))).problems) == 4
    folder = root / "DATASETS/Train"
    for number in (0, 1, 2):
        name = f"A0000000{number}"
        for end in ("T1w", "T1w_brainmask"):
            source = folder / f"A00000003/sub-A00000003_ses-NFB3_{end}.nii.gz"
            shutil.copy(source, folder / f"{name}/sub-{name}_ses-NFB3_{end}.nii.gz")
    results = heads(root).verify()
    assert any(
        "is a copy of Train/A0000000" in line for line in (*results.problems, *results.notes)
    )


def test_a_constant_volume_warns_and_is_not_trained_on(root, trees):
    name = min(trees.groups(heads(root))["train"])
    path = root / f"DATASETS/Train/{name}/sub-{name}_ses-NFB3_T1w.nii.gz"
    trees.rewrite(path, lambda volume: np.full_like(volume, 7))
    with pytest.warns(UserWarning, match="is constant"):
        assert name not in trees.groups(heads(root))["train"]


@pytest.mark.parametrize(
    "wrong", [{"slices": (9, 8)}, {"every": 0}, {"norm": "x"}, {"ranges": "x"}, {"val_share": 1}]
)
def test_arguments_that_make_no_sense_are_refused(root, wrong):
    with pytest.raises(ValueError):
        heads(root, **wrong)


def test_without_data_it_says_what_is_expected(tmp_path, trees):
    assert "DATASETS/Train/A00028185" in str(trees.refused(heads(tmp_path)))
    trees.heads(tmp_path, patients=0)
    assert "no patient is there" in str(trees.refused(heads(tmp_path)))
