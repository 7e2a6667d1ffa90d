"""What methods disagree on most: by hand, and as it stands on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbench.benchmark.figures.sample_sheet import DisplayedSample, write_sheet
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.pairwise import sample_results_of
from adbench.benchmark.report.html.disagreements import (
    MAX_SAMPLES,
    disagreement_grid,
    largest_disagreements,
    score_ranks,
)
from adbench.benchmark.report.html.images import ImageBudget
from adbench.benchmark.report.html.page import render_page
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


def board_of(*records):
    (board,) = build_leaderboards(list(records))
    reference = {
        k: rows for k, row in enumerate(board.done) if (rows := sample_results_of(row.record))
    }
    return board, reference


def prints(folder, name: str, keys, kind: str = ".contact") -> None:
    pictures = [
        DisplayedSample(k, np.full((1, 8, 8), int(k[1:]) / 10), map=np.ones((8, 8))) for k in keys
    ]
    write_sheet(folder / f"{name}{kind}.png", pictures)


def test_ranks_are_of_the_most_anomalous_first_and_ties_share():
    assert score_ranks(np.array([0.1, 0.9, 0.5, 0.5])).tolist() == [4, 1, 2.5, 2.5]


def test_the_widest_spread_of_ranks_comes_first_and_says_who_says_what():
    board, reference = board_of(*(scored(n, s) for n, s in SCORES.items()))
    results = largest_disagreements(board, reference, {*KEYS})
    # ranks: A 1 2 3 4 5 6, B 1 6 3 4 5 2, C 1 2 3 6 5 4; s0, s2 and s4 are undisputed
    assert [key for key, _ in results] == ["s1", "s5", "s3"]
    assert results[0][1] == "abnormal; ranks A 2, B 6, C 2 of 6"
    assert results[1][1] == "normal; ranks A 6, B 2, C 4 of 6"
    assert [key for key, _ in largest_disagreements(board, reference, {"s3", "s0"})] == ["s3"]


def test_baselines_are_not_asked_where_there_are_two_methods():
    mean = scored("Mean", [1, 2, 3, 4, 5, 6], method__baseline=True)
    board, reference = board_of(scored("A", SCORES["A"]), scored("B", SCORES["B"]), mean)
    assert [key for key, _ in largest_disagreements(board, reference, {*KEYS})] == ["s1", "s5"]
    board, reference = board_of(scored("A", SCORES["A"]), mean)
    assert len(largest_disagreements(board, reference, {*KEYS})) == MAX_SAMPLES
    board, reference = board_of(mean)
    assert largest_disagreements(board, reference, {*KEYS}) == []


@given(st.permutations(range(6)), st.sampled_from([np.exp, np.cbrt, lambda x: 3 * x - 7]))
def test_scores_have_an_order_and_no_scale(order, change):
    values = np.array(order, float)
    plain = board_of(scored("A", SCORES["A"]), scored("B", values))
    changed = board_of(scored("A", SCORES["A"]), scored("B", change(values)))
    assert largest_disagreements(*plain, {*KEYS}) == largest_disagreements(*changed, {*KEYS})


def test_methods_judged_on_other_samples_are_not_asked():
    other = scored("C", SCORES["C"])
    other["samples"]["key"] = [f"t{i}" for i in range(6)]
    board, reference = board_of(scored("A", SCORES["A"]), scored("B", SCORES["B"]), other)
    results = largest_disagreements(board, reference, {*KEYS})
    assert [key for key, _ in results] == ["s1", "s5"] and "C" not in results[0][1]


def test_only_what_all_have_prints_of_is_shown_side_by_side(tmp_path):
    board, reference = board_of(*(scored(n, s) for n, s in SCORES.items()))
    for name, keys in (("A", KEYS), ("B", KEYS[:4]), ("C", KEYS[1:])):
        prints(tmp_path, name, keys)
    results = disagreement_grid(board, reference, tmp_path, ImageBudget())
    assert [key for key, *_ in results.rows] == ["s1", "s3"]
    assert [who for who, _ in results.columns] == ["", "A", "B", "C"]
    assert all(None not in cells for *_, cells in results.rows)


def test_where_there_is_no_contact_sheet_the_gallery_has_to_do(tmp_path):
    board, reference = board_of(*(scored(n, SCORES[n]) for n in "AB"))
    assert disagreement_grid(board, reference, tmp_path, ImageBudget()).rows == []
    prints(tmp_path, "A", KEYS)
    assert disagreement_grid(board, reference, tmp_path, ImageBudget()).rows == []
    prints(tmp_path, "B", ["s5", "s0"], kind="")
    assert [
        key for key, *_ in disagreement_grid(board, reference, tmp_path, ImageBudget()).rows
    ] == ["s5"]


@pytest.mark.parametrize("both", [True, False])
def test_the_page_has_them_where_methods_disagree(tmp_path, both):
    (tmp_path / "pictures").mkdir()
    for name in "AB":
        prints(tmp_path / "pictures", name, KEYS)
    records = [scored("A", SCORES["A"]), scored("B", SCORES["B" if both else "A"])]
    text = render_page(records, tmp_path)
    assert ("Largest disagreements" in text) == both
    assert ("abnormal; ranks A 2, B 6 of 6" in text) == both
