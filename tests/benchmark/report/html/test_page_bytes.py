"""The bytes of the page: what it needs for a row, each picture and each long text once."""

from __future__ import annotations

import copy
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.report.html.overview import LinkedBoard, render_overview
from adbench.benchmark.report.html.page import build_page
from pages import write_results
from records import record

ROW_BYTES, METRICS, STRATA = 11_000, 40, 13
"""Of a record with so many metrics: its five rows of three tables, and itself, compressed. With
the source of each value beside it, as the page once did, a row took three times as many."""
SECTION_BYTES = 160_000
"""Of all that does not grow with the records: style, script, words, charts of twelve methods."""


def large_record(number: int, seed: int = 0) -> dict[str, Any]:
    """A record as large as those of a real board, with figures of 17 digits and its own hashes."""
    draw = np.random.default_rng([number, seed])
    built = record(
        f"Method {number}", float(draw.random()), seed=seed, file=f"m{number}.{seed}.json"
    )
    names = [*built["metrics"], *(f"metric_{k}" for k in range(METRICS - len(built["metrics"])))]
    for name in names:
        low, value, high = np.sort(draw.random(3)).tolist()
        built["metrics"][name] = {"value": value, "low": low, "high": high}
    for part in ("at_published", "at_oracle"):
        built[part] = {name: float(draw.random()) for name in names}
    built["strata"] = {
        f"size={k}": {"n": 9, "pixel_ap": float(draw.random()), "image_auroc": float(draw.random())}
        for k in range(STRATA)
    }
    built["keys"] = {name: draw.bytes(32).hex() for name in ("fit", "maps", "test", "val")}
    built["seal"] = draw.bytes(32).hex()
    return built


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_row_of_the_page_has_a_budget_of_bytes(seeds: int) -> None:
    records = [large_record(n, seed) for n in range(36 // seeds) for seed in range(seeds)]
    few, many = (len(build_page(part).html) for part in (records[:12], records))
    assert few <= SECTION_BYTES + 12 * ROW_BYTES
    assert (many - few) / 24 <= ROW_BYTES


def test_no_picture_is_in_the_page_twice(tmp_path: Path) -> None:
    html = build_page(write_results(tmp_path, ("synthbrain",), (0, 1)), tmp_path).html
    maps = Counter(re.findall(r' data-map="[^"]+" href="(data:image/[^"]+)', html))
    inputs = Counter(re.findall(r'-input" href="(data:image/[^"]+)', html))
    assert len(maps) == 9 * 3 * 3 and len(inputs) == 9
    assert max(maps.values()) == max(inputs.values()) == 1


def test_no_long_text_of_a_record_is_repeated_for_its_cells() -> None:
    records = [large_record(n) for n in range(6)]
    html = build_page(records).html
    for built in records:
        assert html.count(built["file"]) == 1  # where all result files are named
        assert built["seal"] not in html  # but within the packed records
    plain = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.S)
    assert not re.search(r"\d\.\d{8}", plain)


def test_charts_have_no_more_digits_than_a_screen_shows() -> None:
    page = build_page([large_record(n, seed) for n in range(12) for seed in (0, 1)])
    for chart in page.charts.values():
        svg = str(chart.inline_svg("x"))
        assert len(svg) < 0.5 * len(chart.rendered("svg")), chart.name
        assert not re.search(r'(?:d|x|y)="[^"]*\d\.\d{3}', svg), chart.name


def test_the_overview_is_small_compares_boards_and_links_to_them() -> None:
    boards = []
    for name in ("brains", "digits", "textures"):
        records = [copy.deepcopy(large_record(n, seed)) for n in range(12) for seed in range(3)]
        for built in records:
            built["dataset"] |= {"name": name, "fingerprint": name}
        (board,) = build_leaderboards(records)
        boards.append(LinkedBoard(name, f"../{name}/index.html#leaderboard-0", board))
    html = render_overview(boards, "All boards")
    whole = sum(len(build_page([e.record for e in each.board.entries]).html) for each in boards)
    assert len(html) < 250_000 and len(html) < whole / 3
    for each in boards:
        assert html.count(f'href="{each.link}"') == 2
        assert each.board.answer in html
    assert html.count("Mean ranks in pixel AP over 3 data sets") == 1
    assert html.count("a ring marks what nothing cheaper is as good as") == 2 * len(boards)
    assert ", seed 1" not in html and "Means over seeds, 3 for a method." in html
    assert "<script" not in html and "script-src &#39;none&#39;" in html


def test_the_overview_of_one_board_says_that_there_is_no_ranking() -> None:
    (board,) = build_leaderboards([record("A"), record("B", 0.4)])
    html = render_overview([LinkedBoard("one", "../one/index.html", board)], "One")
    assert "needs results on at least two datasets" in html
    assert "What to take from it" not in html


def test_the_overview_begins_with_the_conclusions() -> None:
    (board,) = build_leaderboards([record("A"), record("B", 0.4)])
    boards = [LinkedBoard("one", "../one/index.html", board)]
    html = render_overview(boards, "One", ["A > B, by .1.", "One seed says nothing."])
    assert html.index("What to take from it") < html.index("Over datasets")
    assert "<li>A &gt; B, by .1.</li>" in html and "<li>One seed says nothing.</li>" in html
