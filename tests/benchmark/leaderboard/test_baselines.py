"""What is worse than a baseline: by the paired interval, in the metric of the leaderboard."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from adbench.benchmark.leaderboard.comparison import compare
from adbench.benchmark.leaderboard.leaderboard import Leaderboard, build_leaderboards
from adbench.benchmark.report.html.pairwise import compare_board
from records import record
from reports import csv, markdown, with_samples


def baseline(value: float | None = 0.5) -> dict[str, Any]:
    return record("Mean", value, method__baseline=True)


def build(folder: Path, records: list[Any]) -> Leaderboard:
    (board,) = build_leaderboards(records, folder)
    return board


def worse(board: Leaderboard) -> dict[str, str | None]:
    return {entry.record["method"]["label"]: entry.worse_than_baseline for entry in board.done}


@pytest.mark.parametrize(("spread", "expected"), [(0.005, "Mean"), (0.05, None)])
def test_a_lower_value_is_worse_only_where_the_interval_says_so(
    tmp_path: Path, spread: float, expected: str | None
) -> None:
    records = with_samples(tmp_path, [baseline(), record("A", 0.45)], spread)
    board = build(tmp_path, records)
    assert worse(board) == {"Mean": None, "A": expected}
    assert ("▼" in markdown(records, tmp_path)) == (expected is not None)
    assert any("by the paired 95 % interval: A" in note for note in board.notes) == bool(expected)
    (result,) = compare("a", "mean", tmp_path, records)
    assert result.difference.metric == "pixel_ap"
    assert result.difference.verdict == ("worse" if expected else "not distinguishable")
    matrix = compare_board(board, tmp_path).matrix
    assert matrix is not None
    cell = matrix.lines[1].cells[0]
    assert cell.text.startswith("▼" if expected else "≈")


def test_a_higher_value_is_not_worse(tmp_path: Path) -> None:
    records = with_samples(tmp_path, [baseline(), record("A", 0.55)], 0.001)
    assert worse(build(tmp_path, records)) == {"A": None, "Mean": None}


def test_without_results_of_samples_nothing_is_called_worse_and_a_note_says_why(
    tmp_path: Path,
) -> None:
    records = [baseline(), record("A", 0.1)]
    board = build(tmp_path, records)
    assert worse(board) == {"Mean": None, "A": None} and "▼" not in markdown(records)
    assert any("Whether 1 of 1 entries are worse than the baseline Mean" in n for n in board.notes)
    sound = build(tmp_path, with_samples(tmp_path, records))
    assert worse(sound)["A"] == "Mean" and not any("unknown" in note for note in sound.notes)


def test_a_damaged_file_of_samples_is_unknown_not_worse(tmp_path: Path) -> None:
    records = with_samples(tmp_path, [baseline(), record("A", 0.1)])
    (tmp_path / "samples" / "1.h5").write_bytes(b"torn")
    board = build(tmp_path, records)
    assert worse(board)["A"] is None and any("is unknown" in note for note in board.notes)


def test_a_sample_file_that_is_not_as_its_record_says_is_named_on_the_leaderboard(
    tmp_path: Path,
) -> None:
    records = with_samples(tmp_path, [baseline(), record("A", 0.1)])
    path = tmp_path / "samples" / "1.h5"
    content = bytearray(path.read_bytes())
    for each, name in zip(records, ("0", "1"), strict=True):
        file = tmp_path / "samples" / f"{name}.h5"
        each["files"] = {f"samples/{name}.h5": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert not any("damaged" in note for note in build(tmp_path, records).notes)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (note,) = [note for note in build(tmp_path, records).notes if "damaged" in note]
    assert str(path) in note and "the same `adbench run` writes it again" in note


def test_a_method_without_maps_leaves_the_others_to_the_metric_of_the_leaderboard(
    tmp_path: Path,
) -> None:
    """The baseline has the better pixel AP, and the worse image AUROC."""
    base, low, flat = baseline(), record("A", 0.3), record("Flat", None)
    base["metrics"]["image_auroc"]["value"] = 0.2
    records = with_samples(tmp_path, [base, low, flat])
    board = build(tmp_path, records)
    assert board.metric == "pixel_ap"
    assert worse(board) == {"Mean": None, "A": "Mean", "Flat": None}
    assert "Mean" in csv(records, tmp_path).splitlines()[2]
    results = compare_board(board, tmp_path)
    assert results.metric == "pixel AP" and results.matrix is not None
    texts = [[cell.text for cell in line.cells] for line in results.matrix.lines]
    assert texts[1][0].startswith("▼ -0.2") and texts[0][1].startswith("▲")
    assert texts[2][0].startswith("▲") and texts[2][0].endswith("image AUROC")
    assert results.verdicts[2] == "no pixel AP" and results.verdicts[0] == "best"
    assert results.verdicts[1].startswith("worse")
    (pair,) = compare("flat", "mean", tmp_path, records)
    assert (pair.difference.metric, pair.difference.verdict) == ("image_auroc", "better")
