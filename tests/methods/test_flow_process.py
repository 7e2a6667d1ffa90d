"""Methods whose process is rectified flow: `process=flow`, with an oracle and on an accelerator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accelerator import pretended_accelerator
from adbench.benchmark.plugins.method_under_test import MethodUnderTest
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Spec
from adbench.engine.diffusion.flow import Flow
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from small import samples, small_method

NAMES = ("anoddpm", "ddpm-ood", "ddad")
SPEC = Spec(1, (16, 16))


class LineFrom(nn.Module):
    """Says the velocity of the line that begins at x_0 = `image`, t = level / 1000."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return (x - self.image) * 1000 / (timesteps + 1).view(-1, 1, 1, 1)


def flow(name: str, solver: str = "euler", **more: Any) -> Any:
    if name == "anoddpm":
        more = {"noise": "gaussian"} | more
    return small_method(name, SPEC, process="flow", solver=solver, **more).eval()


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_anoddpm_with_an_oracle_leaves_what_was_added(solver: str) -> None:
    built, healthy = flow("anoddpm", solver), torch.full((1, 1, 16, 16), 0.25)
    assert isinstance(built.denoiser.process, Flow) and built.chain.sampler == solver
    built.denoiser.net = LineFrom(built.canvas.forward(healthy))
    x = healthy.clone()
    x[..., 4:7, 5:9] += 0.5
    results = built.detect(x, [100, 250], Rng(["a"]))
    expected = (x - healthy).square()[None, :, 0].expand(2, -1, -1, -1)
    torch.testing.assert_close(results.map, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_ddpm_ood_with_an_oracle_measures_what_was_added_from_every_start() -> None:
    built, healthy = flow("ddpm-ood"), torch.full((1, 1, 16, 16), 0.25)
    built.denoiser.net = LineFrom(built.canvas.forward(healthy))
    built.starts.mean.fill_(0.01)
    built.starts.deviation.fill_(0.5)
    x = healthy.clone()
    x[..., 4:8, 4:8] += 0.5  # 16 of 256 places
    results = built.detect(x, [1000], Rng(["a"]))
    assert results.score.item() == pytest.approx((0.25 / 16 - 0.01) / 0.5, rel=1e-4)
    torch.testing.assert_close(results.map[0], 2 * (x - healthy).square()[:, 0], rtol=1e-4,
        atol=1e-5)  # fmt: skip


@torch.no_grad()
def test_ddad_is_led_to_the_sample_by_its_weight() -> None:
    """One step from level 25: x_0 moves by w t ** 2 of its way from the oracle's to the sample."""
    built, healthy = flow("ddad", w=2.0), torch.zeros(1, 1, 16, 16)
    built.denoiser.net = LineFrom(healthy)
    x = torch.full((1, 1, 16, 16), 0.8)
    got = built._reconstruct(x, x, [25], Rng(["a"]), 2.0)
    torch.testing.assert_close(got, 2 * 0.025**2 * x, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_error_of_the_velocity(name: str) -> None:
    losses: list[float] = []
    context = TrainingContext(
        on_event=lambda event, facts: losses.append(facts["loss"]) if "loss" in facts else None,
        event_interval=0.0,
    )
    built = flow(name, steps=40, batch=8, lr=3e-3)
    built.fit(samples((16, 16), 4, 1), samples((16, 16), 2, 1, "c"), context)
    first, last = losses[:5], losses[35:40]
    assert sum(last) < 0.9 * sum(first)


@pytest.mark.parametrize("name", NAMES)
def test_on_an_accelerator_it_has_the_cpus_numbers(name: str) -> None:
    method = MethodUnderTest(Registry.read().methods[name], 2)
    method.args |= {"process": "flow", "solver": "heun"}
    with pretended_accelerator() as gpu:
        fitted = method.fit(method.build(), device="cuda", event_interval=1e9)
        gpu.sampling_waits.clear()
        rng = Rng(method.keys, method.context.seed, "cuda")
        with torch.no_grad():
            detection = fitted.detect(method.x.to("cuda"), method.levels, rng)
        mine = detection.score.cpu()
        assert not gpu.sampling_waits
    assert torch.equal(mine, method.predict(method.fitted).score)
