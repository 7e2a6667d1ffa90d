"""REFLECT's own: the objects blended into codes, the step, the map, and the second round."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.codecs.codec import Identity
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.reflect import REFLECT
from equations import ToyNetwork, agree, pictures, tensor, toy
from small import build_small, samples

GOLDEN = (0.473470594, 0.330205959, 0.482032894)
"""Means of reconstruction, map and score."""

SPEC, KEYS = Spec(1, (16, 16)), [f"s{i}" for i in range(200)]


class LineFrom(nn.Module):
    """Says the velocity of the line that begins at `code`, t = level / 1000."""

    def __init__(self, code: Tensor) -> None:
        super().__init__()
        self.code, self.levels = code, list[int]()

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.levels.append(int(timesteps[0]) + 1)
        return (x - self.code) * 1000 / (timesteps + 1).view(-1, 1, 1, 1)


class Zero(nn.Module):
    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Halves(nn.Module):
    """The stand-in for the autoencoder: twice the mean of 2 x 2 pixels, and back."""

    def encode(self, x: Tensor) -> Tensor:
        return 2 * avg_pool2d(x, 2)

    def decode(self, z: Tensor) -> Tensor:
        return interpolate(z / 2, scale_factor=2, mode="nearest")


def reflect(**more: Any) -> Any:
    return build_small(REFLECT, SPEC, **{"sampling_steps": 1} | more).eval()


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(REFLECT, Spec(1, (256, 256)))
    assert built.codec.latent == (4, 32, 32) and built.canvas.padded_shape == (256, 256)
    assert built.plan.batch == 96 and built.plan.lr == built.plan.weight_decay == 1e-4
    assert built.sampling_steps == 1 and built.published == 1000 and built.reflow == 0
    assert (built.clips, built.blurs, built.combine) == ((0.4, 0.4), (3.0, 1.0), "arithmetic")


@torch.no_grad()
def test_with_an_oracle_one_step_corrects_the_anomaly_alone() -> None:
    """Codes are the images themselves: 0.1 of the range -1..1 is a quarter of both clips, and from
    level 500 on a line that is meant for 1000 the oracle says the same end."""
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built = reflect(blurs=(0.0, 0.0))
    built.codec = Identity((1, 16, 16), (-1.0, 1.0))
    built.denoiser.net = net = LineFrom(2 * healthy - 1)
    x = healthy.clone()
    x[..., 5:9, 5:9] += 0.05
    results = built.detect(x, [500, 1000], Rng(["a"]))
    assert net.levels == [500]  # one call of a padded batch, its first row
    assert results.map is not None and results.reconstruction is not None
    torch.testing.assert_close(results.reconstruction[1], healthy, rtol=0, atol=1e-5)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    for heat, score in zip(results.map[:, 0], results.score[:, 0], strict=True):
        torch.testing.assert_close(heat[inside], torch.full((16,), 0.25), rtol=1e-3, atol=0)
        assert heat[~inside].max() < 1e-4 and score == heat.max()


@torch.no_grad()
def test_two_steps_map_and_score() -> None:
    """Euler from level 1000 to 500 to 0 with the toy velocity, in float64, and SciPy's blur."""
    x = pictures()
    built = reflect(sampling_steps=2, coder_widths=(8,))
    built.add_module("codec", Halves())
    built.denoiser.add_module("net", ToyNetwork())
    inner = 2 * x - 1
    start = 2 * inner.reshape(2, 1, 8, 2, 8, 2).mean((3, 5))
    z = start - 0.5 * toy(start, 1000)
    z = z - 0.5 * toy(z, 500)
    image, normal = (np.repeat(np.repeat(y / 2, 2, 2), 2, 3) for y in (start, z))
    pixel, code = np.abs(normal - image).max(1), np.abs(z - start).mean(1)
    pixel = np.stack([gaussian_filter(np.minimum(m, 0.4) / 0.4, 3) for m in pixel])
    code = np.stack([gaussian_filter(np.minimum(m, 0.4) / 0.4, 1) for m in code])
    code = np.stack([np.asarray(zoom(m, 2, order=1, mode="mirror", grid_mode=True)) for m in code])
    results = built.detect(tensor(x), [1000], Rng(["a", "b"]))
    assert results.reconstruction is not None and results.map is not None
    agree(results.reconstruction[0], np.clip((normal + 1) / 2, 0, 1), GOLDEN[0])
    agree(results.map[0], (pixel + code) / 2, GOLDEN[1])
    agree(results.score[0], ((pixel + code) / 2).max((1, 2)), GOLDEN[2])


