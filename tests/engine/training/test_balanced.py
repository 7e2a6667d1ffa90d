"""Balanced sampling: as many abnormal samples as normal ones, from a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from adbench.benchmark.registry.settings import build, setting_parameters
from adbench.datasets.base import Sample, Spec
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.data_loading import draw_balanced_indices, indices_by_label
from adbench.engine.training.loop import Training, train_module
from adbench.methods.anoddpm import AnoDDPM
from adbench.methods.fpgan import FixedPointGAN
from adbench.methods.guided import Guided
from small import build_small, samples
from trainings import MemoryStateStore

RARE = [Sample(torch.full((1, 1), float(i)), str(i), str(i), i in (4, 11)) for i in range(20)]


def drawn(plan: Training, context: TrainingContext | None = None, data: Sequence[Sample] = RARE):
    """The values and the labels of every row that was trained on."""
    net, rows = nn.Linear(1, 1), []

    def loss(x: torch.Tensor, label: torch.Tensor, rng: Rng) -> torch.Tensor:
        rows.extend(zip(x.flatten().tolist(), label.tolist(), strict=True))
        return net(x[:, 0]).square().mean(1)

    train_module(loss, net, data, context or TrainingContext(), plan)
    return rows


def test_half_of_the_rows_are_abnormal_and_each_sample_of_a_kind_is_as_probable() -> None:
    rows = drawn(Training(200, 16, 0.0, balanced=True))
    labels = torch.tensor([label for _, label in rows]).double()
    assert labels.mean() == pytest.approx(0.5, abs=0.03)
    counts = torch.bincount(torch.tensor([int(value) for value, _ in rows]), minlength=20)
    for kind, share in ((torch.tensor([4, 11]), 1 / 4), (torch.arange(4), 1 / 36)):
        assert (counts[kind] / len(rows) - share).abs().max() < 0.02
    assert all(label == (value in (4.0, 11.0)) for value, label in rows)


def test_without_it_samples_are_drawn_as_ever() -> None:
    """The plain formula: sample `integers(N)` of the stream "pick" at the step."""
    keys = [f"fit/{i}" for i in range(4)]
    picks = torch.cat([Rng(keys, 3).fork("pick").at(k).integers(20) for k in range(5)])
    rows = drawn(Training(5, 4, 0.0), TrainingContext(seed=3))
    assert [int(value) for value, _ in rows] == picks.tolist()
    assert not Training(1, 1, 0.1).balanced


def test_a_stopped_training_goes_on_with_the_same_samples() -> None:
    plan, memory = Training(6, 8, 0.0, balanced=True), MemoryStateStore()
    whole, stops = drawn(plan), iter([False] * 2 + [True])
    with pytest.raises(Interrupted):
        drawn(plan, TrainingContext(state_store=memory, stop=lambda: next(stops)))
    assert drawn(plan, TrainingContext(state_store=memory)) == whole[2 * 8 :]


def test_a_row_draws_the_same_in_any_batch() -> None:
    kinds = indices_by_label(RARE)
    alone = draw_balanced_indices(Rng(["b"], 1), kinds)
    assert draw_balanced_indices(Rng(["a", "b"], 1), kinds)[1:] == alone


@pytest.mark.parametrize(("label", "kind"), [(False, "abnormal"), (True, "normal")])
def test_a_kind_that_is_missing_is_an_error(label: bool, kind: str) -> None:
    data = [replace(sample, label=label) for sample in RARE]
    with pytest.raises(ValueError, match=f"none is {kind}: train with balanced=False"):
        drawn(Training(1, 4, 0.1, balanced=True), data=data)


@pytest.mark.parametrize("cls", [FixedPointGAN, Guided])
def test_it_is_a_setting_of_methods_with_labels(cls: type) -> None:
    spec = Spec(1, (16, 16), labels=True)
    with torch.device("meta"):
        plans = [
            plan for on in (False, True) for plan in build(cls, spec, balanced=on).training_plans()
        ]
    assert [plan.balanced for plan in plans] == sorted(plan.balanced for plan in plans)
    assert sum(plan.balanced for plan in plans) == len(plans) / 2
    assert setting_parameters(cls)["balanced"].default is False
    assert "balanced" not in setting_parameters(AnoDDPM)


def test_labels_drawn_for_a_translation_are_as_often_of_either_kind() -> None:
    """Where samples are balanced, so is the label that a sample is translated to."""
    data = [replace(s, label=i == 0) for i, s in enumerate(samples((16, 16), 16, 1))]
    built = build_small(FixedPointGAN, Spec(1, (16, 16), labels=True), target="drawn",
        balanced=True, steps=1, batch=4)  # fmt: skip
    shares, draw = [], built._target_labels
    built._target_labels = lambda own, rng, share: (shares.append(share), draw(own, rng, share))[1]
    built.fit(data, [], TrainingContext())
    assert set(shares) == {0.5}
