"""Made-up lesions: where they lie, on what they depend, and that they choose the level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adbench.benchmark.evaluation.evaluate import evaluate
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.evaluation.protocol_values import ProtocolError
from adbench.benchmark.evaluation.synthetic_anomalies import (
    SyntheticAnomalies,
    concatenate_predictions,
)
from adbench.datasets.base import Sample, content_hash


def normal(count: int = 12, shape: tuple[int, ...] = (24, 24), roi: bool = True) -> list[Sample]:
    torch_rng = torch.Generator().manual_seed(0)
    samples = []
    for i in range(count):
        x = 0.3 + 0.4 * torch.rand(1, *shape, generator=torch_rng)
        inside = torch.zeros(shape, dtype=torch.bool)
        inside[(slice(4, -4),) * len(shape)] = True
        x = x * inside
        samples.append(Sample(x, f"p{i}", f"g{i}", False, None, inside if roi else None))
    return samples


@pytest.mark.parametrize("shape", [(40,), (24, 24), (14, 14, 14)])
@pytest.mark.parametrize("roi", [True, False])
def test_a_lesion_lies_in_the_foreground_and_is_all_that_changes(shape, roi):
    samples = normal(shape=shape, roi=roi)
    result = SyntheticAnomalies(samples)
    assert len(result) == len(samples)
    for before, after in zip(samples, (result[i] for i in range(len(result))), strict=True):
        assert after.mask is not None and after.label and after.group == before.group
        assert after.key != before.key
        changed = (after.x != before.x).any(0)
        assert not (after.mask & ~changed).any()
        assert (after.x - before.x)[:, ~after.mask].abs().max() <= 1e-3
        inside = before.x[0] > 0
        assert not (changed & ~inside).any() and 0 < after.mask.sum() < inside.sum()
        assert after.x.min() >= 0 and after.x.max() <= 1


def test_it_depends_on_key_and_content_alone():
    samples = normal()
    one, two = SyntheticAnomalies(samples), SyntheticAnomalies(samples)
    torch.manual_seed(5)
    np.random.default_rng(5)
    assert [content_hash(one[i]) for i in range(12)] == [content_hash(two[i]) for i in range(12)]
    renamed = SyntheticAnomalies([replace(sample, key=f"x{sample.key}") for sample in samples])
    assert content_hash(renamed[0]) != content_hash(one[0])
    with pytest.raises(IndexError):
        one[12]


def splits():
    """Level 1 sees synthetic anomalies, level 2 sees the true ones."""
    rng = np.random.default_rng(0)

    def predictions_of(name: str, label: np.ndarray, at: int) -> Predictions:
        count = len(label)
        mask = np.zeros((count, 10, 10), bool)
        mask[label, 3:6, 3:6] = True
        maps = rng.normal(size=(2, count, 10, 10))
        maps[at] += 3 * mask
        keys = [f"{name}{i}" for i in range(count)]
        roi = np.ones(mask.shape, bool)
        return Predictions(
            keys, keys, label, mask, roi, None, [{}] * count, None, maps.astype(np.float32)
        )

    yes, no = np.ones(10, bool), np.zeros(10, bool)
    calibration, pseudo = predictions_of("h", no, 0), predictions_of("p", yes, 0)
    val, test = (predictions_of(name, np.arange(10) % 2 == 0, 1) for name in "vt")
    return calibration, pseudo, val, test


def test_the_level_is_chosen_by_them_where_the_protocol_says_so():
    calibration, pseudo, val, test = splits()
    protocol = Protocol.parse("level=pseudo")
    both = concatenate_predictions(calibration, pseudo)
    result, _ = evaluate(calibration, val, test, [100, 200], 200, protocol, both)
    assert result["level"] == {"chosen": 100, "rule": "pseudo", "published": 200, "oracle": 200}
    assert (
        result["sweep"]["100"]["pseudo"]["pixel_ap"] > result["sweep"]["200"]["pseudo"]["pixel_ap"]
    )
    plain, _ = evaluate(calibration, val, test, [100, 200], 200, Protocol())
    assert plain["level"]["rule"] == "val" and "pseudo" not in plain["sweep"]["100"]
    swapped = replace(test, label=~test.label)
    blind, _ = evaluate(calibration, val, swapped, [100, 200], 200, protocol, both)
    assert blind["level"]["chosen"] == 100, "no label has a say"
    with pytest.raises(ProtocolError, match="level=published"):
        evaluate(calibration, val, test, [100, 200], 200, protocol)
    assert "synthetic anomalies" in protocol.describe()


def test_beside_reads_maps_as_if_they_were_one():
    calibration, pseudo, _, _ = splits()
    both = concatenate_predictions(calibration, pseudo)
    whole = np.concatenate([calibration.map, pseudo.map], 1)
    assert both.map.shape == whole.shape
    for rows in (slice(0, 4), slice(8, 13), slice(10, 20), slice(0, 20), slice(19, 40)):
        np.testing.assert_array_equal(both.map[1, rows], whole[1, rows])
    assert both.label.tolist() == [False] * 10 + [True] * 10
    scored = [
        replace(part, map=None, mask=None, score=np.zeros((2, 10)))
        for part in (calibration, pseudo)
    ]
    plain = concatenate_predictions(*scored)
    assert plain.map is None and plain.mask is None and plain.score is not None
    assert plain.score.shape == (2, 20)
