"""Evaluation that reads maps and masks in blocks gives the very numbers of that in memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adbench.benchmark.evaluation import load_predictions as loading
from adbench.benchmark.evaluation import streamed_ground_truth, streamed_pixels
from adbench.benchmark.evaluation.evaluate import evaluate
from adbench.benchmark.evaluation.load_predictions import load_predictions
from adbench.benchmark.evaluation.metrics import external_ranking
from adbench.benchmark.evaluation.metrics.external_ranking import ExternalRanking
from adbench.benchmark.evaluation.metrics.order_statistics import (
    DistinctScores,
    streamed_order_statistics,
)
from adbench.benchmark.evaluation.metrics.ranking_curves import Ranking
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.evaluation.synthetic_anomalies import concatenate_predictions
from adbench.datasets.base import Sample, Tile

PROTOCOLS = (
    Protocol(),
    Protocol("val-dice", post=("median3", "components>=3")),
    Protocol("val-bisect10", post=("erode3",), level="published", reducer="max"),
    Protocol("val-volume-dice", post=("volume-median3", "volume-components>=4")),
    Protocol("oracle", level="oracle", roi=False, reducer="method"),
)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_ground_truth, "BLOCK_PIXELS", 600)
    monkeypatch.setattr(streamed_pixels, "BLOCK_PIXELS", 600)
    monkeypatch.setattr(external_ranking, "RANGE_BITS", 16)
    monkeypatch.setattr(external_ranking, "MANY_PIXELS", 200)
    monkeypatch.setattr(external_ranking, "PART_SIZE", 100)
    monkeypatch.setattr(external_ranking, "ROWS_AT_A_TIME", 128)  # numpy adds 128 at a time


def predictions_of(name: str, seed: int, shape: tuple[int, ...], digits: int) -> Predictions:
    rng = np.random.default_rng([sum(map(ord, name)), seed])
    count = 24
    label = np.arange(count) % 2 == 1 if name != "held_out" else np.zeros(count, bool)
    mask = (rng.random((count, *shape)) < 0.05) & label.reshape(-1, *(1 for _ in shape))
    maps = rng.normal(size=(2, count, *shape)) + 1.5 * mask
    order = rng.permutation(count)  # the slices of a patient do not lie side by side
    return Predictions(
        keys=[f"{name}/{i // 4}/z{i % 4:03d}" for i in order],
        groups=[f"{name}/{i // 4}" for i in order],
        label=label,
        mask=mask,
        roi=rng.random((count, *shape)) > 0.1,
        spacing=None,
        tags=[{"lesion": "ab"[i % 2]} if label[i] else {} for i in range(count)],
        score=rng.normal(size=(2, count)) + label,
        map=np.round(maps, digits).astype(np.float32),
    )


Splits = tuple[Predictions, Predictions, Predictions]


def splits_of(seed: int, shape: tuple[int, ...], digits: int) -> Splits:
    """Calibration, validation and test."""
    calibration, val, test = (
        predictions_of(name, seed, shape, digits) for name in ("held_out", "val", "test")
    )
    return calibration, val, test


def streamed(calibration: Predictions, val: Predictions, test: Predictions) -> Splits:
    """The same, to be read in blocks."""
    return (
        replace(calibration, streamed=True),
        replace(val, streamed=True),
        replace(test, streamed=True),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.threshold)
@pytest.mark.parametrize("shape", [(12, 11), (5, 6, 7)])
def test_a_record_is_the_same_to_the_bit(protocol: Protocol, shape: tuple[int, ...]) -> None:
    splits = splits_of(1, shape, 2)
    usual, results = evaluate(*splits, [100, 250], 100, protocol)
    record, others = evaluate(*streamed(*splits), [100, 250], 100, protocol)
    assert record == usual
    assert results.score.tobytes() == others.score.tobytes()
    assert results.counts is not None and np.array_equal(results.counts, np.asarray(others.counts))
    assert results.replicates.keys() == others.replicates.keys()
    for name, values in results.replicates.items():
        assert values.tobytes() == others.replicates[name].tobytes(), name


class CountedMaps:
    """Maps that count how often each level of each sample is read."""

    def __init__(self, maps: Any) -> None:
        self._maps, self.shape = maps, maps.shape
        self.reads = np.zeros(maps.shape[:2], int)

    def __getitem__(self, index: tuple[int, slice]) -> Any:
        self.reads[index] += 1
        return self._maps[index]


@pytest.mark.parametrize(
    "protocol", [Protocol("val-dice"), Protocol(post=("median3",)), Protocol(budget=100)]
)
def test_maps_are_read_once_for_the_sweep_and_once_for_an_operating_point(
    protocol: Protocol,
) -> None:
    splits = [
        replace(split, map=CountedMaps(np.repeat(split.map, 3, 0)))
        for split in streamed(*splits_of(4, (12, 11), 6))
    ]
    record, _ = evaluate(splits[0], splits[1], splits[2], [*range(6)], 2, protocol)
    points = {record["level"][name] for name in ("chosen", "published", "oracle")}
    for split in splits[1:]:
        reads = split.map.reads
        assert (reads[[level for level in range(6) if level not in points]] == 1).all()
        assert reads.max() <= 2
    assert splits[0].map.reads.max() == 1


def test_beyond_the_budget_bins_are_the_same() -> None:
    splits = splits_of(2, (12, 12), 6)
    protocol = Protocol(budget=100)
    usual, _ = evaluate(*splits, [100, 250], 100, protocol)
    record, _ = evaluate(*streamed(*splits), [100, 250], 100, protocol)
    for name, metric in usual["metrics"].items():
        other = record["metrics"][name]["value"]
        exact = name != "volume_dice_oracle"  # beyond the budget no scores are sorted for it
        assert other == pytest.approx(metric["value"], abs=1e-12 if exact else 0.02), name
    assert record["pixel_error"] == pytest.approx(usual["pixel_error"]) and record["pixel_error"]


def test_maps_of_a_few_values_are_judged_exactly_beyond_the_budget() -> None:
    """A bin of the first pass holds several of them; a second one counts them one by one."""
    calibration, val, test = (
        replace(each, map=(1 + 1e-4 * np.round(each.map)).astype(np.float32))
        for each in splits_of(2, (12, 11), 2)
    )
    narrow = calibration, val, test
    usual, _ = evaluate(*narrow, [100, 250], 100, Protocol())
    for splits in (narrow, streamed(*narrow)):
        record, _ = evaluate(*splits, [100, 250], 100, Protocol(budget=100))
        assert record["pixel_error"] == 0
        for name in ("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_dice_oracle"):
            value, expected = (each["metrics"][name]["value"] for each in (record, usual))
            assert value == pytest.approx(expected, abs=1e-9), name


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(2, 5000),
    digits=st.sampled_from([0, 1, 7]),
    scale=st.sampled_from([1e-30, 1.0, 1e6]),
    zeros=st.sampled_from([0.0, 0.7]),
)
def test_an_external_sort_ranks_as_one_in_memory(
    seed: int, size: int, digits: int, scale: float, zeros: float
) -> None:
    rng = np.random.default_rng(seed)
    score = (np.round(rng.normal(size=size), digits) * scale).astype(np.float32)
    score[rng.random(size) < zeros] = rng.choice([0.0, -0.0])
    truth = rng.random(size) < 0.3
    share = rng.random(int(truth.sum()))
    cuts = [0, *np.sort(rng.integers(0, size, 3)).tolist(), size]

    def blocks() -> Any:
        for first, last in pairwise(cuts):
            past = int(truth[:first].sum())
            own = truth[first:last]
            yield score[first:last], own, share[past : past + int(own.sum())]

    usual, ranking = Ranking.from_scores(score, truth, share), ExternalRanking.from_blocks(blocks())
    if usual is None or ranking is None:
        assert usual is ranking
        return
    assert ranking.auroc() == usual.auroc() and ranking.ap() == usual.ap()
    assert ranking.best_dice() == usual.best_dice()
    assert ranking.aupro(0.3) == usual.aupro(0.3) and ranking.aupro(0.05) == usual.aupro(0.05)
    places = rng.integers(0, len(usual.thresholds), 5)
    assert np.array_equal(ranking.thresholds_at(places), usual.thresholds[places])
    ranks = rng.integers(0, size, 9)
    statistics = streamed_order_statistics(lambda: (block[0] for block in blocks()), ranks)
    assert np.array_equal(statistics, np.sort(score)[ranks])
    distinct = DistinctScores()
    for block, _, _ in blocks():
        distinct.add(block)
    expected = np.unique(score)
    assert distinct.size() == expected.size
    assert np.array_equal(distinct.take(np.arange(expected.size)), expected)


def test_a_score_that_is_nan_has_no_rank_on_disk_either() -> None:
    score, truth = np.array([0.1, np.nan], np.float32), np.array([True, False])
    with pytest.raises(ValueError, match="no rank"):
        ExternalRanking.from_blocks([(score, truth, np.ones(1))])


@pytest.mark.parametrize("tiled", [False, True])
def test_stored_predictions_are_streamed_beyond_a_size(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, tiled: bool
) -> None:
    rng = np.random.default_rng(3)
    samples = [
        Sample(
            torch.zeros(1, 6, 6),
            f"k{i:02d}",
            f"g{i // 4 if tiled else i}",
            label=(i // 2 if tiled else i) % 2 == 1,
            mask=torch.from_numpy((rng.random((6, 6)) < 0.2) & ((i // 2 if tiled else i) % 2 == 1)),
            roi=torch.from_numpy(rng.random((6, 6)) < 0.9),
            tile=Tile(f"image{i // 2}", (6 * (i % 2), 0), (12, 6)) if tiled else None,
        )
        for i in range(24)
    ]
    path = tmp_path / "maps.h5"
    with h5py.File(path, "w") as file:
        file["levels"], file["score"] = [100, 250], rng.random((2, 24))
        file["map"] = rng.random((2, 24, 6, 6)).astype(np.float32)
    normal = [sample for sample in samples if not sample.label]
    usual, small = load_predictions(samples, path), evaluate_all(load_predictions(samples, path))
    monkeypatch.setattr(loading, "MEMORY_PIXELS", 100)
    streamed = load_predictions(samples, path, scratch=tmp_path)
    assert streamed.streamed and not usual.streamed and normal
    assert np.array_equal(np.asarray(streamed.mask[0:12]), usual.mask[0:12])
    assert evaluate_all(streamed) == small
    assert [file.name for file in tmp_path.iterdir()] == ["maps.h5"]


def evaluate_all(split: Predictions) -> Any:
    both = concatenate_predictions(split, split)
    protocol = Protocol("fixed:0.5", level="pseudo")
    return evaluate(split, split, split, [100, 250], 100, protocol, both)[0]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_region_that_some_samples_lack_is_all_of_them_and_a_missing_normal_mask_is_empty(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    judged = torch.tensor([[True, False], [True, False]])
    lesion = torch.tensor([[True, False], [False, False]])
    samples = [
        Sample(torch.zeros(1, 2, 2), "normal", "a", label=False),
        Sample(torch.zeros(1, 2, 2), "abnormal", "b", label=True, mask=lesion, roi=judged),
    ]
    path = tmp_path / "maps.h5"
    with h5py.File(path, "w") as file:
        file["levels"], file["score"] = [100], [[0.1, 0.2]]
        file["map"] = np.zeros((1, 2, 2, 2), np.float32)
    if streamed:
        monkeypatch.setattr(loading, "MEMORY_PIXELS", 4)
    predictions = load_predictions(samples, path, scratch=tmp_path)
    assert predictions.streamed == streamed
    assert np.asarray(predictions.roi[0:2]).tolist() == [[[True, True]] * 2, [[True, False]] * 2]
    assert np.asarray(predictions.mask[0:2]).sum((1, 2)).tolist() == [0, 1]
    reference = evaluate(predictions, predictions, predictions, [100], 100, Protocol("fixed:0.5"))[
        0
    ]["reference"]
    assert reference["prevalence"] == 1 / 6  # four pixels and two of four, one of them abnormal
    unknown = [samples[0], replace(samples[1], mask=None), samples[1]]
    with h5py.File(tmp_path / "unknown.h5", "w") as file:
        file["levels"], file["score"] = [100], [[0.1, 0.2, 0.3]]
        file["map"] = np.zeros((1, 3, 2, 2), np.float32)
    assert load_predictions(unknown, tmp_path / "unknown.h5", scratch=tmp_path).mask is None
