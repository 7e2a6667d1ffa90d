"""The board, from records alone: who is compared with whom, in what order, and what is said."""

from __future__ import annotations

import csv as csv_
import io
import json
import random
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from adbench.benchmark.leaderboard.example_records import example_records
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.records import ReportError, read_records
from adbench.benchmark.report.export import write_report
from records import METRICS, missing, record, some
from reports import as_json, cost_csv, csv, latex, markdown, print_leaderboards, with_samples


def printed(
    records: list[Any], width: int = 200, folder: Path | None = None, **options: Any
) -> str:
    out = io.StringIO()
    print_leaderboards(records, Console(width=width, file=out, **options), folder)
    return out.getvalue()


def test_rows_stand_in_order_of_pixel_ap_baselines_among_them_and_failures_last(tmp_path):
    (board,) = build_leaderboards(with_samples(tmp_path, some()), tmp_path)
    assert [(row.rank, row.name) for row in board.entries] == [
        (1, "AnoDDPM"),
        (2, "Healthy mean (baseline)"),
        (3, "pDDPM"),
        (None, "autoDDPM"),
    ]
    assert [row.worse_than_baseline for row in board.done] == [None, None, "Healthy mean"]
    assert any("pDDPM" in note and "worse than the baseline" in note for note in board.notes)


def test_data_without_masks_is_sorted_by_image_auroc_and_shows_no_pixel_columns():
    one, two = record("one", None), record("two", None)
    two["metrics"]["image_auroc"]["value"] = 0.9
    (board,) = build_leaderboards([one, two])
    assert board.metric == "image_auroc" and [row.name for row in board.entries] == ["two", "one"]
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
    built = build_leaderboards([record("AnoDDPM"), record("pDDPM", **change)])
    assert [len(board.entries) for board in built] == [1, 1]
    assert [board.entries[0].name for board in built].count("AnoDDPM") == 1


def test_profiles_and_seeds_may_and_every_row_says_which():
    (board,) = build_leaderboards([record("A"), record("A", seed=1), record("A", profile="paper")])
    assert len(board.done) == 3
    assert any("paper, tiny" in note for note in board.notes)
    assert "| A | paper | 0 |" in markdown([row.record for row in board.entries])


def test_titles_say_what_is_made_up_and_what_is_partial():
    built = build_leaderboards(
        [record("A", dataset__synthetic=True), record("A", partial=8), record("A")]
    )
    assert [board.title for board in built] == [
        "BraTS",
        "BraTS, synthetic",
        "BraTS, trial run on at most 8 samples: do not quote",
    ]


def test_what_failed_before_its_data_was_known_stands_with_those_that_did_not():
    built = build_leaderboards(
        [record("A", dataset__synthetic=True), missing("B"), missing("C", partial=8)]
    )
    assert [[row.name for row in board.entries] for board in built] == [["C"], ["A", "B"]] or [
        [row.name for row in board.entries] for board in built
    ] == [["A", "B"], ["C"]]
    assert "failed: it broke" in printed([missing("B")])


def test_rows_that_read_alike_say_in_which_arguments_they_differ():
    args = {"splits": 2, "width": 64}
    (board,) = build_leaderboards(
        [record("A", 0.3, method__args=args), record("A", method__args={"width": 64})]
    )
    assert [row.name for row in board.entries] == ["A", "A splits=2"]
    (guided,) = build_leaderboards([record("G", method__supervision="image-labels")])
    assert guided.entries[0].name == "G (image-labels)"


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
    assert "(0.432) | 700 | 0.690 | 20 | 3.800 |" in text
    assert "| 2 | Healthy mean (baseline) | tiny | 0 | - |" in text
    holed = record("A")
    holed["metrics"]["pixel_dice"]["value"] = None
    assert "| - | (0.432) |" in markdown([holed, record("B")])
    assert "0.021" in text and "0.042" in text and "By the book." in text and "200 test" in text


