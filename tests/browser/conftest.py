"""A real Chromium for the tests of the page: $CHROMIUM, one on the PATH, or playwright's own.

These tests are no part of `make test`, for bare machines have no browser: run `make test-page`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import adbench
from adbench.benchmark.report.export import write_report
from adbench.benchmark.report.html.overview import LinkedBoard, render_overview
from adbench.benchmark.report.html.page import render_page
from pages import write_results

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        arguments: list[str] = ["--no-sandbox"]
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def one_board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    records = write_results(folder, seeds=(0, 1))
    write_report(records, folder)
    return folder / "index.html"


@pytest.fixture(scope="session")
def three_boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    records = write_results(folder, ("synthbrain", "brats", "mvtec/hazelnut"))
    write_report(records, folder)
    return folder / "index.html"


@pytest.fixture(scope="session")
def overview(one_board: Path, three_boards: Path) -> Path:
    """The page over the boards of two folders, which it links to."""
    boards = [
        LinkedBoard(page.parent.name, f"../{page.parent.name}/index.html#leaderboard-{i}", board)
        for page in (one_board, three_boards)
        for i, board in enumerate(adbench.load_results(page.parent).leaderboards())
    ]
    path = one_board.parent.parent / "summary" / "index.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(render_overview(boards, "All boards", ["A says more than B."]))
    return path


@pytest.fixture(scope="session")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from records import record

    path = tmp_path_factory.mktemp("many") / "index.html"
    records: list[Any] = [
        record(f"M{i:03d}", i / 400, method__baseline=i % 10 == 0, file=f"m{i}.json")
        for i in range(300)
    ]
    path.write_text(render_page(records))
    return path


class Errors(list[str]):
    """What a page complained of, or asked the network for."""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    """Opens a page, and fails where it logs an error or asks for anything but itself."""
    errors = Errors()
    contexts = []

    def opened(path: Path, width: int = 1400, scheme: Any = "light", **options: Any) -> Page:
        size: Any = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda r: None if is_local(r.url, path) else errors.append(r.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def is_local(url: str, path: Path) -> bool:
    return url.partition("#")[0] == path.as_uri() or url.startswith(("data:", "blob:"))
