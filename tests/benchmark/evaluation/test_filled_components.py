"""Small components are counted by their area with holes filled, as pDDPM's authors do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from adbench.benchmark.evaluation.metrics.connected_components import (
    Array,
    component_sizes,
    filled_component_sizes,
    label_components,
)
from adbench.benchmark.evaluation.protocol import Protocol


def reference_filter(masks: Array, smallest: int) -> Array:
    """The authors' filter: scikit-image's `filled_area`, by scipy, sample by sample."""
    result, full = masks.copy(), np.ones((3,) * (masks.ndim - 1))
    for sample, output in zip(masks, result, strict=True):
        labels = np.zeros(sample.shape, np.int32)
        ndimage.label(sample, full, output=labels)
        for number in range(1, labels.max() + 1):
            component = labels == number
            if np.asarray(ndimage.binary_fill_holes(component, full)).sum() < smallest:
                output[component] = False
    return result


def keep(masks: Array, size: int) -> Array:
    return Protocol(post=(f"components>={size}",)).remove_small_components(masks)


def ring(*shape: int) -> Array:
    """One sample: a shell around a hole that is two pixels smaller along every axis."""
    mask = np.ones(shape, bool)
    mask[(slice(1, -1),) * len(shape)] = False
    return np.pad(mask, 1)[None]


@pytest.mark.parametrize(
    ("shape", "own", "filled"),
    [((3, 3), 8, 9), ((4, 5), 14, 20), ((3, 3, 3), 26, 27), ((3, 4, 3), 34, 36)],
)
def test_a_hole_counts(shape: tuple[int, ...], own: int, filled: int) -> None:
    masks = ring(*shape)
    assert masks.sum() == own
    assert (keep(masks, filled) == masks).all()
    assert not keep(masks, filled + 1).any()


def test_what_is_open_at_a_corner_is_no_hole() -> None:
    """Neither seven pixels around one, nor the four that touch its sides."""
    seven = ring(3, 3)
    seven[0, 1, 1] = False
    four = np.zeros((1, 5, 5), bool)
    four[0, [1, 2, 2, 3], [2, 1, 3, 2]] = True
    for masks, own in ((seven, 7), (four, 4)):
        assert (keep(masks, own) == masks).all()
        assert not keep(masks, own + 1).any()
        assert (reference_filter(masks, own + 1) == keep(masks, own + 1)).all()


@pytest.mark.parametrize("shape", [(6, 24, 20), (4, 8, 9, 10), (8, 60)])
@pytest.mark.parametrize("size", [1, 4, 8, 9, 12, 30, 60])
def test_it_is_the_authors_filter(shape: tuple[int, ...], size: int) -> None:
    draw = np.random.default_rng(size)
    for density in (0.1, 0.35, 0.5):
        masks = draw.random(shape) < density
        masks[0] |= ring(*(n - 2 for n in shape[1:]))[0] & (draw.random(shape[1:]) < 0.995)
        assert (keep(masks, size) == reference_filter(masks, size)).all()


def test_rings_within_rings_and_beside_others() -> None:
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 1:8, 1:8] = ring(5, 5)[0]  # with a dot in its hole
    masks[0, 4, 4] = True
    masks[1, 9:14, 9:14] = ring(3, 3)[0]
    masks[1, 0, 0] = True
    component = label_components(masks)
    assert component_sizes(component).tolist() == [16, 1, 1, 8]
    assert filled_component_sizes(masks, component, 99).tolist() == [25, 1, 1, 9]
    assert filled_component_sizes(masks, component, 9).tolist() == [16, 1, 1, 9]
    for size in (2, 9, 10, 17, 25, 26):
        assert (keep(masks, size) == reference_filter(masks, size)).all()


def test_components_without_holes_are_judged_as_ever() -> None:
    """Below eight pixels nothing encloses anything, so `components>=8` counts pixels."""
    masks = np.random.default_rng(0).random((5, 30, 30)) < 0.2
    component, plain = label_components(masks), masks.copy()
    plain[plain] = component_sizes(component)[component] >= 8
    assert (keep(masks, 8) == plain).all()
    assert not keep(np.zeros((2, 4, 4), bool), 8).any()