def test_figures_read_from_bins_say_by_how_much_they_may_be_off():
    binned = [record("A", 0.52, pixel_error=3.2e-4), record("B", 0.4, pixel_error=0.0)]
    text = markdown(binned)
    assert "0.520 ± 0.0004 binned [0.470, 0.570]" in text and "| 0.400 [" in text
    a, b = (next(line for line in text.splitlines() if f"| {name} |" in line) for name in "AB")
    assert a.count("± 0.0004") == 4 and "±" not in b  # AP, AUROC, AUPRO and the best Dice
    assert "(0.432 ± 0.0004)" in a and "± 0.0004 |" in a
    for shown in (text, printed(binned), printed(binned, 100), latex(binned)):
        assert "off by no more than this" in " ".join(shown.split())
    assert "0.520 ± 0.0004 binned" in printed(binned) and "0.520" in printed(binned, 80)
    assert r"$\pm$ 0.0004 {[}0.470, 0.570]" in latex(binned)
    assert not any("±" in show(some()) for show in (markdown, printed, latex))
    tiny = record("A", 0.5, pixel_error=2.1e-7)
    assert "0.500 ± 3e-07 binned" in markdown([tiny])


def test_csv_has_every_row_and_figure(tmp_path):
    records = with_samples(tmp_path, [*some(), record("A", partial=8)])
    rows = list(csv_.DictReader(io.StringIO(csv(records, tmp_path))))
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
def test_the_terminal_table_fits_and_always_shows_what_it_is_sorted_by(width, tmp_path):
    text = printed(with_samples(tmp_path, some()), width, tmp_path)
    assert max(map(len, text.splitlines())) <= width
    for word in ("AnoDDPM", "0.520", "250 val", "(baseline)", "▼", "failed: it broke"):
        assert word in text
    assert ("No room for" in text) == (width < 180)
    assert "[0.470, 0.570]" in text


def test_the_terminal_answers_first_and_has_what_matters_in_80_columns():
    lines = printed(example_records(), 80).splitlines()
    answer = build_leaderboards(example_records())[0].answer
    assert lines[0] == "BraTS" and " ".join(lines[1:4]).split()[:8] == answer.split()[:8]
    text = "\n".join(lines)
    (row,) = [line for line in lines if line.split()[:2] == ["1", "AnoDDPM"]]
    for word in ("0.455 [0.405, 0.505]", "250 val", "0.900", "250"):
        assert word in row
    assert text.index("Measured on") < text.index("Protocol abcd1234")


def test_colour_is_never_all_that_tells(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(some(), force_terminal=True)
    assert "38;5" not in text and "[3" not in text.replace("[3m", "")
    assert "(0.432)" in text
    assert "[/red]" in printed([record("[/red]")]) and "[bold]" in printed([record("[bold]")])


def test_a_broken_file_is_a_row_with_a_reason(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(record("A")))
    (tmp_path / "b.json").write_text('{"schema": 1, "stat')
    (tmp_path / "c.json").write_text(json.dumps(record("C", schema=3)))
    (tmp_path / "d.json").write_text(json.dumps({"schema": 1, "status": "ok"}))
    (tmp_path / "e.json").write_text("[]")
    records = read_records(tmp_path)
    assert [each["status"] for each in records] == ["ok", *["broken"] * 4]
    board, broken = build_leaderboards(records)
    assert len(board.entries) == 1 and len(broken.entries) == 4
    for text in (markdown(records), csv(records), printed(records)):
        assert "b.json is no record" in text and "schema 3" in text
        assert "missing required field" in text and "no object" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics__pixel_ap": {"value": "high"}}, "metrics.pixel_ap.value is 'high', no number"),
        ({"metrics__pixel_ap": {"value": float("nan")}}, "metrics.pixel_ap.value is nan"),
        ({"cost__train_seconds": "long"}, "cost.train_seconds is 'long'"),
        ({"sweep": {"often": {}}}, "often"),
        ({"pixel_error": "small"}, "pixel_error is 'small'"),
    ],
)
def test_a_figure_that_is_no_number_makes_a_record_broken(tmp_path, change, message):
    (tmp_path / "a.json").write_text(json.dumps(record("A", **change)))
    (read,) = read_records(tmp_path)
    assert read["status"] == "broken" and message in read["reason"]


