"""Noise against opensimplex, and against what was measured of AnoDDPM's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import opensimplex
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import caching
from torch import Tensor

from adbench.engine.noise import simplex, simplex_numba
from adbench.engine.noise.noise import Gaussian, Noise, Simplex, build_noise, gaussian
from adbench.engine.noise.pyramid import Coarse, Pyramid
from adbench.engine.noise.simplex import simplex_fields, simplex_fields_torch
from adbench.engine.noise.simplex_numba import permutations, simplex_fields_numba
from adbench.engine.noise.simplex_tables import Octaves
from adbench.engine.runtime import compiled_kernels
from adbench.engine.runtime.rng import Rng
from simplex_authors import reference_simplex as authors

ONE = Octaves((1.0,), (1.0,))
SIX = Octaves(tuple(64 / 2**o for o in range(6)), tuple(0.8**o for o in range(6)))
PATHS: list[Callable[..., Tensor]] = [simplex_fields_torch, simplex_fields_numba]
EVERY = [gaussian, Gaussian(shared=True), Simplex(), Simplex(origin_jitter=True, z="random"),
         Pyramid(), Pyramid(3, 1.5), Coarse(), Coarse(4, 1.0)]  # fmt: skip


class Seeded(Rng):
    """Whose fields all have the permutation of seed 3, which the golden values are of."""

    def seeds(self, count: int) -> Tensor:
        return torch.full((len(self), count), 3)


def at_points(path: Callable[..., Tensor], seed: int, points: np.ndarray) -> np.ndarray:
    """S at points (P, 3), float64 (P,): fields of one pixel, moved there."""
    tables = np.repeat(permutations(np.array([seed])), len(points), 0)
    depth = torch.zeros(len(points), 1, dtype=torch.float64)
    return path(tables, (1, 1, 1), ONE, depth, torch.from_numpy(points)[:, None]).flatten().numpy()


def reference(seed: int, points: np.ndarray) -> np.ndarray:
    noise = opensimplex.OpenSimplex(seed).noise3
    return np.array([noise(*point) for point in points.tolist()])


def test_the_golden_values() -> None:
    golden = [164, 187, 231, 144, 104, 73, 108, 29, 15, 238]
    assert permutations(np.array([3]))[0, :10].tolist() == golden
    points = np.array([(0.1, 0.2, 0.3), (1.5, -2.25, 3.75), (10.3, 7.7, 0)])
    for path in PATHS:
        assert at_points(path, 3, points) == pytest.approx(
            [0.4274099656, 0.3207938679, -0.2258659396], abs=1e-9
        )
    field = Simplex()(Seeded(["a"]), (1, 8, 8), torch.tensor([6]))[0, 0]  # level 6 is t = 5
    assert field[0, 0].item() == pytest.approx(0.2582908, abs=1e-6)
    assert field[3, 5].item() == pytest.approx(0.8553609, abs=1e-6)
    assert field[7, 7].item() == pytest.approx(1.5648617, abs=1e-6)
    assert field.mean().item() == pytest.approx(0.7838147, abs=1e-6)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=30)
@given(st.integers(1, 2**62), st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 3), min_size=1))
def test_any_point_is_opensimplex_bit_for_bit(
    path: Callable[..., Tensor], seed: int, points: list[tuple[float, float, float]]
) -> None:
    inputs = np.array(points)
    assert np.array_equal(at_points(path, seed, inputs), reference(seed, inputs))


@pytest.mark.parametrize("path", PATHS)
def test_every_piece_of_space_is_opensimplex_bit_for_bit(path: Callable[..., Tensor]) -> None:
    """Sixths and thirds hit the ties between closest corners; random points hit all the rest."""
    ties = np.array(list(product(np.arange(-7, 14) / 6, repeat=3)))
    anywhere = np.random.default_rng(0).uniform(-9, 9, (10_000, 3))
    for points in (ties, anywhere):
        assert np.array_equal(at_points(path, 77, points), reference(77, points))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 2**62), min_size=1, max_size=4), st.data())
def test_both_paths_make_the_same_sum(seeds: list[int], data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    depth = torch.from_numpy(rng.uniform(-1e3, 1e3, (len(seeds), shape[0])))
    offset = torch.from_numpy(rng.uniform(0, 256, (len(seeds), 6, 3)))
    tables = permutations(np.array(seeds))
    a, b = (path(tables, shape, SIX, depth, offset) for path in PATHS)
    assert torch.equal(a, b)


def test_neither_threads_nor_portions_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, shape = permutations(np.arange(1, 4)), (2, 31, 17)
    depth = torch.arange(6, dtype=torch.float64).view(3, 2)
    offset = torch.zeros(3, 6, 3, dtype=torch.float64)
    whole = [path(tables, shape, SIX, depth, offset) for path in PATHS]
    monkeypatch.setattr(simplex, "CHUNK_POINTS", 100)
    monkeypatch.setattr(simplex_numba, "VALUES_PER_THREAD", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for path, before in zip(PATHS, whole, strict=True):
        assert torch.equal(path(tables, shape, SIX, depth, offset), before)


def test_the_loop_is_compiled_where_nothing_can_be_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert simplex_numba._jit(lambda x: x + 1)(2) == 3


def test_numba_is_imported_when_a_field_is_drawn_and_not_before() -> None:
    script = """if True:
        import sys, torch
        from adbench.engine.noise.noise import Simplex, gaussian
        from adbench.engine.runtime.rng import Rng
        gaussian(Rng(["a"]), (1, 4), torch.tensor([1]))
        before = "numba" in sys.modules
        Simplex()(Rng(["a"]), (1, 4), torch.tensor([1]))
        print(before, "numba" in sys.modules)"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.stdout.split() == ["False", "True"], process.stderr


