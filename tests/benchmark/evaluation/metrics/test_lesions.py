"""Lesion-wise figures on lesions laid by hand."""

from __future__ import annotations

import numpy as np
import pytest

from adbench.benchmark.evaluation.metrics.lesions import (
    detected_lesions,
    detection_thresholds,
    froc,
    lesion_contrast,
    lesion_sample_indices,
    sensitivity_by_size,
    size_unit,
)
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores


def scene():
    """Two abnormal samples and two normal ones; lesions of 4, 12 and 1 places."""
    mask = np.zeros((4, 16, 16), bool)
    mask[0, 2:4, 2:4] = True
    mask[2, 1:4, 5:9] = mask[2, 12, 12] = True
    score = np.zeros(mask.shape, np.float32)
    score[0, 2:4, 2:4] = [[4, 3], [2, 1]]
    score[2, 1:4, 5:9] = 1
    score[2, 1, 5:9] = 5
    score[2, 12, 12] = 9
    return score, mask


def test_a_lesion_is_found_where_half_of_its_places_are():
    score, mask = scene()
    places = PixelScores.from_maps(score, mask)
    assert detection_thresholds(places).tolist() == [3, 1, 9]
    assert lesion_sample_indices(places).tolist() == [0, 2, 2]
    for threshold, expected in [
        (0.5, [True, True, True]),
        (2.5, [True, False, True]),
        (3.5, [False, False, True]),
        (9, [False, False, False]),
    ]:
        result = places.score > threshold
        assert detected_lesions(places, result).tolist() == expected
        assert (detection_thresholds(places) > threshold).tolist() == expected


def test_reach_and_found_agree_on_random_maps():
    rng = np.random.default_rng(2)
    mask = rng.random((5, 14, 14)) < 0.2
    places = PixelScores.from_maps(rng.integers(0, 9, mask.shape).astype(np.float32), mask)
    for threshold in range(9):
        result = detected_lesions(places, places.score > threshold)
        assert (result == (detection_thresholds(places) > threshold)).all()


def test_sizes_are_in_millimetres_where_the_spacing_is_known():
    assert size_unit(2, None) == ("pixels", 1) and size_unit(3, None)[0] == "voxels"
    assert size_unit(3, (2.0, 1.0, 1.5)) == ("mm³", 3.0)
    places = PixelScores.from_maps(*scene())
    hit = np.array([True, True, False])
    plain = sensitivity_by_size(places, hit, 1)
    assert [(row["low"], row["n"], row["found"]) for row in plain[:3]] == [
        (0, 2, 1),
        (10, 1, 1),
        (100, 0, 0),
    ]
    assert plain[0]["sensitivity"] == 0.5 and plain[2]["sensitivity"] is None
    assert plain[-1]["high"] is None and sum(row["n"] for row in plain) == 3
    large = sensitivity_by_size(places, hit, 9)  # 36, 108 and 9 mm²
    assert [row["n"] for row in large[:3]] == [1, 1, 1]


def test_froc_counts_false_findings_in_normal_samples_only():
    score, mask = scene()
    score = np.concatenate([score] * 8)
    mask = np.concatenate([mask] * 8)
    label = np.asarray(mask.any((1, 2)))
    for sample in np.flatnonzero(~label):
        score[sample, 3, 3:6] = 2  # one finding of 3 places in each, 1.2 % of all
    score[0, 8, 8] = 99  # in an abnormal sample: no matter
    roi = np.ones(mask.shape, bool)
    points = froc(PixelScores.from_maps(score, mask), label, roi)
    assert points[-1] == {"threshold": 0.0, "false_per_sample": 1.0, "sensitivity": 1.0}
    assert points[0] == {"threshold": 2.0, "false_per_sample": 0.0, "sensitivity": 2 / 3}
    assert froc(PixelScores.from_maps(score, mask), np.ones(32, bool), roi) == []
    assert froc(PixelScores.from_maps(score, np.zeros_like(mask)), label, roi) == []


def test_contrast_is_of_the_lesion_against_its_ring():
    mask = np.zeros((3, 20, 20), bool)
    mask[:2, 8:11, 8:11] = True
    score = np.full(mask.shape, 1.0, np.float32)
    score[0][mask[0]] = 3
    score[0, 15:] = 50  # beyond the ring
    roi = np.ones(mask.shape, bool)
    roi[0, :, 12:] = False
    result = lesion_contrast(PixelScores.from_maps(score, mask, roi), mask, roi)
    assert result[0] == pytest.approx((3 - 1) / (3 + 1))
    assert result[1] == 0 and np.isnan(result[2])
    nothing = PixelScores.from_maps(np.zeros_like(score), mask)
    assert lesion_contrast(nothing, mask, np.ones_like(roi))[0] == 0
