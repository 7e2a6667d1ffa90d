from __future__ import annotations

import gzip
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adbench.datasets.base import DataError, Sample, content_hash, manifest
from adbench.datasets.brats import BraTS
from adbench.datasets.placing import fourfold

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, volumes) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    volumes.tree(root, count=5)
    return root


@pytest.fixture
def root(tmp_path, pristine) -> Path:
    return shutil.copytree(pristine, tmp_path / "data")


def brats(root: Path, **how) -> BraTS:
    return BraTS(**{"root": str(root), "axial": (3, 12), "size": 24, **how})


def everything(data: BraTS) -> dict[str, Sample]:
    parts = [data.train(labelled=True), data.held_out(), data.val(), data.test()]
    return {part[n].key: part[n] for part in parts for n in range(len(part))}


def same(one: BraTS, other: BraTS) -> bool:
    a, b = everything(one), everything(other)
    return a.keys() == b.keys() and all(content_hash(a[k]) == content_hash(b[k]) for k in a)


def refused(data: BraTS) -> DataError:
    with pytest.raises(DataError) as caught:
        data.prepare()
    return caught.value


def file(root: Path, number: int, name: str) -> Path:
    case = f"BraTS20_Training_{number:03d}"
    return root / case / f"{case}_{name}.nii.gz"


def load(path: Path) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_filename(path)


def stored(path: Path) -> np.ndarray:
    return np.asarray(load(path).dataobj)


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine=None) -> None:
    image = load(path)
    where = image.affine if affine is None else affine
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), where), path)


# What the samples are


def test_the_four_splits_hold_what_the_contract_says(root, volumes):
    data = brats(root)
    train, more = data.train(), data.train(labelled=True)
    splits = {"train": more, "held_out": data.held_out(), "val": data.val(), "test": data.test()}
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
    for split in (more, data.held_out()):
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
    found = [s for s in data.test() if s.label]
    assert len(found) == volumes.tumour().any((0, 1)).sum()
    for sample in found:
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


def test_files_of_other_programs_are_overlooked(root):
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
    kept = everything(brats(root, min_brain=0.5))
    assert kept.keys() == {key for key, share in shares.items() if share >= 0.5}
    assert 0 < len(kept) < len(shares)
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
    split_of = fourfold(patients, fractions, seed)
    assert set(split_of) == set(patients)
    assert set(split_of.values()) == {"train", "held_out", "val", "test"}
    assert fourfold(patients[::-1], fractions, seed) == split_of


def test_the_seed_decides_the_splits(root):
    def groups(data: BraTS) -> set[str]:
        return {entry.group for entry in manifest(data.test())}

    patients = [f"BraTS20_Training_{number:03d}" for number in range(1, 6)]
    tested = []
    for seed in (0, 1):
        split_of = fourfold(patients, (0.6, 0.1, 0.1, 0.2), seed)
        tested.append({name for name, split in split_of.items() if split == "test"})
        assert groups(brats(root, seed=seed)) == tested[-1]
    assert tested[0] != tested[1]


def test_of_three_patients_val_gets_none_and_two_cannot_be_split(tmp_path, volumes):
    volumes.tree(tmp_path, count=3)
    data = brats(tmp_path)
    parts = (data.train(), data.held_out(), data.val(), data.test())
    assert [len({entry.group for entry in manifest(part)}) for part in parts] == [1, 1, 0, 1]
    shutil.rmtree(tmp_path / "BraTS20_Training_002")
    assert "found 2 patients" in refused(brats(tmp_path)).summary


# When it is made, and when it is found


def test_a_prepared_file_is_found_by_content_wherever_the_files_lie(root, tmp_path, cache):
    brats(root).prepare()
    made = list(cache.glob("*.h5"))
    assert len(made) == 1
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(root, tmp_path / "elsewhere/deeper")
    for path in (tmp_path / "elsewhere").rglob("*.gz"):
        os.utime(path, (1, 1))
    brats(tmp_path / "elsewhere").prepare()
    assert list(cache.glob("*.h5")) == made
    rewrite(file(root, 2, "t2"), lambda image: image + (image == 400).astype(np.int16))
    brats(root).prepare()
    assert len(list(cache.glob("*.h5"))) == 2
    brats(root, every=2).prepare()
    assert len(list(cache.glob("*.h5"))) == 3


def test_preparing_tells_how_far_it_is_and_is_done_once(root):
    told: list[tuple[str, int, int]] = []
    brats(root).prepare(lambda *facts: told.append(facts))
    assert [t for t in told if t[0] == "checking and reading"] == [
        ("checking and reading", n, 5) for n in range(1, 6)
    ]
    assert told[24] == ("reading files", 25, 25)
    told.clear()
    brats(root).prepare(lambda *facts: told.append(facts))
    assert {t[0] for t in told} == {"reading files"}


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


def test_a_case_in_two_places_and_two_releases_are_refused(root, volumes):
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


# The catalogue of errors: two cases of five are broken, both are told, nothing is kept


