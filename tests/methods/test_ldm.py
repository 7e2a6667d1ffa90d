"""Latent diffusion: the divergence of codes, what is healed, z-scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Spec
from adbench.engine.denoiser import Denoiser
from adbench.engine.rng import Rng
from adbench.engine.run import Run
from adbench.engine.schedule import scaled_linear
from adbench.engine.seeding import seed_codes
from adbench.methods.ldm import LDM
from adbench.methods.ldm_ood import LDMOOD
from known import Constant, Normal, Oracle
from small import built, samples

SPEC = Spec(1, (16, 16))
KEPT = scaled_linear().kept


def with_net(net: nn.Module, method: type[Any] = LDM, knows: Any = "clean", **more: Any) -> Any:
    made = built(method, SPEC, size=None, **more).eval()
    made.denoiser = Denoiser(net, scaled_linear(), predicts=knows).eval()
    return made


def pictures(count: int = 2) -> tuple[Tensor, Rng]:
    rows = samples((16, 16), count, 1)
    return torch.stack([s.x for s in rows]), Rng([s.key for s in rows])


def test_the_divergence_weighs_errors_as_the_spec_says() -> None:
    """Of a network that says there is no noise, w_t times the channels. t counts from
    0, levels from 1."""
    golden = {10: 0.0519, 100: 0.00683, 300: 0.00405, 400: 0.00412, 500: 0.00454, 600: 0.00523,
              900: 0.00856, 999: 0.00995}  # fmt: skip
    for t, weight in golden.items():
        a, b = KEPT[t + 1], KEPT[t]
        beta, sigma = 1 - a / b, (1 - b) / (1 - a) * (1 - a / b)
        assert (beta**2 / (2 * sigma * (1 - beta) * (1 - a))).item() == pytest.approx(
            weight, rel=0.01
        )
    z = Rng(["z"]).normal((4, 40, 40))
    for level in (301, 501):
        made = with_net(Constant(0.0), knows="noise", divergence=(level, level, 1))
        with torch.no_grad():
            found = made.divergence(z, Rng(["a"])).mean().item()
        assert found == pytest.approx(4 * golden[level - 1], rel=0.06)


@torch.no_grad()
def test_an_oracle_diverges_nowhere_and_a_corrupt_place_stands_out() -> None:
    z = 0.3 * Rng(["z"]).normal((4, 8, 8))
    assert with_net(Oracle(z)).divergence(z, Rng(["a"])).max() < 1e-9
    z[0, :, 2, 5] += 4
    found = with_net(Normal(scaled_linear(), 0.0, 0.09)).divergence(z, Rng(["a"]))[0]
    assert found.argmax().item() == 2 * 8 + 5


@torch.no_grad()
def test_an_empty_mask_keeps_the_code_and_a_full_one_heals_all_of_it() -> None:
    x, rng = pictures()
    made = with_net(Normal(scaled_linear(), 0.0, 1.0), healing="masked")
    decoded = made.codec.decode(made.codec.encode(x))
    made.tau.fill_(1e9)
    found = made.detect(x, [300, 500], rng).reconstruction
    assert torch.equal(found, decoded.expand_as(found))
    made.tau.fill_(-1)
    codes = torch.full((1, 4, 8, 8), 0.7)
    made.denoiser = Denoiser(Oracle(codes), scaled_linear(), predicts="clean").eval()
    found = made.detect(x, [300], rng).reconstruction
    torch.testing.assert_close(found[0], made.codec.decode(codes).expand(2, -1, -1, -1))


@torch.no_grad()
def test_places_that_are_not_masked_keep_their_code() -> None:
    x, rng = pictures()
    made = with_net(Oracle(torch.zeros(1, 4, 8, 8)), healing="masked")
    made.codec.decode = lambda z: z.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :1]
    z = made.codec.encode(x)
    made.tau.fill_(1e9)
    made.tau[:, 3:5] = -1
    healed = made.detect(x, [300], rng).reconstruction[0]
    same = made.canvas.leave(made.codec.decode(z))
    rows = torch.ones(16, dtype=torch.bool)
    rows[6:10] = False
    assert torch.equal(healed[:, :, rows], same[:, :, rows])
    assert healed[:, :, ~rows].abs().max() < 1e-6


@torch.no_grad()
def test_codes_are_not_clamped() -> None:
    """A perfect denoiser gives codes of deviation 3 back."""
    made = with_net(Oracle(3 * Rng(["w"]).normal((4, 8, 8))))
    x, rng = pictures()
    made.codec.decode = lambda z: z[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert made.detect(x, [300], rng).reconstruction.std().item() == pytest.approx(3, rel=0.2)


@torch.no_grad()
def test_the_threshold_lets_as_many_held_out_places_pass() -> None:
    """97.5 % per place with samples enough, of all places together with few."""
    for count in (400, 10):
        made = with_net(Oracle(torch.zeros(1)), calibration=400)
        draws = Rng([str(i) for i in range(800)]).normal((8, 8)).square()
        made.divergence = lambda z, rng, draws=draws: draws[: len(z)]
        made._calibrate(samples((16, 16), count, 1), Run())
        over = (draws[400:] > made.tau).float().mean().item()
        assert over == pytest.approx(0.025, abs=0.004 if count == 400 else 0.015)
        assert (made.tau.std() > 1e-3) == (count == 400)


@pytest.mark.parametrize("shown", ["decoded", "weighted", "divergence"])
def test_masked_healing_is_the_same_in_any_company(shown: str) -> None:
    made = built(LDM, SPEC, healing="masked", shown=shown, judged="divergence")
    made.fit(samples((16, 16), 4, 1), samples((16, 16), 3, 1, name="h"), Run())
    x, rng = pictures(4)
    with torch.no_grad():
        whole = made.detect(x, [300, 500], rng)
        part = made.detect(x[[3, 1]], [500], rng.rows(torch.tensor([3, 1])))
    assert torch.equal(part.map[0], whole.map[1, [3, 1]])
    assert torch.equal(part.score[0], whole.score[1, [3, 1]])
    assert (whole.map >= 0).all() and (made.tau > 0).all()


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_code_is_decoded_after_it_is_unscaled(factor: float) -> None:
    """An oracle's answer is the decoded code itself, whatever codes are scaled by."""
    made = built(LDMOOD, SPEC, size=None).eval()
    made.codec.scale.fill_(factor)
    x, rng = pictures(1)
    with torch.no_grad():
        z = made.codec.encode(x)
        made.denoiser = Denoiser(Oracle(z), scaled_linear(), predicts="clean").eval()
        found = made.detect(x, [1000], rng).reconstruction
        torch.testing.assert_close(found[0], made.codec.decode(z).clamp(0, 1))