@pytest.fixture(scope="module")
def many() -> Tensor:
    """50 fields of 256 x 256 pixels at levels all over, (50, 256, 256)."""
    rng = Rng([f"sample {i}" for i in range(50)])
    return Simplex()(rng, (1, 256, 256), torch.arange(50) * 20 + 1)[:, 0]


def kurtosis(x: Tensor) -> float:
    """Excess: 0 for a normal variable."""
    return (((x - x.mean()) / x.std()) ** 4).mean().item() - 3


def slope(images: Tensor) -> tuple[float, list[float]]:
    """Of log power against log radius in 2 <= k < 100, and the power at k = 1, 2, 4 .. 64."""
    n = images.shape[-1]
    power = torch.fft.fft2(images).abs().square().mean(0)
    k = torch.fft.fftfreq(n, 1 / n)
    radius = (k[:, None] ** 2 + k[None] ** 2).sqrt().round().long().flatten()
    total = torch.zeros(int(radius.max()) + 1).index_add(0, radius, power.flatten())
    mean = total / torch.bincount(radius)
    ks = np.arange(2, 100)
    line = np.polyfit(np.log(ks), np.log(mean[2:100].numpy()), 1)
    return float(line[0]), [mean[2**i].item() for i in range(7)]


def test_the_default_field_has_the_authors_statistics(many: Tensor) -> None:
    assert abs(many.mean().item()) < 0.05
    assert 0.49 < many.std().item() < 0.515
    assert -0.35 < kurtosis(many) < 0
    single = Simplex(octaves=1, frequency=8)
    one = single(Rng([str(i) for i in range(20)]), (1, 128, 128), torch.arange(20) * 50 + 1)
    assert 0.305 < one.std().item() < 0.32
    assert one.abs().max() < 1 and kurtosis(one) == pytest.approx(-0.73, abs=0.1)
    assert single.deviation == pytest.approx(0.3137, abs=5e-4)
    assert Simplex().deviation == pytest.approx(0.504, abs=2e-3)


def test_the_spectrum_falls_as_the_authors_and_white_noise_does_not(many: Tensor) -> None:
    falls, power = slope(many)
    assert -3.1 < falls < -2.3
    assert power == sorted(power, reverse=True)
    white = gaussian(Rng([str(i) for i in range(20)]), (1, 256, 256), torch.ones(20))[:, 0]
    assert abs(slope(white)[0]) < 0.1


def test_fields_of_a_batch_are_independent(many: Tensor) -> None:
    together = torch.corrcoef(many[:8].flatten(1)) - torch.eye(8)
    assert together.abs().max() < 0.5