def _cut(path: Path, volumes) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _flip(path: Path, volumes) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)


def _checksum(path: Path, volumes) -> None:
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)


def _html(path: Path, volumes) -> None:
    path.write_bytes(b"<!DOCTYPE html><title>Sign in</title>")


def _pointer(path: Path, volumes) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def _plain(path: Path, volumes) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def _with(value: float, dtype: type = np.float32) -> Callable[[Path, object], None]:
    def spoil(path: Path, volumes: object) -> None:
        def put(image: np.ndarray) -> np.ndarray:
            image = image.astype(dtype)
            image[12, 12, 8] = value
            return image

        rewrite(path, put)

    return spoil


def _empty(path: Path, volumes) -> None:
    rewrite(path, np.zeros_like)


def _missing(path: Path, volumes) -> None:
    path.unlink()


def _misnamed(path: Path, volumes) -> None:
    path.rename(path.with_name("W39_1998.09.19_Segm.nii.gz"))


def _double(path: Path, volumes) -> None:
    path.with_name(path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))


def _short(path: Path, volumes) -> None:
    rewrite(path, lambda image: image[:, :, :-1])


def _moved(path: Path, volumes) -> None:
    rewrite(path, lambda image: image, np.diag([-1, -1, 1.01, 1]))


def _thin(path: Path, volumes) -> None:
    for other in path.parent.iterdir():
        rewrite(other, lambda image: image[:, :, :12])


CATALOGUE = {
    "1 truncated": (_cut, "t1", "truncated (expected 18 432 bytes of voxels, found "),
    "2 flipped byte": (_flip, "t1ce", "is corrupt"),
    "3 checksum": (_checksum, "seg", "is corrupt"),
    "4 html": (_html, "flair", "looks like an HTML page"),
    "4 pointer": (_pointer, "flair", "looks like a git-lfs pointer"),
    "4 plain": (_plain, "flair", "looks like an uncompressed NIfTI"),
    "6 nan": (_with(np.nan), "t2", "holds 1 NaN voxel"),
    "7 inf": (_with(np.inf), "t2", "holds 1 infinite voxel"),
    "10 broken label": (_with(0.9), "seg", "1 voxel that are no whole numbers"),
    "11 strange label": (_with(9, np.uint8), "seg", "holds the labels 9 (1 voxel)"),
    "12 empty": (_empty, "seg", "marks no tumour"),
    "13 missing": (_missing, "t1ce", "missing t1ce"),
    "13 misnamed": (_misnamed, "seg", "missing seg; not recognised or double W39_1998.09.19_Segm"),
    "13 double": (_double, "t2", "not recognised or double BraTS20_Training_0"),
    "14 shape": (_short, "seg", "differ in shape: (24, 24, 15) and (24, 24, 16)"),
    "15 affine": (_moved, "seg", "differ in affine, by up to 0.01"),
    "too few slices": (_thin, "t1", "has 12 axial slices; axial asks for number 12"),
}


@pytest.mark.parametrize("row", CATALOGUE)
def test_all_bad_cases_are_told_and_nothing_is_cached(root, cache, volumes, row):
    spoil, name, says = CATALOGUE[row]
    for number in (2, 5):
        spoil(file(root, number, name), volumes)
    error = refused(brats(root))
    assert error.summary.startswith("2 of 5 cases are unusable. Nothing was cached.")
    assert "adbench info brats" in error.summary
    assert len(error.problems) == 2
    for number, problem in zip((2, 5), error.problems, strict=True):
        assert problem.startswith(f"BraTS20_Training_{number:03d}") and says in problem
        assert str(root) not in problem
        assert row.startswith("13") or f"BraTS20_Training_{number:03d}_{name}.nii.gz" in problem
    assert list(cache.glob("*.h5")) == []


def test_different_troubles_are_told_together(root, cache, volumes):
    _cut(file(root, 1, "t1"), volumes)
    _empty(file(root, 1, "seg"), volumes)
    _missing(file(root, 3, "flair"), volumes)
    _flip(file(root, 3, "seg"), volumes)
    shutil.copy(file(root, 2, "t2"), file(root, 4, "t2"))
    error = refused(brats(root))
    assert error.summary.startswith("3 of 5 cases")
    assert [problem[:20] for problem in error.problems] == [
        f"BraTS20_Training_{number:03d}" for number in (4, 1, 1, 3, 3)
    ]
    assert "is a copy of BraTS20_Training_002: BraTS20_Training_002_t2" in error.problems[0]
    assert list(cache.glob("*.h5")) == []


def test_row_5_byte_order_does_not_matter(root, tmp_path):
    shutil.copytree(root, tmp_path / "big")
    for path in (tmp_path / "big").rglob("*.nii.gz"):
        image = load(path)
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(stored(path).dtype.newbyteorder(">"))
        nib.save(nib.Nifti1Image(stored(path), image.affine, header), path)
    assert same(brats(root), brats(tmp_path / "big"))