def test_ldm_ood_calibrates_every_start_on_held_out_samples() -> None:
    made = built(LDMOOD, SPEC, sampling_steps=10, skip=3)
    made.fit(samples((16, 16), 4, 1), samples((16, 16), 4, 1, name="h"), Run())
    assert made.starts.mean.shape == (3, 1) and (made.starts.mean > 0).all()
    assert made.codec.scale.item() != 1
    with pytest.raises(ValueError, match="are too few"):
        made.fit(samples((16, 16), 4, 1), samples((16, 16), 1, 1), Run())


def test_a_codebook_begins_at_encodings_of_the_data() -> None:
    made, data = built(LDM, SPEC, size=None), samples((16, 16), 4, 1)
    seed_codes(made.codec, data, Run(), enter=lambda x: x)
    with torch.no_grad():
        z = (
            made.codec.net["encoder"](torch.stack([s.x for s in data]))
            .movedim(1, -1)
            .flatten(0, -2)
        )
    apart = torch.cdist(made.codec.codebook.codes, z).min(1).values
    assert apart.max() < 1e-4 and len(made.codec.codebook.codes.unique(dim=0)) > 4
    assert made.codec.codebook.sizes.eq(1).all()


def test_starts_and_calls_are_those_of_ddpm_ood() -> None:
    made = built(LDMOOD, SPEC, sampling_steps=100, skip=2)
    assert len(made.starts.levels) == 50 and made.starts.levels[:2] == [11, 31]
    with pytest.raises(ValueError, match=r"2\.\.1000"):
        built(LDMOOD, SPEC, sampling_steps=1)


def test_z_scores_are_the_specs() -> None:
    """Held out {1, 2, 3} and {2, 4, 6}; a sample's 4 and 10 are 2 and 3 deviations."""
    made = built(LDMOOD, SPEC, sampling_steps=3, skip=1)

    def told(errors: list[list[float]]) -> Any:
        def look(x: Tensor, rng: Rng, count: int) -> Any:
            for row in errors[:count]:
                yield torch.tensor(row).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]), x

        return look

    held_out = samples((16, 16), 3, 1)
    made.starts.calibrate(told([[1.0, 2, 3], [2.0, 4, 6]]), held_out, Run())
    assert made.starts.mean[:, 0].tolist() == [2, 4]
    assert made.starts.deviation[:, 0].tolist() == [1, 2]
    judged = made.starts.judge(
        told([[4.0], [10.0]]), torch.zeros(1, 1, 16, 16), [334, 1000], Rng(["a"])
    )
    assert judged.score[:, 0].tolist() == [2.0, 2.5]
