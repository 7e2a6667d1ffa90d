"""Latent diffusion: the divergence of codes, what is inpainted, z-scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.codecs.codebook_init import initialize_codebook
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import latent_linear_schedule, scaled_linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.blur import gaussian_blur
from adbench.methods.ldm import LDM, PlainLDM
from adbench.methods.ldm_ood import LDMOOD
from known import ConstantNoise, ConstantX0, NormalPosteriorMean
from small import build_small, samples

SPEC = Spec(1, (16, 16))
KEPT = scaled_linear_schedule().alpha_bar


def with_net(net: nn.Module, method: type[Any] = LDM, knows: Any = "clean", **more: Any) -> Any:
    built = build_small(method, SPEC, size=None, **more).eval()
    built.denoiser = Denoiser(net, scaled_linear_schedule(), prediction_type=knows).eval()
    return built


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
        built = with_net(ConstantNoise(0.0), knows="noise", divergence=(level, level, 1))
        with torch.no_grad():
            results = built.divergence(z, Rng(["a"])).mean().item()
        assert results == pytest.approx(4 * golden[level - 1], rel=0.06)


def test_the_defaults_are_the_papers() -> None:
    def count(part: nn.Module) -> int:
        return sum(p.numel() for p in part.parameters())

    with torch.device("meta"):
        ldm, ood = build(LDM, Spec(1, (256, 256))), build(LDMOOD, Spec(1, (128, 128, 128)))
        tutorial = build(LDM, Spec(1, (64, 64)), size=64, coder="kl", beta="linear_latent")
        signal = [cls(Spec(2, (3000,))) for cls in (LDM, LDMOOD)]
    assert (count(ldm.denoiser), ldm.codec.latent) == (64_155_144, (8, 64, 64))
    assert (ldm.healing, ldm.published, PlainLDM.published) == ("masked", 500, 300)
    heads = [part for part in ldm.denoiser.modules() if hasattr(part, "dim_head")]
    assert {(part.num_heads, part.dim_head) for part in heads} == {(1, 256), (1, 512)}
    assert (count(tutorial.codec), tutorial.codec.latent) == (8_058_792, (3, 16, 16))
    assert count(tutorial.denoiser) == 64_143_619
    assert (count(ood.denoiser), ood.codec.latent) == (47_493_888, (128, 8, 8, 8))
    assert ood.codec.weight == 0.001 and ood.codec.spectrum == 1
    assert ood.codec.adversary is not None
    assert ood.codec.adversary.weight == 0.01
    assert ood.codec.adversary.rate == pytest.approx(5e-4 / 3e-5)
    for built in signal:
        assert built.canvas.resized_shape == (3000,) and built.canvas.padded_shape == (3008,)
        assert built.codec.looks is None and built.codec.adversary is None


@torch.no_grad()
def test_the_divergences_noise_is_drawn_anew_unless_asked() -> None:
    """Of a network that says there is no noise, one draw makes all levels proportional."""
    z, rng = 0.3 * Rng(["z"]).normal((1, 8, 8)), Rng(["a"])
    for one_noise in (True, False):
        low, high = (
            with_net(ConstantNoise(0.0), knows="noise", divergence=(at, at, 1), one_noise=one_noise)
            .divergence(z, rng) for at in (301, 501)
        )  # fmt: skip
        spread = (low / high).std() / (low / high).mean()
        assert (spread < 1e-3) == one_noise


def test_what_the_scale_is_measured_on() -> None:
    data = samples((16, 16), 6, 1)
    built = build_small(LDM, SPEC, measured=2)
    built.fit(data, samples((16, 16), 3, 1, name="h"), TrainingContext())
    with torch.no_grad():
        raw = built.codec.encode_unscaled(
            built.canvas.forward(torch.stack([data[i].x for i in (0, 3)]))
        )
    assert built.codec.scale.item() == pytest.approx(1 / raw.std(correction=0).item(), rel=1e-4)


def test_impossible_settings_are_refused() -> None:
    for divergence in ((1, 600, 3), (0, 600, 3), (600, 400, 3), (400, 600, 0)):
        with pytest.raises(ValueError, match="2 <= low <= high"):
            build_small(LDM, SPEC, divergence=divergence)
    with pytest.raises(ValueError, match="there are none"):
        build_small(LDM, SPEC).fit(samples((16, 16), 4, 1), [], TrainingContext())
    plain = build_small(PlainLDM, SPEC, healing="plain")
    plain.fit(samples((16, 16), 4, 1), [], TrainingContext())
    with pytest.raises(ValueError, match="images and volumes"):
        build_small(LDMOOD, Spec(1, (64,)), perceptual="effperc-random")


@pytest.mark.parametrize(
    ("shape", "more"),
    [((16, 16), {"coder": "kl", "coder_widths": [8, 8]}), ((16, 16), {"latent_kind": "continuous"}),
     ((64,), {"coder": "kl"}), ((8, 8, 8), {"shown": "weighted", "weight": "kappa"})],
)  # fmt: skip
def test_another_code_or_another_map(shape: tuple[int, ...], more: dict[str, Any]) -> None:
    built = build_small(LDM, Spec(1, shape), **more)
    built.fit(samples(shape, 4, 1), samples(shape, 3, 1, name="h"), TrainingContext())
    x = torch.stack([s.x for s in samples(shape, 2, 1)])
    with torch.no_grad():
        results = built.detect(x, [500], Rng(["a", "b"]))
    assert results.map.shape == (1, 2, *shape) and results.map.isfinite().all()
    codes = built.codec.encode_unscaled(built.canvas.forward(x)).detach()
    reference = getattr(built.codec, "codebook", None)
    if reference is not None:
        continuous = more.get("latent_kind") == "continuous"
        assert torch.equal(reference.quantize(codes), codes) != continuous


@torch.no_grad()
def test_a_residual_is_weighed_by_a_blurred_mask_or_by_the_divergence() -> None:
    x, rng = pictures()
    maps = {}
    for shown, weight, blur in (("input", "mask", 0.0), ("divergence", "mask", 0.0),
                                ("weighted", "kappa", 0.0), ("weighted", "mask", 1.5)):  # fmt: skip
        built = with_net(
            ConstantX0(torch.full((1, 4, 8, 8), 0.7)), shown=shown, weight=weight, blur=blur
        )
        built.tau.fill_(-1)
        built.tau[:, :4] = 1e9
        maps[shown, weight] = built.detect(x, [500], rng).map[0]
    residual, kappa = maps["input", "mask"], maps["divergence", "mask"]
    torch.testing.assert_close(maps["weighted", "kappa"], residual * kappa)
    ratio = (maps["weighted", "mask"] / residual.clamp(min=1e-9))[0, :, 5]
    assert ratio[15] == pytest.approx(1, abs=1e-3) and (ratio.diff()[3:-1] >= -1e-4).all()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_blur_is_the_products_of_its_axes(axes: int) -> None:
    from scipy.ndimage import gaussian_filter

    x = torch.rand(1, *[12] * axes, generator=torch.Generator().manual_seed(0))
    theirs = torch.from_numpy(gaussian_filter(x[0].numpy(), 1.3, mode="mirror"))
    torch.testing.assert_close(gaussian_blur(x, 1.3)[0], theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_oracle_diverges_nowhere_and_a_corrupt_position_stands_out() -> None:
    z = 0.3 * Rng(["z"]).normal((4, 8, 8))
    assert with_net(ConstantX0(z)).divergence(z, Rng(["a"])).max() < 1e-9
    z[0, :, 2, 5] += 4
    results = with_net(NormalPosteriorMean(scaled_linear_schedule(), 0.0, 0.09)).divergence(
        z, Rng(["a"])
    )[0]
    assert results.argmax().item() == 2 * 8 + 5


@torch.no_grad()
def test_an_empty_mask_keeps_the_code_and_a_full_one_inpaints_all_of_it() -> None:
    x, rng = pictures()
    built = with_net(NormalPosteriorMean(scaled_linear_schedule(), 0.0, 1.0), healing="masked")
    decoded = built.codec.decode(built.codec.encode(x))
    built.tau.fill_(1e9)
    results = built.detect(x, [300, 500], rng).reconstruction
    assert torch.equal(results, decoded.expand_as(results))
    built.tau.fill_(-1)
    codes = torch.full((1, 4, 8, 8), 0.7)
    built.denoiser = Denoiser(
        ConstantX0(codes), scaled_linear_schedule(), prediction_type="clean"
    ).eval()
    results = built.detect(x, [300], rng).reconstruction
    torch.testing.assert_close(results[0], built.codec.decode(codes).expand(2, -1, -1, -1))


@torch.no_grad()
def test_positions_that_are_not_masked_keep_their_code() -> None:
    x, rng = pictures()
    built = with_net(ConstantX0(torch.zeros(1, 4, 8, 8)), healing="masked")
    built.codec.decode = lambda z: z.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :1]
    z = built.codec.encode(x)
    built.tau.fill_(1e9)
    built.tau[:, 3:5] = -1
    inpainted = built.detect(x, [300], rng).reconstruction[0]
    same = built.canvas.inverse(built.codec.decode(z))
    rows = torch.ones(16, dtype=torch.bool)
    rows[6:10] = False
    assert torch.equal(inpainted[:, :, rows], same[:, :, rows])
    assert inpainted[:, :, ~rows].abs().max() < 1e-6


@torch.no_grad()
def test_codes_are_not_clamped_unless_asked() -> None:
    """A perfect denoiser gives codes of deviation 3 back."""
    built = with_net(ConstantX0(3 * Rng(["w"]).normal((4, 8, 8))), healing="plain")
    x, rng = pictures()
    built.codec.decode = lambda z: z[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert built.detect(x, [300], rng).reconstruction.std().item() == pytest.approx(3, rel=0.2)
    clip = build_small(LDM, SPEC, clamped=True).denoiser.clip
    assert clip == (-1, 1)
    built.denoiser.clip = clip
    assert built.detect(x, [300], rng).reconstruction.abs().max() <= 1


@torch.no_grad()
def test_inpainting_all_of_a_code_is_the_plain_reconstruction() -> None:
    """Not draw by draw, but in law: deviation, and how much of the code is kept."""
    law = []
    for healing in ("masked", "plain"):
        built = with_net(NormalPosteriorMean(scaled_linear_schedule(), 0.0, 1.0), healing=healing)
        built.tau.fill_(-1)
        built.codec.decode = lambda z: z.reshape(len(z), 1, 16, 16)
        x = torch.stack([s.x for s in samples((16, 16), 60, 1)])
        keys = [str(i) for i in range(60)]
        z = Rng(keys).fork("z").normal((4, 8, 8))
        built.codec.encode = lambda x, z=z: z
        back = built.detect(x, [300], Rng(keys)).reconstruction[0].view_as(z)
        law.append((back.std().item(), (back * z).mean().item()))
    assert law[0] == pytest.approx(law[1], abs=0.025) and law[0][1] > 0.2


@torch.no_grad()
def test_the_threshold_lets_as_many_calibration_positions_pass() -> None:
    """97.5 % per place with samples enough, of all places together with few."""
    for count in (400, 10):
        built = with_net(ConstantX0(torch.zeros(1)), calibration=400)
        draws = Rng([str(i) for i in range(800)]).normal((8, 8)).square()
        built.divergence = lambda z, rng, draws=draws: draws[: len(z)]
        built._calibrate(samples((16, 16), count, 1), TrainingContext())
        over = (draws[400:] > built.tau).float().mean().item()
        assert over == pytest.approx(0.025, abs=0.004 if count == 400 else 0.015)
        assert (built.tau.std() > 1e-3) == (count == 400)


@pytest.mark.parametrize("shown", ["decoded", "weighted", "divergence"])
def test_masked_inpainting_is_the_same_in_any_batch(shown: str) -> None:
    built = build_small(LDM, SPEC, healing="masked", shown=shown, judged="divergence")
    built.fit(samples((16, 16), 4, 1), samples((16, 16), 3, 1, name="h"), TrainingContext())
    x, rng = pictures(4)
    with torch.no_grad():
        whole = built.detect(x, [300, 500], rng)
        part = built.detect(x[[3, 1]], [500], rng.rows(torch.tensor([3, 1])))
    assert torch.equal(part.map[0], whole.map[1, [3, 1]])
    assert torch.equal(part.score[0], whole.score[1, [3, 1]])
    assert (whole.map >= 0).all() and (built.tau > 0).all()


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_code_is_decoded_after_it_is_unscaled(factor: float) -> None:
    """An oracle's answer is the decoded code itself, whatever codes are scaled by."""
    built = build_small(LDMOOD, SPEC, size=None).eval()
    built.codec.scale.fill_(factor)
    x, rng = pictures(1)
    with torch.no_grad():
        z = built.codec.encode(x)
        built.denoiser = Denoiser(
            ConstantX0(z), scaled_linear_schedule(), prediction_type="clean"
        ).eval()
        results = built.detect(x, [1000], rng).reconstruction
        torch.testing.assert_close(results[0], built.codec.decode(z).clamp(0, 1))


