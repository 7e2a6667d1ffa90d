"""The board, from records alone: who is compared with whom, in what order, and what is said."""

from __future__ import annotations

import csv as csv_
import io
import json
import random
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
from rich.console import Console

from adbench.benchmark.report import (
    ReportError,
    boards,
    cost_csv,
    csv,
    markdown,
    read_records,
    terminal,
    write,
)

METRICS = (
    *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc", "pixel_auroc"),
    *("pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice", "pixel_dice_oracle"),
    *("pixel_iou", "healthy_fp"),
)


def record(label: str, pixel_ap: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    """A whole record; `changes` name what differs, `part__key` reaching one level down."""
    known = (*METRICS[:5], "healthy_fp") if pixel_ap is None else METRICS
    values: dict[str, Any] = {name: 0.4321 for name in known} | {"pixel_ap": pixel_ap}
    made: dict[str, Any] = {
        "schema": 1,
        "status": "ok",
        "reason": None,
        "method": {
            "name": label.lower().replace(" ", "-"),
            "label": label,
            "supervision": "normal",
            "baseline": False,
            "args": {},
            "paper": "",
        },
        "dataset": {"name": "brats", "args": {}, "fingerprint": "f00d", "synthetic": False},
        "profile": "tiny",
        "seed": 0,
        "partial": None,
        "protocol": {"threshold": "healthy@5%", "id": "abcd1234", "text": "By the book."},
        "level": {"chosen": 250, "rule": "val", "published": 250, "oracle": 100},
        "threshold": {"rule": "healthy@5%", "value": 0.25},
        "metrics": {
            name: {"value": values.get(name), "low": None, "high": None} for name in METRICS
        },
        "at_published": {},
        "at_oracle": {},
        "sweep": {},
        "strata": {},
        "reference": {"prevalence": 0.0213, "dice_floor": 0.0417, "image_prevalence": 0.5},
        "counts": {"test": 200, "test_abnormal": 90, "test_groups": 40, "val": 50, "held_out": 30},
        "cost": {
            "train_steps": 700,
            "train_samples": 11200,
            "train_gflops": 100.0,
            "parameters": 690000,
            "evaluations_per_image": 20.0,
            "gflops_per_image": 3.8,
            "train_seconds": 65.123,
            "seconds_per_image": 0.0987,
            "peak_memory_mb": 512.5,
        },
        "keys": {},
        "versions": {},
        "device": "cpu",
    }
    if pixel_ap is not None:
        made["metrics"]["pixel_ap"] |= {"low": pixel_ap - 0.05, "high": pixel_ap + 0.05}
    for name, value in changes.items():
        *way, last = name.split("__")
        (made[way[0]] if way else made)[last] = value
    return made


def missing(label: str, status: str = "failed", reason: str = "it broke", **changes: Any) -> Any:
    """What the runner writes of a cell that has no result."""
    whole = record(label, status=status, reason=reason, dataset__fingerprint="", **changes)
    result = ("level", "threshold", "metrics", "reference", "counts", "cost", "sweep", "strata")
    return {key: value for key, value in whole.items() if key not in result}


def printed(records: list[Any], width: int = 200, **options: Any) -> str:
    out = io.StringIO()
    terminal(records, Console(width=width, file=out, **options))
    return out.getvalue()


def some() -> list[Any]:
    return [
        record("pDDPM", 0.41),
        record("AnoDDPM", 0.52),
        record("Healthy mean", 0.47, method__baseline=True, level__chosen=0),
        missing("autoDDPM"),
    ]


def test_rows_stand_in_order_of_pixel_ap_baselines_among_them_and_failures_last():
    (board,) = boards(some())
    assert [(row.rank, row.name) for row in board.rows] == [
        (1, "AnoDDPM"),
        (2, "Healthy mean (baseline)"),
        (3, "pDDPM"),
        (None, "autoDDPM"),
    ]
    assert [row.below for row in board.done] == [None, None, "Healthy mean"]
    assert any("pDDPM" in note and "worse than the baseline" in note for note in board.notes)


def test_data_without_masks_is_sorted_by_image_auroc_and_shows_no_pixel_columns():
    one, two = record("one", None), record("two", None)
    two["metrics"]["image_auroc"]["value"] = 0.9
    (board,) = boards([one, two])
    assert board.metric == "image_auroc" and [row.name for row in board.rows] == ["two", "one"]
    assert "pixel AP |" not in markdown([one, two]) and "image AUROC |" in markdown([one, two])


@pytest.mark.parametrize(
    "change",
    [
        {"dataset__fingerprint": "beef"},
        {"dataset__name": "ixi"},
        {"dataset__synthetic": True},
        {"protocol__id": "ffff0000"},
        {"partial": 8},
    ],
)
def test_what_may_not_be_compared_never_shares_a_board(change):
    made = boards([record("AnoDDPM"), record("pDDPM", **change)])
    assert [len(board.rows) for board in made] == [1, 1]
    assert [board.rows[0].name for board in made].count("AnoDDPM") == 1


def test_profiles_and_seeds_may_and_every_row_says_which():
    (board,) = boards([record("A"), record("A", seed=1), record("A", profile="paper")])
    assert len(board.done) == 3
    assert any("paper, tiny" in note for note in board.notes)
    assert "| A | paper | 0 |" in markdown([row.record for row in board.rows])


def test_titles_say_what_is_made_up_and_what_is_partial():
    made = boards([record("A", dataset__synthetic=True), record("A", partial=8), record("A")])
    assert [board.title for board in made] == [
        "brats",
        "brats, SYNTHETIC data",
        "brats, PARTIAL: at most 8 samples of each split, no result",
    ]


def test_what_failed_before_its_data_was_known_stands_with_those_that_did_not():
    made = boards([record("A", dataset__synthetic=True), missing("B"), missing("C", partial=8)])
    assert [[row.name for row in board.rows] for board in made] == [["C"], ["A", "B"]] or [
        [row.name for row in board.rows] for board in made
    ] == [["A", "B"], ["C"]]
    assert "failed: it broke" in printed([missing("B")])


def test_rows_that_read_alike_say_in_which_arguments_they_differ():
    args = {"splits": 2, "width": 64}
    (board,) = boards(
        [record("A", 0.3, method__args=args), record("A", method__args={"width": 64})]
    )
    assert [row.name for row in board.rows] == ["A", "A splits=2"]
    (guided,) = boards([record("G", method__supervision="image-labels")])
    assert guided.rows[0].name == "G (image-labels)"


def test_a_board_depends_neither_on_the_order_of_records_nor_on_how_fast_they_were():
    records = [*some(), record("tie", 0.52), record("tie", 0.52, seed=1)]
    slow = deepcopy(records)
    for each in slow:
        if "cost" in each:
            each["cost"] |= {"train_seconds": 9e9, "seconds_per_image": 9e9, "peak_memory_mb": 9e9}
            each["device"] = "another"
    random.Random(0).shuffle(slow)
    assert markdown(slow) == markdown(records) and csv(slow) == csv(records)
    assert cost_csv(slow) != cost_csv(records)


def test_markdown_is_a_table_whatever_names_and_reasons_hold():
    nasty = missing("a|b\\c", reason="line one\nline | two `x` <b>")
    text = markdown([record("A|<i>*", 0.3), nasty])
    table = [line for line in text.splitlines() if line.startswith("|")]
    bars = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in table]
    assert len(table) == 4 and len(set(bars)) == 1
    assert r"A\|\<i>\*" in text and r"a\|b\\c" in text
    assert r"failed: line one line \| two \`x\` \<b>" in text


