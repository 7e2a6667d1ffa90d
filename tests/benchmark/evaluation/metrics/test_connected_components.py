"""Connected regions against scipy.ndimage, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adbench.benchmark.evaluation.metrics.connected_components import label_components


def by_scipy(masks: np.ndarray) -> np.ndarray:
    """The region of every true place, numbered through all samples."""
    result, past = [], 0
    for mask in masks:
        labels = np.zeros(mask.shape, np.int32)
        ndimage.label(mask, np.ones((3,) * mask.ndim, bool), labels)
        result.append(labels[mask].astype(int) - 1 + past)
        past += labels.max()
    return np.concatenate(result)


@settings(max_examples=150)
@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 30)),
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)),
    ),
    samples=st.integers(1, 4),
    share=st.sampled_from([0.05, 0.2, 0.4, 0.6, 0.9, 1.0]),
    seed=st.integers(0, 9999),
)
def test_regions_are_those_of_scipy(shape, samples, share, seed):
    masks = np.random.default_rng(seed).random((samples, *shape)) < share
    np.testing.assert_array_equal(label_components(masks), by_scipy(masks))


def test_a_spiral_is_one_region_and_an_empty_stack_has_none():
    spiral = np.zeros((1, 7, 7), bool)
    spiral[0, 0] = spiral[0, :, 6] = spiral[0, 6] = spiral[0, 2:, 0] = spiral[0, 2, :5] = True
    spiral[0, 2:5, 4] = True
    assert set(label_components(spiral)) == {0}
    assert label_components(np.zeros((3, 4, 4), bool)).size == 0


@pytest.mark.parametrize("shape", [(5, 5), (4, 4, 4)])
def test_neither_samples_nor_opposite_borders_touch(shape):
    masks = np.zeros((2, *shape), bool)
    masks[0, -1] = masks[1, 0] = masks[1, -1] = True
    assert len(set(label_components(masks))) == 3
