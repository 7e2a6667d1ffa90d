"""The loss that trains a denoiser, and what its weights refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adbench.engine.batches import in_batches
from adbench.engine.denoiser import Denoiser, Mismatch
from adbench.engine.rng import Rng
from adbench.engine.schedule import cosine, linear
from known import Constant, Oracle

KEYS = list("abcd")


def test_the_loss_of_a_known_error_is_that_error() -> None:
    """pDDPM T4: constant |error| c in a patch of p by p gives c (p / W)**2."""
    x = Rng(KEYS).normal((1, 8, 8))
    region = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    region[..., :4, :4] = True
    off = Denoiser(Oracle(x + 0.3), cosine(), predicts="clean").train()
    whole = off.loss(x, Rng(KEYS), power=1)
    torch.testing.assert_close(whole, torch.full((4,), 0.3))
    patch = off.loss(x, Rng(KEYS), power=1, region=region)
    torch.testing.assert_close(patch, torch.full((4,), 0.3 / 4))
    spread = off.loss(x, Rng(KEYS), power=2, region=region, counts="everywhere")
    torch.testing.assert_close(spread, torch.full((4,), 0.09))


def test_only_the_region_is_disturbed_and_only_it_has_a_gradient() -> None:
    seen: list[Tensor] = []

    class Look(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(1, 1, 8, 8))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            seen.append(x)
            return x + self.bias

    net = Look()
    x = Rng(KEYS).normal((1, 8, 8))
    region = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    region[..., 2:5, 2:5] = True
    Denoiser(net, cosine(), predicts="clean").train().loss(
        x, Rng(KEYS), region=region
    ).sum().backward()
    assert torch.equal(seen[0][~region], x[~region])
    assert not torch.equal(seen[0][region], x[region])
    assert net.bias.grad is not None
    assert (net.bias.grad[0, 0][~region[0, 0]] == 0).all()
    assert (net.bias.grad[0, 0][region[0, 0]] != 0).all()


def test_the_loss_of_predicting_no_noise_is_the_noises_power() -> None:
    denoiser = Denoiser(Constant(0.0), linear()).train()
    x = torch.zeros(64, 1, 16, 16)
    loss = denoiser.loss(x, Rng([str(i) for i in range(64)]))
    assert loss.mean().item() == pytest.approx(1, abs=0.03)


def test_levels_above_the_most_are_never_trained() -> None:
    steps: list[Tensor] = []

    class Note(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            steps.append(t)
            return x

    denoiser = Denoiser(Note(), linear()).train()
    denoiser.loss(torch.zeros(500, 1, 2), Rng([str(i) for i in range(500)]), max_level=40)
    assert steps[0].min() == 0 and steps[0].max() == 39


def test_weights_of_another_schedule_prediction_or_noise_refuse_to_load() -> None:
    def made(schedule, predicts: Any = "noise", about: str = "gaussian") -> Denoiser:
        return Denoiser(torch.nn.Linear(1, 1), schedule, predicts=predicts, about=about)

    ours = made(linear())
    made(linear()).load_state_dict(ours.state_dict())
    for other in (made(cosine()), made(linear(), "clean"), made(linear(), about="simplex")):
        with pytest.raises(Mismatch, match="were trained as"):
            other.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_a_network_sees_one_batch_shape_only(rows: int) -> None:
    shapes = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        shapes.append(x.shape)
        return x * t[:, None]

    x, t = torch.randn(rows, 3), torch.arange(rows)
    assert torch.equal(in_batches(net, 4, x, t), x * t[:, None])
    assert set(shapes) == {(4, 3)}


def test_evaluations_count_rows_without_padding() -> None:
    denoiser = Denoiser(Constant(0.0), linear()).eval()
    denoiser.batch = 4
    denoiser(torch.zeros(5, 1, 2, 2), torch.ones(5, dtype=torch.int64))
    assert denoiser.evaluations == 5
