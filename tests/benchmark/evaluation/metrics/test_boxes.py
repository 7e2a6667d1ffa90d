"""Metrics of boxes: components by labelling at each threshold, and cases that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from adbench.benchmark.evaluation.evaluate import evaluate
from adbench.benchmark.evaluation.metrics.boxes import (
    BOX_METRICS,
    box_counts,
    local_maxima,
    pointing_game,
    recall_at_rate,
)
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol

SHAPES = st.sampled_from([(9,), (4, 5), (3, 3, 4)])


@st.composite
def maps_and_regions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    values = st.integers(0, 6).map(float)  # many ties
    return draw(arrays(np.float64, shape, elements=values)), draw(arrays(np.bool_, shape))


def components(mask: np.ndarray, structure: np.ndarray) -> tuple[np.ndarray, int]:
    numbered = np.zeros(mask.shape, int)
    count = ndimage.label(mask, structure=structure, output=numbered)
    return numbered, int(np.asarray(count))


@given(maps_and_regions())
def test_above_every_threshold_there_are_as_many_components(case) -> None:
    map, roi = case
    maxima = local_maxima(map, roi)
    everywhere = np.ones((3,) * map.ndim)
    for threshold in (-1, 0, 1, 2.5, 5, 6):
        count = components((map > threshold) & roi, everywhere)[1]
        alive = (maxima.birth > threshold) & (maxima.death <= threshold)
        assert alive.sum() == count
    for position, birth in zip(maxima.position, maxima.birth, strict=True):
        assert roi[tuple(position)] and map[tuple(position)] == birth


def test_a_component_stands_where_its_highest_pixel_is() -> None:
    map = np.zeros((20, 20))
    map[4:6, 4:6], map[4, 5], map[15, 15] = 1.0, 3.0, 2.0
    maxima = local_maxima(map, np.ones(map.shape, bool))
    assert maxima.position.tolist()[:2] == [[4, 5], [15, 15]]
    assert maxima.death.tolist()[:2] == [-np.inf, 0.0]


def test_the_pointing_game_counts_ties_by_their_share() -> None:
    map, roi = np.zeros((4, 4)), np.ones((4, 4), bool)
    assert pointing_game(map, roi, [(0, 0, 2, 2)]) == 0.25  # a flat map points everywhere
    map[1, 1] = 1.0
    assert pointing_game(map, roi, [(0, 0, 2, 2)]) == 1
    assert pointing_game(map, roi, [(2, 2, 4, 4), (0, 2, 2, 4)]) == 0
    roi[1, 1] = False
    assert pointing_game(map, roi, [(0, 0, 2, 2)]) == pytest.approx(3 / 15)
    assert np.isnan(pointing_game(map, roi, []))


def looped_recall(maps, boxes, label, rate) -> float:
    """Labels every map anew at every threshold."""
    thresholds = np.unique(np.concatenate([maps[~label].ravel(), [-np.inf]]))
    best = 0.0
    for threshold in thresholds:
        detected = false = 0
        for map, of_image, abnormal in zip(maps, boxes, label, strict=True):
            numbered, count = components(map > threshold, np.ones((3, 3)))
            peaks = [
                np.unravel_index(np.where(numbered == k, map, -1).argmax(), map.shape)
                for k in range(1, count + 1)
            ]
            if not abnormal:
                false += count
                continue
            for top, left, bottom, right in of_image:
                detected += any(top <= r < bottom and left <= c < right for r, c in peaks)
        if false / (~label).sum() <= rate:
            best = max(best, detected / sum(len(b) for b in boxes))
    return best


@pytest.mark.parametrize("rate", [0.25, 1.0, 3.0])
def test_recall_is_that_of_a_loop(rate: float) -> None:
    rng = np.random.default_rng(3)
    maps = np.stack([ndimage.gaussian_filter(rng.random((16, 16)), 1.5) for _ in range(12)])
    label = np.arange(12) % 2 == 1
    boxes = [[(2, 2, 8, 9), (9, 5, 14, 15)] if abnormal else [] for abnormal in label]
    maps[1, 3:5, 4:6] += 0.3
    counts = box_counts(maps, np.ones(maps.shape, bool), boxes, label)
    detected, false = (values.sum(0, keepdims=True) for values in (counts.detected, counts.false))
    in_all, normal = (np.array([values.sum()]) for values in (counts.boxes, counts.normal))
    recall = recall_at_rate(detected, false, in_all, normal, rate)
    assert recall[0] == pytest.approx(looped_recall(maps, boxes, label, rate))


def radiographs(count: int = 40, miss: int = 4) -> Predictions:
    """Maps that point into the box of all but `miss` abnormal images; normal maps are flat."""
    maps, boxes = np.zeros((1, count, 16, 16), np.float32), []
    label = np.arange(count) % 2 == 1
    for i in range(count):
        boxes.append(((2, 2, 6, 6),) if label[i] else ())
        at = (12, 12) if label[i] and i < 2 * miss else (3, 3)
        maps[0, i][at] = 1.0 + i / count if label[i] else 0.0
    keys = [f"patient {i}" for i in range(count)]
    return Predictions(keys, keys, label, None, None, None, [{} for _ in keys], None, maps,
        boxes=boxes)  # fmt: skip


def test_a_record_has_them_with_intervals() -> None:
    split = radiographs()
    record, results = evaluate(split, split, split, [0], 0, Protocol())
    metrics = record["metrics"]
    for name in BOX_METRICS:
        assert metrics[name]["value"] == pytest.approx(0.8)
        assert 0.5 < metrics[name]["low"] < 0.8 < metrics[name]["high"] <= 1.0
    assert metrics["pixel_ap"]["value"] is None
    assert results.replicates["box_recall_1"].std() == pytest.approx(
        (0.8 * 0.2 / 20) ** 0.5, rel=0.2
    )


def test_without_boxes_there_are_no_such_metrics() -> None:
    split = radiographs()
    plain = Predictions(split.keys, split.groups, split.label, None, None, None, split.tags, None,
        split.map)  # fmt: skip
    assert not {*BOX_METRICS} & {*evaluate(plain, plain, plain, [0], 0, Protocol())[0]["metrics"]}


def test_a_map_that_is_one_component_finds_one_box_at_most() -> None:
    maps = np.ones((3, 8, 8)) + np.linspace(0, 1, 64).reshape(8, 8)
    boxes = [[], [(0, 0, 2, 2), (6, 6, 8, 8)], [(0, 0, 3, 3)]]
    label = np.array([False, True, True])
    counts = box_counts(maps, np.ones(maps.shape, bool), boxes, label)
    assert counts.detected.max(1).tolist() == [0, 1, 0] and counts.false[0].max() == 1
