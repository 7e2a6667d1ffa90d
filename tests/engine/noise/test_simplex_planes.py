"""Two-dimensional simplex noise against opensimplex, and against what was measured of pDDPM's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import opensimplex
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adbench.engine.noise import simplex, simplex_numba
from adbench.engine.noise.noise import Simplex, build_noise
from adbench.engine.noise.simplex import simplex_planes, simplex_planes_torch
from adbench.engine.noise.simplex_numba import permutations, simplex_planes_numba
from adbench.engine.noise.simplex_tables import Octaves
from adbench.engine.runtime import compiled_kernels
from adbench.engine.runtime.rng import Rng

ONE = Octaves((1.0,), (1.0,))
SIX = Octaves(tuple(64 / 2**o for o in range(6)), tuple(0.8**o for o in range(6)))
PATHS: list[Callable[..., Tensor]] = [simplex_planes_torch, simplex_planes_numba]
FLAT = Simplex(generator="2d")


def at_points(path: Callable[..., Tensor], seed: int, points: np.ndarray) -> np.ndarray:
    """S at points (P, 2), float64 (P,): fields of one pixel, moved there."""
    tables = np.repeat(permutations(np.array([seed])), len(points), 0)
    return path(tables, (1, 1), ONE, torch.from_numpy(points)[:, None]).flatten().numpy()


def reference(seed: int, points: np.ndarray) -> np.ndarray:
    noise = opensimplex.OpenSimplex(seed).noise2
    return np.array([noise(*point) for point in points.tolist()])


def summed(noise: Simplex, seed: int, height: int, width: int) -> np.ndarray:
    """(height, width): the octaves of `noise` added up, each an array of opensimplex's."""
    generator, total = opensimplex.OpenSimplex(seed), np.zeros((height, width))
    for octave in range(noise.octaves):
        wave = noise.frequency / 2**octave
        field = generator.noise2array(np.arange(width) / wave, np.arange(height) / wave)
        total += noise.persistence**octave * field
    return total


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=30)
@given(st.integers(1, 2**62), st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 2), min_size=1))
def test_any_point_is_opensimplex_bit_for_bit(
    path: Callable[..., Tensor], seed: int, points: list[tuple[float, float]]
) -> None:
    inputs = np.array(points)
    assert np.array_equal(at_points(path, seed, inputs), reference(seed, inputs))


@pytest.mark.parametrize("path", PATHS)
def test_every_triangle_is_opensimplex_bit_for_bit(path: Callable[..., Tensor]) -> None:
    """Sixths hit some of the ties between closest corners; random points hit all the rest."""
    ties = np.array(list(product(np.arange(-31, 42) / 6, repeat=2)))
    anywhere = np.random.default_rng(0).uniform(-9, 9, (10_000, 2))
    for points in (ties, anywhere):
        assert np.array_equal(at_points(path, 77, points), reference(77, points))


@pytest.mark.parametrize("extent", [(96, 96), (96, 64), (5, 300)])
def test_a_field_is_the_sum_of_opensimplexs_octaves(extent: tuple[int, int]) -> None:
    """Each sample's and channel's of a permutation of its own; a published generator writes past
    its buffer where sides differ."""
    rng, shape = Rng(["a", "b"]), (2, *extent)
    result = FLAT(Rng(["a", "b"]), shape, torch.tensor([500, 9]))
    for sample, seeds in zip(result, rng.seeds(2).tolist(), strict=True):
        for field, seed in zip(sample.numpy(), seeds, strict=True):
            np.testing.assert_allclose(field, summed(FLAT, seed, *extent), rtol=0, atol=1e-6)


def test_a_field_has_the_authors_statistics() -> None:
    """Of 96 x 96: a deviation within the image of .38 to .69, a mean of .17 either way."""
    rng = Rng([str(i) for i in range(200)])
    field = FLAT(rng, (1, 96, 96), torch.full((200,), 500)).flatten(1)
    assert field.square().mean().sqrt().item() == pytest.approx(0.584, abs=0.02)
    assert field.std(1).mean().item() == pytest.approx(0.538, abs=0.02)
    assert field.mean(1).abs().mean().item() == pytest.approx(0.17, abs=0.03)
    assert field.abs().max().item() == pytest.approx(2.2, abs=0.3)


def test_normalised_noise_has_unit_variance() -> None:
    unit = Simplex(normalise=True, origin_jitter=True, generator="2d")
    rng, level = Rng([str(i) for i in range(200)]), torch.ones(200, dtype=torch.int64)
    assert unit(rng, (1, 64, 64), level).square().mean().item() == pytest.approx(1, rel=0.06)
    plain = Simplex(origin_jitter=True, generator="2d")(Rng(["a"]), (1, 9, 9), level[:1])
    torch.testing.assert_close(unit(Rng(["a"]), (1, 9, 9), level[:1]) * unit.deviation, plain)


def test_a_field_knows_its_stream_and_nothing_else() -> None:
    """Neither the level, nor how large the image is, nor the batch."""
    keys = ["a", "b", "c"]
    large = FLAT(Rng(keys), (2, 13, 9), torch.tensor([1, 500, 1000]))
    for i, key in enumerate(keys):
        small = FLAT(Rng([key]), (2, 7, 9), torch.tensor([3]))
        assert torch.equal(small[0], large[i, :, :7])
    shared = Simplex(generator="2d", shared=True)(Rng(keys), (1, 8, 8), torch.full((3,), 9))
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[0], shared[2])


@pytest.mark.parametrize("shape", [(2, 9), (1, 4, 5, 6)])
def test_lines_and_volumes_are_three_dimensional_all_the_same(shape: tuple[int, ...]) -> None:
    level = torch.tensor([40])
    assert torch.equal(FLAT(Rng(["a"]), shape, level), Simplex()(Rng(["a"]), shape, level))


def test_neither_threads_nor_portions_nor_a_compiler_change_a_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables, offset = permutations(np.arange(1, 4)), torch.zeros(3, 6, 2, dtype=torch.float64)
    whole = simplex_planes_numba(tables, (31, 17), SIX, offset)
    monkeypatch.setattr(simplex, "CHUNK_POINTS", 100)
    monkeypatch.setattr(simplex_numba, "VALUES_PER_THREAD", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for path in PATHS:
        assert torch.equal(path(tables, (31, 17), SIX, offset), whole)
    monkeypatch.setattr(compiled_kernels, "COMPILED_DEVICES", {"cpu"})
    monkeypatch.setattr(compiled_kernels, "BACKEND", "eager")
    assert torch.equal(simplex_planes_torch(tables, (31, 17), SIX, offset), whole)


def test_planes_are_the_rounded_sum() -> None:
    field = simplex_planes(torch.tensor([9]), (5, 7), SIX, torch.zeros(1, 6, 2).double())
    assert field.dtype == torch.float32
    assert np.array_equal(field[0].numpy(), summed(FLAT, 9, 5, 7).astype(np.float32))


def test_a_generator_that_is_none_is_refused() -> None:
    assert build_noise("simplex", generator="2d") == FLAT != Simplex()
    wrong: Any = "4d"
    with pytest.raises(ValueError, match="2d or 3d, not '4d'"):
        build_noise("simplex", generator=wrong)
