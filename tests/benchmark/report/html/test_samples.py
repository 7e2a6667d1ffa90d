"""Samples of the page: which are chosen, in which order, and that their pixels are the maps'."""

from __future__ import annotations

import base64
import io
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adbench.benchmark.figures.contact_sheet import LOWEST, write_contact_sheet
from adbench.benchmark.figures.sample_sheet import DisplayedSample
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.pairwise import sample_results_of
from adbench.benchmark.report.html.colour_scales import common_positions
from adbench.benchmark.report.html.images import ImageBudget
from adbench.benchmark.report.html.page import render_page
from adbench.benchmark.report.html.sample_choices import sample_choices, score_ranks
from adbench.benchmark.report.html.samples import outline_path, sample_pictures
from records import record

KEYS = [f"s{i}" for i in range(6)]
SCORES = {
    "A": [6, 5, 4, 3, 2, 1],
    "B": [60, 10, 40, 30, 20, 50],
    "C": [0.6, 0.5, 0.4, 0.1, 0.2, 0.3],
}


def scored(label: str, score: Any, **changes: Any) -> dict[str, Any]:
    built = record(label, {"A": 0.9, "B": 0.8}.get(label, 0.7), **changes)
    built["samples"] = {
        "key": KEYS,
        "group": [f"g{i}" for i in range(6)],
        "label": [1, 1, 1, 0, 0, 0],
        "score": [float(s) for s in score],
    }
    return built | {"file": f"{label}.json"}


def choices_of(*records: dict[str, Any]) -> dict[str, list[int]]:
    (board,) = build_leaderboards(list(records))
    results = {
        k: rows for k, row in enumerate(board.done) if (rows := sample_results_of(row.record))
    }
    tags = {key: {"size": "small" if i % 2 else "large"} for i, key in enumerate(KEYS)}
    return {c.name: c.rows for c in sample_choices(KEYS, tags, results, board.done)}


def write_sheet(folder: Path, name: str, keys: list[str], levels: tuple[int, ...] = (250,)) -> None:
    masks = [np.zeros((8, 6), bool) for _ in keys]
    for mask in masks:
        mask[2:4, 1:5] = True
    samples = [
        DisplayedSample(
            key, np.full((1, 8, 6), 0.5), mask=mask, label=key < "s3", tags={"size": "small"}
        )
        for key, mask in zip(keys, masks, strict=True)
    ]
    ramp = np.arange(48.0).reshape(8, 6) / 47
    maps = {level: [ramp * level for _ in keys] for level in levels}
    write_contact_sheet(folder / "pictures" / f"{name}.contact.png", samples, maps, levels[0])