def test_numbers_have_three_decimals_and_absence_is_a_dash():
    text = markdown(some())
    assert "| 1 | AnoDDPM | tiny | 0 | 250 val | 0.432 | 0.432 | 0.520 [0.470, 0.570] |" in text
    assert "(0.432) | 700 | 0.690 | 20.000 | 3.800 |" in text
    assert "| 2 | Healthy mean (baseline) | tiny | 0 | - |" in text
    holed = record("A")
    holed["metrics"]["pixel_dice"]["value"] = None
    assert "| - | (0.432) |" in markdown([holed, record("B")])
    assert "0.021" in text and "0.042" in text and "By the book." in text and "200 test" in text


def test_csv_has_every_row_and_figure():
    rows = list(csv_.DictReader(io.StringIO(csv([*some(), record("A", partial=8)]))))
    assert [row["label"] for row in rows] == [
        "AnoDDPM",
        "Healthy mean (baseline)",
        "pDDPM",
        "autoDDPM",
        "A",
    ]
    assert rows[0]["pixel_ap"] == "0.520000" and rows[0]["pixel_ap_low"] == "0.470000"
    assert rows[0]["pixel_iou_low"] == "" and rows[3]["pixel_ap"] == ""
    assert rows[3]["reason"] == "it broke" and rows[2]["below_baseline"] != ""
    assert set(METRICS) <= set(rows[0]) and "train_seconds" not in rows[0]
    cost = list(csv_.DictReader(io.StringIO(cost_csv(some()))))
    assert len(cost) == 3 and cost[0]["train_seconds"] == "65.123000"


@pytest.mark.parametrize("width", [80, 100, 140, 220])
def test_the_terminal_table_fits_and_always_shows_what_it_is_sorted_by(width):
    text = printed(some(), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("AnoDDPM", "0.520", "250 val", "(baseline)", "▼", "failed: it broke"):
        assert word in text
    assert ("No room for" in text) == (width < 180)
    assert "[0.470, 0.570]" in text


def test_colour_is_never_all_that_tells(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(some(), force_terminal=True)
    assert "38;5" not in text and "[3" not in text.replace("[3m", "")
    assert "(0.432)" in text
    assert "[/red]" in printed([record("[/red]")]) and "[bold]" in printed([record("[bold]")])


def test_a_broken_file_is_a_row_with_a_reason(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(record("A")))
    (tmp_path / "b.json").write_text('{"schema": 1, "stat')
    (tmp_path / "c.json").write_text(json.dumps(record("C", schema=2)))
    (tmp_path / "d.json").write_text(json.dumps({"schema": 1, "status": "ok"}))
    (tmp_path / "e.json").write_text("[]")
    records = read_records(tmp_path)
    assert [each["status"] for each in records] == ["ok", *["broken"] * 4]
    board, broken = boards(records)
    assert len(board.rows) == 1 and len(broken.rows) == 4
    for text in (markdown(records), csv(records), printed(records)):
        assert "b.json is no record" in text and "schema 2" in text
        assert "says nothing of 'reason'" in text and "no object" in text


def test_an_empty_folder_says_what_to_do(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ReportError, match="adbench run") as caught:
            read_records(folder)
        assert "\n" not in str(caught.value)


def test_files_are_written_whole(tmp_path):
    paths = write(some(), tmp_path / "out")
    assert [path.name for path in paths] == ["leaderboard.md", "leaderboard.csv", "cost.csv"]
    assert paths[0].read_text() == markdown(some()) and paths[1].read_text() == csv(some())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in paths
    )
    assert write([missing("A")], tmp_path) and "failed" in (tmp_path / "leaderboard.md").read_text()


def test_reporting_loads_nothing_heavy():
    code = "import sys, adbench.benchmark.report; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "sklearn", "scipy", "matplotlib"} & set(loaded.stdout.split())