def test_row_6_nan_can_be_taken_for_background(root):
    _with(np.nan)(file(root, 2, "t2"), None)
    with pytest.warns(UserWarning, match=r"002_t2.nii.gz: 1 NaN voxels were set to zero"):
        samples = everything(brats(root, nan="zero"))
    assert samples["BraTS20_Training_002/z008"].x[2, 12, 12] == 0


@pytest.mark.parametrize("value", [0, 700])
def test_row_8_a_constant_image_warns_becomes_zeros_and_is_not_trained_on(root, value):
    where = {s.group: s for s in brats(root).test()}
    (test,) = where
    train = sorted({entry.group for entry in manifest(brats(root).train())})
    for name in (test, train[0]):
        path = file(root, int(name[-3:]), "t1")
        rewrite(path, lambda image: np.full_like(image, value))
    with pytest.warns(UserWarning, match="_t1.nii.gz is constant"):
        data = brats(root)
        data.prepare()
    assert {entry.group for entry in manifest(data.train(labelled=True))} == {train[1]}
    assert len(data.test()) == 10
    for sample in data.test():
        assert sample.x[0].max() == 0 and sample.x[1].max() > 0.9
        assert sample.roi is not None and not sample.roi.all()


def test_row_9_a_slope_does_not_change_the_labels(root, tmp_path):
    shutil.copytree(root, tmp_path / "sloped")
    for path in (tmp_path / "sloped").glob("*/*_seg.nii.gz"):
        raw = bytearray(gzip.decompress(path.read_bytes()))
        raw[112:116] = np.float32(0.5).tobytes()  # scl_slope
        path.write_bytes(gzip.compress(raw))
        assert stored(path).max() == 2
    assert same(brats(root), brats(tmp_path / "sloped"))


def test_row_10_labels_that_are_almost_whole_are_rounded(root, tmp_path):
    shutil.copytree(root, tmp_path / "almost")
    for path in (tmp_path / "almost").glob("*/*_seg.nii.gz"):
        rewrite(path, lambda seg: (seg * 0.9999).astype(np.float32))
    assert same(brats(root), brats(tmp_path / "almost"))


def test_row_11_label_3_of_later_releases_is_a_tumour_too(root, tmp_path):
    shutil.copytree(root, tmp_path / "later")
    for path in (tmp_path / "later").glob("*/*_seg.nii.gz"):
        rewrite(path, lambda seg: np.where(seg == 4, 3, seg).astype(np.uint8))
    assert same(brats(root), brats(tmp_path / "later"))


def test_row_12_an_empty_mask_can_be_allowed(root, volumes):
    _empty(file(root, 2, "seg"), volumes)
    samples = everything(brats(root, allow_empty_mask=True))
    assert not any(s.label for s in samples.values() if s.group.endswith("002"))


@pytest.mark.parametrize("lost", [np.diag([1.0, 1, 1, 1]), np.diag([-1.0, -1, 3, 1])])
def test_row_15_a_wrong_affine_can_be_ignored(root, tmp_path, lost):
    shutil.copytree(root, tmp_path / "lost")
    rewrite(file(tmp_path / "lost", 2, "seg"), lambda seg: seg, lost)
    rewrite(file(tmp_path / "lost", 4, "flair"), lambda image: image, lost)
    assert len(refused(brats(tmp_path / "lost")).problems) == 2
    assert same(brats(root), brats(tmp_path / "lost", ignore_affine=True))


def test_row_25_a_copied_image_is_found(root):
    shutil.copy(file(root, 2, "flair"), file(root, 5, "flair"))
    shutil.copy(file(root, 3, "t1"), file(root, 3, "t2"))
    problems = refused(brats(root)).problems
    assert "005_flair.nii.gz is a copy of BraTS20_Training_002: " in problems[0]
    assert "003_t2.nii.gz is a copy of BraTS20_Training_003: " in problems[1]


def test_verify_lists_all_that_is_bad_and_caches_nothing(root, cache):
    assert not brats(root).verify().problems
    _flip(file(root, 1, "t1"), None)
    _cut(file(root, 4, "t2"), None)
    found = brats(root).verify()
    assert found.bad == 2 and [problem[17:20] for problem in found.problems] == ["001", "004"]
    assert not list(cache.glob("*.h5"))


def test_row_29_background_is_what_is_zero_not_what_is_low(root):
    for path in root.glob("*/*_t1.nii.gz"):
        rewrite(path, lambda image: np.where(image > 0, image - 800, 0).astype(np.int16))
    x = everything(brats(root, modalities=["t1"]))["BraTS20_Training_001/z008"].x[0]
    array = stored(file(root, 1, "t1"))[:, :, 8].T
    assert (array < 0).mean() > 0.2
    assert np.corrcoef(x.numpy()[array != 0], array[array != 0])[0, 1] > 0.999


def test_a_case_with_another_plane_needs_a_size(root):
    error = refused(BraTS(root=str(root), axial=(3, 12)))
    assert len(error.problems) == 5
    assert "slices of 24 x 24, not 240 x 240 (give a size)" in error.problems[0]


def test_good_data_make_no_warning(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        brats(root).prepare()
