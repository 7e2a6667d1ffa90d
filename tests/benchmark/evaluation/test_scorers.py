"""Scorers against closed forms: p-values are uniform, distances Mahalanobis's, ensembles normal."""

from __future__ import annotations

from dataclasses import replace
from math import erf
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from adbench.benchmark.evaluation import scorers
from adbench.benchmark.evaluation.evaluate import evaluate
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.evaluation.protocol_values import ProtocolError
from adbench.benchmark.evaluation.scorers import ScoredMaps, score_splits

ALL = ("pvalue", "position-z", "levels-mean", "levels-max", "levels-mahalanobis")


def split(
    maps: np.ndarray | None, label: Any = None, score: np.ndarray | None = None, **more: Any
) -> Predictions:
    values = maps if maps is not None else score
    assert values is not None
    count = values.shape[1]
    keys = [f"sample {i}" for i in range(count)]
    labels = np.zeros(count, bool) if label is None else np.asarray(label, bool)
    fields: dict[str, Any] = {"mask": None, "roi": None, "spacing": None} | more
    maps = None if maps is None else maps.astype(np.float32)
    return Predictions(keys, keys, labels, tags=[{}] * count, score=score, map=maps, **fields)


def scored(name: Any, calibration: Predictions, test: Predictions, levels: Any = (1, 2)) -> Any:
    return score_splits(Protocol(scorer=name), calibration, test, test, levels, levels[0])


def read(maps: Any) -> np.ndarray:
    return np.stack([maps[k, 0 : maps.shape[1]] for k in range(maps.shape[0])])


def test_p_values_of_normal_pixels_are_uniform() -> None:
    """P(p <= a) is a for pixels of new normal samples, whatever their distribution."""
    rng = np.random.default_rng(0)
    calibration, test = (np.exp(rng.normal(size=(1, 200, 50))) for _ in range(2))
    result = scored("pvalue", split(calibration), split(test), [7])
    p = 10 ** -read(result.test.map).ravel()
    for a in (0.01, 0.05, 0.2, 0.5, 0.9):
        assert (p <= a).mean() == pytest.approx(a, abs=0.012)
        assert (p <= a).mean() <= a + 0.006
    assert result.levels == [7]
    extreme = scored("pvalue", split(calibration), split(np.full((1, 1, 50), 1e9)), [7])
    np.testing.assert_allclose(read(extreme.test.map), np.log10(201))  # 1 / (G + 1)


def test_the_distance_over_levels_is_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    mix = np.array([[1.0, 0, 0], [0.9, 0.3, 0], [-2.0, 1, 5]])
    calibration = np.einsum("kl,l...->k...", mix, rng.normal(size=(3, 100, 6, 5))) + 4
    test = rng.normal(size=(3, 4, 6, 5)) * 3
    result = scored("levels-mahalanobis", split(calibration), split(test), [100, 250, 500])
    assert result.levels == [100] and result.test.map.shape == (1, 4, 6, 5)
    values = calibration.astype(np.float32).astype(np.float64).reshape(3, -1)
    inverse = np.linalg.inv(np.cov(values, bias=True))
    pixels = test.astype(np.float32).reshape(3, -1).T
    expected = [mahalanobis(pixel, values.mean(1), inverse) for pixel in pixels]
    np.testing.assert_allclose(read(result.test.map).ravel(), expected, rtol=1e-4)
    square = np.square(read(result.calibration.map))
    assert square.mean() == pytest.approx(3)  # of L levels, by definition


def test_a_level_that_says_what_another_says_counts_once() -> None:
    rng = np.random.default_rng(0)
    calibration, test = rng.normal(size=(1, 50, 9)), rng.normal(size=(1, 5, 9))
    twice = scored("levels-mahalanobis", split(np.repeat(calibration, 2, 0)),
                   split(np.repeat(test, 2, 0)))  # fmt: skip
    once = scored("levels-mahalanobis", split(calibration), split(test), [1])
    np.testing.assert_allclose(read(twice.test.map), read(once.test.map), rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    calibration, test = rng.gamma(2, size=(2, 11, 4, 3)), rng.gamma(2, size=(2, 7, 4, 3))
    roi = rng.random((11, 4, 3)) < 0.7
    whole = scored(name, split(calibration, roi=roi), split(test))
    monkeypatch.setattr(scorers, "BLOCK_SIZE", 30)
    blocks = scored(name, split(calibration, roi=roi), split(test))
    np.testing.assert_allclose(read(blocks.test.map), read(whole.test.map), rtol=1e-5, atol=1e-6)
    part = whole.test.map[0, 2:5]
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, read(whole.test.map)[0, 2:5])


