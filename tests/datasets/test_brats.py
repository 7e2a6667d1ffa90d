from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adbench.datasets.base import DataError, manifest
from adbench.datasets.brats import BraTS
from adbench.datasets.splits.assignment import four_way_split
from small_brats import brats, everything, file, refused, rewrite, same, stored

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def root(tmp_path, five_cases) -> Path:
    return shutil.copytree(five_cases, tmp_path / "data")


# What the samples are


def test_the_four_splits_hold_what_the_contract_says(root, volumes):
    data = brats(root)
    train, more = data.train(), data.train(labelled=True)
    splits = {"train": more, "held_out": data.calibration(), "val": data.val(), "test": data.test()}
    groups = {name: {entry.group for entry in manifest(s)} for name, s in splits.items()}
    assert {name: len(g) for name, g in groups.items()} == {
        "train": 2, "held_out": 1, "val": 1, "test": 1
    }  # fmt: skip
    assert len(set.union(*groups.values())) == 5
    lesion = volumes.tumour().any((0, 1))
    for name, split in splits.items():
        labels = {split[n].key: split[n].label for n in range(len(split))}
        for group in groups[name]:
            levels = [z for z in range(3, 13) if name != "held_out" or not lesion[z]]
            assert {k: v for k, v in labels.items() if k.startswith(group)} == {
                f"{group}/z{z:03d}": lesion[z] for z in levels
            }
    assert not any(sample.label for sample in train) and len(train) == 2 * (~lesion[3:13]).sum()
    assert [e for e in manifest(more)][: len(train)] == manifest(train)
    for split in (more, data.calibration()):
        assert all(split[n].mask is None for n in range(len(split)))
    for sample in everything(data).values():
        assert sample.x.shape == (4, 24, 24) and sample.x.dtype == torch.float32
        assert sample.x.min() == 0 and sample.x.max() == 1
        assert sample.spacing == (1.0, 1.0) and sample.tags == {"subject_status": "diseased"}
    for split in (data.val(), data.test()):
        for sample in (split[n] for n in range(len(split))):
            assert sample.mask is not None and bool(sample.mask.any()) == sample.label


def test_a_slice_is_what_a_second_implementation_makes_of_it(root, volumes):
    sample = everything(brats(root, modalities=["flair", "t1"]))["BraTS20_Training_003/z008"]
    expected = []
    for name in ("flair", "t1"):
        array = stored(file(root, 3, name)).astype(np.float64)
        low, high = np.percentile(array[array > 0], [1, 99])
        plane = np.where(array > 0, np.clip((array - low) / (high - low), 0, 1), 0)[:, :, 8]
        expected.append(plane.T)  # the file is LPS: x to the left, y to the back
    assert np.allclose(sample.x.numpy(), expected, atol=1e-6)
    assert sample.roi is not None
    assert np.array_equal(sample.roi.numpy(), volumes.brain(30)[:, :, 8].T > 0)


def test_the_mask_lies_where_the_tumour_is(root, volumes):
    for path in root.glob("*/*_flair.nii.gz"):
        seg = stored(path.with_name(path.name.replace("flair", "seg")))
        rewrite(path, lambda image, seg=seg: np.where(seg > 0, 5000, image).astype(np.int16))
    data = brats(root, modalities=["flair"])
    results = [s for s in data.test() if s.label]
    assert len(results) == volumes.tumour().any((0, 1)).sum()
    for sample in results:
        assert sample.mask is not None and torch.equal(sample.x[0] >= 1, sample.mask)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "IPL", "SRA"])
def test_slices_do_not_depend_on_how_the_files_are_oriented(root, tmp_path, volumes, codes):
    volumes.tree(tmp_path / codes, codes=codes)
    assert same(brats(root), brats(tmp_path / codes))


def test_one_case_may_mix_orientations(root, tmp_path, volumes):
    shutil.copytree(root, tmp_path / "mixed")
    for number in range(1, 6):
        turned, where = volumes.turned(volumes.tumour(), "RAS")
        volumes.save(turned, file(tmp_path / "mixed", number, "seg"), where)
    assert same(brats(root), brats(tmp_path / "mixed"))


def test_rows_run_from_front_to_back_and_columns_from_right_to_left(root):
    def mark(image: np.ndarray) -> np.ndarray:
        image[12, 5, :], image[12, 18, :] = 2000, 1  # LPS: bright in front, dark behind
        image[5, 12, :], image[18, 12, :] = 2000, 1  # bright on the right, dark on the left
        return image

    for path in root.glob("*/*_t1.nii.gz"):
        rewrite(path, mark)
    x = brats(root, modalities=["t1"]).test()[5].x[0]
    assert [x[5, 12], x[18, 12], x[12, 5], x[12, 18]] == [1, 0, 1, 0]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("release", ["2020", "2021", "2023"])
