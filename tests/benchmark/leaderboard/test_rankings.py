"""Ranks over data sets: who may be ranked together, by hand; and how it is shown."""

from __future__ import annotations

import io
import json
import re
from itertools import combinations, pairwise
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import friedmanchisquare

from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.rankings import (
    SINGLE_DATASET_NOTE,
    build_leaderboard_set,
    build_rankings,
    rank_leaderboards,
)
from adbench.benchmark.leaderboard.rankings_text import clique_marks, column_titles, table_cells
from adbench.benchmark.report.html.page import render_page
from adbench.benchmark.report.html.rankings import critical_difference_diagram, ranking_table
from records import missing, record, some
from reports import as_json, csv, latex, markdown, print_leaderboards


def on(data: str, label: str, value: float | None, **changes: Any) -> dict[str, Any]:
    """A record of a method on a data set, of which image AUROC is the same for all."""
    built = record(label, value, dataset__name=data, dataset__fingerprint=data, **changes)
    return built | {"file": f"{data}.{label}.{built['seed']}.json"}


def season(sets: int = 6) -> list[dict[str, Any]]:
    """A before B before C on every data set but the last, where C is before B."""
    figures = {"A": 0.9, "B": 0.5, "C": 0.3}
    built = [on(f"d{d}", name, value) for d in range(sets) for name, value in figures.items()]
    built[-1]["metrics"]["pixel_ap"]["value"] = 0.6
    return built


def test_a_set_is_printed_with_a_line_for_each_leaderboard() -> None:
    lines = repr(build_leaderboard_set(season())).splitlines()
    assert len(lines) == 1 + 6 and max(map(len, lines)) < 100
    assert lines[0].startswith("<LeaderboardSet: 6 leaderboards, ")
    assert lines[1] == "<Leaderboard d0: 3 rows>"


def by_metric(records, metric="pixel_ap"):
    return [league for league in build_rankings(records) if league.metric == metric]


def test_mean_ranks_and_the_test_are_those_by_hand():
    (league,) = by_metric(season())
    assert league.datasets == [f"d{d}" for d in range(6)]
    assert [(e.name, e.mean) for e in league.methods] == [
        ("A", 1.0),
        ("B", pytest.approx(13 / 6)),
        ("C", pytest.approx(17 / 6)),
    ]
    figures = [[0.9] * 6, [0.5] * 6, [0.3] * 5 + [0.6]]
    assert league.p == pytest.approx(friedmanchisquare(*figures).pvalue)
    assert league.critical_difference == pytest.approx(2.343 * (3 * 4 / 36) ** 0.5, abs=1e-3)
    assert league.cliques == [[0, 1], [1, 2]]  # 7/6 and 4/6 apart, and 1.353 is critical
    assert clique_marks(league) == ["a", "ab", "b"]
    assert not any("WARNING" in note for note in league.notes)


@pytest.mark.parametrize(
    "change",
    [{"partial": 8}, {"protocol__id": "beef"}, {"profile": "paper"}, {"dataset__synthetic": True}],
)
def test_what_is_judged_in_another_way_is_never_ranked_along(change):
    (plain,) = by_metric(season(3))
    apart = [on("d9", name, 0.5, **change) for name in "ABC"]
    (league,) = by_metric(season(3) + apart)
    assert league.datasets == plain.datasets and league.methods == plain.methods
    assert all("d9" not in note for note in league.notes)


def test_partial_runs_have_no_ranks_even_among_themselves():
    assert not build_rankings([on(d, name, 0.5, partial=8) for d in "de" for name in "ABC"])


def test_a_data_set_stands_once_with_the_board_of_most_methods():
    again = [on("d0", name, 0.1, dataset__args={"size": 64}) for name in "ABCD"]
    (league,) = by_metric([*season(3), *again])
    assert league.datasets == ["d0", "d1", "d2"] and len(league.methods) == 4
    a = next(e for e in league.methods if e.name == "A")
    assert a.dataset_ranks[0].value == 0.1
    assert any("d0 counts once" in note and "1 more" in note for note in league.notes)


