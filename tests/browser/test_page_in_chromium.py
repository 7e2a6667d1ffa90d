"""The page in a real browser: by mouse and keyboard, wide and narrow, light and dark, on paper."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

BOARD = "#leaderboard-0-board"
FILTER = "image => getComputedStyle(image).filter"
A4_LANDSCAPE = 1046
"""Pixels of CSS between the margins of the paper."""


def names(page: Any, table: str = BOARD) -> list[str]:
    """Methods of the rows that are visible, in order."""
    cells = page.locator(f"{table} tbody tr:visible > th")
    return [re.sub(r"^[A-Z]+ ", "", text) for text in cells.all_inner_texts()]


def test_the_first_screen_answers_in_words_and_one_picture(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    assert page.title() == "SynthBrain (demo), synthetic, FLAIR"
    for selector in (".answer", ".answer-chart svg"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] < 900
    answer = page.locator(".answer").inner_text()
    assert answer.startswith("AnoDDPM has the highest pixel AP (mean 0.444 over 2 seeds")
    row = page.locator("#leaderboard-0-seeds tbody tr").first.inner_text()
    assert "0.444" in row and "AnoDDPM" in row


def test_tables_sort_by_mouse_and_by_keyboard(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    first = names(page)
    head = page.locator(f"{BOARD} th[data-column=evaluations_per_image]")
    head.locator(".sort").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page)[0].startswith("Template z")
    head.locator(".sort").press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and names(page)[0].startswith("AnoDDPM")
    assert "descending" in page.locator("#status").text_content()
    page.locator(f"{BOARD} th[data-column=rank] .sort").press(" ")
    assert names(page) == first


def test_rows_are_filtered_and_counted(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    page.locator(".filter-kind").select_option("baseline")
    assert [name.split(" (")[0] for name in names(page)] == ["Template z"] * 2
    assert page.locator(".count").inner_text() == "2 of 6 rows"
    page.locator(".filter-kind").select_option("method")
    page.locator(".filter-name").fill("pddpm 1")
    assert names(page) == ["pDDPM, seed 1"]
    page.locator(".filter-name").fill("")
    page.locator(".filter-profile").select_option("tiny")
    assert len(names(page)) == 4


def test_the_board_fits_and_its_columns_are_chosen(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    frame = f"document.querySelector('{BOARD}').parentElement"
    assert page.evaluate(f"{frame}.scrollWidth <= {frame}.clientWidth")
    head = page.locator(f"{BOARD} th[data-column=train_steps]")
    assert not head.is_visible()
    page.locator(".columns summary").click()
    page.get_by_role("checkbox", name="train steps").check()
    assert head.is_visible()
    page.get_by_role("checkbox", name="train steps").uncheck()
    assert not head.is_visible()


def test_heads_are_explained_by_tap_and_keyboard(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board, has_touch=True)
    why = page.locator(f"{BOARD} th[data-column=pixel_ap] .why")
    text = page.locator("#about-pixel_ap")
    assert not text.is_visible() and why.get_attribute("aria-label") == "What pixel AP means"
    why.tap()
    assert text.is_visible() and "Average precision" in text.inner_text()
    page.keyboard.press("Escape")
    assert not text.is_visible()
    why.press("Enter")
    assert text.is_visible()


def test_the_slider_shows_the_maps_of_a_level(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    shown = page.locator(".card:not([hidden]) .tile.map image:not(.off)")
    levels = "(images) => [...new Set(images.map(i => i.dataset.map.split(' ')[1]))]"
    assert shown.evaluate_all(levels) == ["250"]
    slider = page.locator("input.level")
    slider.press("ArrowRight")
    assert shown.evaluate_all(levels) == ["100"]
    assert page.locator(".level-text").inner_text().startswith("100")
    assert page.locator(".tile.map .at").first.inner_text() == "100"
    slider.press("End")
    assert shown.evaluate_all(levels) == ["500"]
    assert slider.get_attribute("aria-valuetext").startswith("500")
    slider.press("Home")
    assert page.locator(".level-text").inner_text() == "chosen"


def test_samples_are_chosen_and_all_can_be_seen(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    visible = page.locator(".card:visible")
    assert visible.count() == 4
    page.locator(".more").click()
    assert visible.count() == 9 and not page.locator(".more").is_visible()
    choice = page.locator(".choice")
    labels = choice.locator("option").all_inner_texts()
    (misses,) = [each for each in labels if each.startswith("worst misses of C ")]
    choice.select_option(label=misses)
    assert visible.first.locator("h4").inner_text().startswith("patient 15")
    choice.select_option(label="lesion: tumour (3)")
    assert visible.count() == 3
    choice.select_option(label="normal samples (3)")
    assert visible.count() == 3 and page.locator(".card:visible .truth").count() == 0


def test_scale_outline_and_reconstruction_are_switched(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    image = page.locator(".card:not([hidden]) .tile.map image:not(.off)").first
    assert image.evaluate(FILTER) == 'url("#heat")'
    page.get_by_role("checkbox", name="common scale").check()
    target = re.fullmatch(r'url\("#(.+)"\)', image.evaluate(FILTER))
    assert target and page.locator(f"#{target[1]}").count() == 1
    assert page.locator(".scales .shared").is_visible()
    outline = page.locator(".card:not([hidden]) .tile.map use").first
    assert outline.evaluate("e => getComputedStyle(e).display") != "none"
    page.get_by_role("checkbox", name="outlines").uncheck()
    assert outline.evaluate("e => getComputedStyle(e).display") == "none"
    assert page.locator(".tile.reconstruction:visible").count() == 0
    page.get_by_role("checkbox", name="reconstructions").check()
    assert page.locator(".tile.reconstruction:visible").count() == 2 * 3


def test_maps_are_drawn_in_colours(open_page: Any, one_board: Path) -> None:
    """The filter works: dark outside of the brain, and no grey map."""
    page = open_page(one_board)
    tile = page.locator(".card:not([hidden]) .tile.map .zoom").first
    tile.scroll_into_view_if_needed()
    pixels = np.asarray(Image.open(BytesIO(tile.screenshot())).convert("RGB")).astype(int)
    assert (pixels[3, 3] < 25).all()
    spread = pixels.max(-1) - pixels.min(-1)
    assert (spread > 60).mean() > 0.02


def test_a_picture_is_enlarged_and_left_by_keyboard(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    dialog, title = page.locator("#enlarged"), page.locator("#enlarged-title")
    button = page.locator(".card:not([hidden]) .tile.map .zoom").first
    small = button.bounding_box()
    button.press("Enter")
    assert dialog.is_visible() and "AnoDDPM, seed 0" in title.inner_text()
    assert dialog.locator("svg").bounding_box()["width"] > 2 * small["width"]
    page.keyboard.press("ArrowRight")
    assert "Template z" in title.inner_text() and "colours from 0 to" in title.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.className") == "zoom"


@pytest.mark.parametrize("which", ["one_board", "three_boards", "many_rows"])
def test_nothing_is_cut_at_390_pixels(open_page: Any, request: Any, which: str) -> None:
    page = open_page(request.getfixturevalue(which), 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = page.locator(".caption:visible, figcaption:visible, .answer")
    rights = boxes.evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
    assert rights and max(rights) <= 390
    if which != "many_rows":
        scale = page.locator(".charts svg, .answer-chart svg").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width)"
        )
        visible = [each for each in scale if each]
        assert visible and min(visible) * 12 >= 10  # pixels of the letters


def test_the_first_column_stays_when_a_table_is_scrolled(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board, 390)
    cell = page.locator(f"{BOARD} tbody th").first
    before = cell.bounding_box()["x"]
    page.evaluate(f"document.querySelector('{BOARD}').parentElement.scrollLeft = 200")
    assert abs(cell.bounding_box()["x"] - before) < 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_has_nothing_to_say(
    open_page: Any, three_boards: Path, scheme: str, width: int
) -> None:
    page = open_page(three_boards, width, scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    results = Axe().run(page)
    assert results.response["violations"] == [], results.generate_report()


def test_all_columns_and_maps_are_on_paper(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board, A4_LANDSCAPE)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    heads = page.locator(f"{BOARD} thead th")
    assert heads.count() == page.locator(f"{BOARD} thead th:visible").count() > 8
    for table in page.locator("table:visible").all():
        box = table.bounding_box()
        assert box["x"] + box["width"] <= A4_LANDSCAPE
    for tile in page.locator(".card:not([hidden]) .tile.map").all():
        box = tile.bounding_box()
        assert box["x"] + box["width"] <= A4_LANDSCAPE and box["height"] > 50
    assert page.locator("#leaderboard-0-differences table").is_visible()
    assert not page.locator("#provenance article").first.is_visible()
    assert page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") > 1


def test_three_hundred_rows_scroll_below_their_heads(open_page: Any, many_rows: Path) -> None:
    page = open_page(many_rows)
    frame = page.locator(".scroll.long").first
    assert frame.bounding_box()["height"] < 800
    frame.evaluate("e => { e.scrollTop = 3000; }")
    head = page.locator(f"{BOARD} thead th").first.bounding_box()
    assert abs(head["y"] - frame.bounding_box()["y"]) < 2
    page.locator(".filter-name").fill("M1")
    assert page.locator(".count").inner_text() == "100 of 300 rows"
    page.locator(f"{BOARD} th[data-column=pixel_ap] .sort").click()
    page.locator(f"{BOARD} th[data-column=pixel_ap] .sort").click()
    assert names(page)[0].startswith("M100")


def test_a_link_to_a_record_opens_it(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    page.locator(f"{BOARD} tbody th a").first.click()
    assert page.locator("#provenance details.record[open] dl").is_visible()


def test_a_number_says_its_record_and_all_digits(open_page: Any, one_board: Path) -> None:
    page = open_page(one_board)
    cell = page.locator(f"{BOARD} tbody tr").first.locator("td").nth(1)
    cell.hover()
    page.wait_for_function("records.length > 0")
    cell.hover(position={"x": 3, "y": 3})
    title = cell.get_attribute("title")
    source = re.fullmatch(r"records/(\S+): metrics\.pixel_ap\.value = ([\d.]+)", title)
    assert source and f"{float(source[2]):.3f}" == cell.inner_text().split("\n")[0]
    record = json.loads((one_board.parent / "records" / source[1]).read_text())
    assert record["metrics"]["pixel_ap"]["value"] == float(source[2])
    mean = page.locator("#leaderboard-0-seeds tbody td").first
    mean.hover()
    assert mean.get_attribute("title").count("records/") == 2


def test_the_records_are_saved_whole_and_say_where_they_are_from(
    open_page: Any, one_board: Path
) -> None:
    page = open_page(one_board)
    with page.expect_download() as download:
        page.locator("#save").click()
    saved = json.loads(Path(download.value.path()).read_text())
    files = {path.name for path in (one_board.parent / "records").iterdir()}
    assert {each["file"] for each in saved} == files
    page.locator(f"{BOARD} tbody th a").first.click()
    facts = page.locator("#provenance details.record[open] dl")
    facts.wait_for()
    assert "data fingerprint" in facts.inner_text() and "seal" in facts.inner_text()


def test_without_scripts_board_answers_and_figures_are_there(
    open_page: Any, one_board: Path
) -> None:
    page = open_page(one_board, java_script_enabled=False)
    assert page.locator(".answer").inner_text().startswith("AnoDDPM has the highest pixel AP")
    assert page.locator(f"{BOARD} tbody tr:visible").count() == 6
    assert page.locator(f"{BOARD} .bar:visible").count() > 6
    assert page.locator(".answer-chart svg").is_visible()
    assert page.locator(".card:visible").count() == 4
    assert page.locator(".card:visible .tile.map svg").first.is_visible()
    assert not page.locator(".controls").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_overview_fits_and_axe_has_nothing_to_say(
    open_page: Any, overview: Path, scheme: str, width: int
) -> None:
    page = open_page(overview, width, scheme, bypass_csp=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(page)
    assert results.response["violations"] == [], results.generate_report()
    link = page.locator("nav a").first.get_attribute("href")
    assert (overview.parent / link.partition("#")[0]).exists()
