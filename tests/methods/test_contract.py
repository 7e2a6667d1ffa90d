"""What the benchmark relies on, asked of every registered method in one, two and three axes.

A new method is tested by being listed.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.benchmark.registry import Registry
from adbench.datasets.base import Spec
from adbench.engine.rng import Rng
from adbench.engine.run import Run
from adbench.methods.base import Method
from small import SHAPES, arguments, method, samples

METHODS = Registry.read().methods
RUN = Run(batch=3)
CASES = [
    pytest.param(name, axes, id=f"{name}-{axes}d", marks=pytest.mark.xdist_group(f"{name}-{axes}"))
    for name, entry in METHODS.items()
    for axes in sorted(entry.load().ndims)
]

FLAT = [case for case in CASES if 3 not in case.values]
"""Where invariances are asked for: volumes go through the same code, at ten times the cost."""


@cache
def fitted(name: str, axes: int) -> Method:
    made = method(name, Spec(2, SHAPES[axes]))
    made.fit(samples(SHAPES[axes], 6), samples(SHAPES[axes], 3, name="h"), RUN)
    RUN.place(made)
    return made.eval()


def levels(made: Method) -> list[int]:
    return list(made.levels)[:2]


def batch(axes: int, count: int = 4) -> tuple[torch.Tensor, list[str]]:
    rows = samples(SHAPES[axes], count, name="t")
    return torch.stack([row.x for row in rows]), [row.key for row in rows]


@pytest.mark.parametrize(("name", "axes"), CASES)
@torch.no_grad()
def test_it_answers_for_every_level_and_sample(name: str, axes: int) -> None:
    made, (x, keys) = fitted(name, axes), batch(axes)
    seen = made.detect(x, levels(made), Rng(keys))
    count = len(levels(made))
    assert seen.score.shape == (count, 4) and seen.score.isfinite().all()
    if seen.map is not None:
        assert seen.map.shape == (count, 4, *SHAPES[axes])
        assert seen.map.isfinite().all() and (seen.map >= 0).all()
    if seen.reconstruction is not None:
        assert seen.reconstruction.shape == (count, 4, 2, *SHAPES[axes])
    assert made.score(x, Rng(keys)).shape == (4,)
    if seen.map is not None:
        assert made.localize(x, Rng(keys)).shape == (4, *SHAPES[axes])


@pytest.mark.parametrize(("name", "axes"), FLAT)
@settings(max_examples=2, deadline=None)
@given(order=st.permutations(range(4)), count=st.integers(1, 4))
@torch.no_grad()
def test_a_map_is_the_same_to_the_bit_in_any_company(name, axes, order, count) -> None:
    made, (x, keys) = fitted(name, axes), batch(axes)
    whole = made.detect(x, levels(made), Rng(keys))
    some = list(order)[:count]
    part = made.detect(x[some], levels(made), Rng([keys[i] for i in some]))
    assert torch.equal(part.score, whole.score[:, some])
    assert (whole.map is None) == (part.map is None)
    if whole.map is not None and part.map is not None:
        assert torch.equal(part.map, whole.map[:, some])


@pytest.mark.parametrize(("name", "axes"), FLAT)
@torch.no_grad()
def test_a_sweep_equals_its_levels_one_by_one_to_the_bit(name: str, axes: int) -> None:
    made, (x, keys) = fitted(name, axes), batch(axes)
    sweep = made.detect(x, made.levels[:4], Rng(keys))
    for i, level in enumerate(made.levels[:4]):
        alone = made.detect(x, [level], Rng(keys))
        assert torch.equal(sweep.score[i], alone.score[0])
        if sweep.map is not None and alone.map is not None:
            assert torch.equal(sweep.map[i], alone.map[0])


@pytest.mark.parametrize(("name", "axes"), CASES)
@torch.no_grad()
def test_the_state_dict_is_all_that_was_learnt(name: str, axes: int) -> None:
    made, (x, keys) = fitted(name, axes), batch(axes)
    twin = method(name, Spec(2, SHAPES[axes]))
    for p in twin.parameters():
        p.data.fill_(0.5)
    twin.load_state_dict(made.state_dict())
    RUN.place(twin)
    assert torch.equal(made.score(x, Rng(keys)), twin.eval().score(x, Rng(keys)))


@pytest.mark.parametrize(("name", "axes"), CASES)
def test_fitting_draws_from_the_run_alone(name: str, axes: int) -> None:
    torch.manual_seed(7)
    twin = method(name, Spec(2, SHAPES[axes]))
    torch.manual_seed(99)
    twin.fit(samples(SHAPES[axes], 6), samples(SHAPES[axes], 3, name="h"), RUN)
    for key, value in fitted(name, axes).state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_its_class_says_what_the_benchmark_asks(name: str) -> None:
    cls = METHODS[name].load()
    assert cls.published in cls.levels and list(cls.levels) == sorted(set(cls.levels))
    assert all(0 <= level <= 1000 for level in cls.levels)
    assert cls.inference <= METHODS[name].arguments().keys()
    assert cls.supervision in ("normal", "image-labels")


@pytest.mark.parametrize("name", METHODS)
def test_it_refuses_samples_of_other_axes(name: str) -> None:
    other = {1, 2, 3} - METHODS[name].load().ndims
    for axes in other:
        with pytest.raises(ValueError, match=f"not of {axes}"):
            METHODS[name].load()(Spec(1, SHAPES[axes]), **arguments(name))
