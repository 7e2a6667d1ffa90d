"""Phantom: the same in any order, in one to three axes, and different where it says so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.datasets.base import Batch, content_hash, manifest
from adbench.datasets.phantom import Phantom

SHAPES = [(64,), (32, 32), (24, 32), (12, 16, 12)]
FEW = {"train": 8, "abnormal": 4, "held_out": 4, "val": 4, "test": 4}


@pytest.fixture(params=SHAPES, ids=str)
def few(request):
    return Phantom(shape=request.param, channels=2, **FEW)


def edge(roi):
    """What lies on the border."""
    assert roi is not None
    inner = torch.zeros_like(roi)
    inner[1:-1, 1:-1] = True
    return roi & ~inner


def samples(split):
    return [split[i] for i in range(len(split))]


def test_it_holds_what_was_asked_for(few):
    splits = (few.train(), few.train(labelled=True), few.calibration(), few.val(), few.test())
    assert [len(split) for split in splits] == [8, 12, 4, 8, 8]
    assert [sum(s.label for s in samples(split)) for split in splits] == [0, 4, 0, 4, 4]
    for sample in samples(few.val()) + samples(few.test()):
        assert sample.x.shape == (2, *few.spec.shape) and sample.x.dtype == torch.float32
        assert sample.x.min() >= 0 and sample.x.max() <= 1
        assert sample.mask is not None and sample.roi is not None and sample.roi.any()
        assert sample.label == bool(sample.mask.any())
        assert not (sample.mask & ~sample.roi).any()


def test_nobody_stands_in_two_splits(few):
    parts = (few.train(labelled=True), few.calibration(), few.val(), few.test())
    groups = [{s.group for s in samples(part)} for part in parts]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_training_sees_neither_mask_nor_counterpart(few):
    for sample in samples(few.train(labelled=True)) + samples(few.calibration()):
        assert sample.mask is None and sample.counterpart is None


def test_the_counterpart_differs_at_the_anomaly_only(few):
    for sample in samples(few.test()):
        change = (sample.x - sample.counterpart).abs()
        if not sample.label:
            assert not change.any()
            continue
        assert change[:, sample.mask].mean() > 0.05
        assert not change[:, ~sample.roi].any()
        assert change.mean() < change[:, sample.mask].mean() / 2


@pytest.mark.parametrize("shape", [(64, 64), (16, 16, 16)], ids=str)
def test_anomalies_cover_about_a_seventh_of_the_head(shape):
    test = Phantom(shape=shape, test=60).test()
    sick = [s for s in samples(test) if s.label]
    batch = Batch.from_samples(sick)
    assert batch.mask is not None
    share = (batch.mask.flatten(1).sum(1) / batch.roi.flatten(1).sum(1)).mean()
    assert 0.09 < share < 0.18
    assert {s.tags["lesion"] for s in sick} == {"bright", "dark"}


@given(seed=st.integers(0, 1000), index=st.integers(0, 15), shape=st.sampled_from(SHAPES))
@settings(max_examples=20)
def test_a_sample_is_the_same_in_any_order(seed, index, shape):
    one, two = (Phantom(shape=shape, seed=seed, test=8).test() for _ in range(2))
    two[15 - index]
    assert content_hash(one[index]) == content_hash(two[index])


def test_more_samples_change_none_of_the_first():
    few, many = (Phantom(shape=(16, 16), train=n).train() for n in (4, 9))
    assert manifest(many)[:4] == manifest(few)


def test_another_seed_is_another_phantom():
    one, two = (manifest(Phantom(shape=(16, 16), seed=seed, **FEW).test()) for seed in (0, 1))
    assert not {entry.content_hash for entry in one} & {entry.content_hash for entry in two}


def test_heads_do_not_touch_the_border():
    for sample in samples(Phantom(shape=(32, 32), **FEW).test()):
        assert not edge(sample.roi).any()


@pytest.mark.parametrize(
    "arguments", [{"shape": ()}, {"shape": (4, 32)}, {"test": -1}, {"channels": 0}]
)
def test_arguments_that_mean_nothing_are_refused(arguments):
    with pytest.raises(ValueError):
        Phantom(**arguments)
