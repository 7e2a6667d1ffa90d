"""SynthBrain: the same brains every time, lesions where the mask says, and nothing else changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adbench.datasets.base import DataError, manifest
from adbench.datasets.synthbrain import dataset as synthbrain
from adbench.datasets.synthbrain import tissue_maps as synthbrain_asset
from adbench.datasets.synthbrain.anatomy import Anatomy
from adbench.datasets.synthbrain.dataset import PRESETS, ROLES, Role, SynthBrain
from adbench.datasets.synthbrain.difficulty import SplitArrays, compare_scorers, markdown_table
from adbench.datasets.synthbrain.lesions import CONTRASTS, KINDS, SIZES, LesionPlan
from adbench.datasets.synthbrain.subject import (
    ANATOMY,
    NORMS,
    ViewGrid,
    check_anatomy,
    check_diseased,
    make_subject,
)
from adbench.datasets.transforms.random_fields import RandomField, grid_points

VIEW = ViewGrid((-4.0, 6.0, 16.0), 32, 216 / 32)
FEW: dict[Role, int] = {"train": 3, "train-abnormal": 1, "held_out": 1, "val": 1, "val-abnormal": 1}
FEW |= {"test": 2, "test-abnormal": 6}


@pytest.fixture(scope="module")
def tiny():
    return SynthBrain(preset="tiny")


@pytest.fixture(scope="module")
def few():
    return SynthBrain(preset="default", size=32, subjects=FEW)


def everything(dataset):
    parts = (dataset.train(labelled=True), dataset.calibration(), dataset.val(), dataset.test())
    return [entry for part in parts for entry in manifest(part)]


# ---- the same every time


def test_it_is_the_same_on_any_number_of_workers(tiny, tmp_path, monkeypatch):
    built = everything(tiny)
    for workers in (1, 3):
        monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / str(workers)))
        monkeypatch.setattr(synthbrain, "_usable_cores", lambda count=workers: count)
        assert everything(SynthBrain(preset="tiny")) == built


def test_a_preparation_that_was_stopped_makes_only_the_rest(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(synthbrain, "_usable_cores", lambda: 1)
    seen = []

    def until(what, done, total):
        seen.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SynthBrain(preset="tiny").prepare(until)
    assert seen == [0, 1, 2, 3]
    seen.clear()
    dataset = SynthBrain(preset="tiny")
    dataset.prepare(lambda what, done, total: seen.append(done))
    assert seen[0] == 3 and seen[-1] == sum(dataset.subjects.values())
    assert everything(dataset) == everything(tiny)


def test_another_seed_makes_other_people(tiny):
    ours, others = everything(tiny), everything(SynthBrain(preset="tiny", seed=1))
    assert [entry.key for entry in ours] == [entry.key for entry in others]
    assert not {entry.content_hash for entry in ours} & {entry.content_hash for entry in others}


def test_more_people_change_none_of_the_first(few):
    more = SynthBrain(preset="default", size=32, subjects={**FEW, "train": 5})
    assert manifest(more.train())[: len(few.train())] == manifest(few.train())
    assert manifest(more.test()) == manifest(few.test())


def test_one_modality_is_a_channel_of_four(tiny):
    flair = SynthBrain(preset="tiny", modalities="flair")
    assert flair.spec.channels == 1
    assert torch.equal(flair.test()[0].x[0], tiny.test()[0].x[2])


# ---- counts, groups, what training may see


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_hold_enough_people(preset):
    dataset = SynthBrain(preset=preset)
    assert all(count > 0 for count in dataset.subjects.values())
    assert len(dataset.spec.shape) == (3 if preset == "vol" else 2)
    if preset not in ("tiny", "vol"):  # the diseased show their lesion in about 3 slices of 5
        healthy, sick = dataset.subjects["test"], dataset.subjects["test-abnormal"]
        assert healthy + sick >= 60
        assert len(dataset.view.heights) * (healthy + 0.6 * sick) >= 300


def test_tiny_holds_what_it_says(tiny):
    assert [len(tiny.train()), len(tiny.calibration()), len(tiny.val()), len(tiny.test())] == [
        8,
        2,
        4,
        8,
    ]
    labelled = tiny.train(labelled=True)
    assert [labelled[i].label for i in range(12)] == [False] * 8 + [True] * 4
    assert tiny.spec.shape == (32, 32) and tiny.test()[0].x.shape == (4, 32, 32)
    assert tiny.synthetic


def test_nobody_stands_in_two_splits(few):
    parts = (few.train(labelled=True), few.calibration(), few.val(), few.test())
    groups = [{entry.group for entry in manifest(part)} for part in parts]
    assert sum(map(len, groups)) == len(set().union(*groups)) == sum(FEW.values())


def test_training_sees_neither_mask_nor_counterpart(few):
    for split in (few.train(labelled=True), few.calibration()):
        for i in range(len(split)):
            assert split[i].mask is None and split[i].counterpart is None


def test_every_sample_is_in_order(few):
    test = few.test()
    for sample in (test[i] for i in range(len(test))):
        assert sample.mask is not None and sample.roi is not None and sample.counterpart is not None
        assert sample.x.dtype == torch.float32 and sample.x.min() >= 0 and sample.x.max() <= 1
        assert sample.label == bool(sample.mask.any()) == (sample.tags["lesion"] != "none")
        assert not (sample.mask & ~sample.roi).any()
        border = torch.ones_like(sample.roi)
        border[1:-1, 1:-1] = False
        assert not (sample.roi & border).any()
        assert not sample.x[:, ~sample.roi].any()
        assert sample.spacing == (6.75, 6.75)
        if not sample.label:
            assert torch.equal(sample.x, sample.counterpart)
    kinds = {test[i].tags["lesion"] for i in range(len(test))}
    assert kinds == {"none", "tumour", "stroke", "ms", "hemorrhage", "ventricle"}


def test_slices_of_the_diseased_without_lesion_are_left_out(few):
    test = few.test()
    sick = [test[i] for i in range(len(test)) if test[i].group >= "s6000"]
    assert all(sample.label for sample in sick)
    assert len(sick) < 5 * FEW["test-abnormal"]


def test_volumes_are_one_sample_a_subject():
    people: dict[Role, int] = {**dict.fromkeys(ROLES, 0), "train": 1, "test-abnormal": 1}
    volumes = SynthBrain(preset="vol", size=24, subjects=people, modalities="t1")
    sample = volumes.test()[0]
    assert sample.x.shape == (1, 24, 24, 24) and sample.key == sample.group == "s6000"
    assert sample.mask is not None and sample.mask.any()
    assert sample.roi is not None and not sample.roi[[0, -1]].any()


# ---- one brain, with and without its lesion


@pytest.mark.parametrize("norm", NORMS)
def test_the_counterpart_is_the_subject_without_the_lesion(norm):
    plan = LesionPlan("tumour", 1, 1.0)
    sick, healthy = (make_subject(3, 6000, p, VIEW, norm) for p in (plan, None))
    np.testing.assert_array_equal(sick.counterpart, healthy.x)
    np.testing.assert_array_equal(sick.roi, healthy.roi)


@pytest.mark.parametrize("kind", ["stroke", "ms", "hemorrhage"])
def test_a_lesion_changes_what_it_covers_and_nothing_else(kind):
    built = make_subject(0, 6000, LesionPlan(kind, 1, 1.0), VIEW, "healthy_ref")
    change, far = difference(built)
    assert change[:, built.mask].mean(1).max() > 0.3
    assert np.quantile(change[:, far], 0.95) < 1e-4  # the rest: too little lesion to be drawn
    assert np.quantile(change[:, far], 0.99) < 0.02


def test_a_tumour_pushes_but_does_not_darken_the_rest():
    """By the percentiles of the image itself, a bright lesion shifts all healthy tissue."""
    shifted = {}
    for norm in NORMS:
        change, far = difference(make_subject(0, 6001, LesionPlan("tumour", 1, 1.0), VIEW, norm))
        shifted[norm] = np.median(change[2][far])
    assert shifted["healthy_ref"] < 0.002
    assert shifted["p1p99"] > 0.03


@pytest.mark.parametrize("kind", ["ventricle", "cortex"])
def test_a_change_of_form_brings_no_new_intensity(kind):
    built = make_subject(0, 6002, LesionPlan(kind, 2, 1.0), VIEW, "healthy_ref")
    for now, before in zip(built.x, built.counterpart, strict=True):
        assert now[built.roi].max() <= before[built.roi].max() + 0.15
        assert np.abs(now - before)[built.mask].mean() > 0.03


def difference(built):
    """|x - counterpart| (4, K, H, W), and where brain lies more than two pixels from any lesion."""
    slices = built.mask.any((1, 2))[:, None, None]  # others may hold too little to be drawn
    near = np.stack([ndimage.binary_dilation(m, iterations=2) for m in built.mask]).astype(bool)
    return np.abs(built.x - built.counterpart), built.roi & ~near & slices


def test_percentiles_lie_where_the_norm_says():
    x = make_subject(0, 5, None, VIEW, "healthy_ref")
    for one in x.x:
        assert np.percentile(one[x.roi], 99) == pytest.approx(0.8, abs=0.01)
        assert np.percentile(one[x.roi], 1) == pytest.approx(0, abs=0.01)
    x = make_subject(0, 5, None, VIEW, "p1p99")
    assert all(np.percentile(one[x.roi], 99) > 0.99 for one in x.x)


def test_plans_take_turns():
    plans = [LesionPlan.for_index(i) for i in range(120)]
    for kind in KINDS:
        mine = [p for p in plans if p.kind == kind]
        assert len(mine) == (12 if kind in ("ventricle", "cortex") else 24)
        assert {(p.size, p.contrast) for p in mine} == set(product(range(len(SIZES)), CONTRASTS))


# ---- the checks fire


@pytest.fixture(scope="module")
def brain():
    tissue = Anatomy(np.random.default_rng([0, 0, ANATOMY])).on_grid(VIEW.axes(2))
    roi = tissue.brain[:, ::2, ::2] > 0.5
    check_anatomy(tissue, roi)
    return tissue, roi


def test_tissue_that_does_not_sum_to_one_is_refused(brain):
    tissue, roi = brain
    with pytest.raises(RuntimeError, match="sums to"):
        check_anatomy(tissue._replace(fractions=tissue.fractions * 1.01), roi)


def test_tissue_that_is_not_finite_is_refused(brain):
    tissue, roi = brain
    caps = tissue.caps.copy()
    caps[0, 0, 0] = np.nan
    with pytest.raises(RuntimeError, match="finite"):
        check_anatomy(tissue._replace(caps=caps), roi)


def test_a_tissue_that_is_nowhere_is_refused(brain):
    tissue, roi = brain
    amount = tissue.fractions.copy()
    amount[0] += amount[2]
    amount[2] = 0
    with pytest.raises(RuntimeError, match="white"):
        check_anatomy(tissue._replace(fractions=amount), roi)


def test_a_brain_at_the_border_or_out_of_view_is_refused(brain):
    tissue, roi = brain
    touching = roi.copy()
    touching[0, 0, 7] = True
    with pytest.raises(RuntimeError, match="border"):
        check_anatomy(tissue, touching)
    with pytest.raises(RuntimeError, match="no brain"):
        check_anatomy(tissue, np.zeros_like(roi))


def test_lesions_that_are_not_there_or_outside_are_refused():
    built = make_subject(0, 6000, LesionPlan("stroke", 1, 1.0), VIEW, "healthy_ref")
    with pytest.raises(RuntimeError, match="0 mm²"):
        check_diseased(built._replace(mask=np.zeros_like(built.mask)), VIEW)
    with pytest.raises(RuntimeError, match="outside"):
        check_diseased(built._replace(mask=~built.roi | built.mask), VIEW)
    with pytest.raises(RuntimeError, match=r"0\.\.1"):
        check_diseased(built._replace(x=built.x + 1), VIEW)


def test_a_subject_that_cannot_be_drawn_is_named_and_nothing_is_cached(tmp_path, monkeypatch):
    def fail(*_args):
        raise RuntimeError("no")

    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(synthbrain, "make_subject", fail)
    with pytest.raises(DataError, match="person 0 of seed 7"):
        SynthBrain(preset="tiny", seed=7).prepare()
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"preset": "huge"}, "huge.*tiny, demo"),
        ({"modalities": "t3"}, "t3.*flair"),
        ({"modalities": ["t1", "pd"]}, "pd"),
        ({"norm": "z"}, "healthy_ref"),
        ({"subjects": {"tset": 3}}, "tset.*test-abnormal"),
        ({"subjects": {"test": 1001}}, "0 to 1000"),
        ({"size": 30}, "multiple of 8"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        SynthBrain(**arguments)


# ---- what it is made of


@given(
    seed=st.integers(0, 99),
    length=st.floats(2, 40),
    axes=st.integers(1, 3),
    start=st.floats(-50, 50),
)
@settings(max_examples=25)
def test_a_field_has_one_value_at_a_point(seed, length, axes, start):
    field = RandomField(np.random.default_rng(seed), length, axes=axes)
    grid = [np.linspace(start, start + 9, n, dtype=np.float32) for n in (4, 5, 3)[:axes]]
    np.testing.assert_allclose(field.on_grid(grid), field.at_points(grid_points(grid)), atol=2e-4)


def test_a_field_forgets_over_its_length():
    """Correlation exp(-d²/2 length²): 1, 0.607 and 0.135 at 0, 1 and 2 lengths."""
    line = np.array([0, 10, 20], np.float32)
    values = np.array(
        [RandomField(np.random.default_rng(i), 10.0, axes=1).on_grid([line]) for i in range(3000)]
    )
    expected = np.exp(np.array([0, -0.5, -2]))
    np.testing.assert_allclose((values[:, :1] * values).mean(0), expected, atol=0.06)


def test_the_asset_is_small_symmetric_and_comes_with_its_notice():
    template = synthbrain_asset.load_template()
    assert synthbrain_asset.ASSET.stat().st_size < 250_000
    np.testing.assert_array_equal(template.brain, template.brain[..., ::-1])
    assert (template.tissue.max((1, 2, 3)) > 0.9).all()
    notice = synthbrain_asset.ASSET.with_name("LICENSE.icbm152").read_text("utf-8")
    assert "Montreal Neurological" in notice and "appear in all" in notice.replace("\n", " ")


def test_the_makers_of_the_template_are_not_needed():
    code = """import sys, adbench.datasets.synthbrain.tissue_maps as asset