def test_missing_is_the_worst_whether_it_failed_or_was_never_run():
    records = [*season(2), on("d0", "D", 0.99), on("d0", "E", 0.98)]
    records.append(missing("E", dataset__name="d1"))
    (league,) = by_metric(records)
    stands = {e.name: [stand.rank for stand in e.dataset_ranks] for e in league.methods}
    assert stands["D"] == [1, 4.5] and stands["E"] == [2, 4.5]
    assert any("D on d1; E on d1" in note for note in league.notes)


def test_among_complete_methods_one_that_was_never_run_has_no_rank_and_one_that_failed_is_worst():
    records = [*season(3), on("d0", "D", 0.95), *(on(f"d{d}", "E", 0.95) for d in range(2))]
    records.append(missing("E", dataset__name="d2"))
    boards = build_leaderboards(records)
    (whole,) = [r for r in rank_leaderboards(boards) if r.metric == "pixel_ap"]
    assert {method.name for method in whole.methods} == {*"ABCDE"}
    (ranking,) = [
        r for r in rank_leaderboards(boards, only_complete=True) if r.metric == "pixel_ap"
    ]
    assert [(m.name, m.mean) for m in ranking.methods[:2]] == [("A", 5 / 3), ("E", 2.0)]
    assert "Not run on all of them, and so without a rank: D." in ranking.notes
    assert not any("Not run" in note for note in whole.notes)


def test_without_a_figure_on_any_data_set_there_is_no_rank():
    records = season(2) + [missing("F", dataset__name=name) for name in ("d0", "d1")]
    (league,), (without,) = by_metric(records), by_metric(season(2))
    assert league.methods == without.methods
    assert league.critical_difference == without.critical_difference
    assert "Without a figure on any of them, and so without a rank: F." in league.notes


def test_seeds_are_averaged_and_one_without_a_figure_counts():
    records = [r for r in season(2) if r["method"]["label"] != "A"]
    records += [on("d0", "A", v, seed=k) for k, v in enumerate((0.2, 0.6))]
    records += [on("d1", "A", 0.9), missing("A", dataset__name="d1", seed=1)]
    (league,) = by_metric(records)
    a = next(e for e in league.methods if e.name == "A")
    assert [stand.value for stand in a.dataset_ranks] == [pytest.approx(0.4), None]
    assert len(a.dataset_ranks[0].files) == 2
    assert any("1 or 2 for a method" in note for note in league.notes)


def test_other_arguments_are_another_method_and_baselines_are_marked():
    records = season(2)
    for data in ("d0", "d1"):
        records.append(on(data, "A", 0.4, method__args={"width": 8}))
        records.append(on(data, "Mean", 0.2, method__baseline=True))
    (league,) = by_metric(records)
    names = [e.name for e in league.methods]
    assert {"A", "A width=8", "Mean (baseline)"} <= {*names} and len(names) == 5
    assert [e.name for e in league.methods if e.baseline] == ["Mean (baseline)"]


def test_few_data_sets_are_warned_of_and_two_methods_are_not_tested():
    (league,) = by_metric(season(4))
    assert any(note.startswith("WARNING: 4 data sets") for note in league.notes)
    (two,) = by_metric([r for r in season(4) if r["method"]["label"] != "C"])
    assert two.p is None and critical_difference_diagram(two) is None
    assert any("Fewer than three methods" in note for note in two.notes)
    assert [e.mean for e in two.methods] == [1, 2]


def test_where_friedman_finds_nothing_nobody_is_told_apart():
    turns = [(0.9, 0.5, 0.3), (0.3, 0.9, 0.5), (0.5, 0.3, 0.9)]
    rows = [
        on(f"d{d}", name, v)
        for d, row in enumerate(turns)
        for name, v in zip("ABC", row, strict=True)
    ]
    (league,) = by_metric(rows)
    assert league.p == 1 and league.cliques == [[0, 1, 2]]
    assert any("finds no difference" in note for note in league.notes)


def test_one_data_set_has_a_sentence_and_no_table():
    assert build_rankings(some()) == []
    assert SINGLE_DATASET_NOTE in markdown(some()) and SINGLE_DATASET_NOTE in render_page(some())
    assert json.loads(as_json(some()))["over_data_sets"] == []


def test_the_order_of_records_does_not_matter():
    assert build_rankings(season()[::-1]) == build_rankings(season())


