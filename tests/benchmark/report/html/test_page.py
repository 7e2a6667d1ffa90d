"""The page, read back by a parser: whole, inert, traceable, and its marks where figures say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adbench.benchmark.figures.contact_sheet import write_contact_sheet
from adbench.benchmark.figures.sample_sheet import DisplayedSample
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.report.html.chart import (
    letter,
    metric_limits,
    new_chart,
    set_log_axis,
    spread_apart,
)
from adbench.benchmark.report.html.charts import (
    cost_charts,
    pareto_front,
    score_histogram,
    sweep_charts,
)
from adbench.benchmark.report.html.lesion_tables import froc_chart, lesion_table
from adbench.benchmark.report.html.packed_records import unpack_records
from adbench.benchmark.report.html.page import build_page, render_page
from adbench.benchmark.report.html.provenance import provenance
from page_sources import cell_sources
from records import missing, record, some

VOID = {"meta", "link", "img", "br", "input"}
HOSTILE = """"><script>alert(1)</script><img src=x onerror=alert(2)> ' {{7*7}} </title></style>"""


class Reader(HTMLParser):
    """Tags with their attributes in order, words, and the text of script and style; checks that
    what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.words, self.open = "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
            if tag in self.raw:
                self.raw[tag].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]][-1] += data
        else:
            self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def record_with_sweep(label: str, **changes):
    built = record(label, 0.5, **changes)
    values = {100: 0.3, 250: 0.5, 400: 0.2, 500: 0.4}
    built["sweep"] = {
        str(level): {
            "test": {"pixel_ap": value, "image_auroc": 0.5 + value / 2},
            "val": {"pixel_ap": value - 0.1, "image_auroc": 0.5 + value / 4},
        }
        for level, value in values.items()
    }
    built["level"] = {"chosen": 250, "rule": "val", "published": 400, "oracle": 500}
    built["strata"] = {"size=small": {"n": 7, "image_auroc": 0.61, "pixel_ap": 0.22}}
    built["file"] = f"{label}.json"
    return built


def scored(label: str, shift: float, **changes):
    rng = np.random.default_rng(3)
    truth = np.arange(60) % 2
    score = rng.normal(size=60) + truth * shift
    built = record_with_sweep(label, **changes)
    built["samples"] = {
        "key": [f"s{i}" for i in range(60)],
        "group": [f"g{i // 3}" for i in range(60)],
        "label": truth.tolist(),
        "score": score.tolist(),
    }
    return built


def sheets(out: Path, names: list[str]) -> None:
    """A contact sheet of two samples for each name."""
    rng = np.random.default_rng(0)
    x = [rng.random((1, 20, 30), dtype=np.float32) for _ in range(2)]
    samples = [
        DisplayedSample(f"test/{i}", each, each * 0.5, None, each[0] > 0.9, caption="odd")
        for i, each in enumerate(x)
    ]
    for k, name in enumerate(names):
        maps = {level: [each[0] * (k + 1) * level for each in x] for level in (100, 250)}
        write_contact_sheet(out / "pictures" / f"{name}.contact.png", samples, maps, 250)


def decoded(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_page_is_whole_in_itself_and_every_link_has_a_target(tmp_path):
    sheets(tmp_path, ["A", "B"])
    records = [scored("A", 2.0), scored("B", 0.1), missing("C"), record("D", partial=8)]
    read = Reader(render_page(records, tmp_path))
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in read.tags:
        assert "style" not in attrs and not any(name.startswith("on") for name in attrs)
        for name in ("src", "href"):
            if name in attrs:
                assert re.match(r"data:|#", attrs[name]), (tag, attrs)
        if attrs.get("href", "").startswith("#"):
            assert attrs["href"][1:] in ids
        if "aria-labelledby" in attrs:
            assert attrs["aria-labelledby"] in ids
    assert not re.search(r"url\((?!#)", "".join(read.raw["style"])) and "@import" not in "".join(
        read.raw["style"]
    )
    assert not re.search(r"fetch|XMLHttp|https?:", read.raw["script"][1])


def test_the_policy_lets_only_our_own_style_and_script_through():
    read = Reader(render_page(some()))
    (policy,) = [a["content"] for a in read.all("meta") if a.get("http-equiv")]
    for text in (read.raw["style"][0], read.raw["script"][-1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize("name", [HOSTILE, "W" * 5000, "\u2028\x00​\u202e", "a\nb"])
def test_hostile_words_stay_words(name, tmp_path):
    def tainted(built, number=0):
        built["method"] |= {"label": name, "name": name, "args": {name: name, "number": number}}
        built["dataset"] |= {"name": name, "args": {name: [name]}}
        built["protocol"] |= {"text": name}
        built["strata"] = {name: {"n": 3, "pixel_ap": 0.1, "image_auroc": 0.2}}
        built |= {"profile": name, "device": name, "versions": {name: name}, "keys": {name: name}}
        built["file"] = name + ".json"
        return built

    plain = Reader(render_page([scored("A", 1.0), scored("B", 0.5), missing("C")]))
    records = [
        tainted(scored("A", 1.0)),
        tainted(scored("B", 0.5), 1),
        tainted(missing("C", reason=name)),
    ]
    text = render_page(records)
    read = Reader(text)
    assert [tag for tag, _ in read.tags if tag in ("script", "style", "img", "title")] == [
        tag for tag, _ in plain.tags if tag in ("script", "style", "img", "title")
    ]
    assert {n for _, a in read.tags for n in a} == {n for _, a in plain.tags for n in a}
    assert "49" not in read.all("title")[0] and name.strip("\x00")[:20].split("\n")[0] in read.words
    (archive, *_) = read.raw["script"]
    assert unpack_records(archive)[0]["record"]["method"]["label"] == name


def test_the_records_can_be_read_back_without_the_rows_of_samples():
    records = [scored("A", 1.0), missing("B")]
    output = unpack_records(Reader(render_page(records)).raw["script"][0])
    del records[0]["samples"]
    assert [each["record"] for each in output] == json.loads(json.dumps(records))
    assert [each["facts"] for each in output] == json.loads(json.dumps([*map(provenance, records)]))


def test_every_figure_says_the_record_and_the_place_it_is_from():
    read = Reader(render_page([record_with_sweep("A"), record_with_sweep("B")]))
    sources = list(cell_sources(read.tags, read.raw["script"][0]))
    output = {(s.field, s.values[0]) for s in sources for file in s.files if file == "A.json"
              if not isinstance(s.values[0], dict)}  # fmt: skip
    assert {file for source in sources for file in source.files} == {"A.json", "B.json"}
    assert output >= {
        ("metrics.image_auroc.value", 0.4321),
        ("metrics.pixel_ap.value", 0.5),
        ("cost.seconds_per_image", 0.0987),
        ("strata.size=small.pixel_ap", 0.22),
    }


def test_columns_of_several_seeds_are_from_all_of_them():
    records = [record_with_sweep("A", seed=seed) for seed in (0, 1)]
    for k, built in enumerate(records):
        built["strata"]["size=small"]["pixel_ap"] = 0.2 + 0.3 * k
        built["file"] = f"A{k}.json"
    read = Reader(render_page([*records, record_with_sweep("B")]))
    sources = list(cell_sources(read.tags, read.raw["script"][0]))
    of_stratum = [s for s in sources if s.field == "strata.size=small.pixel_ap"]
    assert [(s.files, s.values) for s in of_stratum] == [
        (["A0.json", "A1.json"], [0.2, 0.5]),
        (["B.json"], [0.22]),
    ]
    assert "0.350" in read.words and "Of several seeds, the mean." in read.words


def test_figures_read_from_bins_have_their_error_beneath_them():
    built = record_with_sweep("A", pixel_error=3.2e-4)
    text = Reader(render_page([built, record_with_sweep("B")])).words
    assert "± 0.0004 binned [0.450, 0.550]" in text and "off by no more than this" in text
    assert text.count("± 0.0004 binned") == 4 + 5  # on the board, and among all figures
    assert "±" not in Reader(render_page([record_with_sweep("B")])).words


def test_boards_are_apart_and_what_failed_is_told_with_its_reason():
    read = Reader(
        render_page([record("A"), record("B", partial=8), missing("C", reason="no memory")])
    )
    assert "BraTS, trial run on at most 8 samples: do not quote" in read.words
    assert "no memory" in read.words and "Without a result" in read.words
    tables = read.all("table")
    assert sum(attrs.get("class") == "sortable" for attrs in tables) == 2 * 3


def test_tables_sort_by_buttons_in_heads_that_tell_their_order():
    text = render_page([record_with_sweep("A"), record_with_sweep("B")])
    for head in re.findall(r"<th scope=\"col\"[^>]*data-kind[^>]*>.*?</th>", text):
        assert 'aria-sort="none"' in head and '<button type="button" class="sort">' in head
    read = Reader(text)
    captions = [a["id"] for a in read.all("p") if a.get("class") == "caption"]
    assert [a["aria-describedby"] for a in read.all("table")] == captions
    for attrs in read.all("td"):
        assert attrs.get("data-sort", "0") == "" or np.isfinite(float(attrs.get("data-sort", "0")))


def test_curves_have_a_corner_for_each_level_and_marks_at_theirs():
    (board,) = build_leaderboards([record_with_sweep("A"), record("B", 0.4, method__baseline=True)])
    board.entries[1].record["sweep"]["0"] = {"test": {"pixel_ap": 0.4}, "val": {"pixel_ap": 0.4}}
    charts = sweep_charts(board)
    assert [c.title for c in charts] == [
        *("pixel AP on test", "pixel AP on validation"),
        *("image AUROC on test", "image AUROC on validation"),
    ]
    chart = charts[0]
    line, flat = (chart.artist(f"{name}-line").get_xydata().tolist() for name in "AB")
    assert line == [[100, 0.3], [250, 0.5], [400, 0.2], [500, 0.4]]
    marks = {
        shape: chart.artist(f"A-{shape}").get_xydata().tolist()
        for shape in ("chosen", "published", "oracle")
    }
    assert marks == {"chosen": [line[1]], "published": [line[2]], "oracle": [line[3]]}
    assert chart.tooltips["A-oracle"] == "A, oracle level 500: 0.400"
    (x, low), (_, high) = chart.artist("A-interval").get_xydata().tolist()
    assert x == 250 and [low, high] == pytest.approx([0.45, 0.55])  # it holds the value
    assert {gid for gid in chart.tooltips if gid.startswith("B")} == set()
    assert flat == [[100, 0.4], [500, 0.4]]
    assert chart.artist("chance").get_ydata()[0] == board.done[0].record["reference"]["prevalence"]
    low, high = chart.axes.get_ylim()
    assert low < 0.2 and high > 0.55 and chart.axes.get_xlim() == (100, 500)
    assert {text.get_text() for text in chart.axes.texts} > {"A", "B"}
    assert chart.axes.get_ylabel() == "pixel AP"


def test_the_front_is_what_nothing_cheaper_equals():
    records = [record(n, v) for n, v in (("dear", 0.6), ("cheap", 0.3), ("poor", 0.2))]
    for built, cost in zip(records, (50.0, 2.0, 10.0), strict=True):
        built["cost"]["evaluations_per_image"] = cost
    chart = cost_charts(build_leaderboards(records)[0])[0]
    points = {
        gid: each for gid in chart.tooltips for each in chart.artist(gid).get_xydata().tolist()
    }
    assert points["A-point"] == points["A-front"] == [50, 0.6]
    assert points["B-point"] == points["B-front"] == [2, 0.3]
    assert points["C-point"] == [10, 0.2] and "C-front" not in points
    assert [chart.tooltips[f"{name}-point"].split(":")[0] for name in "ABC"] == [
        *("dear", "cheap", "poor")
    ]
    assert "front" in chart.tooltips["A-front"] and "front" not in chart.tooltips["C-point"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_undominated_is_a_staircase_that_covers_all(points):
    front = [points[i] for i in pareto_front(points)]
    assert front and all(any(c <= a and v >= b for c, v in front) for a, b in points)
    ordered = sorted(set(front))
    assert all(x[0] < y[0] and x[1] < y[1] for x, y in pairwise(ordered))


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5), st.booleans())
@settings(max_examples=30, deadline=None)
def test_ticks_of_costs_are_few_and_inside_and_nothing_is_at_the_beginning(costs, zero):
    axes = new_chart("x", "", "", "", "").axes
    set_log_axis(axes, [*costs, *([0.0] if zero else [])])
    low, high = axes.get_xlim()
    ticks = axes.get_xticks()
    assert all(low <= tick <= high for tick in ticks) and len(ticks) <= 13
    assert all(low <= cost <= high for cost in costs)
    assert (low == 0) == (0 in ticks) == zero


@given(st.lists(st.floats(12, 256), max_size=12))
def test_letters_keep_their_order_and_their_distance(heights):
    moved = spread_apart(heights)
    pairs = sorted(zip(heights, moved, strict=True))
    gaps = [b[1] - a[1] for a, b in pairwise(pairs)]
    assert all(gap >= 12 - 1e-9 for gap in gaps)
    assert [letter(i) for i in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_all_of_a_metric_lies_within_its_chart(values):
    low, high = metric_limits(values)
    assert 0 <= low < high <= 1 and all(low <= value <= high for value in values)


def test_lesions_are_told_by_size_and_price_where_records_tell_of_them():
    built = record_with_sweep("A")
    bins = [(0.0, 10.0, 4, 0.25), (10.0, 100.0, 0, None), (10000.0, None, 2, 1.0)]
    built["lesions"] = {
        "n": 6,
        "unit": "mm²",
        "bins": [dict(zip(("low", "high", "n", "sensitivity"), b, strict=True)) for b in bins],
        "froc": [
            {"threshold": 1.0, "false_per_sample": f, "sensitivity": s}
            for f, s in ((0.0, 0.1), (0.5, 0.4), (8.0, 0.9))
        ],
    }
    boards_ = build_leaderboards([built, record("B", 0.1)])
    table, chart = lesion_table(boards_[0], {}), froc_chart(boards_[0])
    assert table is not None and chart is not None
    assert [(line.name, line.cells[0].text, line.cells[1].text) for line in table.lines] == [
        ("0 to 10 mm²", "4", "0.250"),
        ("10000 mm² and more", "2", "1.000"),
    ]
    curve = [[0.0, 0.1], [0.5, 0.4], [8.0, 0.9]]
    assert chart.artist("A-line").get_xydata().tolist() == curve
    assert [chart.artist(f"A-point-{i}").get_xydata().tolist()[0] for i in range(3)] == curve
    assert chart.tooltips["A-point-1"] == "A: 0.400 found, 0.5 false a sample"
    assert chart.axes.get_xlim()[0] == 0 and 0 in chart.axes.get_xticks()
    assert "FROC" in Reader(render_page([built])).words
    assert lesion_table(build_leaderboards([record("B")])[0], {}) is None


def test_a_histogram_counts_every_sample_once():
    score, label = [0.0, 0.1, 0.1, 1.0, 0.9, 0.5], [False, False, False, True, True, True]
    chart = score_histogram("scores-A", "A", score, label)
    assert chart is not None
    counts = {"normal": 0, "abnormal": 0}
    heights: dict[str, list[float]] = {"normal": [], "abnormal": []}
    for gid, tooltip in chart.tooltips.items():
        count, kind, *_ = tooltip.split()
        counts[kind] += int(count)
        heights[kind].append(chart.artist(gid).get_height())
    assert counts == {"normal": 3, "abnormal": 3}
    assert heights["normal"] == pytest.approx([-1 / 3, -2 / 3])  # below the line
    assert heights["abnormal"] == pytest.approx([1 / 3] * 3)
    assert score_histogram("scores-A", "A", [1.0, 1.0], [True, False]) is None


def test_charts_are_on_the_page_with_ids_of_their_own_and_in_colours_of_its_style():
    records = [scored("A", 2.0), scored("B", 0.1), *(scored(n, 1.0, partial=8) for n in "AB")]
    page = build_page(records)
    read = Reader(page.html)
    images = [attrs for attrs in read.all("svg") if attrs.get("role") == "img"]
    assert [attrs["aria-label"] for attrs in images] == [c.about for c in page.charts.values()]
    assert len(images) == 2 * (1 + 4 + 2 + 2) and all("viewbox" in attrs for attrs in images)
    colours = [a[name] for _, a in read.tags for name in ("fill", "stroke") if name in a]
    assert {*colours} <= {"none"} | {f"var(--{name})" for name in ("ink", "faint", "line")} | {
        f"var(--c{i})" for i in range(8)
    }
    ids = {attrs["id"] for _, attrs in read.tags if "id" in attrs}
    for _, attrs in read.tags:
        if "clip-path" in attrs:
            assert attrs["clip-path"].removeprefix("url(#").removesuffix(")") in ids
    assert "<title>A, chosen level 250: 0.500</title>" in page.html
    assert page.html == build_page(records).html


def test_the_files_of_a_chart_are_the_same_whenever_drawn():
    (board,) = build_leaderboards([record_with_sweep("A"), record_with_sweep("B")])
    for kind, head in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        one, two = (sweep_charts(board)[0].rendered(kind) for _ in range(2))
        assert one == two and one.startswith(head)
    text = sweep_charts(board)[0].rendered("svg").decode()
    assert ">pixel AP</text>" in text and "dc:date" not in text


def test_differences_are_told_where_there_are_rows_of_samples():
    strong, weak = scored("strong", 3.0), scored("weak", 0.0)
    strong["metrics"]["image_auroc"]["value"] = 0.97
    read = Reader(render_page([strong, weak]))
    assert "▲ +" in read.words and "▼ -" in read.words and "Left out" not in read.words
    assert "worse, p < 0.001" in read.words and "best" in read.words
    weak["samples"]["key"][0] = "another"
    assert "not evaluated on the same samples" in Reader(render_page([strong, weak])).words
    assert (
        "Left out: for fewer than two records"
        in Reader(render_page([record_with_sweep("A"), record_with_sweep("B")])).words
    )


def test_without_room_pictures_are_left_out_and_named(tmp_path):
    sheets(tmp_path, ["A"])
    text = render_page([record_with_sweep("A")], tmp_path, budget=1000)
    read = Reader(text)
    assert sum(len(a["href"]) for a in read.all("image")) < 1500
    assert "left out" in read.words and "pictures/A.contact.png" in read.words
    assert "are left out" not in Reader(render_page([record_with_sweep("A")], tmp_path)).words


def test_a_sheet_that_tells_of_no_tiles_is_shown_whole_and_a_broken_one_is_not(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (9, 7), (10, 20, 30)).save(tmp_path / "pictures" / "A.png")
    (tmp_path / "pictures" / "B.png").write_bytes(b"\x89PNG\r\n\x1a\n but not really")
    read = Reader(
        render_page(
            [record_with_sweep("A"), record_with_sweep("B"), record_with_sweep("../../A")], tmp_path
        )
    )
    images = read.all("img")
    assert {decoded(a["src"]).shape for a in images} == {(7, 9, 3)}
    assert "Test samples of A" in read.words and "Test samples of B" not in read.words


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_words_and_lines_stand_out_by_light_and_by_dark():
    """The contrast that WCAG 2.1 wants: 4.5 of words, 3 of lines and of the outline of focus."""
    style = Reader(render_page(some())).raw["style"][0]
    themes = [
        dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root {(.*?)}", style, re.S)[:2]
    ]
    assert len(themes) == 2 and all(len(theme) == len(themes[0]) for theme in themes)
    for theme in themes:
        contrasts = {name: 4.5 for name in ("--ink", "--faint", "--link", "--warn")}
        contrasts |= {f"--c{i}": 4.5 for i in range(8)} | {"--focus": 3.0}
        for name, least in contrasts.items():
            one, two = sorted((luminance(theme[name]), luminance(theme["--paper"])))
            assert (two + 0.05) / (one + 0.05) >= least, (name, theme[name])


def test_the_page_does_not_depend_on_the_order_of_records_within_a_board():
    one, two = record_with_sweep("A"), record_with_sweep("B", method__name="b")
    first, second = (Reader(render_page(records)) for records in ([one, two], [two, one]))
    sources = [list(cell_sources(r.tags, r.raw["script"][0])) for r in (first, second)]
    assert sources[0] == sources[1]