@torch.no_grad()
def test_codes_are_divided_before_they_are_decoded_unless_asked() -> None:
    """By an oracle and a decoder that is not linear."""
    x, rng = pictures(1)
    for b_scale, late in ((1.0, False), (2.0, False), (2.0, True)):
        built = build_small(LDMOOD, SPEC, size=None, b_scale=b_scale, late_division=late).eval()
        z = built.codec.encode(x)
        built.denoiser = Denoiser(
            ConstantX0(z * b_scale), scaled_linear_schedule(), prediction_type="clean"
        ).eval()
        results = built.detect(x, [1000], rng).reconstruction[0]
        expected = built.codec.decode(2 * z) / 2 if late else built.codec.decode(z)
        torch.testing.assert_close(results, expected.clamp(0, 1))


def test_what_ldm_ood_passes_on() -> None:
    built = build_small(LDMOOD, SPEC, snr_shift=4.0, leaking=True, min_level=500, sampling_steps=20,
        beta="linear_latent", adversary_start=7)  # fmt: skip
    assert built.starts.shared_history and min(built.starts.levels) > 500
    stored = latent_linear_schedule().alpha_bar[500].item()
    assert built.denoiser.schedule.alpha_bar[500].item() == pytest.approx(
        1 / (1 + (1 - stored) / 4 / stored)
    )
    assert built.codec.adversary.starts == 7 and built.codec.looks is not None
    signal = build_small(LDMOOD, Spec(2, (64,)))
    assert signal.codec.adversary is None and signal.codec.looks is None


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_ldm_oods_second_measure(shape: tuple[int, ...]) -> None:
    built = build_small(LDMOOD, Spec(1, shape), size=None, perceptual="effperc-random", looks=0.0)
    built.fit(samples(shape, 3, 1), samples(shape, 3, 1, name="h"), TrainingContext())
    assert built.starts.mean.shape[1] == 2 and (built.starts.mean > 0).all()