def test_every_release_is_recognised(tmp_path, volumes, release, suffix):
    parent = "deep/MICCAI_BraTS2020_TrainingData" if release == "2020" else "train"
    volumes.tree(tmp_path / parent, count=4, release=release, suffix=suffix)
    for place in (tmp_path, tmp_path / parent):
        data = brats(place)
        keys = everything(data)
        assert len({key.split("/")[0] for key in keys}) == 4
    assert keys[volumes.NAMES[release].format(1) + "/z004"].x.shape == (4, 24, 24)


def test_visits_of_a_patient_stay_together(tmp_path, volumes):
    volumes.tree(tmp_path, count=4, release="2023")
    second = "BraTS-GLI-00002-001"
    volumes.case(tmp_path, 9, release="2023").rename(tmp_path / second)
    for path in (tmp_path / second).iterdir():
        path.rename(path.with_name(path.name.replace("BraTS-GLI-00009-000", second)))
    samples = everything(brats(tmp_path))
    assert samples[f"{second}/z003"].group == "BraTS-GLI-00002"
    assert len({s.group for s in samples.values()}) == 4


def test_files_of_other_programs_are_skipped(root):
    want = everything(brats(root)).keys()
    (root / "__MACOSX/BraTS20_Training_001").mkdir(parents=True)
    (root / ".ipynb_checkpoints/BraTS20_Training_002").mkdir(parents=True)
    for name in ("._BraTS20_Training_001_seg.nii.gz", ".DS_Store", "Thumbs.db", "notes.txt"):
        (root / "BraTS20_Training_001" / name).write_bytes(b"\0\5\26\7")
    (root / "name_mapping.csv").write_text("a,b")
    (root / "._BraTS20_Training_003").write_bytes(b"\0")
    assert everything(brats(root)).keys() == want


def test_every_takes_each_nth_slice_and_axial_includes_its_ends(root):
    levels = {key[-3:] for key in everything(brats(root, axial=[4, 10], every=3))}
    assert levels == {"004", "007", "010"}


def test_a_smaller_size_averages_areas(root):
    full, half = everything(brats(root)), everything(brats(root, size=12))
    assert half.keys() <= full.keys()
    for key, sample in half.items():
        want = full[key].x.unflatten(1, (12, 2)).unflatten(3, (12, 2)).mean((2, 4))
        assert torch.allclose(sample.x, want, atol=1e-6)
        assert sample.spacing == (2.0, 2.0)
        for name in ("mask", "roi"):
            now, was = getattr(sample, name), getattr(full[key], name)
            if now is not None:
                area = was.float().unflatten(0, (12, 2)).unflatten(2, (12, 2)).mean((1, 3))
                assert torch.equal(now, area > 0.5)


def test_a_larger_size_pads_and_a_crop_cuts_the_middle(root):
    full, large = everything(brats(root)), everything(brats(root, size=30))
    cut = everything(brats(root, size=22, crop=22))
    for key, sample in full.items():
        assert torch.equal(large[key].x, torch.nn.functional.pad(sample.x, (3, 3, 3, 3)))
        assert large[key].spacing == (1.0, 1.0)
        assert torch.equal(cut[key].x, sample.x[:, 1:-1, 1:-1])
    error = refused(brats(root, size=8, crop=16))
    assert len(error.problems) == 5 and "crop=16 cuts off a part of the brain" in error.problems[0]


def test_lesions_that_vanish_are_left_out_and_counted(root):
    for number in range(1, 6):

        def one_more(seg: np.ndarray) -> np.ndarray:
            seg[12, 12, 11] = 1  # a quarter of a pixel at half size
            return seg

        rewrite(file(root, number, "seg"), one_more)
    assert sum(key.endswith("z011") for key in everything(brats(root))) == 4  # not held_out
    with pytest.warns(UserWarning, match=r"fewer than 1 pixels .* at size 12 \(min_lesion\): 5"):
        small = everything(brats(root, size=12))
    assert not any(key.endswith("z011") for key in small)
    with pytest.warns(UserWarning, match=r"fewer than 2 pixels .* at size 24 \(min_lesion\): 5"):
        assert not any(k.endswith("z011") for k in everything(brats(root, min_lesion=2)))


def test_slices_without_enough_brain_are_left_out(root):
    assert not any(key.endswith("z000") for key in everything(brats(root, axial=(0, 12))))
    shares = {
        k: s.roi.float().mean() for k, s in everything(brats(root)).items() if s.roi is not None
    }
    remaining = everything(brats(root, min_brain=0.5))
    assert remaining.keys() == {key for key, share in shares.items() if share >= 0.5}
    assert 0 < len(remaining) < len(shares)
    error = refused(brats(root, min_brain=0.99))
    assert [
        f"no sample is left for {p}: widen axial, or min_brain"
        for p in ("train", "held_out", "test")
    ] == [*error.problems]


# Which subjects go where


@given(
    st.integers(4, 60),
    st.tuples(*[st.floats(0.01, 1)] * 4),
    st.integers(0, 9),
)
def test_every_split_gets_a_patient_and_none_two(count, weights, seed):
    patients = [f"p{n}" for n in range(count)]
    fractions = [weight / sum(weights) for weight in weights]
    split_of = four_way_split(patients, fractions, seed)
    assert set(split_of) == set(patients)
    assert set(split_of.values()) == {"train", "held_out", "val", "test"}
    assert four_way_split(patients[::-1], fractions, seed) == split_of