def test_normalised_noise_has_unit_variance() -> None:
    unit = Simplex(normalise=True, origin_jitter=True)
    rng, level = Rng([str(i) for i in range(200)]), torch.ones(200, dtype=torch.int64)
    assert unit(rng, (1, 64, 64), level).square().mean().item() == pytest.approx(1, rel=0.06)
    plain = Simplex(origin_jitter=True)(Rng(["a"]), (1, 9, 9), level[:1])
    scaled = unit(Rng(["a"]), (1, 9, 9), level[:1])
    torch.testing.assert_close(scaled * unit.deviation, plain)


def test_the_origin_is_always_zero_unless_octaves_are_moved() -> None:
    rng, level = Rng([str(i) for i in range(300)]), torch.ones(300, dtype=torch.int64)
    assert Simplex()(rng, (1, 4, 4), level)[..., 0, 0].abs().max() == 0
    moved = Simplex(origin_jitter=True)(rng, (1, 4, 4), level)
    assert moved[..., 0, 0].std().item() == pytest.approx(0.504, rel=0.15)


@pytest.mark.parametrize("noise", EVERY)
@settings(max_examples=15)
@given(
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=5),
    st.sampled_from([(2, 7), (1, 5, 3), (2, 2, 3, 4)]),
    st.integers(0, 9),
)
def test_a_samples_noise_does_not_know_its_batch(
    noise: Noise, keys: list[str], shape: tuple[int, ...], seed: int
) -> None:
    level = torch.tensor([ord(key) for key in keys])
    if isinstance(noise, Gaussian) and noise.shared:
        level = torch.full_like(level, 5)
    field = noise(Rng(keys, seed), shape, level)
    assert field.shape == (len(keys), *shape) and field.dtype == torch.float32
    for i, key in enumerate(keys):
        alone = noise(Rng([key], seed), shape, level[i : i + 1])
        assert torch.equal(field[i], alone[0])


@settings(max_examples=25)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(1, 1000))
def test_a_position_has_the_same_value_whatever_the_size(extent: list[int], level: int) -> None:
    """Non-square ones too: a published 2-D generator writes past its buffer for those."""
    at = torch.tensor([level])
    small = Simplex()(Rng(["a"]), (2, *extent), at)
    large = Simplex()(Rng(["a"]), (2, *(n + 3 for n in extent)), at)
    assert torch.equal(small, large[(..., *(slice(n) for n in extent))])
    assert small.isfinite().all()


def test_a_line_is_an_images_first_row_and_an_image_a_volumes_plane() -> None:
    line = Simplex()(Rng(["a"]), (1, 9), torch.tensor([40]))
    image = Simplex()(Rng(["a"]), (1, 6, 9), torch.tensor([40]))
    volume = Simplex()(Rng(["a"]), (1, 41, 6, 9), torch.tensor([777]))
    assert torch.equal(line, image[:, :, 0]) and torch.equal(image, volume[:, :, 39])
    floor = Simplex(z="zero")(Rng(["a"]), (1, 6, 9), torch.tensor([777]))
    assert torch.equal(floor, volume[:, :, 0])
    assert not torch.equal(floor, Simplex(z="random")(Rng(["a"]), (1, 6, 9), torch.tensor([1])))


def test_a_field_moves_slowly_with_the_level_and_each_sample_is_at_its_own() -> None:
    """The correlations of one permutation between t and t + 1, 4, 16."""
    keys, shape = ["same"] * 4, (1, 128, 128)
    fields = [Simplex()(Rng(keys, seed), shape, torch.tensor([401, 402, 405, 417]))[:, 0]
              for seed in range(20)]  # fmt: skip
    together = torch.stack([torch.corrcoef(f.flatten(1))[0] for f in fields]).mean(0)
    assert together[1:].tolist() == pytest.approx([0.963, 0.809, 0.517], abs=0.07)


def test_every_channel_and_every_draw_has_a_field_of_its_own() -> None:
    rng, level = Rng(["a"]), torch.tensor([300])
    both = Simplex()(rng, (2, 8, 8), level)
    again = Simplex()(rng, (2, 8, 8), level)
    assert not torch.equal(both[0, 0], both[0, 1]) and not torch.equal(both, again)
    steps = Rng(["a"] * 2).at(torch.tensor([1, 2]))
    a, b = Simplex()(steps, (1, 8, 8), torch.tensor([300, 300]))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("name", ["gaussian", "simplex", "pyramid"])