def test_ldm_ood_calibrates_every_start_on_held_out_samples() -> None:
    built = build_small(LDMOOD, SPEC, sampling_steps=10, skip=3)
    built.fit(samples((16, 16), 4, 1), samples((16, 16), 4, 1, name="h"), TrainingContext())
    assert built.starts.mean.shape == (3, 1) and (built.starts.mean > 0).all()
    assert built.codec.scale.item() != 1
    with pytest.raises(ValueError, match="are too few"):
        built.fit(samples((16, 16), 4, 1), samples((16, 16), 1, 1), TrainingContext())


def test_a_codebook_begins_at_encodings_of_the_data() -> None:
    built, data = build_small(LDM, SPEC, size=None), samples((16, 16), 4, 1)
    initialize_codebook(built.codec, data, TrainingContext(), preprocess=lambda x: x)
    with torch.no_grad():
        z = (
            built.codec.net["encoder"](torch.stack([s.x for s in data]))
            .movedim(1, -1)
            .flatten(0, -2)
        )
    apart = torch.cdist(built.codec.codebook.codes, z).min(1).values
    assert apart.max() < 1e-4 and len(built.codec.codebook.codes.unique(dim=0)) > 4
    assert built.codec.codebook.sizes.eq(1).all()


def test_starts_and_calls_are_those_of_ddpm_ood() -> None:
    built = build_small(LDMOOD, SPEC, sampling_steps=100, skip=2)
    assert len(built.starts.levels) == 50 and built.starts.levels[:2] == [11, 31]
    with pytest.raises(ValueError, match=r"2\.\.1000"):
        build_small(LDMOOD, SPEC, sampling_steps=1)


