"""Ranks over datasets against scipy and against the table of the paper."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from adbench.benchmark.evaluation.statistics.rank_tests import critical_difference, rank_test


@pytest.mark.parametrize("digits", [8, 1])
def test_friedman_is_scipys_with_ties_too(digits):
    values = np.random.default_rng(0).random((9, 4)) + np.array([0, 0.1, 0.2, 0.3])
    values = np.round(values, digits)
    result = rank_test(values.tolist())
    assert result.p_value == pytest.approx(friedmanchisquare(*values.T).pvalue)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsars_table(methods, q):
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, abs=1e-3)


def test_the_best_has_rank_one_and_a_missing_figure_the_last():
    result = rank_test([[0.9, 0.5, None], [0.8, 0.9, 0.1]])
    assert result.mean_ranks.tolist() == [1.5, 1.5, 3]
    assert rank_test([[0.1, 0.5, None]] * 2, lower_is_better=True).mean_ranks.tolist() == [1, 2, 3]
    assert rank_test([[None, 0.5, None]]).mean_ranks.tolist() == [2.5, 1, 2.5]
    assert rank_test([[0.5, 0.5, 0.4]]).mean_ranks.tolist() == [1.5, 1.5, 3]


def test_cliques_are_what_cannot_be_told_apart():
    rows = [[5, 4, 3, 2, 1]] * 14  # mean ranks 1..5, critical difference 1.63
    result = rank_test(rows)
    assert result.cliques == [[0, 1], [1, 2], [2, 3], [3, 4]]
    few = rank_test(rows[:2])
    assert few.cliques == [[0, 1, 2, 3, 4]]
    assert few.p_value is not None and result.p_value is not None and result.p_value < few.p_value


def test_two_methods_or_one_data_set_are_too_few():
    for rows in ([[0.1, 0.2]] * 5, [[0.1, 0.2, 0.3]]):
        result = rank_test(rows)
        assert (
            result.p_value is None and result.critical_difference is None and result.cliques == []
        )
    assert rank_test([[0.5] * 3] * 4).p_value == 1
    with pytest.raises(ValueError, match="at least one"):
        rank_test([])
