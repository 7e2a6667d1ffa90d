"""The frame a network works in: there and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.augmentation import random_affine
from adbench.engine.transforms.resizing import ResizePad

SHAPES = st.lists(st.integers(3, 14), min_size=1, max_size=3).map(tuple)


@given(SHAPES, st.sampled_from([1, 2, 4, 8]))
def test_without_resizing_the_way_back_undoes_the_way_in(shape, divisor) -> None:
    canvas = ResizePad(shape, divisor=divisor)
    x = Rng(["a", "b"]).uniform((2, *shape)).float()
    inside = canvas.forward(x)
    assert (
        all(n % divisor == 0 for n in inside.shape[2:])
        and tuple(inside.shape[2:]) == canvas.padded_shape
    )
    assert inside.min() >= -1 and inside.max() <= 1
    torch.testing.assert_close(canvas.inverse(inside), x, rtol=0, atol=1e-6)


@given(SHAPES, st.integers(2, 20))
def test_a_constant_stays_one_at_any_size(shape, size) -> None:
    canvas = ResizePad(shape, size)
    assert max(canvas.resized_shape) == (size if len(shape) > 1 else shape[0])
    back = canvas.inverse(canvas.forward(torch.full((1, 1, *shape), 0.3))[None])
    torch.testing.assert_close(back, torch.full((1, 1, 1, *shape), 0.3), rtol=0, atol=5e-6)


def test_halving_takes_means() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4) / 16
    inside = ResizePad((4, 4), 2, low=0.0).forward(x)
    expected = torch.tensor([[2.5, 4.5], [10.5, 12.5]]) / 16
    torch.testing.assert_close(inside[0, 0], expected)


def test_padding_is_background() -> None:
    inside = ResizePad((3, 3), divisor=4).forward(torch.ones(1, 1, 3, 3))
    assert inside.shape[2:] == (4, 4) and inside.sum() == 9 - 7  # seven places of -1


def test_a_signal_is_padded_with_silence_and_never_resized() -> None:
    canvas = ResizePad((1001,), 32, 8, low=0.0)
    assert canvas.resized_shape == (1001,) and canvas.padded_shape == (1008,)
    x = torch.rand(2, 2, 1001, generator=torch.Generator().manual_seed(0))
    inside = canvas.forward(x)
    assert (inside[..., :3] == 0.5).all() and (inside[..., -4:] == 0.5).all()
    assert torch.equal(canvas.inverse(inside), x)
    assert (ResizePad((1001,), 32, 8).forward(x)[..., :3] == 0).all()


def test_an_affine_view_is_the_samples_own_and_the_identity_is_nothing() -> None:
    x = Rng(["a", "b", "c"]).uniform((1, 16, 16)).float()
    torch.testing.assert_close(random_affine(x, Rng(list("abc"))), x, rtol=0, atol=1e-5)
    moved = random_affine(x, Rng(list("abc")), degrees=10, translate=(0.1, 0.1), flip=0.5)
    alone = random_affine(x[1:2], Rng(["b"]), degrees=10, translate=(0.1, 0.1), flip=0.5)
    torch.testing.assert_close(moved[1:2], alone)
    assert not torch.allclose(moved, x)
    mirrored = random_affine(x, Rng(list("abc")), flip=1.0)
    torch.testing.assert_close(mirrored, x.flip(3), rtol=0, atol=1e-5)
    assert random_affine(torch.ones(1, 1, 4), Rng(["a"]), degrees=9).equal(torch.ones(1, 1, 4))


@pytest.mark.parametrize("degrees", [90.0])
def test_rotation_keeps_lengths_on_a_square(degrees: float) -> None:
    """A disc in the middle stays where it is, however it is turned."""
    axis = torch.linspace(-1, 1, 33)
    disc = ((axis[:, None] ** 2 + axis**2) < 0.3).float()[None, None].expand(4, 1, 33, 33)
    turned = random_affine(disc, Rng(list("abcd")), degrees=degrees)
    assert (turned - disc).abs().mean() < 0.03
