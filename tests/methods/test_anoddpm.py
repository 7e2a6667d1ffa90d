"""AnoDDPM's own: noise by argument, quirks by argument, and an oracle."""

from __future__ import annotations

import pytest
import torch

from adbench.datasets.base import Spec
from adbench.engine.denoiser import Denoiser
from adbench.engine.rng import Rng
from adbench.engine.run import Run
from adbench.engine.schedule import linear
from adbench.methods.anoddpm import AnoDDPM
from known import Oracle
from small import method, samples

SPEC = Spec(1, (16, 16))


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        made = AnoDDPM(Spec(1, (256, 256)))
    assert sum(p.numel() for p in made.parameters()) == 131_649_793
    assert made.plan.steps == 300_100 and made.plan.batch == 1 and made.plan.ema == 0.9999
    assert made.published == 250 and made.chain.steps is None and made.chain.variance == "large"
    assert "octaves=6" in str(made.noise) and "0.8" in str(made.noise) and "64" in str(made.noise)


@torch.no_grad()
def test_with_an_oracle_the_map_is_the_squared_anomaly() -> None:
    """A denoiser that knows the healthy image leaves exactly what was added to it."""
    made = method("anoddpm", SPEC, repeats=2).eval()
    healthy = torch.full((1, 1, 16, 16), 0.25)
    made.denoiser = Denoiser(Oracle(made.canvas.enter(healthy)), linear(), predicts="clean").eval()
    x = healthy.clone()
    x[..., 4:7, 5:9] += 0.5
    found = made.detect(x, [100, 250], Rng(["a"]))
    assert found.map is not None and found.reconstruction is not None
    torch.testing.assert_close(found.map, (x - healthy).square()[None, :, 0].expand(2, -1, -1, -1))
    torch.testing.assert_close(found.reconstruction[0], healthy, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"noise": "gaussian"},
        {"octaves": 2},
        {"normalise": True},
        {"origin_jitter": True},
        {"shared_noise": True},
        {"variance": "small"},
        {"eta": 0.0},
        {"repeats": 3},
    ],
)
def test_each_argument_changes_what_is_found(change: dict[str, object]) -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    plain, other = method("anoddpm", SPEC).eval(), method("anoddpm", SPEC, **change).eval()
    a, b = plain.detect(x, [250], rng).map, other.detect(x, [250], rng).map
    assert a is not None and b is not None and not torch.allclose(a, b)


@torch.no_grad()
def test_a_shared_field_is_shared_and_the_default_is_not() -> None:
    for shared in (False, True):
        noise = method("anoddpm", SPEC, shared_noise=shared).noise
        field = noise(Rng(["a", "b"]), (1, 8, 8), torch.tensor([5, 5]))
        assert torch.equal(field[0], field[1]) is shared


@torch.no_grad()
def test_averaging_maps_is_not_averaging_reconstructions() -> None:
    """The mean of squares is the square of the mean plus the variance: never less."""
    x, rng = samples((16, 16), 2, 1), Rng(["a", "b"])
    x = torch.stack([s.x for s in x])
    one = method("anoddpm", SPEC, repeats=4).eval().detect(x, [400], rng).map
    other = method("anoddpm", SPEC, repeats=4, average="map").eval().detect(x, [400], rng).map
    assert one is not None and other is not None
    assert (other >= one - 1e-6).all() and (other > one + 1e-6).any()


@torch.no_grad()
def test_the_evaluated_heads_are_a_quirk_by_name() -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    made = method("anoddpm", SPEC, heads=2).eval()
    for p in made.parameters():
        p.data.normal_(std=0.2, generator=torch.Generator().manual_seed(p.numel()))
    theirs = method("anoddpm", SPEC, heads=2, eval_heads=1).eval()
    theirs.load_state_dict(made.state_dict())
    a, b = made.detect(x, [250], rng).map, theirs.detect(x, [250], rng).map
    assert a is not None and b is not None and not torch.equal(a, b)


def test_only_levels_up_to_the_most_are_trained() -> None:
    made, asked = method("anoddpm", SPEC, max_level=40), []
    net = made.denoiser.net
    made.denoiser.net.register_forward_pre_hook(
        lambda _, given: asked.append(given[1].max().item())
    )
    made.fit(samples((16, 16), 4, 1), [], Run())
    assert asked and max(asked) <= 39 and made.denoiser.net is net
