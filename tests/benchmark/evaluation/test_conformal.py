"""Conformal p-values: the formula by hand, their rate on normal data, and what a record says."""

from __future__ import annotations

import numpy as np
import pytest

from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
from adbench.benchmark.evaluation.conformal import Calibration, calibration_record
from adbench.benchmark.evaluation.ground_truth import GroundTruth
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol


def split(score: np.ndarray, groups: list[str], label: np.ndarray, maps: np.ndarray) -> GroundTruth:
    keys = [f"{group}/{i}" for i, group in enumerate(groups)]
    nothing: list[dict[str, str]] = [{} for _ in keys]
    predictions = Predictions(
        keys, groups, label, None, None, None, nothing, score[None], maps[None].astype(np.float32)
    )
    return build_ground_truth(predictions, Protocol(reducer="method"))


def normal_scores(seed: int, patients: int, slices: int) -> tuple[np.ndarray, list[str]]:
    """Scores as detectors give them for slices of brains: skewed, and alike within a patient."""
    rng = np.random.default_rng(seed)
    patient = rng.gamma(2.0, 1.0, patients)
    score = np.exp(0.5 * patient[:, None] + 0.3 * rng.standard_normal((patients, slices)))
    return score.ravel(), [f"p{i}" for i in range(patients) for _ in range(slices)]


def test_with_one_value_per_group_it_is_the_usual_formula() -> None:
    rng = np.random.default_rng(0)
    normal, new = rng.integers(0, 9, 40).astype(float), np.arange(-1.0, 11.0)
    calibration = Calibration.from_values(normal, [str(i) for i in range(40)])
    by_hand = [(1 + sum(c >= s for c in normal)) / 41 for s in new]
    assert np.allclose(calibration.p_values(new), by_hand, rtol=1e-12)


def test_a_group_splits_its_vote_over_its_samples() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    calibration = Calibration.from_values(values, ["a", "a", "a", "a", "b"])
    # of group a 2, 1 and 0 of 4 are as high; of b 1, 1 and 0 of 1; and the new group's own
    assert calibration.p_values(np.array([2.5, 4.0, 5.5])).tolist() == pytest.approx(
        [(1 + 2 / 4 + 1) / 3, (1 + 1 / 4 + 1) / 3, 1 / 3]
    )


@pytest.mark.parametrize(("patients", "slices"), [(99, 1), (199, 6)])
def test_five_percent_of_normal_samples_are_rejected(patients: int, slices: int) -> None:
    rates = []
    for seed in range(20):
        score, groups = normal_scores(seed, 2 * patients, slices)
        half = patients * slices
        calibration = Calibration.from_values(score[:half], groups[:half])
        rates.append((calibration.p_values(score[half:]) <= 0.05).mean())
    assert 0.035 <= np.mean(rates) <= 0.065


def test_slices_that_are_not_grouped_are_rejected_at_another_rate() -> None:
    """What the groups are for: patients with many slices that are alike drown the others."""
    rates = {True: [], False: []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        count = rng.choice([1, 60], 30)  # a patient is scanned once, or again and again
        level = rng.normal(np.where(count == 1, 2.0, 0.0))
        score, owner = np.repeat(level, count), np.repeat(np.arange(30), count)
        new = rng.normal(np.where(rng.choice([1, 60], 500) == 1, 2.0, 0.0))
        for grouped in (True, False):
            names = owner if grouped else np.arange(len(score))
            calibration = Calibration.from_values(score, [str(name) for name in names])
            rates[grouped].append((calibration.p_values(new) <= 0.05).mean())
    assert np.mean(rates[True]) <= 0.055 < 0.2 < np.mean(rates[False])


def test_few_knots_never_make_a_pixel_more_unusual() -> None:
    rng = np.random.default_rng(1)
    samples = [rng.gamma(1.0, 1.0 + i, 4000) for i in range(20)]
    groups = [f"p{i // 2}" for i in range(20)]
    stored = Calibration.from_pixels(samples, groups)
    exact = Calibration.from_values(
        np.concatenate(samples), [g for g in groups for _ in range(4000)]
    )
    new = rng.gamma(1.0, 6.0, 3000)
    assert len(stored.knots) < 600
    assert (stored.p_values(new) >= exact.p_values(new) - 1e-12).all()
    assert np.abs(stored.p_values(new) - exact.p_values(new)).max() < 0.01


def test_a_record_states_the_rate_on_normal_test_data() -> None:
    maps = np.random.default_rng(2)
    score, groups = normal_scores(3, 60, 2)
    calibration = split(score[:60], groups[:60], np.zeros(60, bool), maps.random((60, 8)))
    label = np.arange(60) % 5 == 0
    test = split(
        score[60:] + 100 * label, groups[60:], label, maps.random((60, 8)) + 5 * label[:, None]
    )
    record = calibration_record(calibration, test, 0)
    p = Calibration.from_values(score[:60], groups[:60]).p_values(score[60:])
    normal = [(p[i] <= 0.05, groups[60 + i]) for i in range(60) if not label[i]]
    means = [np.mean([r for r, g in normal if g == name]) for name in {g for _, g in normal}]
    assert record["image_fpr"] == pytest.approx(float(np.mean(means)))
    assert record["groups"] == 30 and record["rate"] == 0.05
    assert 0.0 < record["pixel_fpr"] < 0.12  # not that of the abnormal samples


def test_with_too_few_groups_there_is_no_rate() -> None:
    score, groups = normal_scores(3, 18, 1)
    truth = split(score, groups, np.zeros(18, bool), np.zeros((18, 4)))
    record = calibration_record(truth, truth, 0)
    assert record["image_fpr"] is None and record["pixel_fpr"] is None
    assert not Calibration.from_values(score, groups).allows(0.05)
    assert Calibration.from_values(np.arange(19.0), [str(i) for i in range(19)]).allows(0.05)


def test_without_calibration_samples_nothing_is_unusual() -> None:
    empty = Calibration.from_values(np.zeros(0), [])
    assert empty.p_values(np.array([9.0])).tolist() == [1.0] and not empty.allows(0.5)
