"""Subgroups of patients on the page: every value with its interval, holes where there is none."""

from __future__ import annotations

from typing import Any

from adbench.benchmark.leaderboard.example_records import example_record
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.report.html.page import build_page
from adbench.benchmark.report.html.subgroup_tables import BIAS_NOTE, subgroup_tables


def record_by_age(method: str, values: dict[str, float], **options: Any) -> dict[str, Any]:
    record = example_record(method, **options)
    subgroups = {
        name: {
            "n": 20,
            "n_abnormal": 10,
            "n_groups": 20,
            "metrics": {"pixel_ap": {"value": value, "low": value - 0.1, "high": value + 0.1}},
        }
        for name, value in values.items()
    }
    ranked = sorted(values, key=values.__getitem__)
    gap = {
        "higher": ranked[-1],
        "lower": ranked[0],
        "value": values[ranked[-1]] - values[ranked[0]],
        "low": None,
        "high": None,
        "pairs": 3,
    }
    record["metadata"] = {"age": {"subgroups": subgroups, "gaps": {"pixel_ap": gap}}}
    return record


def test_subgroups_are_in_order_and_a_method_without_metadata_has_holes() -> None:
    values = {"100 and above": 0.5, "60 to 100": 0.25, "below 60": 0.75}
    records = [record_by_age("PCA", values), example_record("AnoDDPM", 18)]
    (board,) = build_leaderboards(records)
    assert not subgroup_tables(board, "image_auroc", {})
    (table,) = subgroup_tables(board, "pixel_ap", {})
    names = [row.name for row in board.done]
    column = 1 + names.index("PCA")
    assert [head.text for head in table.heads][column].endswith("PCA")
    assert [line.name for line in table.lines] == [
        "below 60",
        "60 to 100",
        "100 and above",
        "largest difference",
    ]
    cells = [line.cells[column] for line in table.lines]
    assert [(cell.text, cell.bounds) for cell in cells] == [
        ("0.750", "[0.650, 0.850]"),
        ("0.250", "[0.150, 0.350]"),
        ("0.500", "[0.400, 0.600]"),
        ("0.500", "below 60 over 60 to 100"),
    ]
    path = ("metadata", "age", "subgroups", "60 to 100", "metrics", "pixel_ap")
    assert table.lines[1].field == path
    assert {line.cells[3 - column].text for line in table.lines} == {"-"}


def test_subgroups_of_several_seeds_are_means_and_their_largest_difference_too() -> None:
    ages = [{"below 60": 0.5, "60 and above": 0.25}, {"below 60": 0.25, "60 and above": 0.5}]
    records = [record_by_age("PCA", values) for values in ages]
    records[1] |= {"seed": 1}
    (board,) = build_leaderboards(records)
    (table,) = subgroup_tables(board, "pixel_ap", {id(r): k for k, r in enumerate(records)})
    assert table.heads[1].records == (0, 1) and len(table.heads) == 2
    texts = [line.cells[1].text for line in table.lines]
    assert texts == ["0.375", "0.375", "0.250"]
    assert table.lines[-1].cells[1].bounds == ""  # the seeds differ in which is higher


def test_page_has_the_tables_and_the_note_only_where_there_is_metadata() -> None:
    page = build_page([record_by_age("PCA", {"below 60": 0.5, "60 and above": 0.25})]).html
    assert "Subgroups of patients" in page and BIAS_NOTE[:40] in page
    assert "Subgroups of patients" not in build_page([example_record()]).html
