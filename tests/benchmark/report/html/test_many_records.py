"""Pages of many records: what is left out is said, figures are written where asked, in time."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import rankdata

from adbench.benchmark.report.export import write_report
from adbench.benchmark.report.html.chart import MAX_METHODS
from adbench.benchmark.report.html.page import build_page
from adbench.benchmark.report.html.pictures_chart import pictures_chart
from adbench.benchmark.report.html.sample_choices import score_ranks
from pages import CHOSEN, write_results
from records import missing, record


def many(methods: int, datasets: int = 1) -> list[dict]:
    draw = np.random.default_rng(0)
    label = np.arange(60) % 2
    records = []
    for d in range(datasets):
        for m in range(methods):
            value = round(0.1 + 0.8 * (m + 1) / methods, 4)
            sweep = {
                str(level): {
                    split: {"pixel_ap": value * level / 1000, "image_auroc": 0.7}
                    for split in ("val", "test")
                }
                for level in (100, 250, 500)
            }
            records.append(
                record(
                    f"M{m:03d}",
                    value,
                    dataset__name=f"d{d}",
                    dataset__fingerprint=f"f{d}",
                    sweep=sweep,
                    file=f"d{d}.{m}.json",
                    samples={
                        "key": [f"s{i}" for i in range(60)],
                        "group": [f"g{i // 3}" for i in range(60)],
                        "label": label.tolist(),
                        "score": (draw.normal(size=60) + label * value).tolist(),
                    },
                )
            )
            records[-1]["metrics"]["pixel_ap"] |= {"low": None, "high": None}
    return records


@pytest.mark.parametrize(("methods", "datasets", "limit"), [(30, 1, 6.0), (100, 1, 20.0)])
def test_a_page_of_many_records_is_drawn_in_time(methods: int, datasets: int, limit: float) -> None:
    """Twice what was measured, and more: before, all pairs and all charts took minutes."""
    records = many(methods, datasets)
    start = time.process_time()
    page = build_page(records)
    assert time.process_time() - start < limit
    assert f"the {MAX_METHODS} best of {methods} methods" in page.html
    assert "Of the 12 best" in page.html
    assert page.html.count('id="record-') == methods


def test_leaderboards_beyond_the_limit_say_that_they_have_no_charts() -> None:
    records = many(3, 3)
    page, whole = build_page(records, max_charts=1), build_page(records)
    assert {name.rpartition("-")[0][:13] for name in page.charts if "ranking" not in name} == {
        "leaderboard-0"
    }
    assert page.html.count("adbench report --figures") == 2
    assert "--figures" not in whole.html and len(whole.charts) > 2 * len(page.charts)


def test_figures_are_written_where_asked_and_stale_ones_removed(tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    assert figures not in write_report(many(3), tmp_path) and not figures.exists()
    figures.mkdir()
    (figures / "mine.svg").write_text("<svg/>")
    (figures / "leaderboard-9-froc.png").write_bytes(b"stale")
    assert figures in write_report(many(3), tmp_path, figures=True)
    drawn = {path.name for path in figures.iterdir()}
    assert {"leaderboard-0-pixel_ap-test.svg", "mine.svg"} < drawn
    assert not any(name.startswith("leaderboard-9") for name in drawn)
    write_report([missing("A")], tmp_path)
    assert [path.name for path in figures.iterdir()] == ["mine.svg"]
    (figures / "mine.svg").unlink()
    write_report([missing("A")], tmp_path)
    assert not figures.exists()


def test_the_pictures_are_a_figure_too(tmp_path: Path) -> None:
    records = write_results(tmp_path, seeds=(0, 1))
    write_report(records, tmp_path, figures=True)
    for kind, head in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        content = (tmp_path / "figures" / f"leaderboard-0-pictures.{kind}").read_bytes()
        assert content.startswith(head)
    (pictures,) = build_page(records, tmp_path).pictures.values()
    chart = pictures_chart(pictures)
    assert chart is not None and "patient 03: stroke" in chart.about
    card = pictures.cards[1]
    uri = card.maps[2].images[CHOSEN]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))
    assert np.array_equal(chart.artist("map-1-C").get_array(), sheet)
    bars = [axes.get_xticklabels()[-1].get_text() for axes in chart.figure.axes[-3:]]
    assert bars == [f"{scale.top:.3g}" for scale in pictures.scales.values()]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5, -np.inf]), min_size=1))
def test_ranks_of_scores_are_those_of_scipy(score: list[float]) -> None:
    assert np.array_equal(score_ranks(np.array(score)), rankdata(-np.array(score)))