def test_the_seed_decides_the_splits(root):
    def groups(data: BraTS) -> set[str]:
        return {entry.group for entry in manifest(data.test())}

    patients = [f"BraTS20_Training_{number:03d}" for number in range(1, 6)]
    tested = []
    for seed in (0, 1):
        split_of = four_way_split(patients, (0.6, 0.1, 0.1, 0.2), seed)
        tested.append({name for name, split in split_of.items() if split == "test"})
        assert groups(brats(root, seed=seed)) == tested[-1]
    assert tested[0] != tested[1]


def test_of_three_patients_val_gets_none_and_two_cannot_be_split(tmp_path, volumes):
    volumes.tree(tmp_path, count=3)
    data = brats(tmp_path)
    parts = (data.train(), data.calibration(), data.val(), data.test())
    assert [len({entry.group for entry in manifest(part)}) for part in parts] == [1, 1, 0, 1]
    shutil.rmtree(tmp_path / "BraTS20_Training_002")
    assert "found 2 patients" in refused(brats(tmp_path)).summary


# When it is made, and when it is found


def test_a_prepared_file_is_found_by_content_wherever_the_files_lie(root, tmp_path, cache):
    brats(root).prepare()
    built = list(cache.glob("*.h5"))
    assert len(built) == 1
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(root, tmp_path / "elsewhere/deeper")
    for path in (tmp_path / "elsewhere").rglob("*.gz"):
        os.utime(path, (1, 1))
    brats(tmp_path / "elsewhere").prepare()
    assert list(cache.glob("*.h5")) == built
    rewrite(file(root, 2, "t2"), lambda image: image + (image == 400).astype(np.int16))
    brats(root).prepare()
    assert len(list(cache.glob("*.h5"))) == 2
    brats(root, every=2).prepare()
    assert len(list(cache.glob("*.h5"))) == 3


def test_preparing_reports_its_progress_and_is_done_once(root):
    output: list[tuple[str, int, int]] = []
    brats(root).prepare(lambda *facts: output.append(facts))
    assert [t for t in output if t[0] == "checking and reading"] == [
        ("checking and reading", n, 5) for n in range(1, 6)
    ]
    assert output[24] == ("reading files", 25, 25)
    output.clear()
    brats(root).prepare(lambda *facts: output.append(facts))
    assert {t[0] for t in output} == {"reading files"}


def test_files_that_are_not_used_do_not_matter(root):
    for path in root.glob("*/*_t2.nii.gz"):
        path.write_bytes(b"broken")
    file(root, 3, "t1").unlink()
    assert everything(brats(root, modalities=["flair", "t1ce"]))
    assert len(refused(brats(root)).problems) == 6


def test_a_file_that_changes_meanwhile_is_noticed(root):
    def later(what: str, done: int, total: int) -> None:
        if (what, done) == ("reading files", total):
            rewrite(file(root, 4, "t2"), lambda image: image + (image > 0).astype(np.int16))

    with pytest.raises(DataError) as caught:
        brats(root).prepare(later)
    assert "004_t2.nii.gz has changed" in caught.value.problems[0]


# When there is nothing, or too much


def test_without_data_it_says_what_to_do(tmp_path, monkeypatch, root):
    monkeypatch.delenv("ADBENCH_DATA", raising=False)
    message = str(refused(BraTS()))
    assert message == (
        "dataset 'brats' found no data: ADBENCH_DATA is not set and --data was not given.\n"
        "  Expected <root>/BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz"
        "   (adbench info brats)"
    )
    assert "nowhere is not there" in str(refused(brats(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    assert "no case lies under" in str(refused(brats(tmp_path / "empty")))
    monkeypatch.setenv("ADBENCH_DATA", str(root))
    BraTS(axial=(3, 12), size=24).prepare()


def test_a_case_in_two_folders_and_two_releases_are_refused(root, volumes):
    volumes.case(root / "copy", 1)
    assert "BraTS20_Training_001 and copy/BraTS20_Training_001" in refused(brats(root)).summary
    shutil.rmtree(root / "copy")
    volumes.case(root, 1, release="2021")
    assert "releases 2020 and 2021" in refused(brats(root)).summary


@pytest.mark.parametrize(
    "wrong",
    [
        {"modalities": ["T1"]},
        {"modalities": []},
        {"modalities": ["t1", "t1"]},
        {"axial": (9, 8)},
        {"axial": (1, 2, 3)},
        {"every": 0},
        {"fractions": (0.5, 0.5, 0.5, 0.5)},
        {"fractions": (1, 0, 0, 0)},
        {"size": None, "crop": 20},
        {"size": 24, "crop": 20},
        {"min_lesion": 0},
        {"nan": "mean"},
    ],
)
def test_arguments_that_make_no_sense_are_refused(root, wrong):
    with pytest.raises(ValueError, match="|".join(map(str, wrong))):
        brats(root, **wrong)
