"""Curves over the share of training data: points, intervals, and the chart and table of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adbench.benchmark.leaderboard.example_records import example_record
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.subgroup_gaps import MAX_NOTES, subgroup_notes
from adbench.benchmark.leaderboard.training_curves import training_curve_data
from adbench.benchmark.report.html.page import build_page
from adbench.benchmark.report.html.training_chart import training_charts, training_table


def trained(share: float, value: float, *, axis: str = "fraction", **more: Any) -> dict[str, Any]:
    record = example_record("PCA", **more)
    record["training"] = {"fraction": 100.0, "contamination": 0.0} | {axis: share}
    record["metrics"]["pixel_ap"] = {"value": value, "low": value - 0.1, "high": value + 0.2}
    return record


def test_points_ascend_and_have_the_intervals_of_their_records() -> None:
    (curve,) = training_curve_data([trained(100, 0.5), trained(10, 0.3)], "pixel_ap")
    assert curve.axis == "fraction" and [p.share for p in curve.points] == [10, 100]
    assert curve.points[0].low == pytest.approx(0.2) and curve.points[1].high == pytest.approx(0.7)


def test_of_several_seeds_the_wider_interval_counts() -> None:
    close = [trained(10, value, seed=k) for k, value in enumerate((0.30, 0.30, 0.31))]
    far = [trained(100, value, seed=k) for k, value in enumerate((0.4, 0.5, 0.6))]
    (curve,) = training_curve_data([*close, *far], "pixel_ap")
    low, high = curve.points
    assert low.low == pytest.approx(low.value - 0.1) and low.seeds == 3  # that of the records
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's, two degrees of freedom
    assert (high.value, high.high) == pytest.approx((0.5, 0.5 + half), rel=1e-5)


def test_an_interval_that_one_record_lacks_is_none() -> None:
    bare = trained(10, 0.3, seed=1)
    bare["metrics"]["pixel_ap"] = {"value": 0.3, "low": None, "high": None}
    (curve,) = training_curve_data([trained(10, 0.3), bare, trained(100, 0.5)], "pixel_ap")
    assert curve.points[0].low is None and curve.points[1].low is not None


def test_axes_are_not_mixed() -> None:
    both = trained(10, 0.3)
    both["training"]["contamination"] = 5.0
    records = [trained(100, 0.5), both, trained(1, 0.4, axis="contamination")]
    (curve,) = training_curve_data(records, "pixel_ap")
    assert curve.axis == "contamination" and [p.share for p in curve.points] == [0, 1]


def board(records: list[dict[str, Any]]) -> Any:
    (leaderboard,) = build_leaderboards(records)
    return leaderboard


def test_the_chart_and_the_table_hold_the_same_figures() -> None:
    records = [trained(share, 0.2 + share / 250) for share in (10, 30, 100)]
    records += [trained(share, 0.6 - share / 50, axis="contamination") for share in (1, 5)]
    leaderboard = board(records)
    charts = training_charts(leaderboard)
    assert [chart.name for chart in charts] == ["training-fraction", "training-contamination"]
    assert charts[0].artist("A-line").get_xydata().tolist() == [
        [10, pytest.approx(0.24)], [30, pytest.approx(0.32)], [100, pytest.approx(0.6)]
    ]  # fmt: skip
    assert charts[1].artist("B-line").get_xdata().tolist() == [0, 1, 5]
    band = charts[0].artist("A-band").get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.14) and band[:, 1].max() == pytest.approx(0.8)
    assert "PCA: pixel AP 0.240 at 10 %" in charts[0].tooltips["A-point-0"]
    table = training_table(leaderboard)
    assert table is not None and len(table.lines) == 6
    assert [cell.text for cell in table.lines[0].cells][1:] == ["10 %", "0.240", "1"]
    assert table.lines[0].cells[2].bounds == "0.140 to 0.440"
    for chart in charts:
        assert chart.rendered("svg") == training_charts(leaderboard)[charts.index(chart)].rendered(
            "svg"
        )


def test_the_page_shows_both() -> None:
    page = build_page([trained(share, 0.2 + share / 250) for share in (10, 100)])
    assert "Training data" in page.html and "leaderboard-0-training-fraction" in page.charts
    assert "Training data" not in build_page([trained(100, 0.6)]).html


def gap_record(value: float, seed: int = 0) -> dict[str, Any]:
    record = example_record("PCA", seed=seed)
    metric = {"value": 0.9, "low": 0.8, "high": 1.0}
    subgroup = {"n": 20, "n_abnormal": 10, "n_groups": 20, "metrics": {"pixel_ap": metric}}
    gap = {"higher": "F", "lower": "M", "value": value, "low": None, "high": None, "pairs": 1}
    record["metadata"] = {
        "sex": {"subgroups": {"F": subgroup, "M": subgroup}, "gaps": {"pixel_ap": gap}}
    }
    return record


def test_notes_name_the_largest_gaps_first_and_not_all() -> None:
    notes = subgroup_notes([gap_record(k / 100, k) for k in range(20)], "pixel_ap", "pixel AP")
    assert notes[0].endswith("largest gap 0.190 (F over M).") and "(seed 19)" in notes[0]
    ages = gap_record(0.1)
    sex = ages["metadata"].pop("sex")
    names = ("100 and above", "40 to 60", "60 to 100", "below 40")  # as JSON sorts them
    sex["subgroups"] = dict.fromkeys(names, sex["subgroups"]["F"])
    ages["metadata"]["age"] = sex
    (note,) = subgroup_notes([ages], "pixel_ap", "pixel AP")
    order = [note.index(name) for name in ("below 40", "40 to 60", "60 to 100", "100 and above")]
    assert order == sorted(order)
    assert len(notes) == MAX_NOTES + 1 and notes[-1].startswith("Smaller gaps between subgroups: 8")
    assert any("by sex: F 0.900 [0.800, 1.000]" in note for note in board([gap_record(0.1)]).notes)