def test_the_diagram_puts_means_on_the_axis_and_names_where_they_do_not_touch():
    (league,) = by_metric(season())
    results = critical_difference_diagram(league)
    assert results is not None

    def ends(gid: str) -> list[list[float]]:
        return results.artist(gid).get_xydata().tolist()

    (left, axis), (right, _) = ends("axis")
    names = {letter: results.artist(f"{letter}-name") for letter in "ABC"}
    for each, letter in zip(league.methods, names, strict=True):
        x, y = ends(f"{letter}-stem")[0]
        assert y == axis and names[letter].get_text() == f"{letter} {each.name}"
        assert (x - left) / (right - left) == pytest.approx((each.mean - 1) / 2, abs=1e-3)
        assert results.tooltips[f"{letter}-name"] == f"{each.name}: mean rank {each.mean:.2f}"
    (start, _), (stop, _) = ends("ruler")
    ratio = (stop - start) / (right - left)
    assert ratio == pytest.approx((league.critical_difference or 0) / 2, abs=1e-3)
    bars = [gid for gid in results.tooltips if gid.startswith("clique")]
    heights = [ends(bar)[0][1] for bar in bars]
    assert len({*heights}) == len(bars) == 2
    for one, two in combinations(names.values(), 2):
        sides = one.get_ha(), two.get_ha()
        assert sides[0] != sides[1] or abs(one.get_position()[1] - two.get_position()[1]) >= 14
    places = [name.get_position()[1] for name in names.values()]
    assert max(heights) < min(places) and max(places) <= results.figure.get_figheight() * 72
    ticks = [results.artist(f"tick-{rank}") for rank in (1, 2, 3)]
    assert [tick.get_text() for tick in ticks] == ["1", "2", "3"]
    across = [tick.get_position()[0] for tick in ticks]
    assert all(b - a == pytest.approx((right - left) / 2, abs=0.2) for a, b in pairwise(across))


def test_every_figure_of_the_table_says_its_records():
    (league,) = by_metric(season())
    table = ranking_table(league, {"d5.C.0.json": 7})
    assert [head.text for head in table.heads] == ["mean rank", "alike", *league.datasets]
    cell = table.lines[2].cells[-1]
    assert table.lines[2].name == "C" and cell.text == "0.600" and cell.bounds == "rank 2"
    assert cell.records == (7,) and table.heads[-1].field == ("metrics", "pixel_ap")


def test_all_forms_hold_the_same_table():
    records = season()
    league = by_metric(records)[0]
    rows = table_cells(league)
    assert column_titles(league)[:3] == ["method", "mean rank", "alike"]
    assert rows[0][:3] == ["A", "1.00", "a"]
    text = markdown(records)
    for row in rows:
        assert f"| {' | '.join(row)} |" in text
        assert " & ".join(row) + r" \\" in latex(records)
    (output, auroc) = json.loads(as_json(records))["over_data_sets"]
    assert [m["mean_rank"] for m in output["methods"]] == [e.mean for e in league.methods]
    assert output["not_told_apart"] == [["A", "B"], ["B", "C"]] and auroc["metric"] == "image_auroc"
    assert "over_data" not in csv(records)


@pytest.mark.parametrize(("width", "room"), [(200, True), (60, False)])
def test_a_narrow_terminal_goes_without_the_data_sets(width, room):
    out = io.StringIO()
    print_leaderboards(season(), Console(width=width, file=out))
    text = out.getvalue()
    assert "pixel AP over 6 data sets, profile tiny" in text and "2.17" in text
    assert ("0.600 (2)" in text) == room == ("No room for the data sets" not in text)
    assert max(map(len, text.splitlines())) <= width


def test_hostile_names_stay_words_on_the_page():
    nasty = '"><script>alert(1)</script>' + "W" * 500
    records = [on(d, name, v) for d in ("d0", nasty) for name, v in (("A", 0.5), (nasty, 0.4))]
    records += [on(d, "C", 0.1) for d in ("d0", nasty)]
    text = render_page(records)
    assert "<script>alert" not in text and text.count("<script") == 2
    assert re.search(r'<figure class="critical">.*alert\(1\)[^<]*…</text>', text, re.S)