def test_a_shared_field_is_everyones(name: str) -> None:
    field = build_noise(name, shared=True)(Rng(["a", "b", "c"]), (1, 8, 8), torch.full((3,), 9))
    assert torch.equal(field[0], field[1]) and torch.equal(field[0], field[2])
    separate = build_noise(name)(Rng(["a", "b"]), (1, 8, 8), torch.full((2,), 9))
    assert not torch.equal(separate[0], separate[1])


@pytest.mark.parametrize("noise", EVERY)
def test_no_global_generator_is_touched(noise: Noise) -> None:
    before, theirs = torch.get_rng_state(), str(np.random.get_state())
    noise(Rng(["a"]), (1, 5, 5), torch.tensor([3]))
    assert torch.equal(torch.get_rng_state(), before) and str(np.random.get_state()) == theirs


def test_a_name_selects_the_noise_and_its_text_shows_all_settings() -> None:
    assert build_noise("gaussian", octaves=3) == gaussian
    assert build_noise("simplex", octaves=3, frequency=32) == Simplex(3, 0.8, 32.0)
    assert str(build_noise("simplex", frequency=64)) == str(Simplex())
    assert str(Simplex()) != str(Simplex(normalise=True))
    assert build_noise("pyramid", octaves=3) == Pyramid(3) and build_noise(
        "coarse", grid=8
    ) == Coarse(8)
    assert " at 0x" not in str(gaussian)  # an address would differ from run to run
    with pytest.raises(ValueError, match="did you mean simplex"):
        build_noise("simplx")


@pytest.mark.parametrize("wrong", [{"octaves": 0}, {"frequency": 0}, {"z": "depth"}])
def test_a_field_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="simplex noise"):
        build_noise("simplex", **wrong)
    with pytest.raises(ValueError, match="one to three axes"):
        Simplex()(Rng(["a"]), (1,), torch.tensor([1]))
    for name, wrong in (("pyramid", {"octaves": 0}), ("coarse", {"grid": 0})):
        with pytest.raises(ValueError, match=f"{name} noise needs"):
            build_noise(name, **wrong)
        with pytest.raises(ValueError, match="one to three axes"):
            build_noise(name)(Rng(["a"]), (1,), torch.tensor([1]))


def test_a_fields_float32_is_the_rounded_sum() -> None:
    depth, offset = torch.zeros(1, 1).double(), torch.zeros(1, 6, 3).double()
    field = simplex_fields(torch.tensor([9]), (1, 5, 7), SIX, depth, offset)
    y, x = np.mgrid[:5, :7]
    noise = opensimplex.OpenSimplex(9).noise3
    total = np.zeros((5, 7))
    for wavelength, height in zip(*SIX, strict=True):
        total += height * np.vectorize(noise)(x / wavelength, y / wavelength, 0.0)
    assert field.dtype == torch.float32
    assert np.array_equal(field[0, 0].numpy(), total.astype(np.float32))


@pytest.mark.parametrize("columns", [1, 3, 256, 300, 513])
def test_rows_longer_than_the_loops_memory_are_opensimplex_too(columns: int) -> None:
    depth, offset = torch.full((1, 1), 5.0).double(), torch.zeros(1, 6, 3).double()
    field = simplex_fields_numba(permutations(np.array([9])), (1, 3, columns), SIX, depth, offset)
    theirs = authors(Simplex(), 9, max(columns, 3), 5)
    assert np.array_equal(field[0, 0].numpy(), theirs[:3, :columns])


@pytest.mark.parametrize("backend", ["eager", "one that nobody has"])
def test_compiled_or_not_the_field_is_the_same(
    backend: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """As it is on a GPU, with a compiler that changes nothing; and without one, with one word."""
    tables, shape = permutations(np.arange(1, 4)), (1, 9, 7)
    depth, offset = torch.zeros(3, 1).double(), torch.zeros(3, 6, 3).double()
    plain = simplex_fields_torch(tables, shape, SIX, depth, offset)
    monkeypatch.setattr(compiled_kernels, "COMPILED_DEVICES", {"cpu"})
    monkeypatch.setattr(compiled_kernels, "BACKEND", backend)
    monkeypatch.setattr(simplex, "CHUNK_POINTS", 100)
    for _ in range(2):
        assert torch.equal(simplex_fields_torch(tables, shape, SIX, depth, offset), plain)
    process = [str(warned.message) for warned in recwarn if "takes longer" in str(warned.message)]
    assert len(process) == (0 if backend == "eager" else 1)
