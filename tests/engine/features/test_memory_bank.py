"""The memory of normal vectors: it covers the rest and edits towards the nearest."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adbench.engine.features import memory_bank as room
from adbench.engine.features.memory_bank import MemoryBank, greedy_coreset
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng

WEIGHTS: tuple[Literal["softmax", "inverse"], ...] = ("softmax", "inverse")


def points(count: int, size: int = 6, name: str = "p") -> Tensor:
    return Rng([name]).normal((count, size))[0]


def bank(vectors: Tensor) -> MemoryBank:
    result = MemoryBank(vectors.shape[1])
    result.vectors = vectors
    return result


def apart(one: Tensor, other: Tensor) -> Tensor:
    """By the definition, in float64."""
    return (one.double()[:, None] - other.double()[None]).square().sum(2).sqrt()


def test_each_point_selected_is_the_farthest_from_those_before_it() -> None:
    all_of_them = points(80)
    index = greedy_coreset(all_of_them, 20)
    assert len(set(index.tolist())) == 20
    distance = apart(all_of_them, all_of_them[index])
    radii = [distance[:, : i + 1].amin(1).max().item() for i in range(20)]
    assert radii == sorted(radii, reverse=True)
    for i in range(1, 20):
        assert distance[index[i], :i].min().item() == pytest.approx(radii[i - 1], rel=1e-5)


def test_points_that_are_the_same_are_selected_once_while_others_are_left() -> None:
    some = points(5).repeat(4, 1)
    index = greedy_coreset(some, 20)
    assert len({tuple(row) for row in some[index[:5]].tolist()}) == 5
    assert sorted(index.tolist()) == list(range(20))


def test_a_share_is_rounded_up_and_hangs_on_the_seed_alone() -> None:
    places, result = points(103), MemoryBank(6)
    result.fill(places, 0.1, TrainingContext())
    assert result.vectors.shape == (11, 6)
    again = MemoryBank(6)
    again.fill(places, 0.1, TrainingContext())
    assert torch.equal(result.vectors, again.vectors)
    again.fill(places, 1.0, TrainingContext())
    assert sorted(again.vectors.tolist()) == sorted(places.tolist())
    with pytest.raises(ValueError, match="1 to all"):
        greedy_coreset(places, 104)


def test_it_stops_when_asked_to() -> None:
    with pytest.raises(Interrupted):
        MemoryBank(6).fill(points(50), 1.0, TrainingContext(stop=lambda: True))


def test_a_state_dict_brings_its_own_number_of_vectors() -> None:
    result = MemoryBank(6)
    result.fill(points(40), 0.5, TrainingContext())
    holder = torch.nn.ModuleDict({"memory": MemoryBank(6)})
    holder.load_state_dict(torch.nn.ModuleDict({"memory": result}).state_dict())
    loaded = holder["memory"]
    assert isinstance(loaded, MemoryBank) and torch.equal(loaded.vectors, result.vectors)
    with pytest.raises(RuntimeError, match="size mismatch"):
        MemoryBank(5).load_state_dict(result.state_dict())


@pytest.mark.parametrize("weights", WEIGHTS)
def test_what_is_in_memory_stays_with_one_neighbour(weights: Literal["softmax", "inverse"]) -> None:
    vectors = points(30)
    z = vectors[[7, 0, 29, 7]].T.reshape(1, 6, 2, 2)
    assert torch.equal(bank(vectors).replace_by_neighbours(z, 1, weights), z)


def test_an_edited_position_is_the_mean_that_was_promised() -> None:
    """By hand: distances 1, 2 and 4 from the origin, the fourth vector is too far away."""
    vectors = torch.tensor([[4.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [0.0, 9.0]])
    z = torch.zeros(1, 2, 1, 1)
    expected = [math.exp(-d / 2) for d in (1, 2, 4)]
    got = bank(vectors).replace_by_neighbours(z, 3).flatten()
    assert got[0].item() == pytest.approx(
        (4 * expected[2] - 2 * expected[1]) / sum(expected), rel=1e-5
    )
    assert got[1].item() == pytest.approx(expected[0] / sum(expected), rel=1e-5)
    got = bank(vectors).replace_by_neighbours(z, 3, "inverse").flatten()
    torch.testing.assert_close(got, torch.tensor([(4 / 4 - 2 / 2) / 1.75, 1 / 1.75]))


@settings(max_examples=20)
@given(
    order=st.permutations(range(25)),
    neighbours=st.integers(1, 30),
    weights=st.sampled_from(WEIGHTS),
)
def test_the_order_of_the_memory_does_not_matter_and_means_stay_in_the_hull(
    order: list[int], neighbours: int, weights: Literal["softmax", "inverse"]
) -> None:
    vectors, z = points(25), points(8, name="q").T.reshape(1, 6, 4, 2)
    one = bank(vectors).replace_by_neighbours(z, neighbours, weights)
    other = bank(vectors[order]).replace_by_neighbours(z, neighbours, weights)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for direction in points(16, name="d"):  # a mean is nowhere beyond what it is made of
        assert (one[0].flatten(1).T @ direction).max() <= (vectors @ direction).max() + 1e-5


def test_a_search_in_chunks_finds_what_a_search_of_all_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, queries = points(70), points(9, name="q")
    nearest = apart(queries, vectors).topk(4, largest=False).indices.sort(1).values
    for chunk in (3, 16, 70):
        monkeypatch.setattr(room, "VECTORS_PER_CHUNK", chunk)
        got = bank(vectors)._nearest(queries, 4).sort(1).values
        assert torch.equal(got, nearest)
