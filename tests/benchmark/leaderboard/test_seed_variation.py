"""What several seeds say: their means, their order, and how sure differences between them are."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from adbench.benchmark.evaluation.sample_results import SampleResults, compare
from adbench.benchmark.evaluation.statistics.bootstrap import (
    REPLICATES,
    difference_clusters,
    random_integers,
)
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.pairwise import WORSE, compare_pair
from adbench.benchmark.leaderboard.seed_variation import summarize_seeds
from adbench.benchmark.report.html.page import render_page
from adbench.benchmark.report.html.pairwise import compare_board
from records import missing, record
from reports import as_json, markdown, print_leaderboards

GROUPS = 40


def three() -> list[dict[str, Any]]:
    """A before B in seeds 0 and 2; C is last, and has two seeds."""
    figures = {"A": (0.5, 0.3, 0.6), "B": (0.4, 0.35, 0.5), "C": (0.1, 0.2)}
    return [
        record(name, value, seed=seed)
        for name, values in figures.items()
        for seed, value in enumerate(values)
    ]


def test_means_over_seeds_stand_best_first_with_their_rank_in_each():
    (board,) = build_leaderboards([*three(), record("D"), missing("E")])
    a, b, c = summarize_seeds(board.done, board.metric)
    assert [a.name, b.name, c.name] == ["A", "B", "C"]
    assert a.mean == pytest.approx(1.4 / 3) and c.mean == pytest.approx(0.15)
    assert (a.ranks, b.ranks, c.ranks) == ({0: 1, 1: 2, 2: 1}, {0: 2, 1: 1, 2: 2}, {0: 3, 1: 3})
    assert a.table_cells() == ["A", "0.467", "0.300", "0.600", "0: 1, 1: 2, 2: 1"]
    notes = " ".join(board.notes)
    assert "depends on the seed for A over B (seeds 0, 2, not 1)." in notes
    assert "C over" not in notes and "over C" not in notes
    assert not summarize_seeds([row for row in board.done if row.record["seed"] == 0], board.metric)


def test_settings_and_profiles_are_not_mixed():
    other = [record("A", 0.3, seed=1, profile="paper"), record("A", 0.2, method__args={"width": 8})]
    (board,) = build_leaderboards([record("A"), *other])
    assert not summarize_seeds(board.done, board.metric)
    (board,) = build_leaderboards([record("A"), *other, record("A", 0.1, seed=2, profile="paper")])
    assert [each.name for each in summarize_seeds(board.done, board.metric)] == ["A, paper"]


def test_a_board_says_what_its_intervals_leave_out():
    def notes(*records: Any) -> str:
        (board,) = build_leaderboards(records)
        return " ".join(board.notes)

    assert "random variation of the training" in notes(record("A"), record("B"))
    always = [record(name, 0.4 - 0.1 * k, seed=s) for k, name in enumerate("AB") for s in (0, 1)]
    assert "same in every seed" in notes(*always)
    assert "seed" not in notes(record("A", method__baseline=True))


def test_the_table_is_in_every_form_of_the_report():
    results = three()
    assert "| A | 0.467 | 0.300 | 0.600 | 0: 1, 1: 2, 2: 1 |" in markdown(results)
    out = io.StringIO()
    print_leaderboards(results, Console(file=out, width=100))
    shown = out.getvalue()
    assert "over seeds, pixel AP" in shown and "0: 1, 1: 2, 2: 1" in shown
    out = io.StringIO()
    print_leaderboards(results, Console(file=out, width=60))
    head = next(line for line in out.getvalue().splitlines() if "rank" in line)
    assert "seed" in head  # rows that differ in nothing else
    (output,) = json.loads(as_json(results))["boards"]
    assert [each["name"] for each in output["over_seeds"]] == ["A", "B", "C"]
    assert output["over_seeds"][0]["ranks"] == {"0": 1, "1": 2, "2": 1}
    assert "pixel AP over seeds, of methods" in render_page(results)
    assert "over seeds" not in markdown([record("A")]).lower()


def study(
    rng: np.random.Generator, seeds: int, spread: float
) -> tuple[list[SampleResults], list[SampleResults]]:
    """Two methods that are alike on average: what patients are shares most, and every training
    adds an own constant of standard deviation `spread`."""
    keys = [f"{i}" for i in range(GROUPS)]
    label = np.arange(GROUPS) % 2 == 0
    chosen = random_integers("bootstrap", REPLICATES * GROUPS, GROUPS).reshape(REPLICATES, GROUPS)
    shared = rng.normal(size=GROUPS)

    def training(own: np.ndarray) -> SampleResults:
        each = own + 0.3 * rng.normal(size=GROUPS) + spread * rng.normal()
        draws = {"figure": each[chosen].mean(1)}
        return SampleResults(keys, keys, label, each, None, {"figure": float(each.mean())}, draws)

    owns = [shared + 0.5 * rng.normal(size=GROUPS) for _ in range(2)]
    one, two = ([training(own) for _ in range(seeds)] for own in owns)
    return one, two


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.3), (3, 0.3), (3, 0.05), (3, 0.0)])
def test_methods_that_differ_by_seed_alone_are_rarely_called_different(seeds: int, spread: float):
    """300 studies. Where seeds make nearly all of the spread, draws of two or three seeds alone
    would call 20 and 10 % of them different, and a single seed every second."""
    rng = np.random.default_rng(11)
    results = [compare(*study(rng, seeds, spread), "figure") for _ in range(300)]
    called = [each.p is not None and each.p < 0.05 for each in results]
    assert np.mean(called) <= 0.09
    outside = [not (each.low or 0) <= 0 <= (each.high or 0) for each in results]
    assert abs(np.mean(outside) - np.mean(called)) <= 0.02


def test_what_three_seeds_agree_on_is_still_told():
    rng = np.random.default_rng(2)
    one, two = study(rng, 3, 0.05)
    better = [
        replace(
            rows,
            values={"figure": (rows.values["figure"] or 0.0) + 2},
            replicates={"figure": rows.replicates["figure"] + 2},
        )
        for rows in two
    ]
    assert compare_pair(one, better, "figure").verdict == WORSE


def test_degrees_of_freedom_are_of_the_part_that_counts():
    rng = np.random.default_rng(4)
    apart = rng.normal(size=4000)
    assert difference_clusters(apart, 20, [[0.5], [0.4]]) == pytest.approx(20)
    assert difference_clusters(apart, 20, [[0.5, 0.5, 0.5], [0.4]]) == pytest.approx(20)
    alone = np.full(4000, 0.1)
    assert difference_clusters(alone, 20, [[0.5, 0.7, 0.3], [0.4]]) == pytest.approx(3)
    assert difference_clusters(alone, 20, [[0.5, 0.7], [0.3, 0.5]]) == pytest.approx(
        3
    )  # two of one each
    # groups and seeds of variance 1 each: (1 + 1)^2 / (1 / 19 + 1 / 1) degrees
    both = rng.normal(size=40_000) * np.sqrt(1.5)
    clusters = 1 + 4 / (1 / 19 + 1)
    assert difference_clusters(both, 20, [[0, 2], [0.0]]) == pytest.approx(clusters, rel=0.05)


def test_the_page_judges_means_where_rows_are_kept(monkeypatch: pytest.MonkeyPatch):
    sides = dict(zip("AB", study(np.random.default_rng(8), 3, 0.05), strict=True))
    figures, apart = {"A": 0.6, "B": 0.2}, {"A": 0.0, "B": 2.0}
    stored = {
        (name, seed): replace(
            rows,
            values={"pixel_ap": figures[name]},
            replicates={"pixel_ap": rows.replicates["figure"] - apart[name]},
        )
        for name, side in sides.items()
        for seed, rows in enumerate(side)
    }
    monkeypatch.setattr(
        "adbench.benchmark.report.html.pairwise.sample_results_of",
        lambda record, folder, *_: stored[record["method"]["label"], record["seed"]],
    )
    (board,) = build_leaderboards([record(name, figures[name], seed=seed) for name, seed in stored])
    results = compare_board(board).mean_verdicts
    assert results[0] == "best" and results[1] == "worse, p < 0.001"
