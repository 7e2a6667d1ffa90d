"""DDAD's own: leaning to the sample, adapted features, one scale for two maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adbench.datasets.base import Spec
from adbench.engine.denoiser import Denoiser
from adbench.engine.rng import Rng
from adbench.engine.run import Run
from adbench.engine.sample import Chain, restore
from adbench.engine.schedule import ladder, linear
from adbench.methods.ddad import DDAD
from known import Curved, Normal, Oracle
from small import built, samples

SPEC = Spec(1, (16, 16))


def silent(rng: Rng, shape: Any, level: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(rng), *shape)


def ddad(net: torch.nn.Module | None = None, **more: Any) -> DDAD:
    made = built(DDAD, SPEC, **more).eval()
    if net is not None:
        clip = made.denoiser.clip
        predicts: Any = "noise" if isinstance(net, Curved) else "clean"
        made.denoiser = Denoiser(net, linear(), predicts=predicts, clip=clip).eval()
    return made


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        made = DDAD(Spec(3, (256, 256)), features="effperc-random")
    assert sum(p.numel() for p in made.denoiser.parameters()) == 32_952_707
    assert len(ladder(made.published, stride=made.stride)) - 1 == 10
    assert made.plan.lr == 3e-4 and made.weight_decay == 0.05 and made.eta == 1 and made.v == 1


@torch.no_grad()
@pytest.mark.parametrize(("w", "golden"), [(3.0, 0.2997), (11.0, 0.2989)])
def test_with_an_oracle_of_a_point_it_ends_beside_the_point(w: float, golden: float) -> None:
    """c + w 1e-4 (y - c), for every seed; both starts end alike."""
    target = torch.full((2, 1, 16, 16), -0.7)
    for offset in (False, True):
        made = ddad(Oracle(torch.full((1, 1, 16, 16), 0.3)), start_offset=offset)
        out = made._restored(target, target, [226], Rng(["a", "b"]), w)
        torch.testing.assert_close(out, torch.full_like(out, golden), rtol=0, atol=6e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("variance", "w", "golden"),
    [
        (0.01, 0, 0.0133), (0.01, 1, 0.0608), (0.01, 3, 0.1501), (0.01, 5, 0.2321),
        (0.01, 7, 0.3072), (0.01, 9, 0.3759), (0.01, 11, 0.4388),
        (0.05, 0, 0.0629), (0.05, 3, 0.3730), (0.05, 7, 0.6448), (0.05, 11, 0.8071),
    ],
)  # fmt: skip
def test_how_w_trades_an_anomaly_for_fidelity(variance: float, w: float, golden: float) -> None:
    """Data of mean 0, a sample that is 1, no noise, the reference's start."""
    made = ddad(Normal(linear(), 0.0, variance), start_offset=True)
    made.noise = silent
    one = torch.ones(1, 1, 16, 16)
    out = made._restored(one, one, [226], Rng(["a"]), w)
    assert out.mean().item() == pytest.approx(golden, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("eta", "sampler"), [(0.0, "ddim"), (1.0, "ddpm")])