asset.load_template()
print({"nilearn", "nibabel"} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_table_of_baselines_ranks_scorers(few):
    rows = {
        row["scorer"]: row
        for row in compare_scorers(
            SplitArrays.from_split(few.train()), SplitArrays.from_split(few.test())
        )
    }
    bound = rows["healthy counterpart (bound)"]
    assert float(bound["image AUROC, top 2 %"]) > 0.99
    assert float(bound["pixel AP"]) > float(rows["mean of the slice"]["pixel AP"])
    assert markdown_table(rows.values()).count("\n") == len(rows) + 1
    assert "tumour AUROC" in bound and "cortex AUROC" not in bound  # of whom there is none


CODE = sorted(
    path.relative_to(folder.parent)
    for folder in synthbrain.CODE_FOLDERS
    for path in folder.rglob("*.py")
)


def test_generating_code_is_walked():
    assert {Path("transforms/random_fields.py"), Path("synthbrain/anatomy.py")} < {*CODE}


@pytest.mark.parametrize("name", CODE, ids=str)
def test_an_edit_of_generating_code_changes_its_digest(name, tmp_path):
    folders = [
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("assets"))
        for folder in synthbrain.CODE_FOLDERS
    ]
    before = synthbrain._code_digest(folders)
    assert before == synthbrain._code_digest()
    path = tmp_path / name
    source = path.read_text("utf-8")
    path.write_text(f"# a comment\n{source}\n", "utf-8")
    assert synthbrain._code_digest(folders) == before
    path.write_text(f"{source}\nEDITED = True\n", "utf-8")
    assert synthbrain._code_digest(folders) != before
    path.write_text(source, "utf-8")
    path.rename(path.with_name("renamed.py"))
    assert synthbrain._code_digest(folders) != before