def test_z_scores_are_the_specs() -> None:
    """Held out {1, 2, 3} and {2, 4, 6}; a sample's 4 and 10 are 2 and 3 deviations."""
    built = build_small(LDMOOD, SPEC, sampling_steps=3, skip=1)

    def measure_errors(errors: list[list[float]]) -> Any:
        def look(x: Tensor, rng: Rng, count: int) -> Any:
            for row in errors[:count]:
                yield torch.tensor(row).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]), x

        return look

    held_out = samples((16, 16), 3, 1)
    built.starts.calibrate(measure_errors([[1.0, 2, 3], [2.0, 4, 6]]), held_out, TrainingContext())
    assert built.starts.mean[:, 0].tolist() == [2, 4]
    assert built.starts.deviation[:, 0].tolist() == [1, 2]
    judged = built.starts.detect(
        measure_errors([[4.0], [10.0]]), torch.zeros(1, 1, 16, 16), [334, 1000], Rng(["a"])
    )
    assert judged.score[:, 0].tolist() == [2.0, 2.5]


def test_the_tutorials_discriminator_learns_faster_and_counts_after_11_epochs() -> None:
    """5e-4 beside 1e-4, and where `epoch > 10` of 100 epochs of 233 steps, counted from 0."""
    with torch.device("meta"):
        built = build(LDM, Spec(1, (64, 64)), size=64, coder="kl", beta="linear_latent",
            adversary=0.01)  # fmt: skip
    assert built.codec.adversary.rate == pytest.approx(5) and built.codec.adversary.weight == 0.01
    assert built.codec.adversary.starts == 11 * 233 and built.codec_plan.steps == 100 * 233
    assert [plan.steps for plan in built.training_plans()] == [46_600, 23_300]
    with pytest.warns(UserWarning, match="so in none of the codec's 300"):
        build_small(LDM, SPEC, coder_steps=300, adversary=0.01)
    warm = build_small(LDMOOD, SPEC, adversary_warmup=2500)
    assert (warm.codec.adversary.starts, warm.codec.adversary.warmup) == (0, 2500)
    assert warm.training_plans()[0] is warm.plan