def test_a_record_knows_its_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(record("A")))
    (read,) = read_records(tmp_path)
    assert read["file"] == "a.json"
    assert json.loads(as_json([read]))["boards"][0]["rows"][0]["file"] == "a.json"


def test_json_has_every_board_in_order_and_no_second_of_time():
    (built,) = json.loads(as_json(some()))["boards"]
    assert [row["name"] for row in built["rows"]] == [
        row.name for row in build_leaderboards(some())[0].entries
    ]
    assert built["sorted_by"] == "pixel_ap" and built["protocol"]["id"] == "abcd1234"
    figure = built["rows"][0]["metrics"]["pixel_ap"]
    assert figure == pytest.approx({"value": 0.52, "low": 0.47, "high": 0.57})
    assert built["rows"][3]["reason"] == "it broke" and "seconds" not in as_json(some())


def test_latex_has_a_cell_for_every_column_and_marks_the_best():
    text = latex([*some(), record("100 % of_{A} & B\\\\ [x] ~ ^ # $", 0.2, partial=8)])
    tables = re.findall(r"begin{tabular}{(l+r+)}(.*?)end{tabular}", text, re.S)
    assert len(tables) == 2
    for columns, body in tables:
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns) - 1}
    assert r"\textbf{0.520}" in text and r"\textbf{0.410}" not in text
    assert r"100 \% of\_\{A\} \& B\textbackslash{}" in text and "{[}x]" in text
    assert "% autoDDPM, tiny, seed 0: failed: it broke" in text


def test_latex_uses_no_command_beyond_booktabs_and_graphicx():
    """Names that need another package or encoding (they stop pdflatex) are not written."""
    marks = "".join(map(chr, range(33, 127))) + "⌈⌉±▲▼≈…·"
    text = latex([*some(), record(marks, 0.2, partial=8), record("<script>alert('x')</script>")])
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    commands = set(re.findall(r"\\([a-zA-Z]+|[^a-zA-Z])", body))
    kernel = "begin end centering caption textbf scriptsize lceil rceil pm ldots cdot approx"
    kernel += " uparrow downarrow bigtriangleup bigtriangledown ifdim else fi width linewidth"
    kernel += " textbackslash textasciitilde textasciicircum textless textgreater textbar"
    assert commands - set("\\&%$#_{}") <= {
        *kernel.split(),
        *("toprule", "midrule", "bottomrule"),
        "resizebox",
    }
    assert max(map(ord, body)) < 256, "what pdflatex knows of UTF-8 without more packages"


def test_latex_of_a_metric_that_is_better_lower_marks_the_lowest(monkeypatch):
    monkeypatch.setattr("adbench.benchmark.report.latex.METRIC_COLUMNS", ("image_fpr95",))
    one, two = record("one"), record("two")
    one["metrics"]["image_fpr95"]["value"] = 0.1
    assert r"\textbf{0.100}" in latex([one, two]) and r"\downarrow" in latex([one, two])


def test_an_empty_folder_says_what_to_do(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ReportError, match="adbench run") as caught:
            read_records(folder)
        assert "\n" not in str(caught.value)


def test_files_are_written_whole(tmp_path):
    paths = write_report(some(), tmp_path / "out", figures=True)
    assert {path.name for path in paths} == {
        *(f"leaderboard.{kind}" for kind in ("md", "csv", "json", "tex")),
        "cost.csv",
        "index.html",
        "figures",
    }
    figures = sorted(path.name for path in paths[-1].iterdir())
    stems = {name.rpartition(".")[0] for name in figures}
    assert figures == sorted(f"{stem}.{kind}" for stem in stems for kind in ("svg", "pdf", "png"))
    assert "leaderboard-0-cost-seconds_per_image" in stems
    assert paths[0].read_text() == markdown(some()) and paths[1].read_text() == csv(some())
    assert (tmp_path / "out" / "leaderboard.tex").read_text() == latex(some())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in paths
    )
    assert (
        write_report([missing("A")], tmp_path)
        and "failed" in (tmp_path / "leaderboard.md").read_text()
    )


def test_reporting_loads_nothing_heavy():
    code = "import sys, adbench.benchmark.report.export; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "sklearn", "scipy", "matplotlib"} & set(loaded.stdout.split())
