"""Adapted features: what is learnt, what is not, and distances."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity, interpolate

from adbench.engine.features.adapted import AdaptedFeatures
from adbench.engine.features.pretrained import EfficientNetBlocks

ONE = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
OTHER = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def build() -> AdaptedFeatures:
    return AdaptedFeatures("effperc-random").eval()


@torch.no_grad()
def test_like_is_at_no_distance_and_unlike_at_some() -> None:
    student = build()
    assert student.distance(ONE, ONE).abs().max() < 1e-6
    apart = student.distance(ONE, OTHER)
    assert apart.shape == (3, 32, 32) and (apart >= 0).all() and apart.mean() > 0.01


@torch.no_grad()
def test_the_distance_is_the_cosines_of_averaged_features_without_the_first_layer() -> None:
    student = build()
    net = student.net
    assert isinstance(net, EfficientNetBlocks)
    big = [
        interpolate(x.expand(-1, 3, -1, -1), scale_factor=2, mode="bilinear") for x in (ONE, OTHER)
    ]
    expected = torch.zeros(3, 1, 32, 32)
    for f, g in list(zip(*map(net.feature_maps, big), strict=True))[1:]:
        # unfold with zeros around, then the mean over all nine: as the authors average patches
        f, g = (
            torch.nn.functional.unfold(y, 3, padding=1).view(3, y.shape[1], 9, *y.shape[2:]).mean(2)
            for y in (f, g)
        )
        apart = (1 - cosine_similarity(f, g))[:, None]
        expected += interpolate(apart, size=[32, 32], mode="bilinear", align_corners=True)
    torch.testing.assert_close(student.distance(ONE, OTHER), expected[:, 0], rtol=1e-4, atol=1e-5)


def test_nothing_moved_and_nothing_apart_is_no_loss_and_only_the_student_learns() -> None:
    student = build()
    assert student.loss(ONE, ONE, 0.1).abs().max() < 1e-5
    student.loss(ONE, OTHER, 0.1).sum().backward()
    assert all(p.grad is not None for p in student.net.parameters())
    frozen = student.trunk.perceptual.frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())


def test_distance_from_the_original_features_costs_its_weight() -> None:
    student = build()
    with torch.no_grad():
        for p in student.net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    none, some, twice = (student.loss(ONE, ONE, weight) for weight in (0.0, 0.1, 0.2))
    assert none.abs().max() < 1e-5 and (some > 1e-4).all()
    torch.testing.assert_close(twice, 2 * some, rtol=1e-3, atol=1e-5)


def test_norms_keep_their_statistics_and_the_state_dict_has_the_tuned_copy_alone() -> None:
    student = build()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    assert before and all(key.startswith("net.") for key in before)
    student.train()
    student.loss(ONE, OTHER, 0.1)
    after = student.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@torch.no_grad()
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_any_number_of_channels(channels: int) -> None:
    x = torch.rand(2, channels, 16, 16)
    student = build()
    assert student.distance(x, x.flip(2)).shape == (2, 16, 16)
    assert student.loss(x, x.flip(2), 0.1).shape == (2,)