def test_objects_are_blended_so_that_the_variance_stays() -> None:
    """Of independent codes of unit variance: sqrt(1 - m) z + sqrt(m) r has unit variance too."""
    built = reflect(objects=4, radius=(0.2, 0.4))
    z, bank = Rng(KEYS).fork("z").normal((4, 16, 16)), Rng(KEYS[:50]).fork("b").normal((4, 16, 16))
    mixed = built.corrupt(z, bank, Rng(KEYS))
    changed = (mixed != z).any(1)
    share = changed.flatten(1).double().mean(1)
    assert (
        0.1 < share.mean() < 0.9 and (mixed[changed[:, None].expand_as(z)].std() - 1).abs() < 0.02
    )
    assert torch.equal(mixed != z, changed[:, None].expand_as(z))  # in all channels or in none


def test_one_object_is_the_formula_of_the_paper() -> None:
    """Codes of 0 with foreign codes of 1: sqrt(m), m at most the object's opacity, and nothing
    beyond its edge; on average half opaque."""
    built = reflect(objects=1, radius=(0.2, 0.2))
    mixed = built.corrupt(torch.zeros(200, 1, 16, 16), torch.ones(3, 1, 16, 16), Rng(KEYS))
    share = mixed.square()
    opacity = Rng(KEYS).fork("object", 0).fork("opacity").uniform()
    most = share.flatten(1).amax(1).double()
    assert (most <= opacity + 1e-6).all() and (most > 0.5 * opacity).double().mean() > 0.9
    assert share[share > 0].min() < 0.05 and (share == 0).flatten(1).any(1).all()


def test_a_code_is_corrupted_alike_in_any_batch_and_up_to_so_many_objects() -> None:
    z, bank = (
        torch.zeros(200, 2, 16, 16),
        torch.arange(1.0, 4).view(3, 1, 1, 1).expand(3, 2, 16, 16),
    )
    built = reflect(objects=3, radius=(0.05, 0.1))
    mixed = built.corrupt(z, bank, Rng(KEYS))
    assert torch.equal(built.corrupt(z[7:8], bank, Rng(KEYS[7:8]))[0], mixed[7])
    few = reflect(objects=1, radius=(0.05, 0.1)).corrupt(z, bank, Rng(KEYS))
    area = (mixed[:, 0] != 0).flatten(1).sum(1).double().mean()
    assert area > 1.4 * (few[:, 0] != 0).flatten(1).sum(1).double().mean()  # 2 objects on average


def test_the_second_round_learns_the_ends_of_the_first() -> None:
    """The loss of a round after a teacher is that of lines to where its step ends."""
    built = reflect()
    built.codec = Identity((1, 16, 16), (-1.0, 1.0))
    built.denoiser.net = ToyNetwork()
    x, bank = torch.stack([s.x for s in samples((16, 16), 3, 1)]), torch.ones(1, 1, 16, 16)
    rng = Rng(["a", "b", "c"])
    target = torch.full((1, 1, 16, 16), 0.3)
    teacher = deepcopy(built.denoiser).eval()
    teacher.net = LineFrom(target)
    ours = built._loss(bank, teacher)(x, torch.zeros(3), rng)
    corrupted = built.corrupt(2 * x - 1, bank, rng.fork("corruption"))
    ends = target.expand_as(x)
    expected = built.denoiser.loss(ends, rng, noise=lambda *_: corrupted)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    first = built._loss(bank, None)(x, torch.zeros(3), rng)
    plain = built.denoiser.loss(2 * x - 1, rng, noise=lambda *_: corrupted)
    torch.testing.assert_close(first, plain)
    assert not torch.allclose(first, ours)


@pytest.mark.parametrize("reflow", [0, 2])
def test_each_round_is_trained_and_it_learns_what_deviates(reflow: int) -> None:
    """Afterwards the velocity is better known than by saying 0, of draws that it has not seen."""
    losses: list[float] = []
    built = reflect(steps=60, coder_steps=2, lr=5e-3, batch=8, reflow=reflow, reflow_steps=5,
        radius=(0.2, 0.4))  # fmt: skip
    context = TrainingContext(
        on_event=lambda event, facts: losses.append(facts["loss"]) if "loss" in facts else None,
        event_interval=0.0,
    )
    built.fit(samples((16, 16), 2, 1), [], context)
    assert len(losses) == 62 + 5 * reflow
    x = torch.stack([s.x for s in samples((16, 16), 2, 1)]).repeat(100, 1, 1, 1)
    bank = built.codec.encode(built.canvas.forward(x[:2]))
    trained, label = built.eval(), torch.zeros(200)
    with torch.no_grad():
        loss = trained._loss(bank, None)(x, label, Rng(KEYS)).mean()
        trained.denoiser.net = Zero()
        zero = trained._loss(bank, None)(x, label, Rng(KEYS)).mean()
    assert loss < 0.9 * zero