def pixels(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/webp;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(image.convert("L"))


def test_ranks_are_of_the_most_anomalous_first_and_ties_share() -> None:
    assert score_ranks(np.array([0.1, 0.9, 0.5, 0.5])).tolist() == [4, 1, 2.5, 2.5]


def test_samples_are_ordered_by_misses_false_alarms_disagreement_and_tags() -> None:
    choices = choices_of(*(scored(n, s) for n, s in SCORES.items()))
    # ranks: A 1 2 3 4 5 6, B 1 6 3 4 5 2, C 1 2 3 6 5 4; s0, s2 and s4 are undisputed
    assert choices["largest disagreements"] == [1, 5, 3]
    assert choices["all samples"] == [0, 1, 2, 3, 4, 5]
    assert choices["worst misses of B B"] == [1, 2, 0]
    assert choices["worst false alarms of B B"] == [5, 3, 4]
    assert choices["size: small"] == [1, 3, 5] and choices["normal samples"] == [3, 4, 5]


def test_baselines_do_not_count_as_disagreement_where_there_are_two_methods() -> None:
    mean = scored("Mean", [1, 2, 3, 4, 5, 6], method__baseline=True)
    two = choices_of(scored("A", SCORES["A"]), scored("B", SCORES["B"]), mean)
    assert two["largest disagreements"] == [1, 5]
    assert len(choices_of(scored("A", SCORES["A"]), mean)["largest disagreements"]) == 6
    assert "largest disagreements" not in choices_of(mean)


@given(st.permutations(range(6)), st.sampled_from([np.exp, np.cbrt, lambda x: 3 * x - 7]))
def test_scores_have_an_order_and_no_scale(order: Any, change: Any) -> None:
    values = np.array(order, float)
    plain = choices_of(scored("A", SCORES["A"]), scored("B", values))
    assert plain == choices_of(scored("A", SCORES["A"]), scored("B", change(values)))


def test_methods_evaluated_on_other_samples_do_not_count() -> None:
    other = scored("C", SCORES["C"])
    other["samples"]["key"] = [f"t{i}" for i in range(6)]
    choices = choices_of(scored("A", SCORES["A"]), scored("B", SCORES["B"]), other)
    assert choices["largest disagreements"] == [1, 5] and "worst misses of C C" not in choices


def test_every_sample_that_any_method_kept_is_there_at_every_level(tmp_path: Path) -> None:
    write_sheet(tmp_path, "A", KEYS[:4], (250, 100, 500))
    write_sheet(tmp_path, "B", KEYS[1:], (200,))
    (board,) = build_leaderboards([scored(n, SCORES[n]) for n in "AB"])
    shown = sample_pictures(board.done, {}, tmp_path / "pictures", ImageBudget())
    assert [card.key for card in shown.cards] == KEYS and shown.levels == [100, 200, 250, 500]
    by_key = {card.key: card for card in shown.cards}
    assert [tile.entry for tile in by_key["s0"].maps] == [0]
    assert [tile.entry for tile in by_key["s5"].maps] == [1]
    assert {*by_key["s2"].maps[0].images} == {100, 250, 500} and by_key["s2"].maps[1].chosen == 200
    assert by_key["s1"].abnormal and not by_key["s4"].abnormal
    ramp = np.arange(48.0).reshape(8, 6) / 47
    top = np.quantile(np.tile(ramp * 250, 4), 0.995)
    assert shown.scales[0].top == pytest.approx(top)  # one for all levels
    for level in (100, 250, 500):
        grey = LOWEST + np.round(np.clip(ramp * level / top, 0, 1) * 254)
        assert np.array_equal(pixels(by_key["s2"].maps[0].images[level]), grey)
    assert pixels(by_key["s0"].input or "").tolist() == [[128] * 6] * 8


def test_maps_at_chosen_levels_have_room_before_those_at_others(tmp_path: Path) -> None:
    write_sheet(tmp_path, "A", KEYS, (250, 100))
    (board,) = build_leaderboards([scored("A", SCORES["A"])])
    whole = sample_pictures(board.done, {}, tmp_path / "pictures", ImageBudget())
    size = sum(
        len(uri.partition(",")[2])
        for card in whole.cards
        for uri in (card.input or "", card.maps[0].images[250])
    )
    budget = ImageBudget(size + 10)
    shown = sample_pictures(board.done, {}, tmp_path / "pictures", budget)
    assert all({*card.maps[0].images} == {250} and card.input for card in shown.cards)
    assert budget.out == ["A.contact.png"]


def test_the_outline_is_the_border_of_the_mask() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        mask = draw.random((7, 5)) > 0.6
        sides = set()
        for x, y, step, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline_path(mask)):
            for i in range(int(length)):
                at = (int(x) + i, int(y)) if step == "h" else (int(x), int(y) + i)
                sides.add((*at, step))
        padded = np.pad(mask, 1)
        expected = {
            (x, y, "h")
            for y in range(8)
            for x in range(5)
            if padded[y, x + 1] != padded[y + 1, x + 1]
        } | {
            (x, y, "v")
            for y in range(7)
            for x in range(6)
            if padded[y + 1, x] != padded[y + 1, x + 1]
        }
        assert sides == expected


@given(st.lists(st.integers(0, 50), min_size=256, max_size=256))
def test_the_common_scale_rises_and_is_the_share_of_pixels_as_high(counts: list[int]) -> None:
    positions = common_positions(counts)
    assert all(a <= b for a, b in pairwise(positions))
    assert positions[0] == 0 and 0 <= positions[-1] <= 1
    inside = np.array(counts, float)
    inside[0] = 0
    for code in (64, 200):
        share = inside[code:].sum() / max(inside.sum(), 1)
        if 0.005 < share < 0.5:
            assert positions[code] == pytest.approx(math.log(0.5 / share) / math.log(100))


@pytest.mark.parametrize("both", [True, False])
def test_the_page_offers_disagreements_where_methods_disagree(tmp_path: Path, both: bool) -> None:
    for name in "AB":
        write_sheet(tmp_path, name, KEYS)
    records = [scored("A", SCORES["A"]), scored("B", SCORES["B" if both else "A"])]
    text = render_page(records, tmp_path)
    assert ("largest disagreements (2)" in text) == both
    assert text.count('<article class="card"') == 6 and "rank 6 of 6" in text


def test_sheets_of_other_kinds_and_broken_layouts_are_shown_whole(tmp_path: Path) -> None:
    write_sheet(tmp_path, "A", KEYS)
    path = tmp_path / "pictures" / "A.contact.png"
    image = Image.open(path)
    image.load()
    image.crop((0, 0, 8, 8)).save(path)  # without its layout
    Image.new("RGB", (9, 7)).save(tmp_path / "pictures" / "A.png")
    (board,) = build_leaderboards([scored("A", SCORES["A"])])
    shown = sample_pictures(board.done, {}, tmp_path / "pictures", ImageBudget())
    assert shown.cards == [] and [image.about for image in shown.whole] == ["Test samples of A"]
