"""The leaderboard as rows, a data frame and HTML."""

from __future__ import annotations

import math
import warnings

import pandas

from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.metric_names import BUDGET, COST, METRICS
from records import missing, record, some


def test_rows_have_every_column_and_absence_is_none() -> None:
    (board,) = build_leaderboards(some())
    rows = board.rows()
    assert [row["label"] for row in rows] == [entry.name for entry in board.entries]
    names = {"board", "dataset", "fingerprint", "rank", "below_baseline", "device", *BUDGET, *COST}
    names |= {f"{metric}{part}" for metric in METRICS for part in ("", "_low", "_high")}
    assert all(names <= row.keys() for row in rows)
    first, last = rows[0], rows[-1]
    assert (first["pixel_ap"], first["train_steps"], first["level_rule"]) == (0.52, 700, "val")
    assert (last["status"], last["reason"], last["rank"]) == ("failed", "it broke", None)
    assert last["pixel_ap"] is last["level"] is last["threshold"] is None


def test_a_frame_keeps_integers_though_some_are_missing() -> None:
    frame = build_leaderboards(some())[0].to_frame()
    assert str(frame["rank"].dtype) == str(frame["level"].dtype) == "Int64"
    assert frame["rank"].tolist()[:3] == [1, 2, 3] and frame["rank"].isna().tolist()[3]
    assert frame["pixel_ap"].dtype == float and math.isnan(frame["pixel_ap"].iloc[3])
    (board,) = build_leaderboards([missing("A")])
    assert isinstance(board.to_frame(), pandas.DataFrame) and len(board.to_frame()) == 1


def test_a_new_column_in_a_frame_is_no_cause_for_a_warning() -> None:
    frame = build_leaderboards(some())[0].to_frame()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns of frames in many pieces
        frame["gain"] = frame["pixel_ap"] - 0.1
    assert frame["gain"].iloc[0] == frame["pixel_ap"].iloc[0] - 0.1


def test_html_for_a_notebook_has_no_markup_of_a_record() -> None:
    (board,) = build_leaderboards(
        [record("<b>A</b>", dataset__name="<i>"), missing("B", dataset__name="<i>")]
    )
    html = board._repr_html_()
    assert "&lt;b&gt;A&lt;/b&gt;" in html and "<b>A" not in html and "<i>" not in html
    assert "<td>250</td>" in html and "<td>0.500</td>" in html and "it broke" in html