def test_positions_have_their_own_mean_and_deviation() -> None:
    """A position twice as restless as another counts half; the prior is a shrinkage of variances.
    Outside every region of interest the mean of all takes its place."""
    rng = np.random.default_rng(0)
    spread, offset = np.array([1.0, 2.0, 8.0]), np.array([5.0, 0.0, -3.0])
    calibration = rng.normal(size=(1, 4000, 3)) * spread + offset
    result = scored("position-z", split(calibration), split(np.array([[[6.0, 2, 5]]])), [1])
    np.testing.assert_allclose(read(result.test.map)[0, 0], [1, 1, 1], atol=0.06)
    few = rng.normal(size=(1, 5, 3))
    z = read(scored("position-z", split(few), split(np.ones((1, 1, 3))), [1]).test.map)[0, 0]
    few = few.astype(np.float32).astype(np.float64)[0]
    pooled = few.var(0, ddof=1).mean()
    variance = (few.var(0, ddof=1) * 4 + 10 * pooled) / 14
    np.testing.assert_allclose(z, (1 - few.mean(0)) / np.sqrt(variance), rtol=1e-4)
    roi = np.array([[True, True, False]] * 5)
    outside = scored("position-z", split(few[None], roi=roi), split(np.zeros((1, 1, 3))), [1])
    assert np.isfinite(read(outside.test.map)).all()
    with pytest.raises(ProtocolError, match="at least two"):
        scored("position-z", split(few[None, :1]), split(few[None]), [1])


@pytest.mark.parametrize("name", ["levels-mean", "levels-mahalanobis"])
def test_an_ensemble_of_independent_levels_is_as_good_as_it_should_be(name: Any) -> None:
    """Signal 1 in each of L levels with independent noise of deviation 1, on other scales:
    AUROC of the mean is Phi(sqrt(L / 2)); of one level Phi(sqrt(1 / 2))."""
    rng, levels = np.random.default_rng(0), [100, 250, 500, 750]
    scale = np.array([1.0, 10.0, 0.1, 3.0])[:, None]

    def scores(count: int, signal: float) -> np.ndarray:
        return scale * (rng.normal(size=(4, count)) + signal) + 7

    normal = split(None, score=scores(4000, 0))
    label = np.repeat([False, True], 3000)
    test = split(None, label, np.concatenate([scores(3000, 0), scores(3000, 1)], 1))
    protocol = Protocol(scorer=name, level="published", reducer="method")
    record, _ = evaluate(normal, test, test, levels, 250, protocol)
    auroc = record["metrics"]["image_auroc"]["value"]
    assert record["level"]["chosen"] == 250 and record["level"]["rule"] == "all levels"
    assert list(record["sweep"]) == ["250"]
    if name == "levels-mean":
        assert auroc == pytest.approx((1 + erf(2**0.5 / 2**0.5)) / 2, abs=0.01)
    alone, _ = evaluate(normal, test, test, levels, 250, replace(protocol, scorer="none"))
    single = alone["metrics"]["image_auroc"]["value"]
    assert single == pytest.approx((1 + erf(0.5**0.5 / 2**0.5)) / 2, abs=0.015)
    assert auroc > single


def test_the_maximum_is_of_standard_scores() -> None:
    calibration = np.stack([np.arange(10.0), 10 * np.arange(10.0)])[:, :, None]
    test = np.array([[[4.5 + 2]], [[45 - 30]]])
    result = scored("levels-max", split(calibration), split(test))
    deviation = np.arange(10).std()
    np.testing.assert_allclose(read(result.test.map).ravel(), [2 / deviation], rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_record_is_made_of_scored_maps(name: Any) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 8, 8), bool)
    mask[6:, 2:4, 2:4] = True
    noise = rng.normal(size=(2, 12, 8, 8))
    val = split(noise + 4 * mask, mask.any((1, 2)), mask=mask)
    normal = split(rng.normal(size=(2, 30, 8, 8)))
    record, _ = evaluate(normal, val, val, [1, 2], 2, Protocol(scorer=name, threshold="healthy@5%"))
    assert record["metrics"]["pixel_auroc"]["value"] > 0.95
    assert record["metrics"]["image_auroc"]["value"] == 1
    assert record["metrics"]["healthy_fp"]["value"] < 0.08


def test_without_calibration_samples_it_says_so() -> None:
    empty, test = split(np.zeros((2, 0, 4))), split(np.zeros((2, 3, 4)))
    for name in ALL:
        with pytest.raises(ProtocolError, match="scorer=none"):
            scored(name, empty, test)
    nowhere = split(np.zeros((2, 3, 4)), roi=np.zeros((3, 4), bool))
    with pytest.raises(ProtocolError, match="region of interest"):
        scored("levels-mean", nowhere, test)


def test_maps_stay_where_they_are_until_they_are_read() -> None:
    class Counted:
        shape, reads = (2, 6, 4), 0

        def __getitem__(self, index: Any) -> np.ndarray:
            self.reads += 1
            return np.ones((index[1].stop - index[1].start, 4))

    maps = Counted()
    lazy = ScoredMaps(maps, lambda part, levels: part * 2, False)
    assert lazy.shape == (2, 6, 4) and maps.reads == 0
    assert lazy[1, 2:4].shape == (2, 4)
    assert maps.reads == 1  # of this level alone


def test_the_protocol_names_its_scorer_and_older_ids_stay() -> None:
    protocol = Protocol.parse("healthy@5%,scorer=levels-mean")
    assert protocol.scorer == "levels-mean" and protocol.as_dict()["scorer"] == "levels-mean"
    assert "scorer" not in Protocol().as_dict() and protocol.id != Protocol().id
    assert Protocol.from_dict(protocol.as_dict()) == protocol
    assert "Mean over levels" in protocol.describe()
    with pytest.raises(ProtocolError):
        Protocol.parse("scorer=level-mean")
    with pytest.raises(ProtocolError, match="use scorer=none"):
        protocol.require_unscored_maps("tuning")
    Protocol().require_unscored_maps("tuning")