def test_without_leaning_it_is_the_engines_chain(eta: float, sampler: Any) -> None:
    x = 2 * torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    made = ddad(Curved(), eta=eta)
    ours = made._restored(x, x, [126, 226], Rng(["a", "b"]), 0.0)
    chain = Chain(stride=25, sampler=sampler, eta=eta)
    theirs = restore(made.denoiser, x, [126, 226], Rng(["a", "b"]), chain=chain).flatten(0, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_linear_mixing_is_the_reimplementations_recursion() -> None:
    """25 steps from index 240; the mean of DDIM, mixed with the sample by t w / 1000."""
    net, w = Curved(), 0.7
    made = ddad(net, conditioning="linear_mix", stride=10, eta=0.0)
    y = 2 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    made.noise = silent
    out = made._restored(y, y, [241], Rng(["a"]), w)
    net.asked.clear()
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    x = kept[240].sqrt() * y.double()
    times = list(range(240, -1, -10))
    assert len(times) == 25
    for t in times:
        a = kept[t]
        b = kept[t - 10] if t else torch.tensor(1.0).double()
        eps = net(x.float(), torch.tensor([t])).double()
        clean = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
        eps = (x - a.sqrt() * clean) / (1 - a).sqrt()
        mean = b.sqrt() * clean + (1 - b).sqrt() * eps
        c = t * w / 1000
        x = (1 - c) * mean + c * y.double()
    torch.testing.assert_close(out.double(), x, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_with_an_oracle_only_the_anomaly_is_found() -> None:
    healthy = samples((16, 16), 1, 1)[0].x[None]
    made = ddad(Oracle(2 * healthy - 1), blur=0.0, w=0.0)
    x = healthy.clone()
    x[..., 5:9, 5:9] = 1.0
    found = made.detect(x, [226], Rng(["a"]))
    assert found.map is not None
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    assert found.map[0, 0][inside].mean() > 3 * found.map[0, 0][~inside].mean()
    assert found.score[0, 0] == found.map.max()
    assert made.detect(healthy, [226], Rng(["a"])).score[0, 0] < 1e-3


@torch.no_grad()
def test_a_batchs_own_scale_depends_on_who_is_in_it_and_the_default_does_not() -> None:
    """The authors' issues #20 and #30."""
    x = torch.stack([s.x for s in samples((16, 16), 3, 1)])
    x[2, :, 4:8, 4:8] = 1.0
    for norm, same in (("calibrated", True), ("batch", False)):
        made = ddad(Curved(), norm=norm)
        whole = made.detect(x, [226], Rng(["a", "b", "c"])).map
        alone = made.detect(x[:1], [226], Rng(["a"])).map
        assert whole is not None and alone is not None
        assert torch.equal(whole[:, :1], alone) is same


@torch.no_grad()
def test_the_two_maps_are_brought_to_one_scale() -> None:
    made = ddad(blur=0.0, v=2.0)
    made.largest.copy_(torch.tensor([0.5, 2.0]))
    pixel, feature = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(made._combined(pixel, feature), feature + 2 * (2 / 0.5) * pixel)
    theirs = ddad(blur=0.0, norm="batch")
    expected = feature + feature.max() / pixel.max() * pixel
    torch.testing.assert_close(theirs._combined(pixel, feature), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("pixel", "feature", "abnormal"),
    [(0.0, 0.0, False), (1.0, 0.0, False), (0.0, 1.4, False), (1.5, 0.0, True), (0.8, 0.8, True)],
)
def test_thresholds_combine_by_the_reimplementations_rule(
    pixel: float, feature: float, abnormal: bool
) -> None:
    """Each over its threshold, times .7; abnormal where the sum reaches 1."""
    made = ddad(blur=0.0, combine="thresholds", thresholds=(0.029, 0.33))
    maps = (torch.full((1, 1, 4, 4), n) for n in (0.029 * pixel, 0.33 * feature))
    found = made._combined(*maps)
    assert (found >= 1).all().item() is abnormal
    torch.testing.assert_close(found, torch.full_like(found, 0.7 * (pixel + feature)))


def test_static_thresholds_are_what_a_pixel_in_a_thousand_exceeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ddad(combine="thresholds")
    values = torch.linspace(0, 1, 16 * 256).view(16, 16, 16)
    parts = iter(values.split(8))

    def maps(x: Any, *_: Any) -> Any:
        part = next(parts)
        return part, 2 * part, x

    monkeypatch.setattr(made, "_maps", maps)
    made._calibrate(samples((16, 16), 16, 1), Run())  # of which SMALL looks at 4
    assert made.exceeded.tolist() == pytest.approx([0.999 * 0.5, 0.999], abs=2e-3)
    assert made.largest[1] == pytest.approx(2 * made.largest[0].item())


def test_the_stages_learn_what_is_theirs() -> None:
    made = ddad(adapt_steps=3)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    made.fit(samples((16, 16), 4, 1), samples((16, 16), 3, 1, name="h"), Run())
    after = made.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert any(key.startswith("denoiser.net") for key in moved)
    assert any(key.startswith("student.net") for key in moved)
    assert {"largest", "exceeded"} <= moved
    assert not any("running" in key for key in moved)
    as_it_came = ddad(adapt_steps=0)
    as_it_came.fit(samples((16, 16), 4, 1), samples((16, 16), 3, 1, name="h"), Run())
    for key, value in before.items():
        assert not key.startswith("student") or torch.equal(value, as_it_came.state_dict()[key])


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [{"w": 5.0}, {"eta": 0.0}, {"stride": 50}, {"v": 7.0}, {"blur": 1.0}, {"start_offset": True},
     {"conditioning": "linear_mix"}, {"combine": "thresholds"}, {"noise": "simplex"}],
)  # fmt: skip
def test_each_argument_changes_what_is_found(change: dict[str, Any]) -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    a, b = (
        ddad(Curved()).detect(x, [226], rng).map,
        ddad(Curved(), **change).detect(x, [226], rng).map,
    )
    assert a is not None and b is not None and not torch.equal(a, b)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="none are"):
        ddad().fit(samples((16, 16), 2, 1), [], Run())
    with pytest.raises(ValueError, match="above 0"):
        ddad(thresholds=(0.0, 0.3))
