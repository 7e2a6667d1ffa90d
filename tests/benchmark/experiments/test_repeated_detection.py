"""Mahalanobis distances over repeated reconstructions: closed forms, and what a run makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.evaluation.protocol_values import ProtocolError
from adbench.benchmark.experiments.example_experiments import example_experiments
from adbench.benchmark.experiments.pipeline import run_experiment
from adbench.benchmark.experiments.repeated_detection import SHRINKAGE, RepeatedDetection
from adbench.benchmark.experiments.resolve import resolve
from adbench.benchmark.store.artifact_store import Store
from adbench.datasets.base import Spec, Split
from adbench.datasets.phantom import Phantom
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Detection, Method


class Stochastic(Method):
    """Reconstructions of mean 0, of deviation 1 and 3 in the halves; `kind` says what it gives."""

    def __init__(self, spec: Spec, kind: str = "reconstruction") -> None:
        super().__init__(spec)
        self.kind = kind

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        pass

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        drawn = rng.normal(x.shape[1:])
        drawn[..., x.shape[-1] // 2 :] *= 3
        drawn = (drawn + torch.tensor(levels).view(-1, *[1] * x.ndim)).expand(-1, *x.shape)
        map = (drawn - x).abs().mean(2)
        if self.kind == "score":
            return Detection(map.flatten(2).mean(2))
        return Detection.from_map(map, drawn if self.kind == "reconstruction" else None)


KEYS = ["a", "b"]


def detect(x: Tensor, repeats: int, kind: str = "reconstruction", **more: Any) -> Detection:
    method = RepeatedDetection(Stochastic(Spec(2, tuple(x.shape[2:])), kind), repeats, **more)
    return method.detect(x, [0, 5], Rng(KEYS))


def all_of_them(x: Tensor, repeats: int) -> np.ndarray:
    """The reconstructions, (R, L, N, C, *S) float64."""
    method, rng = Stochastic(Spec(2, tuple(x.shape[2:]))), Rng(KEYS)
    streams = [rng, *(rng.fork("repeated detection", r) for r in range(1, repeats))]
    parts = [method.detect(x, [0, 5], stream).reconstruction for stream in streams]
    return np.stack([part.double().numpy() for part in parts if part is not None])


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_it_is_the_mahalanobis_distance(covariance: Any) -> None:
    """By NumPy's inverse of the shrunk covariance; the pixels' squares add up to the whole."""
    x = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    map = detect(x, 6, covariance=covariance).map
    assert map is not None
    values = all_of_them(x, 6).reshape(6, 2, 2, -1)
    for level in range(2):
        for n in range(2):
            part = values[:, level, n]
            s = np.cov(part.T)
            s = np.diag(s.diagonal()) if covariance == "diagonal" else s
            t = (1 - SHRINKAGE) * s + SHRINKAGE * np.eye(len(s)) * s.diagonal().mean()
            away = x[n].flatten().double().numpy() - part.mean(0)
            contributions = np.maximum(away * np.linalg.solve(t, away), 0).reshape(2, 3, 4)
            np.testing.assert_allclose(
                map[level, n].numpy(), np.sqrt(contributions.mean(0)), rtol=1e-4, atol=1e-5
            )


def test_many_repeats_know_the_distribution() -> None:
    """Variances 1 and 9, mean variance 5: T is 3 and 7; a distance of 6 from the mean."""
    x = torch.full((2, 2, 1, 8), 6.0)
    map = detect(x, 3000).map
    assert map is not None
    expected = torch.tensor([6 / 3**0.5] * 4 + [6 / 7**0.5] * 4)
    torch.testing.assert_close(map[0, 0, 0], expected, rtol=0.06, atol=0)
    nearer = (6 - 5) / 6  # at level 5 the mean of the reconstructions is 5
    torch.testing.assert_close(map[1, 0, 0], expected * nearer, rtol=0.25, atol=0.1)


def test_without_reconstructions_the_maps_are_compared_with_0() -> None:
    x = torch.zeros(2, 2, 3, 4)
    detection = detect(x, 5, kind="map")
    assert detection.map is not None and detection.reconstruction is None
    maps = np.abs(all_of_them(x, 5)).mean(3)
    variance = maps.var(0, ddof=1)
    t = (variance + variance.mean((2, 3), keepdims=True)) / 2
    np.testing.assert_allclose(detection.map.numpy(), maps.mean(0) / np.sqrt(t), rtol=1e-4)
    np.testing.assert_allclose(detection.score.numpy(), maps.mean((0, 3, 4)), rtol=1e-5)
    alone = detect(x, 5, kind="score")
    assert alone.map is None
    torch.testing.assert_close(alone.score, detection.score)


def test_a_sample_is_predicted_alike_in_any_batch() -> None:
    x = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    both = detect(x, 4)
    method = RepeatedDetection(Stochastic(Spec(2, (3, 4))), 4)
    alone = method.detect(x[1:], [5], Rng(["b"]))
    assert both.map is not None and alone.map is not None
    assert torch.equal(both.map[1, 1], alone.map[0, 0])


def test_a_method_that_draws_nothing_is_refused() -> None:
    class Constant(Stochastic):
        def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
            return Detection.from_map(torch.ones(len(levels), len(x), *x.shape[2:]))

    with pytest.raises(ValueError, match="the same each of 3 times"):
        RepeatedDetection(Constant(Spec(1, (4,))), 3).detect(torch.ones(1, 1, 4), [0], Rng(["a"]))
    with pytest.raises(ValueError, match="needs 2"):
        RepeatedDetection(Stochastic(Spec(1, (4,))), 1)


def test_a_run_stores_its_maps_by_themselves(tmp_path: Any) -> None:
    """The checkpoint is shared, the maps are not; the record names what was done."""
    store, dataset, context = Store(tmp_path / "store"), Phantom(shape=(16,)), TrainingContext()
    records = []
    for protocol in ("scorer=none", "repeats=3", "repeats=3,covariance=full,scorer=levels-mean"):
        (experiment,) = example_experiments(
            "anoddpm", shape=(16,), limit=4, profile="check", protocol=protocol, levels=[250]
        )
        out, log = tmp_path / protocol, lambda event, facts: None
        records.append(run_experiment(experiment, dataset, store, context, log, out, {}))
    plain, repeated, full = records
    assert plain["keys"]["checkpoint"] == repeated["keys"]["checkpoint"]
    assert len({record["keys"]["maps/test"] for record in records}) == 3
    assert repeated["protocol"]["repeats"] == 3 and "repeats" not in plain["protocol"]
    assert "3 reconstructions" in repeated["protocol"]["text"]
    assert full["protocol"]["covariance"] == "full"
    cost = [record["cost"]["evaluations_per_image"] for record in (plain, repeated)]
    assert cost[1] == pytest.approx(3 * cost[0])


def test_keys_of_other_protocols_stay() -> None:
    phantom = Phantom(shape=(8, 8), train=2, held_out=2, val=1, test=1)
    inputs = [
        resolve(example_experiments(protocol=p)[0], phantom, "float32").key_inputs.maps["test"]
        for p in ("scorer=none", "reducer=max", "scorer=pvalue", "repeats=2")
    ]
    assert inputs[0] == inputs[1] == inputs[2] and "repeats" not in inputs[0]
    assert inputs[3]["repeats"] == [2, "diagonal"]
    with pytest.raises(ProtocolError, match="set repeats=5"):
        Protocol(covariance="full")


def test_what_has_no_calibration_maps_or_no_method_refuses_such_protocols() -> None:
    from adbench.benchmark.api.detector import _experiment
    from adbench.benchmark.external.evaluate_results import _check_protocol
    from adbench.benchmark.registry.registry import Registry

    for protocol in (Protocol(scorer="pvalue"), Protocol(repeats=2)):
        with pytest.raises(ProtocolError, match="a detector of new samples takes maps as"):
            _experiment({"protocol": protocol.as_dict()}, Registry.read())
    with pytest.raises(ProtocolError, match="use repeats=1"):
        results: Any = SimpleNamespace(scores=True)
        _check_protocol(Protocol(repeats=2), results)
