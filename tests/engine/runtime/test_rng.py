"""Random streams: the published test vectors of Philox, and who a draw may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from adbench.engine.runtime.rng import Rng, _philox

NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@pytest.mark.parametrize(
    ("counter", "key", "out"),
    [  # Random123's kat_vectors, philox4x32 10
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: list[int], key: list[int], out: list[int]) -> None:
    words = [torch.tensor([w]) for w in counter], [torch.tensor([w]) for w in key]
    assert [int(w) for w in _philox(*words)] == out


@given(NAMES, st.integers(0, 10), st.integers(0, 1000), st.randoms())
def test_a_sample_draws_alike_in_any_company_and_order(names, seed, step, random) -> None:
    together = Rng(names, seed).fork("x").at(step).normal((3,))
    shuffled = random.sample(names, len(names))
    again = Rng(shuffled, seed).fork("x").at(step).normal((3,))
    for i, name in enumerate(names):
        alone = Rng([name], seed).fork("x").at(step).normal((3,))
        assert torch.equal(together[i], alone[0])
        assert torch.equal(together[i], again[shuffled.index(name)])


def test_seed_key_purpose_step_and_draw_all_matter() -> None:
    def first(rng: Rng) -> float:
        return rng.normal((1,)).item()

    base = Rng(["a"], 0)
    drawn = {
        first(base),
        first(base),  # the second draw of the same stream
        first(Rng(["a"], 1)),
        first(Rng(["b"], 0)),
        first(base.fork("x")),
        first(base.fork("x").fork("y")),
        first(base.fork("x").at(1)),
        first(base.at(1)),
    }
    assert len(drawn) == 8
    assert first(base.fork("x")) == first(Rng(["a"], 0).fork("x")), "a fork forgets earlier draws"


def test_steps_may_differ_by_sample() -> None:
    both = Rng(["a", "b"]).at(torch.tensor([3, 9])).normal((4,))
    assert torch.equal(both[:1], Rng(["a"]).at(3).normal((4,)))
    assert torch.equal(both[1:], Rng(["b"]).at(9).normal((4,)))


def test_rows_repeat_and_reorder_streams() -> None:
    rng = Rng(["a", "b", "c"]).at(torch.tensor([1, 2, 3]))
    picked = rng.rows(torch.tensor([2, 0, 2])).normal((2,))
    whole = Rng(["a", "b", "c"]).at(torch.tensor([1, 2, 3])).normal((2,))
    assert torch.equal(picked, whole[[2, 0, 2]])
    assert torch.equal(Rng.cat([rng, rng.fork("x")]).normal((2,))[:3], whole)


def test_shared_streams_are_one_stream() -> None:
    field = Rng(["a", "b"]).fork("start").shared().normal((8,))
    assert torch.equal(field[0], field[1])
    assert torch.equal(field[:1], Rng(["c"]).fork("start").shared().normal((8,)))


def test_draws_have_their_distributions() -> None:
    rng = Rng([str(i) for i in range(8)])
    assert kstest(rng.normal((5000,)).flatten().numpy(), "norm").pvalue > 1e-3
    assert kstest(rng.uniform((5000,)).flatten().numpy(), "uniform").pvalue > 1e-3
    counts = np.bincount(rng.integers(7, (7000,)).flatten().numpy(), minlength=7)
    assert abs(counts - 8000).max() < 5 * 8000**0.5
    assert rng.seeds(3).shape == (8, 3) and (rng.seeds(100) > 0).all()
    streams = Rng(["a", "b"]).normal((20000,))
    assert abs(torch.corrcoef(streams)[0, 1]) < 0.03
