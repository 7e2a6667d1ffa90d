"""The metrics against scikit-learn, against brute force, and against what may not change them."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.metrics.ranking import (
    aupro_at_limits,
    dice_at_threshold,
    image_metrics,
    overlap_metrics,
    pixel_metrics,
    pixel_score_metrics,
    ppv_at_sensitivity,
)

SHAPES = [(40,), (12, 11), (6, 5, 7)]


def scene(shape, seed=0, count=6, values=None) -> tuple[Any, Any, Any]:
    """Maps, masks and regions of interest (count, *shape); few distinct `values` make ties."""
    rng = np.random.default_rng(seed)
    sigma = (0,) + (1.5,) * len(shape)
    masks = ndimage.gaussian_filter(rng.normal(size=(count, *shape)), sigma) > 0.25
    masks[0] = False
    maps = rng.normal(size=(count, *shape)) + masks
    if values:
        maps = np.round(maps * values) / values
    return maps.astype(np.float32), masks, rng.random((count, *shape)) > 0.1


def by_threshold(maps, masks, limit):
    """AUPRO by its definition: every threshold, every region's overlap, one trapezoid at a time."""
    regions = []
    for index, mask in enumerate(masks):
        labels = np.zeros(mask.shape, int)
        ndimage.label(mask, np.ones((3,) * mask.ndim), labels)
        regions += [(index, labels == k) for k in range(1, labels.max() + 1)]
    fprs, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        result = maps >= threshold
        fprs.append(float(result[~masks].mean()))
        overlaps.append(float(np.mean([result[i][region].mean() for i, region in regions])))
    area = 0.0
    for i in range(1, len(fprs)):
        (x0, x1), (y0, y1) = fprs[i - 1 : i + 1], overlaps[i - 1 : i + 1]
        if x1 > limit:
            area += (limit - x0) * (y0 + (y0 + (y1 - y0) * (limit - x0) / (x1 - x0))) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("values", [None, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixel_metrics_are_those_of_their_definitions(shape, values):
    maps, masks, _ = scene(shape, values=values)
    got: Any = pixel_metrics(maps, masks)
    assert got["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    ap = average_precision_score(masks.ravel(), maps.ravel())
    assert got["ap"] == pytest.approx(ap, abs=1e-12)
    assert got["aupro30"] == pytest.approx(by_threshold(maps, masks, 0.30), abs=1e-12)
    assert got["aupro05"] == pytest.approx(by_threshold(maps, masks, 0.05), abs=1e-12)
    every: list[Any] = [overlap_metrics(maps >= t, masks) for t in np.unique(maps)]
    assert got["dice"] == pytest.approx(max(each["dice"] for each in every), abs=1e-12)
    assert got["iou"] == pytest.approx(max(each["iou"] for each in every), abs=1e-12)
    assert dice_at_threshold(got["threshold"], PixelScores.from_maps(maps, masks)) == got["dice"]


@pytest.mark.parametrize("values", [None, 3])
def test_image_metrics_are_those_of_scikit_learn(values):
    rng = np.random.default_rng(1)
    label = rng.random(200) < 0.3
    score = rng.normal(size=200) + label
    score = np.round(score * values) / values if values else score
    got: Any = image_metrics(score, label)
    assert got["auroc"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert got["ap"] == pytest.approx(average_precision_score(label, score), abs=1e-12)
    every: list[Any] = [overlap_metrics(score >= t, label) for t in score]
    assert got["f1max"] == pytest.approx(max(each["dice"] for each in every), abs=1e-12)
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    assert got["fpr95"] == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min(), abs=1e-12)


def test_by_hand():
    label = np.array([1, 0, 1, 0], bool)
    got = image_metrics(np.array([0.9, 0.8, 0.7, 0.1]), label)
    assert got == {"auroc": 0.75, "ap": pytest.approx(5 / 6), "f1max": 0.8, "fpr95": 0.5}
    alike = image_metrics(np.zeros(4), label)
    assert alike == {"auroc": 0.5, "ap": 0.5, "f1max": pytest.approx(2 / 3), "fpr95": 1.0}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_lies_outside_the_region_of_interest_does_not_count(shape):
    maps, masks, roi = scene(shape)
    other = np.where(roi, maps, np.float32(99))
    assert pixel_metrics(maps, masks, roi) == pixel_metrics(other, masks | ~roi, roi)
    plain = pixel_metrics(maps, masks, roi)
    assert plain["auroc"] == pytest.approx(roc_auc_score(masks[roi], maps[roi]), abs=1e-12)
    assert plain["auroc"] != pixel_metrics(maps, masks)["auroc"]


def test_regions_touch_at_corners_and_never_across_samples():
    mask = np.zeros((2, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 1, 1] = True
    np.testing.assert_array_equal(PixelScores.from_maps(mask, mask).component_share, [0.5, 0.5, 1])
    space = np.zeros((1, 2, 2, 2), bool)
    space[0, 0, 0, 0] = space[0, 1, 1, 1] = True
    np.testing.assert_array_equal(PixelScores.from_maps(space, space).component_share, [0.5, 0.5])


def test_every_region_counts_alike_however_large():
    """A region of 1 place is found before all else, one of 9 after: half the overlap, always."""
    mask = np.zeros((1, 10, 10), bool)
    mask[0, 0, 0] = mask[0, 4:7, 4:7] = True
    score = np.where(mask, -1.0, 0.0)
    score[0, 0, 0] = 1
    assert pixel_metrics(score, mask)["aupro30"] == pytest.approx(0.5)


def test_samples_may_differ_in_size():
    maps, masks, _ = scene((12, 11))
    parts = [maps[0], maps[1][:5], maps[2]], [masks[0], masks[1][:5], masks[2]]
    flat = [np.concatenate([each.ravel() for each in part]) for part in parts]
    assert pixel_metrics(*parts)["auroc"] == roc_auc_score(flat[1], flat[0])


@pytest.mark.parametrize("label", [[], [0, 0], [1, 1]])
def test_with_one_kind_only_there_is_nothing_to_rank(label):
    label = np.array(label, bool)
    assert set(image_metrics(np.arange(len(label)), label).values()) == {None}
    maps = np.zeros((len(label), 3))
    assert set(pixel_metrics(maps, np.tile(label[:, None], 3)).values()) == {None}
    assert overlap_metrics(np.ones(3, bool), np.zeros(3, bool)) == {"dice": None, "iou": None}


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        image_metrics(np.array([0.1, np.nan, 0.2]), np.array([0, 0, 1], bool))


@settings(max_examples=60)
@given(
    pairs=st.lists(st.tuples(st.integers(-12, 12), st.booleans()), min_size=2, max_size=60),
    seed=st.integers(0, 99),
)
def test_neither_an_increasing_change_of_scores_nor_the_order_of_samples_matters(pairs, seed):
    score = np.array([pair[0] for pair in pairs], np.float64)
    label = np.array([pair[1] for pair in pairs], bool)
    plain = image_metrics(score, label)
    order = np.random.default_rng(seed).permutation(len(score))
    assert image_metrics(np.exp(score) - 7, label) == plain
    assert image_metrics(np.arctan(score).astype(np.float32), label) == plain
    assert image_metrics(score[order], label[order]) == plain
    if plain["auroc"] is not None:
        assert image_metrics(-score, label)["auroc"] == pytest.approx(1 - plain["auroc"])


@settings(max_examples=30)
@given(seed=st.integers(0, 9999), values=st.sampled_from([None, 1, 4]))
def test_an_increasing_change_of_maps_changes_only_the_threshold(seed, values):
    maps, masks, roi = scene((9, 8), seed=seed, count=4, values=values)
    cubed = maps.astype(np.float64) ** 3 + 5
    plain, changed = pixel_metrics(maps, masks, roi), pixel_metrics(cubed, masks, roi)
    assert plain.pop("threshold") is None or changed["threshold"] is not None
    changed.pop("threshold")
    assert changed == plain


def test_a_whole_stack_is_judged_as_its_samples_one_by_one():
    maps, masks, _ = scene((12, 11))
    whole, parts = (
        PixelScores.from_maps(maps, masks),
        PixelScores.from_maps(list(maps), list(masks)),
    )
    np.testing.assert_array_equal(whole.component, parts.component)
    assert pixel_metrics(maps, masks) == pixel_metrics(list(maps), list(masks))


def test_judging_takes_at_most_twice_the_memory_of_the_maps_beside_them():
    maps = np.random.default_rng(0).normal(size=(40, 128, 128)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[:, 40:60, 40:60] = True
    pixel_metrics(maps[:2], masks[:2])  # what is imported on the way is no part of it
    tracemalloc.start()
    pixel_metrics(maps, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * maps.nbytes


def test_aupro_is_unmoved_by_heavy_tails():
    """Where bins of equal width would put nearly all places into one."""
    maps, masks, _ = scene((20, 20), count=8)
    plain = pixel_metrics(maps, masks)
    tailed = pixel_metrics(np.exp(4 * maps.astype(np.float64)), masks)
    assert {**tailed, "threshold": 0} == {**plain, "threshold": 0}


def test_the_predictive_value_at_a_sensitivity_is_that_of_a_loop():
    rng = np.random.default_rng(8)
    score, label = rng.integers(0, 30, 200) / 30, rng.random(200) < 0.3
    for sensitivity in (0.5, 0.95, 1.0):
        allowed = [t for t in np.unique(score) if (score[label] >= t).mean() >= sensitivity]
        called = score >= max(allowed)
        expected = label[called].mean()
        assert ppv_at_sensitivity(score, label, sensitivity) == pytest.approx(expected)


def test_aupro_at_several_limits_is_each_by_itself():
    rng = np.random.default_rng(9)
    maps, masks = rng.random((3, 12, 12)), rng.random((3, 12, 12)) < 0.1
    pixels = PixelScores.from_maps(maps, masks)
    metrics, values = pixel_score_metrics(pixels), aupro_at_limits(pixels, [0.05, 0.3])
    assert values == {0.05: metrics["aupro05"], 0.3: metrics["aupro30"]}
    with pytest.raises(ValueError, match="up to 1, not 30"):
        aupro_at_limits(pixels, [30])
